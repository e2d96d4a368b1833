//! What stands in the data directory, by its first level (etcd `server/etcdmain/etcd.go`,
//! `identifyDataDirOrDie`).

use std::fs;
use std::io;

/// What a data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectoryKind {
    /// There is nothing of ours in it yet, or it does not exist.
    Empty,
    /// A member's.
    Member,
    /// A proxy's of etcd 2.
    Proxy,
}

impl DirectoryKind {
    pub(super) fn word(self) -> &'static str {
        match self {
            DirectoryKind::Empty => "empty",
            DirectoryKind::Member => "member",
            DirectoryKind::Proxy => "proxy",
        }
    }
}

/// Looks, and warns of what does not belong there.
pub(super) fn identify(directory: &str) -> io::Result<DirectoryKind> {
    let mut names = match fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<String>>>()?,
        Err(why) if why.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(why) => return Err(why),
    };
    names.sort();
    let mut kind = DirectoryKind::Empty;
    for name in names {
        match name.as_str() {
            "member" => kind = DirectoryKind::Member,
            "proxy" if kind == DirectoryKind::Empty => kind = DirectoryKind::Proxy,
            "proxy" => {
                let both = "invalid datadir; both member and proxy directories exist";
                return Err(io::Error::other(both));
            }
            _ => tracing::warn!(
                filename = name,
                "data-dir" = directory,
                "found invalid file under data directory"
            ),
        }
    }
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_told_by_its_first_level() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert_eq!(identify(&format!("{path}/none")).unwrap(), DirectoryKind::Empty);
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        assert_eq!(identify(path).unwrap(), DirectoryKind::Empty);
        fs::create_dir(dir.path().join("proxy")).unwrap();
        assert_eq!(identify(path).unwrap(), DirectoryKind::Proxy);
        fs::create_dir(dir.path().join("member")).unwrap();
        assert!(identify(path).is_err());
        fs::remove_dir(dir.path().join("proxy")).unwrap();
        assert_eq!(identify(path).unwrap(), DirectoryKind::Member);
    }
}
