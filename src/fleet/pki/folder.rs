//! The folder `pki/`: a node's certificates and keys as files that TLS sides read.
//!
//! ```text
//!   pki/  server.crt -> live/server.crt     live -> set-7     set-7/ server.crt server.key ca.crt ..     set-6/
//!                                            └── one rename: set-8 is written and synced, then `live` names it
//! ```
//!
//! All that is changed at once is in force at once: whoever follows the names finds the old set or the new one, also
//! after a power cut. The set before stays until the next change, for who is reading it. Kubernetes mounts its secrets
//! so, for the same reason.
//!
//! **Invariant:** a set is never changed once `live` names it.
//! **Invariant:** whoever changes anything here holds the folder's lock, whoever reads several files shares it: any
//! number of handles, also of other processes, may be open. TLS sides do without: they look again if a file has changed.
//! **Invariant:** a name that somebody has replaced by a file of his own is read as such, and a link again after the
//! next change, which takes what stood there over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::super::secret::Secret;
use super::bundle::{Bundle, Pair};
use super::error::PkiError;
use super::names::CertificateName;
use crate::support::durable;
use crate::support::tls::TlsSettings;

const LIVE: &str = "live";
const NEXT: &str = "live.next";
const SET: &str = "set-";
const AUTHORITIES: &str = "ca.crt";

/// The folder. Cheap to clone and to open; all of it blocks on the disk, and for as long as somebody else changes it.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::Io { doing, path, source }
}

fn certificate_file(name: CertificateName) -> String {
    format!("{name}.crt")
}

fn key_file(name: CertificateName) -> String {
    format!("{name}.key")
}

impl Folder {
    /// The folder at `path`, which is made if it is not there, and put in order if a change was cut off.
    pub fn open(path: &Path) -> Result<Folder, PkiError> {
        durable::private_folder(path).map_err(failed("make", path))?;
        let folder = Folder { path: path.to_owned() };
        let _alone = folder.alone()?;
        folder.tidy(Foreign::Kept)?;
        Ok(folder)
    }

    /// What the lock is on; it goes with the handle.
    fn handle(&self) -> Result<File, PkiError> {
        File::open(&self.path).map_err(failed("open", &self.path))
    }

    /// One change at a time, from reading what is there to its replacement.
    fn alone(&self) -> Result<File, PkiError> {
        let handle = self.handle()?;
        handle.lock().map_err(failed("lock", &self.path))?;
        Ok(handle)
    }

    /// What is there.
    pub fn read(&self) -> Result<Bundle, PkiError> {
        let handle = self.handle()?;
        handle.lock_shared().map_err(failed("lock", &self.path))?;
        self.found()
    }

    fn found(&self) -> Result<Bundle, PkiError> {
        let authorities = self.text(AUTHORITIES)?.map(|text| text.as_str().to_owned());
        let mut pairs = BTreeMap::new();
        for name in CertificateName::ALL {
            let (certificate, key) =
                (self.text(&certificate_file(name))?, self.text(&key_file(name))?);
            if let (Some(certificate), Some(key)) = (certificate, key) {
                let certificate = certificate.as_str().to_owned();
                pairs.insert(name, Pair { certificate, key: Secret::from(key.as_str()) });
            }
        }
        Ok(Bundle { authorities: authorities.unwrap_or_default(), pairs })
    }

    /// Puts `bundle` in force, all of it or nothing.
    pub fn write(&self, bundle: &Bundle) -> Result<(), PkiError> {
        let _alone = self.alone()?;
        self.replace(bundle)
    }

