use std::fs;

use serde_json::json;

use super::*;

fn words(line: &str) -> Vec<String> {
    line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn variables(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn found(settings: &[Setting], name: &str) -> (String, String) {
    let setting = settings.iter().find(|setting| setting.name == name).expect("it is listed");
    (setting.plain(), setting.origin.plain())
}

/// Flag, variable, file and default against each other: sixteen starts, one setting, and who wins.
#[test]
fn every_pair_of_sources_has_its_winner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("quorate.yaml");
    fs::write(&path, "max-txn-ops: 3\n").unwrap();
    let silent = dir.path().join("silent.yaml");
    fs::write(&silent, "name: other\n").unwrap();
    let (path, silent) = (path.to_str().unwrap(), silent.to_str().unwrap());

    let key = format!("file {path}, max-txn-ops");
    let default = ("128", "default");
    let refused = "refused";
    for (flag, variable, file, (value, origin)) in [
        (false, false, None, default),
        (true, false, None, ("1", "flag --max-txn-ops")),
        (false, true, None, ("2", "variable ETCD_MAX_TXN_OPS")),
        (true, true, None, ("", refused)),
        // A file decides alone, whether it names the setting or not, and whoever names the file.
        (false, false, Some(path), ("3", key.as_str())),
        (true, false, Some(path), ("3", key.as_str())),
        (false, true, Some(path), ("3", key.as_str())),
        (true, true, Some(path), ("3", key.as_str())),
        (false, false, Some(silent), default),
        (true, false, Some(silent), default),
        (false, true, Some(silent), default),
        (true, true, Some(silent), default),
    ] {
        for named_by_variable in [false, true] {
            let mut line = String::new();
            let mut environment = Environment::new();
            if flag {
                line.push_str("--max-txn-ops=1");
            }
            if variable {
                environment.extend(variables(&[("ETCD_MAX_TXN_OPS", "2")]));
            }
            match file {
                Some(file) if named_by_variable => {
                    environment.extend(variables(&[("ETCD_CONFIG_FILE", file)]));
                }
                Some(file) => line.push_str(&format!(" --config-file={file}")),
                None => {}
            }
            let context = format!("{line} {environment:?}");
            match settings_of(&words(&line), &environment) {
                Ok(settings) => {
                    let want = (value.to_owned(), origin.to_owned());
                    assert_eq!(found(&settings, "max-txn-ops"), want, "{context}");
                }
                Err(why) => {
                    assert_eq!(origin, refused, "{context}: {why}");
                    assert_eq!(why.code(), 1);
                    let text = why.to_string();
                    assert!(text.contains("--max-txn-ops and ETCD_MAX_TXN_OPS"), "{text}");
                }
            }
        }
    }
}

#[test]
fn an_old_spelling_is_the_origin_of_what_it_became() {
    let line = words("--experimental-max-learners=3 --experimental-initial-corrupt-check=true");
    let settings = settings_of(&line, &Environment::new()).unwrap();
    let want = ("3".to_owned(), "flag --experimental-max-learners".to_owned());
    assert_eq!(found(&settings, "max-learners"), want);
    let (gates, origin) = found(&settings, "feature-gates");
    assert!(gates.contains("InitialCorruptCheck=true"), "{gates}");
    assert_eq!(origin, "flag --experimental-initial-corrupt-check");

    let environment = variables(&[("ETCD_EXPERIMENTAL_MAX_LEARNERS", "2")]);
    let settings = settings_of(&[], &environment).unwrap();
    let want = ("2".to_owned(), "variable ETCD_EXPERIMENTAL_MAX_LEARNERS".to_owned());
    assert_eq!(found(&settings, "max-learners"), want);
}

#[test]
fn what_follows_from_another_setting_says_from_which() {
    let settings = settings_of(&words("--name one"), &Environment::new()).unwrap();
    let derived = "derived from --name".to_owned();
    assert_eq!(found(&settings, "data-dir"), ("one.etcd".to_owned(), derived.clone()));
    let members = "one=http://localhost:2380".to_owned();
    assert_eq!(found(&settings, "initial-cluster"), (members, derived));
    let told = words("--name one --data-dir /d --initial-cluster a=http://a:1");
    let settings = settings_of(&told, &Environment::new()).unwrap();
    assert_eq!(found(&settings, "data-dir"), ("/d".to_owned(), "flag --data-dir".to_owned()));
    assert_eq!(found(&settings, "initial-cluster").1, "flag --initial-cluster");
}

#[test]
fn no_secret_is_shown_from_any_source() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("quorate.yaml");
    let yaml =
        "discovery-config:\n  client:\n    auth:\n      username: root\n      password: hunter2\n";
    fs::write(&path, yaml).unwrap();
    let file = format!("--config-file={}", path.display());
    let sources = [
        settings_of(&words("--discovery-password=hunter2 --discovery-user=u"), &Vec::new()),
        settings_of(&[], &variables(&[("ETCD_DISCOVERY_PASSWORD", "hunter2")])),
        settings_of(&[file], &Vec::new()),
    ];
    for settings in sources {
        let settings = settings.unwrap();
        let (value, origin) = found(&settings, "discovery-password");
        assert_eq!(value, REDACTED);
        assert_ne!(origin, "default");
        let json = serde_json::to_string(&settings).unwrap();
        assert!(!json.contains("hunter2") && !plain(&settings, true).contains("hunter2"));
    }
    let nobody = settings_of(&[], &Vec::new()).unwrap();
    assert_eq!(found(&nobody, "discovery-password").0, "", "what is not set is no secret");
}

