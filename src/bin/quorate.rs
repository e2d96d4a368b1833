//! The program: reads the command line, picks the runtime, runs one server, gateway, proxy or command.

use std::io;
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
        Outcome::Gateway(gateway) => match runtime(Threads::Multi) {
            Ok(runtime) => {
                let code = runtime.block_on(gateway.run(&environment));
                // Connections that are being carried end with the process.
                runtime.shutdown_background();
                code.into()
            }
            Err(_) => ExitCode::FAILURE,
        },
        Outcome::Fleet(fleet) => match runtime(Threads::Single) {
            Ok(runtime) => {
                let code = runtime.block_on(fleet.run(&environment));
                // A read of standard input cannot be interrupted.
                runtime.shutdown_background();
                code.into()
            }
            Err(_) => ExitCode::FAILURE,
        },
        Outcome::Init(init) => match runtime(Threads::Multi) {
            Ok(runtime) => {
                let code = runtime.block_on(init.run(&environment));
                runtime.shutdown_background();
                code.into()
            }
            Err(_) => ExitCode::FAILURE,
        },
        Outcome::Agent(agent) => match runtime(Threads::Single) {
            Ok(runtime) => runtime.block_on(agent.run(&environment)).into(),
            Err(_) => ExitCode::FAILURE,
        },
        Outcome::GrpcProxy(proxy) => match runtime(Threads::Multi) {
            Ok(runtime) => {
                let code = runtime.block_on(proxy.run(&environment));
                runtime.shutdown_background();
                code.into()
            }
            Err(_) => ExitCode::FAILURE,
        },
    }
}

fn runtime(threads: Threads) -> io::Result<Runtime> {
    let mut builder = match threads {
        Threads::Single => Builder::new_current_thread(),
        Threads::Multi => Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}