    /// Replaces what is there by what `change` makes of it. Nothing comes in between.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Bundle) -> Result<T, PkiError>,
    ) -> Result<T, PkiError> {
        let _alone = self.alone()?;
        let mut bundle = self.found()?;
        let made = change(&mut bundle)?;
        self.replace(&bundle)?;
        Ok(made)
    }

    /// Removes the folder with everything in it.
    pub fn wipe(&self) -> Result<(), PkiError> {
        if !self.path.exists() {
            return Ok(());
        }
        let _alone = self.alone()?;
        match fs::remove_dir_all(&self.path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &self.path)(why))
            }
            _ => Ok(()),
        }
    }

    /// The file of trusted authorities.
    pub fn authorities_path(&self) -> PathBuf {
        self.path.join(AUTHORITIES)
    }

    /// The files of a certificate and of its key.
    pub fn paths(&self, name: CertificateName) -> (PathBuf, PathBuf) {
        (self.path.join(certificate_file(name)), self.path.join(key_file(name)))
    }

    /// A TLS side that shows `shown` to who connects and `dialling` to who is dialled, trusts the authorities here, and
    /// demands certificates. To admit who shows none, set `admits_anonymous`.
    pub fn tls(&self, shown: CertificateName, dialling: CertificateName) -> TlsSettings {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let ((cert, key), (client_cert, client_key)) = (self.paths(shown), self.paths(dialling));
        TlsSettings {
            cert_file: text(cert),
            key_file: text(key),
            client_cert_file: text(client_cert),
            client_key_file: text(client_key),
            trusted_ca_file: text(self.authorities_path()),
            client_cert_auth: true,
            ..TlsSettings::default()
        }
    }

    fn text(&self, file: &str) -> Result<Option<Zeroizing<String>>, PkiError> {
        let path = self.path.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Zeroizing::new(text))),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(failed("read", &path)(why)),
        }
    }

    fn replace(&self, bundle: &Bundle) -> Result<(), PkiError> {
        let foreign = |file: &String| {
            self.path.join(file).symlink_metadata().is_ok_and(|found| found.is_file())
        };
        if files().iter().any(foreign) {
            // First a set of what stands there: its names can be made links one by one, and nothing changes by it.
            self.put_set(&self.found()?)?;
            self.tidy(Foreign::TakenOver)?;
        }
        self.put_set(bundle)?;
        self.tidy(Foreign::Kept)
    }

    fn put_set(&self, bundle: &Bundle) -> Result<(), PkiError> {
        let next = self.sets()?.last().copied().unwrap_or(0) + 1;
        let set = self.path.join(set_name(next));
        durable::private_folder(&set).map_err(failed("make", &set))?;
        let put = |name: &str, mode: u32, content: &str| {
            let path = set.join(name);
            durable::write_new(&path, mode, content.as_bytes()).map_err(failed("write", &path))
        };
        put(AUTHORITIES, durable::OPEN, &bundle.authorities)?;
        for (name, pair) in &bundle.pairs {
            put(&key_file(*name), durable::SECRET, pair.key.reveal())?;
            put(&certificate_file(*name), durable::OPEN, &pair.certificate)?;
        }
        durable::sync_folder(&set).map_err(failed("sync", &set))?;
        self.link(LIVE, Path::new(&set_name(next)))
    }

    /// Makes the name `link` one for `target`, in one step and to stay.
    fn link(&self, link: &str, target: &Path) -> Result<(), PkiError> {
        let (path, beside) = (self.path.join(link), self.path.join(NEXT));
        durable::remove(&beside).map_err(failed("remove", &beside))?;
        symlink(target, &beside).map_err(failed("link", &beside))?;
        fs::rename(&beside, &path).map_err(failed("link", &path))?;
        durable::sync_folder(&self.path).map_err(failed("sync", &self.path))
    }

    /// Numbers of the sets, the newest last.
    fn sets(&self) -> Result<Vec<u64>, PkiError> {
        let mut sets = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed("read", &self.path))? {
            let name = entry.map_err(failed("read", &self.path))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(SET));
            sets.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        sets.sort_unstable();
        Ok(sets)
    }

    fn live(&self) -> Result<Option<u64>, PkiError> {
        let path = self.path.join(LIVE);
        match fs::read_link(&path) {
            Ok(target) => {
                let number = target.to_str().and_then(|name| name.strip_prefix(SET));
                Ok(number.and_then(|number| number.parse().ok()))
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(failed("read", &path)(why)),
        }
    }

    /// Every name leads to the set in force; sets that were never in force, and those before the last, are gone.
    fn tidy(&self, foreign: Foreign) -> Result<(), PkiError> {
        let live = self.live()?;
        for number in self.sets()? {
            let kept = live.is_some_and(|live| number == live || number + 1 == live);
            if !kept {
                let path = self.path.join(set_name(number));
                fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            }
        }
        let Some(live) = live else { return Ok(()) };
        for file in files() {
            let (path, target) = (self.path.join(&file), Path::new(LIVE).join(&file));
            let linked = fs::read_link(&path).is_ok_and(|found| found == target);
            let is_foreign = path.symlink_metadata().is_ok_and(|found| found.is_file());
            if self.path.join(set_name(live)).join(&file).exists() {
                let wanted = !is_foreign || foreign == Foreign::TakenOver;
                if !linked && wanted {
                    self.link(&file, &target)?;
                }
            } else if linked {
                durable::remove(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// What is done with files that somebody put in the place of links.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Foreign {
    Kept,
    /// The set in force has what they hold.
    TakenOver,
}

fn set_name(number: u64) -> String {
    format!("{SET}{number}")
}

/// The names in the folder, and in every set.
fn files() -> Vec<String> {
    let pairs =
        CertificateName::ALL.iter().flat_map(|name| [certificate_file(*name), key_file(*name)]);
    std::iter::once(AUTHORITIES.to_owned()).chain(pairs).collect()
}
