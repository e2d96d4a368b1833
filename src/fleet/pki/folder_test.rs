//! The folder on a real disk: what others see while it changes, and what a change that was cut off leaves.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::signing_test::{NOW, a_year, authority, wanted};
use super::*;
use crate::fleet::secret::Secret;
use crate::support::tls::{Protocol, Side, check_pair};

fn bundle(authority: &Authority) -> Bundle {
    let all = CertificateName::ALL.map(wanted);
    let signer = Some(authority);
    Bundle::make(authority.certificate(), signer, BTreeMap::new(), &all, a_year(), NOW).unwrap()
}

/// The names in a folder that are no sets and not `live`, and whether they are links.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("set-"))
        .collect();
    names.sort();
    names
}

/// Tells who reads to end, also if who writes has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn sets(path: &Path) -> usize {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
    entries.filter(|name| name.to_str().unwrap().starts_with("set-")).count()
}

#[test]
fn what_was_written_is_read_back_and_keys_are_for_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pki");
    let folder = Folder::open(&path).unwrap();
    assert_eq!(folder.read().unwrap(), Bundle::default());
    let written = bundle(&authority());
    folder.write(&written).unwrap();
    assert_eq!(Folder::open(&path).unwrap().read().unwrap(), written);
    assert_eq!(
        names(&path),
        [
            "ca.crt",
            "client.crt",
            "client.key",
            "live",
            "member-api.crt",
            "member-api.key",
            "peer.crt",
            "peer.key",
            "server.crt",
            "server.key"
        ]
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in CertificateName::ALL {
        let (certificate, key) = folder.paths(name);
        assert_eq!((mode(&certificate), mode(&key)), (0o644, 0o600));
    }
    assert_eq!(mode(&path), 0o700);
    // A TLS side opens them.
    let settings = folder.tls(CertificateName::Server, CertificateName::Client);
    let side = Side::open(&settings, Protocol::default(), None).unwrap();
    assert_eq!(side.common_name().as_deref(), Some("n1"));
    folder.wipe().unwrap();
    folder.wipe().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_change_is_made_by_one_at_a_time_and_only_the_last_two_sets_stay() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let authority = authority();
    folder.write(&bundle(&authority)).unwrap();
    let renewed = [CertificateName::Peer].into();
    for _ in 0..3 {
        let wanted = wanted(CertificateName::Peer);
        folder.change(|bundle| bundle.renew(&authority, &wanted, &renewed, a_year())).unwrap();
        assert_eq!(sets(dir.path()), 2);
    }
    let before = folder.read().unwrap();
    let refused = folder.change(|bundle| {
        bundle.pairs.clear();
        Err::<(), _>(PkiError::NoPlan)
    });
    assert!(refused.is_err());
    assert_eq!(folder.read().unwrap(), before);
    // A certificate that is no more leaves no name.
    folder
        .change(|bundle| {
            bundle.pairs.remove(&CertificateName::MemberApi);
            Ok(())
        })
        .unwrap();
    assert!(!names(dir.path()).contains(&"member-api.key".to_owned()));
}

#[test]
fn whoever_reads_finds_a_pair_that_fits_however_often_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let authority = authority();
    let sets = [bundle(&authority), bundle(&authority)];
    folder.write(&sets[0]).unwrap();
    let settings = folder.tls(CertificateName::Peer, CertificateName::Peer);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut opened = 0_u32;
            while !done.load(Ordering::Relaxed) {
                // The start refuses a pair that does not fit; and nothing is ever missing.
                Side::open(&settings, Protocol::default(), None).unwrap();
                opened += 1;
            }
            opened
        });
        let ends = Ends(&done);
        for round in 0..60 {
            folder.write(&sets[round % 2]).unwrap();
        }
        drop(ends);
        assert!(reading.join().unwrap() > 0);
    });
}

