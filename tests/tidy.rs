//! The source's own rules, as a test: floors import downwards only, libraries stay on their floor, files and
//! functions stay short, prose and code stay free of marks that say "later".
//!
//! A rule that the tree does not meet yet stands in a ratchet list with today's number: it may only shrink.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/length.rs"]
mod length;
#[path = "tidy/source.rs"]
mod source;

use source::SourceFile;

/// What is wrong, and where: printed as `file:line: text`, so that an editor jumps to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    file: String,
    line: usize,
    text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<SourceFile> {
    let mut folders = vec![root().join(folder)];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be listed") {
            let path = entry.expect("the folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(root()).expect("below the root").to_string_lossy();
            SourceFile::new(&name, &fs::read_to_string(path).expect("source is text"))
        })
        .filter(|file| !file.generated)
        .collect()
}

fn assert_none(faults: &[Fault]) {
    let list: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert!(list.is_empty(), "\n{}\n", list.join("\n"));
}

#[test]
fn floors_import_downwards_only() {
    let files = rust_files("src");
    assert!(files.len() > 10, "the walk found the source");
    assert_none(&files.iter().flat_map(floors::check).collect::<Vec<_>>());
}

#[test]
fn a_deliberate_upward_import_is_found_with_file_and_line() {
    let storage =
        SourceFile::new("src/storage/base.rs", "//! x\n\nuse crate::keyspace::Keyspace;\n");
    let fault = &floors::check(&storage)[0];
    assert_eq!((fault.file.as_str(), fault.line), ("src/storage/base.rs", 3), "{fault}");

    let braces = SourceFile::new(
        "src/keyspace/read/mod.rs",
        "use crate::{\n    storage::Store,\n    service::kv,\n};\n",
    );
    assert_eq!(floors::check(&braces).iter().map(|f| f.line).collect::<Vec<_>>(), [3]);

    let inline =
        SourceFile::new("src/consensus/mod.rs", "fn f() { crate::service::status::of(1); }\n");
    assert_eq!(floors::check(&inline).len(), 1);

    let library =
        SourceFile::new("src/keyspace/mod.rs", "use openraft::Raft;\nuse tonic::Status;\n");
    assert_eq!(floors::check(&library).iter().map(|f| f.line).collect::<Vec<_>>(), [1, 2]);

    let words = SourceFile::new("src/core/api/ids.rs", "use crate::state_machine::StateMachine;\n");
    assert_eq!(floors::check(&words).len(), 1);

    let downwards = SourceFile::new(
        "src/service/kv.rs",
        "use crate::keyspace::Keyspace;\nuse tonic::Status;\n",
    );
    assert_none(&floors::check(&downwards));
}

#[test]
fn files_and_functions_stay_short() {
    let mut files = rust_files("src");
    files.extend(rust_files("jepsen/src"));
    assert_none(&length::check(&files));
}

#[test]
fn nothing_is_left_for_later() {
    // Spelled in pieces, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("HA", "CK"),
        concat!("XX", "X"),
        concat!("#[ign", "ore"),
    ];
    let mut files = rust_files("src");
    files.extend(rust_files("tests"));
    files.extend(rust_files("jepsen/src"));
    let mut faults = Vec::new();
    for file in &files {
        for (number, line) in file.text.lines().enumerate() {
            for mark in marks {
                if line.contains(mark) {
                    let text = format!("`{mark}`: finish it, or open an issue");
                    faults.push(Fault { file: file.name.clone(), line: number + 1, text });
                }
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn names_of_tests_are_claims() {
    let mut faults = Vec::new();
    for folder in ["src", "tests", "jepsen/src"] {
        for file in rust_files(folder) {
            for (number, line) in file.text.lines().enumerate() {
                let name = line
                    .trim_start()
                    .trim_start_matches("async ")
                    .strip_prefix(concat!("fn te", "st_"));
                if name.is_some() {
                    let text = "a test's name is a claim, without `test_`".to_owned();
                    faults.push(Fault { file: file.name.clone(), line: number + 1, text });
                }
            }
        }
    }
    assert_none(&faults);
}