#[test]
fn programs_get_values_as_they_are() {
    let line = words(
        "--heartbeat-interval 50 --listen-client-urls http://a:1,http://b:2 --advertise-client-urls http://a:1",
    );
    let settings = settings_of(&line, &Environment::new()).unwrap();
    let of = |name: &str| {
        let setting = settings.iter().find(|setting| setting.name == name).unwrap();
        serde_json::to_value(setting).unwrap()
    };
    let want = json!({
        "name": "heartbeat-interval", "value": 50, "origin": "flag",
        "source": "--heartbeat-interval"
    });
    assert_eq!(of("heartbeat-interval"), want);
    assert_eq!(of("listen-client-urls")["value"], json!(["http://a:1", "http://b:2"]));
    assert_eq!(
        of("strict-reconfig-check"),
        json!({
            "name": "strict-reconfig-check", "value": true, "origin": "default"
        })
    );
}

#[test]
fn what_a_daemon_would_not_start_with_is_refused_with_its_words() {
    for (line, environment, code, text) in [
        ("--nope", Vec::new(), 2, "flag provided but not defined: -nope"),
        ("stray", Vec::new(), 2, "\"stray\" is not a valid flag"),
        ("--election-timeout=x", Vec::new(), 2, "parse error"),
        (
            "",
            variables(&[("ETCD_ELECTION_TIMEOUT", "x")]),
            1,
            "for ETCD_ELECTION_TIMEOUT: parse error",
        ),
        ("--config-file=/nowhere", Vec::new(), 1, "open /nowhere: no such file or directory"),
    ] {
        let why = settings_of(&words(line), &environment).unwrap_err();
        assert_eq!(why.code(), code, "{line}: {why}");
        assert!(why.to_string().contains(text), "{why}");
    }
}

#[test]
fn the_daemons_settings_and_these_are_the_same() {
    let settings = settings_of(&[], &Environment::new()).unwrap();
    let mut config = crate::embed::Config::default();
    derive_defaults(&mut config);
    assert_eq!(found(&settings, "data-dir").0, config.member.data_dir);
    assert_eq!(found(&settings, "initial-cluster").0, config.cluster.initial_cluster);
    assert!(settings.len() > 90, "{} settings", settings.len());
}
