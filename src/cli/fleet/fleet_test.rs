use super::*;

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn line(text: &str) -> Result<Line, String> {
    Line::try_parse_from(words(text)).map_err(|why| why.to_string())
}

#[test]
fn only_words_of_the_table_leave_etcds_flags() {
    for word in ["bootstrap", "get-join-token", "join-cluster", "remove-node", "status", "config"] {
        assert!(is_command(word), "{word}");
    }
    assert!(is_command("help") && is_command("local-node-status"));
    for word in ["gateway", "grpc-proxy", "--name", "-h", "daemon", "init", "agent", "", "stat"] {
        assert!(!is_command(word), "{word}");
    }
}

/// S0.36: the verbs with their flags, as they are written there.
#[test]
fn the_verbs_of_the_origin_are_read() {
    for text in [
        "quorate bootstrap",
        "quorate bootstrap --name n1 --address 127.0.0.1 --file - --timeout 2m30s --progress",
        "quorate get-join-token n2",
        "quorate get-join-token n2 --expires-in 24h",
        "quorate get-join-token --worker",
        "quorate join-cluster TOKEN --name n2 --address 127.0.0.2:6400 --file join.yaml",
        "quorate join-cluster - --state-dir /tmp/x",
        "quorate join-cluster --token-file t",
        "quorate remove-node n2 --force",
        "quorate status --wait-ready --output-format json --timeout 90s",
        "quorate --output-format yaml status",
        "quorate config show --origin -- --name a --listen-client-urls http://a:1",
    ] {
        assert!(line(text).is_ok(), "{text}: {}", line(text).unwrap_err());
    }
    let Line { globals, .. } = line("quorate status").unwrap();
    assert_eq!(globals.timeout.to_std(), Duration::from_secs(90));
    assert_eq!(globals.state_dir.to_str(), Some(DEFAULT_STATE_DIR));
}

#[test]
fn what_is_missing_or_too_much_is_refused() {
    for text in [
        "quorate get-join-token",
        "quorate join-cluster",
        "quorate join-cluster TOKEN --token-file t",
        "quorate remove-node",
        "quorate status extra",
        "quorate status --timeout 90",
        "quorate status --timeout -1s",
        "quorate status --output-format xml",
        "quorate config set",
        "quorate config set a=b --file f",
        "quorate refresh-certs --plan --external-certificates f",
        "quorate completion tcsh",
        "quorate man",
    ] {
        assert!(line(text).is_err(), "{text}");
    }
}

#[test]
fn no_token_is_shown_by_what_was_read() {
    let join = line("quorate join-cluster hunter2").unwrap();
    let revoke = line("quorate auth-token revoke hunter2").unwrap();
    for line in [join, revoke] {
        let shown = format!("{:?}", Fleet { line });
        assert!(shown.contains("[redacted]") && !shown.contains("hunter2"), "{shown}");
    }
    // Nor by the complaint about what stands beside it.
    let why = line("quorate join-cluster hunter2 --token-file t").unwrap_err();
    assert!(!why.contains("hunter2"), "{why}");
}

#[tokio::test]
async fn no_daemon_is_said_with_the_command_that_starts_one() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("quorate status --state-dir {}", dir.path().display());
    let fleet = Fleet { line: line(&text).unwrap() };
    let failure = fleet.answer(&Environment::new()).await.unwrap_err();
    assert_eq!(failure.code(), 4);
    let said = failure.to_string();
    let help = format!("start one with: quorate daemon --state-dir {}", dir.path().display());
    assert!(said.ends_with(&help), "{said}");
    assert!(said.contains("no such file or directory"), "{said}");
}
