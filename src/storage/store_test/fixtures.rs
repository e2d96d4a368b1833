//! Directories written by earlier versions keep opening. `tests/testdata/store/v1` was written by the first one:
//! a journal of 16 KiB segments and a base, no state store. `v2` has users and roles as well, in both, and `v3` a fleet.
//!
//! A new format gets a folder of its own: `NEW_FIXTURE=v4 cargo test -p quorate --lib an_old_directory`. The old ones
//! are never written again.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use quorate_core::api::pb::internal::FleetNode;
use quorate_core::state_machine::fleet::FleetState;

use super::rig::{
    Member, Place, admit, auth_enable, auth_token, bootstrap, delete, grant, grant_role,
    join_token, open, permit, put, role_add, user_add,
};

/// Every format that was ever released.
const OLD: &[&str] = &["v1", "v2", "v3"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/store")
}

fn place(folder: &Path) -> Place {
    Place { segment_bytes: 16 << 10, ..Place::files(folder) }
}

/// What the member knows, as text.
fn told(member: &Member) -> String {
    let snapshot = member.snapshot();
    let mut text = format!(
        "revision {}\nrolling hash {:016x}\nleases {:?}\n",
        snapshot.revision, snapshot.rolling_hash, snapshot.leases
    );
    let auth = member.machine.auth();
    if auth.revision() > 1 {
        writeln!(text, "auth revision {}, on: {}", auth.revision(), auth.is_enabled()).unwrap();
    }
    for (name, user) in auth.users() {
        writeln!(text, "user {name}, {}: {user:?}", user.password_hash).unwrap();
    }
    for (name, role) in auth.roles() {
        writeln!(text, "role {name}: {role:?}").unwrap();
    }
    text.push_str(&told_of_the_fleet(member.machine.fleet()));
    for record in &snapshot.history {
        let kv = &record.kv;
        let value = String::from_utf8_lossy(&kv.value);
        let what = if record.tombstone { "deleted".to_owned() } else { format!("= {value}") };
        let key = String::from_utf8_lossy(&kv.key);
        writeln!(
            text,
            "{} {key} {what} (created {}, version {})",
            record.revision, kv.create_revision, kv.version
        )
        .unwrap();
    }
    text
}

fn told_of_the_fleet(fleet: &FleetState) -> String {
    let mut text = String::new();
    let Some(record) = fleet.record() else { return text };
    let authority = record.authority.as_ref().unwrap();
    writeln!(text, "fleet {}, schema {}", record.uid, record.schema_version).unwrap();
    writeln!(text, "authority {}: {:?}", authority.generation, authority.certificates).unwrap();
    writeln!(text, "sealed {:?}, capi {:?}", authority.sealed_key, record.capi_token).unwrap();
    for node in fleet.nodes() {
        let FleetNode { id, name, address, record, .. } = node;
        write!(text, "FleetNode {{ id: {id}, name: {name:?}, address: {address:?}, ").unwrap();
        writeln!(text, "role: {:?}, record: {record:?} }}", node.role()).unwrap();
        // Fields of later versions.
        if !node.asked.is_empty() {
            writeln!(text, "asked {:?} until {}", node.asked, node.asked_until_ms).unwrap();
        }
    }
    for token in fleet.join_tokens() {
        writeln!(text, "{token:?}, {:?} of {:?}", token.hash, token.nonce).unwrap();
    }
    for token in fleet.auth_tokens() {
        writeln!(text, "{token:?}, {:?} of {:?}", token.hash, token.nonce).unwrap();
    }
    text
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn write_fixture(folder: &Path) {
    let made = tempfile::tempdir().unwrap();
    let place = place(made.path());
    let mut member = open(&place);
    member.propose(vec![put("a", b"one"), put("b", b"two"), grant(7)]);
    member.propose(vec![put("a", b"three"), delete("b")]);
    member.propose(vec![user_add("root", "$2a$04$one"), grant_role("root", "root")]);
    member.propose(vec![role_add("r"), permit("r", "a", "c"), permit("r", "k", "")]);
    member.propose(vec![bootstrap(7), join_token("n2", b'a'), join_token("n3", b'b')]);
    member.take_base();
    member.propose(vec![put("c", b"four"), grant(8)]);
    member.propose(vec![user_add("u", "$2a$04$two"), grant_role("u", "r"), auth_enable()]);
    member.propose(vec![admit("n2", b'a'), auth_token("u", b'c')]);
    member.propose_blank();
    member.propose(vec![delete("a")]);
    let text = told(&member);
    let base = member.store.base().unwrap().file_name;
    member.close();
    let (journal, group) = (folder.join("journal"), folder.join("groups/0"));
    fs::create_dir_all(&journal).unwrap();
    fs::create_dir_all(&group).unwrap();
    for entry in fs::read_dir(made.path().join("journal")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().ends_with(".seg") {
            fs::copy(entry.path(), journal.join(entry.file_name())).unwrap();
        }
    }
    fs::copy(place.folder.join(&base), group.join(&base)).unwrap();
    fs::write(folder.join("expected.txt"), text).unwrap();
}

#[test]
fn an_old_directory_keeps_opening() {
    if let Ok(name) = std::env::var("NEW_FIXTURE") {
        write_fixture(&fixtures().join(name));
    }
    for name in OLD {
        let folder = tempfile::tempdir().unwrap();
        copy(&fixtures().join(name), folder.path());
        let expected = fs::read_to_string(folder.path().join("expected.txt")).unwrap();
        let member = open(&place(folder.path()));
        assert_eq!(told(&member), expected, "{name}");
        assert_eq!(member.rebuilt.as_ref().unwrap().reason, "there was none");
        member.close();
        assert_eq!(told(&open(&place(folder.path()))), expected, "{name}, opened again");
    }
}