#[test]
fn any_number_of_handles_may_be_open_and_each_finds_whole_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority();
    let sets = [bundle(&authority), bundle(&authority)];
    Folder::open(dir.path()).unwrap().write(&sets[0]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut opened = 0_u32;
            while !done.load(Ordering::Relaxed) {
                // Opening puts things in order, and must not take what another is about to put in force for litter.
                let found = Folder::open(dir.path()).unwrap().read().unwrap();
                assert!(sets.contains(&found));
                opened += 1;
            }
            opened
        });
        let ends = Ends(&done);
        for round in 0..60 {
            Folder::open(dir.path()).unwrap().write(&sets[round % 2]).unwrap();
        }
        drop(ends);
        assert!(reading.join().unwrap() > 0);
    });
}

#[test]
fn a_change_that_was_cut_off_anywhere_is_undone_or_finished() {
    let authority = authority();
    let (old, new) = (bundle(&authority), bundle(&authority));
    // What is on the disk after each step of a change, made by hand.
    for step in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        folder.write(&old).unwrap();
        let half = dir.path().join("set-2");
        fs::create_dir(&half).unwrap();
        fs::write(half.join("peer.key"), new.pairs[&CertificateName::Peer].key.reveal()).unwrap();
        if step >= 1 {
            std::os::unix::fs::symlink("set-2", dir.path().join("live.next")).unwrap();
        }
        if step >= 2 {
            let scratch = dir.path().join("scratch");
            Folder::open(&scratch).unwrap().write(&new).unwrap();
            fs::remove_dir_all(&half).unwrap();
            fs::rename(scratch.join("set-1"), &half).unwrap();
            fs::remove_dir_all(&scratch).unwrap();
            fs::rename(dir.path().join("live.next"), dir.path().join("live")).unwrap();
        }
        if step >= 3 {
            // A first change, of which no name was made.
            fs::remove_file(dir.path().join("peer.crt")).unwrap();
        }
        let found = Folder::open(dir.path()).unwrap().read().unwrap();
        assert_eq!(found, if step < 2 { old.clone() } else { new.clone() }, "step {step}");
        assert_eq!(sets(dir.path()), if step < 2 { 1 } else { 2 }, "step {step}");
        // And the next change goes through.
        Folder::open(dir.path()).unwrap().write(&old).unwrap();
        assert_eq!(Folder::open(dir.path()).unwrap().read().unwrap(), old);
    }
}

#[test]
fn files_that_somebody_put_there_are_read_and_taken_over_by_the_next_change() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let authority = authority();
    folder.write(&bundle(&authority)).unwrap();
    let own = Pair::signed(&authority, &wanted(CertificateName::Server), a_year()).unwrap();
    let (certificate, key) = folder.paths(CertificateName::Server);
    for (path, text) in [(&certificate, own.certificate.as_str()), (&key, own.key.reveal())] {
        fs::remove_file(path).unwrap();
        fs::write(path, text).unwrap();
    }
    let folder = Folder::open(dir.path()).unwrap();
    assert!(!certificate.is_symlink());
    assert_eq!(folder.read().unwrap().pairs[&CertificateName::Server], own);
    let wanted = wanted(CertificateName::Peer);
    let renewed = [CertificateName::Peer].into();
    folder.change(|bundle| bundle.renew(&authority, &wanted, &renewed, a_year())).unwrap();
    assert!(certificate.is_symlink() && key.is_symlink());
    assert_eq!(folder.read().unwrap().pairs[&CertificateName::Server], own);
    let mode = fs::metadata(&key).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "their rights too");
}

#[test]
fn a_pair_that_was_put_there_half_is_no_pair() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let authority = authority();
    let mut written = bundle(&authority);
    written.pairs.remove(&CertificateName::Server);
    folder.write(&written).unwrap();
    fs::write(folder.paths(CertificateName::Server).0, authority.certificate()).unwrap();
    assert_eq!(folder.read().unwrap(), written);
    let key = Secret::from("no key");
    assert!(check_pair(authority.certificate().as_bytes(), key.reveal().as_bytes()).is_err());
}
