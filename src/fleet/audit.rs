//! Who changed what: lines of JSON at the end of a file, two for each call.
//!
//! ```text
//!   asked ──> line, synced ──> the call ──> line with its result, synced
//! ```
//!
//! A call that cannot be noted is not begun. If the second line cannot be written the call is done all the same, and
//! answered as failed, so that whoever asked looks at the file's disk.
//!
//! **Invariant:** bodies are never noted, so no secret is.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::api::server::AuditRecord;
use crate::support::spawn::Blocking;

/// The audit log of one daemon. Clones are the same log.
#[derive(Clone, Debug)]
pub struct AuditLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: Mutex<File>,
    blocking: Blocking,
}

impl AuditLog {
    /// Opens the file, 0600, to write at its end; makes it if need be. A last line that a crash cut short is ended.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        if !ends_with_newline(&file)? {
            file.write_all(b"\n")?;
        }
        Ok(AuditLog {
            shared: Arc::new(Shared {
                path: path.to_owned(),
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
        let path = self.shared.path.clone();
        self.shared.blocking.run(move || read_tail(&path, limit)).await
    }
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

fn read_tail(path: &Path, limit: usize) -> io::Result<Vec<AuditRecord>> {
    let mut kept = std::collections::VecDeque::with_capacity(limit.min(1024));
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        let Ok(record) = serde_json::from_slice::<AuditRecord>(&line?) else { continue };
        if kept.len() == limit {
            kept.pop_front();
        }
        if limit > 0 {
            kept.push_back(record);
        }
    }
    Ok(kept.into())
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
        let objects = |records: Vec<AuditRecord>| {
            records.into_iter().map(|record| record.object).collect::<Vec<_>>()
        };
        assert_eq!(objects(log.tail(10).await.unwrap()), ["a", "b", "c"]);
        assert_eq!(objects(log.tail(2).await.unwrap()), ["b", "c"]);
        assert!(log.tail(0).await.unwrap().is_empty());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
