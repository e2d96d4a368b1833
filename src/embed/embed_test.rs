use super::*;
use crate::support::urls::parse_list;

fn first_fault(change: impl FnOnce(&mut Config)) -> String {
    let mut config = Config::default();
    config.log.outputs = vec!["/dev/null".to_owned()];
    change(&mut config);
    config.build().unwrap_err().to_string()
}

#[test]
fn settings_are_refused_in_etcds_words() {
    type Change = fn(&mut Config);
    let rows: [(Change, &str); 12] = [
        (|c| c.cluster.heartbeat_ms = 0, "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            |c| c.cluster.heartbeat_ms = 300,
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
        ),
        (
            |c| c.cluster.election_ms = 60_000,
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (
            |c| c.member.listen_client = parse_list("http://example.com:1").unwrap(),
            "expected IP in URL for binding (http://example.com:1)",
        ),
        (
            |c| c.member.advertise_peer = parse_list("http://:1").unwrap(),
            "--initial-advertise-peer-urls \"http://:1\" must be \"host:port\" (unexpected empty host \
             (http://:1))",
        ),
        (|c| c.member.advertise_client = None, ADVERTISE_MISSING),
        (|c| c.cluster.auto_compaction_mode = "x".to_owned(), "unknown auto-compaction-mode \"x\""),
        (|c| c.cluster.initial_state = "zz".to_owned(), "unexpected clusterState \"zz\""),
        (|c| c.log.logger = "foo".to_owned(), "unknown logger option \"foo\""),
        (
            |c| c.log.format = "foo".to_owned(),
            "unknown log format: foo, supported values json, console",
        ),
        (|c| c.log.level = "foo".to_owned(), "unrecognized level: \"foo\""),
        (
            |c| {
                c.cluster.feature_gates.insert("LeaseCheckpointPersist".to_owned(), true);
            },
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
             LeaseCheckpoint",
        ),
    ];
    for (change, want) in rows {
        assert_eq!(first_fault(change), want);
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let mut config = Config::default();
    config.log.outputs = vec!["/dev/null".to_owned()];
    config.cluster.heartbeat_ms = 0;
    config.cluster.auto_compaction_mode = String::new();
    let refused = config.build().unwrap_err();
    assert_eq!(refused.faults.len(), 2);
    assert!(refused.log.is_some());
}

#[test]
fn retention_is_hours_or_revisions_or_a_duration() {
    use crate::keyspace::AutoCompaction::{Periodic, Revision};
    use std::time::Duration;
    let read = |mode: &str, retention: &str| {
        let mut config = Config::default();
        config.cluster.auto_compaction_mode = mode.to_owned();
        config.cluster.auto_compaction_retention = retention.to_owned();
        validate::auto_compaction(&config)
    };
    assert_eq!(read("periodic", "0"), Ok(None));
    assert_eq!(read("periodic", "2"), Ok(Some(Periodic(Duration::from_secs(7200)))));
    assert_eq!(read("periodic", "5m"), Ok(Some(Periodic(Duration::from_secs(300)))));
    assert_eq!(read("revision", "1000"), Ok(Some(Revision(1000))));
    assert!(read("periodic", "x").is_err());
}
