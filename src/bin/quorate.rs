//! The program: reads the command line, picks the runtime, runs one server, node, gateway, proxy or command.

use std::io::{self, Write as _};
use std::process::ExitCode;

use quorate::cli::environment::Environment;
use quorate::cli::{Outcome, Threads, daemon, read};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let environment: Environment = std::env::vars_os()
        .map(|(key, value)| {
            (key.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect();
    match read(&arguments, &environment) {
        Outcome::Exit(code) => code.into(),
        Outcome::Start(built, threads) => {
            let runtime = match runtime(threads) {
                Ok(runtime) => runtime,
                Err(why) => {
                    tracing::dispatcher::with_default(built.log(), || {
                        tracing::error!(severity = "fatal", error = %why, "cannot start threads");
                    });
                    return ExitCode::FAILURE;
                }
            };
            let code = runtime.block_on(daemon::run(built.log_for_process(), &environment));
            // What a failed server could not join would hold the process.
            runtime.shutdown_background();
            code.into()
        }
        Outcome::Gateway(gateway) => block_on(Threads::Multi, gateway.run(&environment)),
        Outcome::Fleet(fleet) => block_on(Threads::Single, fleet.run(&environment)),
        Outcome::Agent(agent) => block_on(Threads::Single, agent.run(&environment)),
        Outcome::Init(init) => block_on(Threads::Multi, init.run(&environment)),
        Outcome::Daemon(daemon) => block_on(Threads::Multi, daemon.run(&environment)),
        Outcome::GrpcProxy(proxy) => block_on(Threads::Multi, proxy.run(&environment)),
    }
}

/// Runs to the exit code. What has not ended by then ends with the process: connections that are carried, a read of
/// standard input, what a failed node could not join.
fn block_on(threads: Threads, run: impl Future<Output = u8>) -> ExitCode {
    match runtime(threads) {
        Ok(runtime) => {
            let code = runtime.block_on(run);
            runtime.shutdown_background();
            code.into()
        }
        Err(why) => {
            // Nowhere is left to say that nobody listens.
            let _ = writeln!(io::stderr(), "Error: cannot start threads: {why}");
            ExitCode::FAILURE
        }
    }
}

fn runtime(threads: Threads) -> io::Result<Runtime> {
    let mut builder = match threads {
        Threads::Single => Builder::new_current_thread(),
        Threads::Multi => Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}
