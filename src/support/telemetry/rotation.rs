//! A log file that is moved aside when it is full (`--enable-log-rotation`).
//!
//! ```text
//!   line ── would pass maxsize? ── member.log ──> member-2026-11-21T10-42-27.863.log ── old or many? ── removed
//!                                                                                   └── compress ── .log.gz
//! ```
//!
//! Names, sizes and defaults are those of the library that etcd uses (lumberjack 2.2). Compressing and removing is
//! done by a thread of its own; a line never waits for it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use chrono::{DateTime, Local, NaiveDateTime, TimeDelta, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;

use crate::support::clock::unix_micros;
use crate::support::spawn::background_thread;

const MEBIBYTE: u64 = 1 << 20;

const DEFAULT_MEBIBYTES: u64 = 100;

/// The moment in the name of a file that was moved aside.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

const COMPRESSED: &str = ".gz";

const OWNER_ONLY: u32 = 0o600;

/// `--log-rotation-config-json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub struct Rotation {
    /// Mebibytes a file may have; 0 is 100.
    pub maxsize: u64,
    /// Days after which files moved aside go; 0 keeps them.
    pub maxage: u32,
    /// Files moved aside that are kept; 0 keeps all.
    pub maxbackups: usize,
    /// Whether names carry the local time instead of UTC.
    pub localtime: bool,
    /// Whether files moved aside are compressed.
    pub compress: bool,
}

impl Rotation {
    /// Reads the flag; a fault is told in etcd's words (`server/embed/config_logging.go`, `setupLogRotation`).
    pub fn parse(json: &str) -> Result<Rotation, String> {
        serde_json::from_str(json).map_err(|why| match why.classify() {
            serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
                format!("improperly formatted log rotation config: {why}")
            }
            serde_json::error::Category::Data | serde_json::error::Category::Io => {
                format!("invalid log rotation config: {why}")
            }
        })
    }

    fn bytes_max(&self) -> u64 {
        let mebibytes = if self.maxsize == 0 { DEFAULT_MEBIBYTES } else { self.maxsize };
        mebibytes.saturating_mul(MEBIBYTE)
    }

    fn keeps_all(&self) -> bool {
        self.maxbackups == 0 && self.maxage == 0 && !self.compress
    }
}

/// The file that is written to, and who tidies those moved aside.
pub(super) struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    bytes_max: u64,
    file: File,
    len: u64,
    tidying: Option<JoinHandle<()>>,
}

