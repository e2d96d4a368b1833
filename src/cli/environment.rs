//! Flags from `ETCD_*` variables (etcd `pkg/flags/flag.go`).

use super::table::{REDACTED, is_secret, variable};
use crate::support::flags::FlagSet;
use crate::support::go::quote::quote;

/// The process's variables, in the order the system has them.
pub type Environment = Vec<(String, String)>;

/// What came of the variables.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// They were taken, as far as they were known.
    Well,
    /// A value was refused; etcd's words.
    Bad(String),
    /// A variable and its flag were both given. etcd stops at once; the line is already logged.
    Conflict,
}

/// Whether `GODEBUG`, Go's variable of comma-separated settings, has `http2debug=1` or `2`: what is said then is said of
/// requests to any server of Go's, and looked for by who debugs a client (golang.org/x/net/http2, `http2.go`).
pub(super) fn asks_for_http2_debug(environment: &Environment) -> bool {
    let settings = environment.iter().find(|(key, _)| key == "GODEBUG").map_or("", |(_, v)| v);
    settings.split(',').any(|setting| matches!(setting, "http2debug=1" | "http2debug=2"))
}

/// Sets each flag that no argument has set from its variable, and says so.
pub(super) fn take(flags: &mut FlagSet, environment: &Environment) -> Taken {
    let value_of = |name: &str| {
        environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    if let Some(value) = value_of("ETCD_VERSION").filter(|value| !value.is_empty()) {
        tracing::warn!(key = "ETCD_VERSION", value, "cannot set special environment variable");
    }
    let names: Vec<&'static str> = flags.names().collect();
    let on_the_line: Vec<String> =
        names.iter().filter(|name| flags.is_set(name)).map(|name| variable(name)).collect();
    let mut used = Vec::new();
    let mut fault = None;
    for name in names {
        let key = variable(name);
        if key == "ETCD_VERSION" || on_the_line.contains(&key) {
            continue;
        }
        let Some(value) = value_of(&key).filter(|value| !value.is_empty()) else { continue };
        match flags.set(name, value) {
            Ok(()) => tracing::info!(
                "variable-name" = key,
                "variable-value" = if is_secret(name) { REDACTED } else { value },
                "recognized and used environment variable"
            ),
            // etcd goes on and keeps the last fault.
            Err(why) => fault = Some(format!("invalid value {} for {key}: {why}", quote(value))),
        }
        used.push(key);
    }
    for (key, value) in environment {
        if used.contains(key) || key == "ETCD_VERSION" {
            continue;
        }
        if on_the_line.contains(key) {
            tracing::error!(
                severity = "fatal",
                "environment-variable" = key,
                "conflicting environment variable is shadowed by corresponding command-line flag \
                 (either unset environment variable or disable flag))"
            );
            return Taken::Conflict;
        }
        if key.starts_with("ETCD_") {
            // Container images hand passwords to their scripts this way.
            let secret = ["PASSWORD", "SECRET", "TOKEN"].iter().any(|word| key.contains(word));
            let pair = format!("{key}={}", if secret { REDACTED } else { value });
            tracing::warn!("environment-variable" = pair, "unrecognized environment variable");
        }
    }
    fault.map_or(Taken::Well, Taken::Bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::defaults;

    fn variables(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_variable_sets_its_flag_and_an_empty_one_does_not() {
        let mut flags = defaults();
        let environment =
            variables(&[("ETCD_NAME", "a"), ("ETCD_DATA_DIR", ""), ("HOME", "/"), ("ETCD_X", "1")]);
        assert_eq!(take(&mut flags, &environment), Taken::Well);
        assert_eq!(flags.text("name"), "a");
        assert!(!flags.is_set("data-dir"));
    }

    #[test]
    fn a_variable_beside_its_flag_is_fatal_even_when_it_is_empty() {
        for value in ["1000", ""] {
            let mut flags = defaults();
            flags.set("election-timeout", "1000").unwrap();
            let environment = variables(&[("ETCD_ELECTION_TIMEOUT", value)]);
            assert_eq!(take(&mut flags, &environment), Taken::Conflict);
        }
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        let mut flags = defaults();
        let environment = variables(&[("ETCD_ELECTION_TIMEOUT", "zz")]);
        let want = "invalid value \"zz\" for ETCD_ELECTION_TIMEOUT: parse error";
        assert_eq!(take(&mut flags, &environment), Taken::Bad(want.to_owned()));
    }
}
