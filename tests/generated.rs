//! The checked-in generated code says what `proto/` says.
//!
//! Messages live in the core crate, services and the JSON gateway's tables here; all are made by protox and prost in pure Rust, so that
//! nobody needs protoc. `UPDATE_GENERATED=1 cargo test --test generated` rewrites them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use protox::prost_reflect::prost_types::FileDescriptorSet;

#[path = "generated/gateway.rs"]
mod gateway;

const PROTO_FILES: [&str; 7] = [
    "kv.proto",
    "auth.proto",
    "rpc.proto",
    "v3lock.proto",
    "v3election.proto",
    "health.proto",
    "internal.proto",
];

const CORE_PB: &str = "::quorate_core::api::pb";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Messages with passwords, hashes or tokens: `src/core/api/secret.rs` says how they are shown.
const SECRETS: [&str; 11] = [
    ".etcdserverpb.AuthenticateRequest",
    ".etcdserverpb.AuthenticateResponse",
    ".etcdserverpb.AuthUserAddRequest",
    ".etcdserverpb.AuthUserChangePasswordRequest",
    ".authpb.User",
    ".quorate.internal.AuthUserAdd",
    ".quorate.internal.AuthUserChangePassword",
    ".quorate.internal.AuthLogin",
    ".quorate.internal.FleetAuthority",
    ".quorate.internal.FleetTokenIssue",
    ".quorate.internal.FleetAuthTokenIssue",
];

/// The files and what they import, without Google's: those only say which paths the gateway has.
fn compile(files: &[&str]) -> FileDescriptorSet {
    let mut descriptors = protox::compile(files, [root().join("proto")]).expect("proto/ compiles");
    descriptors.file.retain(|file| !file.package().starts_with("google."));
    descriptors
}

fn generate_messages(out: &Path) {
    let descriptors = compile(&PROTO_FILES);
    prost_build::Config::new()
        .bytes(["."])
        .disable_comments(["."])
        .skip_debug(SECRETS)
        .out_dir(out)
        .compile_fds(descriptors)
        .expect("messages are generated");
}

fn generate_services(out: &Path) {
    let descriptors = compile(&PROTO_FILES);
    let mut config = prost_build::Config::new();
    config.bytes(["."]).disable_comments(["."]);
    for (package, module) in [
        (".etcdserverpb", "etcdserverpb"),
        (".mvccpb", "mvccpb"),
        (".authpb", "authpb"),
        (".v3lockpb", "v3lockpb"),
        (".v3electionpb", "v3electionpb"),
        (".grpc.health.v1", "health"),
        (".quorate.internal", "internal"),
    ] {
        config.extern_path(package, format!("{CORE_PB}::{module}"));
    }
    tonic_prost_build::configure()
        .disable_comments(["."])
        .out_dir(out)
        .compile_fds_with_config(descriptors, config)
        .expect("services are generated");
    let gateway = gateway::tables(&PROTO_FILES, &root().join("proto"));
    fs::write(out.join("gateway.rs"), gateway).expect("the gateway's tables are written");
}

/// The fault harness speaks only over the wire: it has a client of its own and no crate of ours below it.
fn generate_harness_client(out: &Path) {
    let files = ["kv.proto", "auth.proto", "rpc.proto"];
    let descriptors = compile(&files);
    let mut config = prost_build::Config::new();
    config.bytes(["."]).disable_comments(["."]);
    tonic_prost_build::configure()
        .build_server(false)
        .out_dir(out)
        .compile_fds_with_config(descriptors, config)
        .expect("the harness's client is generated");
}

fn rust_files(dir: &Path) -> BTreeMap<String, String> {
    fs::read_dir(dir)
        .expect("the folder of generated code exists")
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs") && !path.ends_with("mod.rs"))
        .map(|path| {
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("generated code is text"))
        })
        .filter(|(_, text)| text.lines().count() > 1)
        .collect()
}

fn check(generate: fn(&Path), checked_in: &Path) {
    let fresh = tempfile::tempdir().expect("a temporary folder");
    generate(fresh.path());
    let fresh = rust_files(fresh.path());
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        for (name, text) in &fresh {
            fs::write(checked_in.join(name), text).expect("generated code is written");
        }
    }
    assert!(!fresh.is_empty(), "nothing was generated for {}", checked_in.display());
    assert_eq!(
        rust_files(checked_in),
        fresh,
        "{} is stale: UPDATE_GENERATED=1 cargo test --test generated",
        checked_in.display()
    );
}

#[test]
fn messages_of_the_core_crate_are_fresh() {
    check(generate_messages, &root().join("src/core/api/pb"));
}

#[test]
fn services_are_fresh() {
    check(generate_services, &root().join("src/service/pb"));
}

#[test]
fn client_of_the_harness_is_fresh() {
    check(generate_harness_client, &root().join("jepsen/src/pb"));
}
