use std::collections::BTreeSet;

use super::*;
use crate::support::flags::FlagSet;

/// Names, in etcd's order of printing, of every flag that `etcd` 3.7.1 defines.
const ETCD: &str = include_str!("../../../tests/testdata/cli/etcd-3.7.1-flags.txt");

#[test]
fn every_flag_of_etcd_is_in_the_table_and_no_other() {
    let etcd: BTreeSet<&str> = ETCD.lines().filter(|line| !line.is_empty()).collect();
    let ours: BTreeSet<&str> =
        rows().filter(|row| row.group != Group::Quorate).map(|row| row.name).collect();
    let missing: Vec<_> = etcd.difference(&ours).collect();
    let more: Vec<_> = ours.difference(&etcd).collect();
    assert!(missing.is_empty() && more.is_empty(), "missing {missing:?}, more {more:?}");
}

#[test]
fn every_flag_has_help_and_a_valid_default() {
    // `FlagSet::new` refuses a bad default and a name that stands twice.
    let flags = FlagSet::new(rows().map(Row::spec));
    for row in rows() {
        assert!(row.help.ends_with(['.', '\'']), "--{} has no help", row.name);
        assert!(flags.kind(row.name).is_some());
    }
}

#[test]
fn variables_are_upper_case_names() {
    let row = rows().find(|row| row.name == "listen-client-urls").unwrap();
    assert_eq!(row.variable(), "ETCD_LISTEN_CLIENT_URLS");
}

#[test]
fn every_old_spelling_has_a_twin() {
    for (name, twin) in EXPERIMENTAL {
        assert_eq!(twin.spec(name).name, name);
        if let Twin::Gate(gate) = twin {
            assert!(crate::embed::gates::GATES.iter().any(|(known, ..)| *known == gate), "{gate}");
        }
    }
}
