use super::*;

const CLUSTER: ClusterId = ClusterId(0xc1);
const MEMBER: MemberId = MemberId(0x3e);
const JOURNAL: [u8; 16] = [7; 16];

/// A directory as a first start leaves it.
fn started() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = open_directory(&folder.path().join("d")).unwrap();
    assert_eq!(directory.identity(), None);
    fs::write(directory.journal().join("1.seg"), "").unwrap();
    directory.settle(JOURNAL, true, CLUSTER, MEMBER).unwrap();
    folder
}

fn refusal(folder: &tempfile::TempDir) -> String {
    match open_directory(&folder.path().join("d")) {
        Ok(_) => panic!("the directory was opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_second_start_finds_the_identity_of_the_first() {
    let folder = started();
    let mut directory = open_directory(&folder.path().join("d")).unwrap();
    let identity = directory.identity().unwrap();
    assert_eq!((identity.cluster, identity.member), (CLUSTER, MEMBER));
    assert_eq!(directory.settle(JOURNAL, false, CLUSTER, MEMBER).unwrap(), identity);
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(folder.path().join("d/member")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_second_process_is_refused_with_the_pid_of_the_first() {
    let folder = started();
    let _held = open_directory(&folder.path().join("d")).unwrap();
    assert!(refusal(&folder).contains(&format!("in use by process {}", std::process::id())));
}

#[test]
fn what_is_not_ours_or_not_whole_is_refused_with_what_to_do() {
    let member = "d/member";
    type Damage = fn(&Path);
    let table: [(&str, Damage, &str); 7] = [
        (
            "etcd's database",
            |m| fs::create_dir_all(m.join("snap")).unwrap(),
            "etcd's own files (member/snap)",
        ),
        (
            "etcd's log",
            |m| fs::create_dir_all(m.join("wal")).unwrap(),
            "etcd's own files (member/wal)",
        ),
        (
            "identity damaged",
            |m| fs::write(m.join("IDENTITY"), "quorate").unwrap(),
            "is damaged: restore it",
        ),
        (
            "journal folder lost",
            |m| fs::remove_dir_all(m.join("journal")).unwrap(),
            "journal/ has no segments",
        ),
        (
            "segments lost",
            |m| fs::remove_file(m.join("journal/1.seg")).unwrap(),
            "journal/ has no segments",
        ),
        (
            "only a base is left",
            |m| {
                fs::remove_file(m.join("journal/1.seg")).unwrap();
                fs::remove_file(m.join("IDENTITY")).unwrap();
                fs::create_dir_all(m.join("groups/0")).unwrap();
            },
            "groups/ is there",
        ),
        (
            "identity is a folder",
            |m| {
                fs::remove_file(m.join("IDENTITY")).unwrap();
                fs::create_dir(m.join("IDENTITY")).unwrap();
            },
            "cannot read",
        ),
    ];
    for (name, damage, expected) in table {
        let folder = started();
        damage(&folder.path().join(member));
        let text = refusal(&folder);
        assert!(text.contains(expected), "{name}: {text}");
    }
}

#[test]
fn settling_refuses_another_owner_another_journal_and_a_lost_identity() {
    let folder = started();
    let mut directory = open_directory(&folder.path().join("d")).unwrap();
    let text = |result: Result<Identity, DirectoryError>| result.unwrap_err().to_string();
    assert!(
        text(directory.settle(JOURNAL, false, ClusterId(9), MEMBER))
            .contains("belongs to member 3e of cluster c1")
    );
    assert!(
        text(directory.settle(JOURNAL, false, CLUSTER, MemberId(9)))
            .contains("started as member 9")
    );
    assert!(
        text(directory.settle([8; 16], false, CLUSTER, MEMBER)).contains("names another journal")
    );
    drop(directory);

    fs::remove_file(folder.path().join("d/member/IDENTITY")).unwrap();
    let mut directory = open_directory(&folder.path().join("d")).unwrap();
    assert!(
        text(directory.settle(JOURNAL, false, CLUSTER, MEMBER)).contains("IDENTITY is missing")
    );
}

#[test]
fn a_first_start_that_died_before_its_identity_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let directory = open_directory(&folder.path().join("d")).unwrap();
    fs::write(directory.journal().join("1.seg"), "").unwrap();
    drop(directory);
    let mut directory = open_directory(&folder.path().join("d")).unwrap();
    directory.settle(JOURNAL, true, CLUSTER, MEMBER).unwrap();
}

#[test]
fn a_newer_format_is_refused() {
    let folder = started();
    let body = "quorate identity\nformat 2\n";
    let text = format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
    fs::write(folder.path().join("d/member/IDENTITY"), text).unwrap();
    assert!(refusal(&folder).contains("has format 2, this program knows up to 1"));
}
