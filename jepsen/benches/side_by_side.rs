//! Throughput, p50, p99 and server CPU per call beside a real etcd's: same client, same run, turn by turn.
//!
//! `ETCD_BIN=… cargo bench -p quorate-jepsen --bench side_by_side`, after `cargo build --release`. `QUORATE_BIN` names
//! another server than the one beside the harness.
#![expect(clippy::print_stderr, reason = "a command line tool reports on its standard error")]

use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let harness = PathBuf::from(env!("CARGO_BIN_EXE_quorate-jepsen"));
    let ours = std::env::var_os("QUORATE_BIN")
        .map_or_else(|| harness.with_file_name("quorate"), PathBuf::from);
    let Some(etcd) = std::env::var_os("ETCD_BIN") else {
        eprintln!("ETCD_BIN must name a real etcd to measure beside");
        return ExitCode::FAILURE;
    };
    let mut bench = Command::new(&harness);
    bench.arg("bench").arg("--ours").arg(&ours).arg("--etcd").arg(etcd);
    match bench.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("the bench ended with {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot run {}: {error}", harness.display());
            ExitCode::FAILURE
        }
    }
}
