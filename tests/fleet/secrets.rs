//! What must be in no file, no key and no log: gathered from a fleet that used all of it, and looked for everywhere.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use quorate::fleet::store::StateStore as _;

use super::daemon::{Daemon, secret_in};

/// A secret in every form in which it might lie somewhere.
pub(crate) struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    pub(crate) fn new() -> Secrets {
        Secrets(Vec::new())
    }

    /// A text that somebody was given, and what it is made of.
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.0.push((name.to_owned(), text.as_bytes().to_vec()));
        self.0.push((format!("{name}, as base64"), bare(text.as_bytes()).into_bytes()));
    }

    /// A token of who joins: as given, what it shows, and what follows its prefix.
    pub(crate) fn token(&mut self, name: &str, token: &str) {
        self.text(name, token);
        let secret = secret_in(token);
        self.text(&format!("the secret of {name}"), &secret);
        if let Some((_, digits)) = secret.split_once("::") {
            self.text(&format!("the digits of {name}"), digits);
        }
    }

    pub(crate) fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.0.push((name.to_owned(), bytes.to_vec()));
        self.0.push((format!("{name}, as base64"), bare(bytes).into_bytes()));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.push((format!("{name}, as hex"), hex.into_bytes()));
    }

    /// A private key in PEM: its lines, and the bytes that they stand for.
    pub(crate) fn key(&mut self, name: &str, pem: &str) {
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(lines.concat()).expect("a key in PEM");
        self.bytes(name, &der);
        // The scalar alone would be as bad: it lies at the same place in every key of P-256 that PKCS #8 wraps.
        self.bytes(&format!("the scalar of {name}"), &der[36..68]);
        for line in lines.iter().filter(|line| line.len() == 64) {
            self.0.push((format!("a line of {name}"), line.as_bytes().to_vec()));
        }
    }

    /// What only this node may keep: its private keys, the fleet's key, its own token.
    pub(crate) fn of_node(&mut self, node: &Daemon) {
        for name in ["server", "peer", "client", "member-api"] {
            let pem = fs::read_to_string(node.state(&format!("pki/{name}.key"))).expect("a key");
            self.key(&format!("{name}.key of {}", node.name), &pem);
        }
        let read = |name: &str| fs::read(node.state(name)).expect("it is there");
        self.bytes(&format!("fleet.key of {}", node.name), &read("fleet.key"));
        let text = String::from_utf8(read("node-token")).expect("a file of text");
        self.text(&format!("node-token of {}", node.name), text.trim());
    }

    /// Every place where one of them is, but for the files that are there to keep it.
    pub(crate) fn found_in(&self, name: &str, content: &[u8]) -> Vec<String> {
        let content = written(content);
        let found = self.0.iter().filter(|(_, secret)| holds(content, secret));
        found.map(|(secret, _)| format!("{secret} is in {name}")).collect()
    }

    /// The same of everything that a node keeps or has said.
    pub(crate) fn found_at(&self, node: &Daemon) -> Vec<String> {
        let mut found = Vec::new();
        for file in node.files() {
            if !keeps_secrets(&file) {
                // A running node may have let it go meanwhile.
                let content = fs::read(&file).unwrap_or_default();
                found.extend(self.found_in(&file.display().to_string(), &content));
            }
        }
        found
    }

    /// The same of every key that clients can read.
    pub(crate) async fn found_in_keys(&self, node: &Daemon) -> Vec<String> {
        let keys = node.store().list(b"/").await.expect("all keys below it");
        let texts = keys.iter().flat_map(|kv| [&kv.key[..], b"\n", &kv.value[..], b"\n"].concat());
        self.found_in(&format!("the keys of {}", node.name), &texts.collect::<Vec<u8>>())
    }
}

/// Files with 0600 that are there for that.
fn keeps_secrets(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let in_pki = file.components().any(|part| part.as_os_str() == "pki");
    name == "fleet.key" || name == "node-token" || in_pki && name.ends_with(".key")
}

/// Base64 without what depends on what comes after.
fn bare(bytes: &[u8]) -> String {
    let whole = bytes.len() / 3 * 3;
    STANDARD.encode(&bytes[..whole])
}

/// Without the zeros that were laid out ahead: most of a file of the journal.
fn written(content: &[u8]) -> &[u8] {
    let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &content[..end]
}

pub(crate) fn holds(content: &[u8], wanted: &[u8]) -> bool {
    assert!(wanted.len() >= 8, "too short to mean anything");
    let first = wanted[0];
    let mut at = 0;
    while let Some(next) = content[at..].iter().position(|byte| *byte == first) {
        at += next;
        if content[at..].starts_with(wanted) {
            return true;
        }
        at += 1;
    }
    false
}

/// So many writes that every node makes a whole state of what it has.
pub(crate) async fn fill(node: &Daemon) {
    let store = node.store();
    let put = |number: u32| {
        let store = store.clone();
        async move { store.put(format!("/filled/{number:06}").as_bytes(), &[b'-'; 64]).await }
    };
    let mut puts = futures::stream::iter(0..10_500).map(put).buffer_unordered(256);
    while let Some(done) = puts.next().await {
        done.expect("it is written");
    }
}

impl Daemon {
    /// Whether a file whose path has `part` in it holds this.
    pub(crate) fn has_in_a_file(&self, part: &str, wanted: &[u8]) -> bool {
        let named = |file: &PathBuf| file.display().to_string().contains(part);
        let read = |file: PathBuf| fs::read(file).unwrap_or_default();
        self.files().into_iter().filter(named).any(|file| holds(&read(file), wanted))
    }

    /// Every file below its folder, its log among them.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.folder().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder of the node's") {
                let entry = entry.expect("an entry");
                let kind = entry.file_type().expect("its kind");
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    files.push(entry.path());
                }
            }
        }
        files
    }
}
