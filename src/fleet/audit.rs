//! Who changed what: lines of JSON at the end of a file, two for each call.
//!
//! ```text
//!   asked ──> line, synced ──> the call ──> line with its result, synced
//!              └ the file is full: it becomes the older one, in whose stead it is, and a new one is begun
//! ```
//!
//! A call that cannot be noted is not begun. If the second line cannot be written the call is done all the same, and
//! answered as failed, so that whoever asked looks at the file's disk.
//!
//! **Invariant:** bodies are never noted, so no secret is.
//! **Invariant:** there are two files at most, of [`FILE_BYTES_MAX`] each; what both have is told as one log.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::api::server::AuditRecord;
use crate::support::durable;
use crate::support::spawn::Blocking;

/// A file that would be longer becomes the older one.
pub const FILE_BYTES_MAX: u64 = 8 << 20;

/// The audit log of one daemon. Clones are the same log.
#[derive(Clone, Debug)]
pub struct AuditLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// The file before this one.
    older: PathBuf,
    bytes_max: u64,
    file: Mutex<File>,
    blocking: Blocking,
}

impl AuditLog {
    /// Opens the file, 0600, to write at its end; makes it if need be. A last line that a crash cut short is ended.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_bounded(path, FILE_BYTES_MAX)
    }

    fn open_bounded(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let mut file = open(path)?;
        if !ends_with_newline(&file)? {
            file.write_all(b"\n")?;
        }
        Ok(AuditLog {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                older: older_than(path),
                bytes_max,
                file: Mutex::new(file),
                blocking: Blocking::bounded(1),
            }),
        })
    }

    /// Writes one line, and returns when it is on disk.
    pub async fn append(&self, record: &AuditRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let shared = self.shared.clone();
        self.shared
            .blocking
            .run(move || {
                let mut file = shared.file.lock();
                if file.metadata()?.len() + line.len() as u64 > shared.bytes_max {
                    *file = shared.begin_anew()?;
                }
                file.write_all(&line)?;
                file.sync_data()
            })
            .await
    }

    /// Every further line fails, as on a full disk.
    #[cfg(test)]
    pub(crate) fn fail_from_now_on(&self) {
        let read_only = File::open(&self.shared.path).expect("the log is there");
        *self.shared.file.lock() = read_only;
    }

    /// The last `limit` records, oldest first. Lines that are none are left out.
    pub async fn tail(&self, limit: usize) -> io::Result<Vec<AuditRecord>> {
        let shared = self.shared.clone();
        self.shared.blocking.run(move || shared.read_tail(limit)).await
    }
}

impl Shared {
    /// The file becomes the older one. One that could not be begun the last time is begun now.
    fn begin_anew(&self) -> io::Result<File> {
        match std::fs::rename(&self.path, &self.older) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        let file = open(&self.path)?;
        durable::sync_folder(self.path.parent().unwrap_or(Path::new(".")))?;
        Ok(file)
    }

    fn read_tail(&self, limit: usize) -> io::Result<Vec<AuditRecord>> {
        let mut kept = VecDeque::with_capacity(limit.min(1024));
        match File::open(&self.older) {
            Ok(older) => keep_tail(older, limit, &mut kept)?,
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(why),
        }
        keep_tail(File::open(&self.path)?, limit, &mut kept)?;
        Ok(kept.into())
    }
}

fn older_than(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)
}

fn ends_with_newline(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, length - 1)?;
    Ok(last == *b"\n")
}

fn keep_tail(file: File, limit: usize, kept: &mut VecDeque<AuditRecord>) -> io::Result<()> {
    for line in BufReader::new(file).split(b'\n') {
        let Ok(record) = serde_json::from_slice::<AuditRecord>(&line?) else { continue };
        if kept.len() == limit {
            kept.pop_front();
        }
        if limit > 0 {
            kept.push_back(record);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn record(object: &str) -> AuditRecord {
        AuditRecord {
            time: "2026-11-22T10:00:00Z".to_owned(),
            actor: "unix".to_owned(),
            operation: "remove".to_owned(),
            object: object.to_owned(),
            result: "done".to_owned(),
            code: 200,
            request_id: "r".to_owned(),
        }
    }

    #[tokio::test]
    async fn records_stay_in_order_over_a_restart_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let log = AuditLog::open(&path).unwrap();
        log.append(&record("a")).await.unwrap();
        log.append(&record("b")).await.unwrap();
        drop(log);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"time\":").unwrap();

        let log = AuditLog::open(&path).unwrap();
        log.append(&record("c")).await.unwrap();
        assert_eq!(objects(log.tail(10).await.unwrap()), ["a", "b", "c"]);
        assert_eq!(objects(log.tail(2).await.unwrap()), ["b", "c"]);
        assert!(log.tail(0).await.unwrap().is_empty());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    fn objects(records: Vec<AuditRecord>) -> Vec<String> {
        records.into_iter().map(|record| record.object).collect()
    }

    #[tokio::test]
    async fn a_full_file_becomes_the_older_one_and_both_are_told_as_one_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let line = serde_json::to_vec(&record("00")).unwrap().len() as u64 + 1;
        let log = AuditLog::open_bounded(&path, 3 * line).unwrap();
        let mut noted = Vec::new();
        for number in 0..8 {
            let name = format!("{number:02}");
            log.append(&record(&name)).await.unwrap();
            noted.push(name);
            // Two files' worth at most, and never less than one.
            let told = objects(log.tail(100).await.unwrap());
            assert!(noted.ends_with(&told), "{told:?}");
            assert!(told.len() >= noted.len().min(4) && told.len() <= 6, "{told:?}");
        }
        assert_eq!(objects(log.tail(100).await.unwrap()), noted[3..]);
        assert_eq!(objects(log.tail(3).await.unwrap()), noted[5..]);
        let mut files: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["audit.log", "audit.log.1"]);
        for file in files {
            let kept = std::fs::metadata(dir.path().join(file)).unwrap();
            assert!(kept.len() <= 3 * line);
            assert_eq!(kept.permissions().mode() & 0o777, 0o600);
        }
        drop(log);

        // Also after a restart, and where a crash fell between the two steps of beginning anew.
        let log = AuditLog::open_bounded(&path, 3 * line).unwrap();
        assert_eq!(objects(log.tail(100).await.unwrap()), noted[3..]);
        log.append(&record("08")).await.unwrap();
        std::fs::rename(&path, dir.path().join("audit.log.1")).unwrap();
        log.append(&record("09")).await.unwrap();
        assert_eq!(objects(log.tail(100).await.unwrap()), ["06", "07", "08", "09"]);
    }
}