impl RotatingFile {
    /// Goes on with a file that is there.
    pub(super) fn open(path: &str, rotation: Rotation) -> io::Result<RotatingFile> {
        let path = PathBuf::from(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(OWNER_ONLY).open(&path)?;
        let len = file.metadata()?.len();
        let bytes_max = rotation.bytes_max();
        let mut opened = RotatingFile { path, rotation, bytes_max, file, len, tidying: None };
        opened.tidy();
        Ok(opened)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let old = fs::metadata(&self.path);
        if old.is_ok() {
            fs::rename(&self.path, self.path.with_file_name(self.name_aside(now(&self.rotation))))?;
        }
        let mode = old.as_ref().map_or(OWNER_ONLY, |old| old.mode());
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(mode);
        self.file = options.open(&self.path)?;
        if let Ok(old) = old {
            chown(&self.path, Some(old.uid()), Some(old.gid()))?;
        }
        self.len = 0;
        self.tidy();
        Ok(())
    }

    fn name_aside(&self, moment: NaiveDateTime) -> String {
        let (stem, extension) = stem_and_extension(&self.path);
        format!("{stem}-{}{extension}", moment.format(STAMP))
    }

    /// Begins to remove and compress, unless that still goes on.
    fn tidy(&mut self) {
        if self.rotation.keeps_all() || self.tidying.as_ref().is_some_and(|t| !t.is_finished()) {
            return;
        }
        let (path, rotation) = (self.path.clone(), self.rotation.clone());
        // Nowhere is left to say that an old log could not be tidied; the next rotation tries again.
        let run = move || drop(tidy(&path, &rotation));
        self.tidying = background_thread("log-rotation", run).ok();
    }
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let more = line.len() as u64;
        if more > self.bytes_max {
            let why = format!("write length {more} exceeds maximum file size {}", self.bytes_max);
            return Err(io::Error::other(why));
        }
        if self.len + more > self.bytes_max {
            self.rotate()?;
        }
        let written = self.file.write(line)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for RotatingFile {
    fn drop(&mut self) {
        if let Some(tidying) = self.tidying.take() {
            // It only fails by a panic, which has been told.
            let _ = tidying.join();
        }
    }
}

fn now(rotation: &Rotation) -> NaiveDateTime {
    let micros = i64::try_from(unix_micros()).unwrap_or(i64::MAX);
    let utc = DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default();
    if rotation.localtime { utc.with_timezone(&Local).naive_local() } else { utc.naive_utc() }
}

fn stem_and_extension(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.rfind('.') {
        Some(dot) => (name[..dot].to_owned(), name[dot..].to_owned()),
        None => (name, String::new()),
    }
}

/// Removes what is too old or too many, and compresses the rest if asked to.
fn tidy(path: &Path, rotation: &Rotation) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let mut kept = BTreeSet::new();
    let oldest = now(rotation) - TimeDelta::days(i64::from(rotation.maxage));
    for (moment, name) in moved_aside(folder, path)? {
        let plain = name.strip_suffix(COMPRESSED).unwrap_or(&name).to_owned();
        kept.insert(plain);
        let too_many = rotation.maxbackups > 0 && kept.len() > rotation.maxbackups;
        let too_old = rotation.maxage > 0 && moment < oldest;
        if too_many || too_old {
            fs::remove_file(folder.join(&name))?;
        } else if rotation.compress && !name.ends_with(COMPRESSED) {
            compress(&folder.join(&name))?;
        }
    }
    Ok(())
}

/// Files of this log that were moved aside, newest first.
fn moved_aside(folder: &Path, path: &Path) -> io::Result<Vec<(NaiveDateTime, String)>> {
    let (stem, extension) = stem_and_extension(path);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let stamp = name
            .strip_prefix(&format!("{stem}-"))
            .map(|rest| rest.strip_suffix(COMPRESSED).unwrap_or(rest))
            .and_then(|rest| rest.strip_suffix(&extension));
        let moment = stamp.and_then(|stamp| NaiveDateTime::parse_from_str(stamp, STAMP).ok());
        if let Some(moment) = moment
            && entry.file_type()?.is_file()
        {
            found.push((moment, name));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(COMPRESSED);
    let target = PathBuf::from(name);
    let mut source = File::open(path)?;
    let old = source.metadata()?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(old.mode());
    let mut encoder = GzEncoder::new(options.open(&target)?, Compression::default());
    let written = io::copy(&mut source, &mut encoder).and_then(|_| encoder.finish());
    if let Err(why) = written {
        fs::remove_file(&target)?;
        return Err(why);
    }
    chown(&target, Some(old.uid()), Some(old.gid()))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    const LINE: usize = 300 << 10;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn write(folder: &Path, rotation: &Rotation, lines: &[u8]) {
        let path = folder.join("member.log");
        let mut log = RotatingFile::open(path.to_str().unwrap(), rotation.clone()).unwrap();
        for &byte in lines {
            // Names tell milliseconds apart.
            std::thread::sleep(std::time::Duration::from_millis(2));
            log.write_all(&vec![byte; LINE]).unwrap();
        }
    }

    #[test]
    fn a_full_file_is_moved_aside_whole() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &Rotation { maxsize: 1, ..Rotation::default() }, b"aaab");
        let names = names(dir.path());
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].starts_with("member-2") && names[0].ends_with(".log"), "{names:?}");
        assert_eq!(fs::read(dir.path().join(&names[0])).unwrap(), vec![b'a'; 3 * LINE]);
        assert_eq!(fs::read(dir.path().join("member.log")).unwrap(), vec![b'b'; LINE]);
    }

    #[test]
    fn a_restart_goes_on_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation { maxsize: 1, ..Rotation::default() };
        write(dir.path(), &rotation, b"aa");
        write(dir.path(), &rotation, b"ab");
        assert_eq!(names(dir.path()).len(), 2);
        assert_eq!(fs::metadata(dir.path().join("member.log")).unwrap().len(), LINE as u64);
    }

    #[test]
    fn the_oldest_go_and_strangers_stay() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("member-old.log"), "not ours").unwrap();
        fs::write(dir.path().join("member-1999-01-01T00-00-00.000.log"), "ours").unwrap();
        let rotation = Rotation { maxsize: 1, maxbackups: 1, ..Rotation::default() };
        write(dir.path(), &rotation, b"aaaab");
        drop(RotatingFile::open(dir.path().join("member.log").to_str().unwrap(), rotation));
        let names = names(dir.path());
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.contains(&"member-old.log".to_owned()));
        assert!(!names.iter().any(|name| name.contains("1999")));
        let aged = Rotation { maxage: 3, ..Rotation::default() };
        fs::write(dir.path().join("member-1999-01-01T00-00-00.000.log"), "ours").unwrap();
        tidy(&dir.path().join("member.log"), &aged).unwrap();
        assert_eq!(super::tests::names(dir.path()).len(), 3);
    }

    #[test]
    fn files_moved_aside_are_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation { maxsize: 1, compress: true, ..Rotation::default() };
        write(dir.path(), &rotation, b"aaab");
        let names = names(dir.path());
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].ends_with(".log.gz"), "{names:?}");
        let mut back = Vec::new();
        let file = File::open(dir.path().join(&names[0])).unwrap();
        GzDecoder::new(file).read_to_end(&mut back).unwrap();
        assert_eq!(back, vec![b'a'; 3 * LINE]);
    }

    #[test]
    fn a_line_that_never_fits_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation { maxsize: 1, ..Rotation::default() };
        let path = dir.path().join("member.log");
        let mut log = RotatingFile::open(path.to_str().unwrap(), rotation).unwrap();
        let why = log.write_all(&vec![b'a'; 2 << 20]).unwrap_err();
        assert_eq!(why.to_string(), "write length 2097152 exceeds maximum file size 1048576");
    }

    #[test]
    fn a_bad_config_is_told_in_etcds_words() {
        let text =
            r#"{"maxsize": 7, "maxage": 0, "maxbackups": 2, "localtime": true, "compress": true}"#;
        let want =
            Rotation { maxsize: 7, maxage: 0, maxbackups: 2, localtime: true, compress: true };
        assert_eq!(Rotation::parse(text), Ok(want));
        assert_eq!(Rotation::parse("{}"), Ok(Rotation::default()));
        let why = Rotation::parse("{\"maxsize\": true}").unwrap_err();
        assert!(why.starts_with("invalid log rotation config: "), "{why}");
        let why = Rotation::parse("{\"maxsize\"").unwrap_err();
        assert!(why.starts_with("improperly formatted log rotation config: "), "{why}");
    }
}
