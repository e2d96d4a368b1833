use super::*;
use crate::cli::settings::{config, defaults};

fn taken(text: &str) -> FlagSet {
    let mut flags = defaults();
    take_text(&mut flags, text).unwrap();
    flags
}

fn refused(text: &str) -> FileError {
    take_text(&mut defaults(), text).unwrap_err()
}

#[test]
fn keys_are_flag_names_and_unknown_ones_are_skipped() {
    let flags = taken(
        "name: j\nelection-timeout: 2000\nunknown: {a: 1}\nproxy: 'off'\nlog-outputs: [stdout, /tmp/x]\n\
         listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\nwarning-apply-duration: 1000000\n\
         socket-options:\n  reuse-port: true\nstrict-reconfig-check: false\nNAME: other\n",
    );
    let config = config(&flags, true);
    assert_eq!(config.member.name, "j");
    assert_eq!(config.cluster.election_ms, 2000);
    assert_eq!(config.log.outputs, ["stdout", "/tmp/x"]);
    assert_eq!(config.member.listen_client.len(), 2);
    assert_eq!(config.member.warn_apply, GoDuration::from_millis(1));
    assert!(config.member.reuse_port && !config.cluster.strict_reconfig_check);
}

#[test]
fn json_is_taken_too_and_keys_in_any_case() {
    let flags =
        taken(r#"{"Name": "j", "cors": "*", "host-whitelist": "a,b", "listen-peer-urls": ""}"#);
    assert_eq!(flags.text("name"), "j");
    assert_eq!(flags.texts("host-whitelist"), ["a", "b"]);
    assert_eq!(flags.urls("listen-peer-urls"), defaults().urls("listen-peer-urls"));
}

#[test]
fn bad_types_are_refused_in_etcds_words() {
    let json = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal ";
    for (text, want) in [
        (
            "election-timeout: foo",
            "string into Go struct field configYAML.Config.election-timeout of type uint",
        ),
        (
            "strict-reconfig-check: 1",
            "number into Go struct field configYAML.Config.strict-reconfig-check of type bool",
        ),
        (
            "log-outputs: stderr",
            "string into Go struct field configYAML.Config.log-outputs of type []string",
        ),
        (
            "grpc-keepalive-timeout: 5s",
            "string into Go struct field configYAML.Config.grpc-keepalive-timeout of type time.Duration",
        ),
        (
            "client-transport-security: 4",
            "number into Go struct field configYAML.configJSON.client-transport-security of type \
             embed.securityConfig",
        ),
        (
            "snapshot-count: -1",
            "number -1 into Go struct field configYAML.Config.snapshot-count of type uint64",
        ),
        (
            "snapshot-count: 1.5",
            "number 1.5 into Go struct field configYAML.Config.snapshot-count of type uint64",
        ),
        (
            "socket-options:\n  reuse-port: 4\n",
            "number into Go struct field SocketOpts.Config.socket-options.reuse-port of type bool",
        ),
        (
            "discovery-config:\n  token: 4\n",
            "number into Go struct field DiscoveryConfig.Config.discovery-config.token of type string",
        ),
        (
            "discovery-config:\n  client: 4\n",
            "number into Go struct field DiscoveryConfig.Config.discovery-config.client of type \
             clientv3.ConfigSpec",
        ),
        (
            "discovery-config:\n  client:\n    secure: 4\n",
            "number into Go struct field ConfigSpec.Config.discovery-config.client.secure of type \
             clientv3.SecureConfig",
        ),
        (
            "discovery-config:\n  client:\n    secure:\n      cert: 4\n",
            "number into Go struct field SecureConfig.Config.discovery-config.client.secure.cert of type string",
        ),
    ] {
        assert_eq!(refused(text), FileError::Bad(format!("{json}{want}")), "{text}");
    }
    assert_eq!(
        refused("feature-gates: 'Foo=true'"),
        FileError::Bad("unrecognized feature gate: Foo".to_owned())
    );
    let scheme = "unexpected error setting up listen-client-urls: URL scheme must be http, https, unix, \
                  or unixs: foo";
    assert_eq!(refused("listen-client-urls: foo"), FileError::Urls(scheme.to_owned()));
    assert_eq!(
        take(&mut defaults(), "/nonexistent"),
        Err(FileError::Bad("open /nonexistent: no such file or directory".to_owned()))
    );
}

#[test]
fn every_flag_with_a_key_can_be_read_from_a_file() {
    for row in rows() {
        let sample = match row.kind {
            Kind::Bool => "true",
            Kind::Int | Kind::Uint | Kind::Uint32 | Kind::Duration => "7",
            Kind::Urls { .. } => "http://127.0.0.1:7",
            Kind::Texts | Kind::UniqueTexts if row.name != "host-whitelist" => "[seven]",
            Kind::Gates(_) => "AllAlpha=true",
            Kind::OneOf(_) => "existing",
            _ => "seven",
        };
        let text = match row.key {
            Key::None => continue,
            Key::Same => format!("{}: {sample}", row.name),
            Key::In(first, second) => format!("{first}:\n  {second}: {sample}"),
            Key::Deep(first, second, third) => {
                format!("{first}:\n  {second}:\n    {third}: {sample}")
            }
            Key::Deepest(first, second, third, fourth) => {
                format!("{first}:\n  {second}:\n    {third}:\n      {fourth}: {sample}")
            }
        };
        assert!(taken(&text).is_set(row.name), "{}", row.name);
    }
}
