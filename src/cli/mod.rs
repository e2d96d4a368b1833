//! Floor 8, start: the command line.
//!
//! ```text
//!   arguments ──> flags ──> config file?  yes: it decides alone
//!                              no: ETCD_* variables fill what no flag set
//!                           ──> Config::build ──> Outcome::Start, for the daemon
//! ```
//!
//! Syntax, precedence, messages and exit codes are etcd's (`server/etcdmain/config.go`); the help is our own.

pub mod agent;
pub mod daemon;
mod data_dir;
mod discovered;
pub mod environment;
mod file;
pub mod fleet;
pub mod gateway;
mod help;
pub mod init;
pub mod node;
pub mod proxy;
mod settings;
pub mod table;

use std::io::{self, Write};

use tracing::Dispatch;
use tracing::dispatcher::with_default;

use self::agent::Agent;
use self::environment::{Environment, Taken};
use self::file::FileError;
use self::fleet::Fleet;
use self::gateway::Gateway;
use self::init::Init;
use self::node::NodeDaemon;
use self::proxy::GrpcProxy;
use self::table::{EXPERIMENTAL, REDACTED, Twin, is_secret};
use crate::embed::{ADVERTISE_MISSING, Built};
use crate::service::version;
use crate::support::flags::{FlagSet, ParseError};
use crate::support::go::quote::quote;
use crate::support::spawn::cores;
use crate::support::telemetry::{self, Format, Output, Severity};

/// What the command line came to.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing to start; everything was said.
    Exit(u8),
    /// A server to start, and the threads it asked for.
    Start(Box<Built>, Threads),
    /// `gateway start`.
    Gateway(Box<Gateway>),
    /// `grpc-proxy start`.
    GrpcProxy(Box<GrpcProxy>),
    /// A command to a node of a fleet.
    Fleet(Box<Fleet>),
    /// `daemon`: a managed node.
    Daemon(Box<NodeDaemon>),
    /// `init`: a managed node that begins a cluster.
    Init(Box<Init>),
    /// `agent`.
    Agent(Box<Agent>),
}

/// `--runtime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One thread carries everything but the disk.
    Single,
    /// One thread a core.
    Multi,
}

/// Up to this many cores, one thread is faster than several that hand work to each other.
const SINGLE_THREAD_CORES: usize = 4;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Reads arguments (the program's name first) and variables.
pub fn read(arguments: &[String], environment: &Environment) -> Outcome {
    match arguments.get(1).map(String::as_str) {
        Some("agent") => return sub(agent::read(arguments), Outcome::Agent),
        Some("daemon") => return sub(node::read(arguments), Outcome::Daemon),
        Some("init") => return sub(init::read(arguments), Outcome::Init),
        Some("gateway") => return sub(gateway::read(arguments), Outcome::Gateway),
        Some("grpc-proxy") => return sub(proxy::read(arguments), Outcome::GrpcProxy),
        Some(word) if fleet::is_command(word) => {
            return sub(fleet::read(arguments), Outcome::Fleet);
        }
        Some(_) | None => {}
    }
    let mut flags = settings::defaults();
    let leftover = match flags.parse(arguments.get(1..).unwrap_or_default()) {
        Ok(leftover) => leftover,
        Err(ParseError::Help) => {
            say(&mut io::stderr(), &format!("{}\n", help::USAGE));
            say(&mut io::stdout(), &format!("{}\n", help::flags()));
            return Outcome::Exit(0);
        }
        Err(ParseError::Bad(why)) => {
            say(&mut io::stderr(), &format!("{why}\n{}\n", help::USAGE));
            return Outcome::Exit(EXIT_USAGE);
        }
    };
    let early = early_log();
    if let Some(first) = leftover.first() {
        return failed(&early, arguments, &format!("{} is not a valid flag", quote(first)));
    }
    if flags.bool("version") {
        say(&mut io::stdout(), &version::lines());
        return Outcome::Exit(0);
    }
    match config_file(&flags, environment) {
        Some(path) => from_file(&path, environment, &early, arguments),
        None => from_line(flags, environment, &early, arguments),
    }
}

fn sub<T>(read: Result<T, u8>, outcome: fn(Box<T>) -> Outcome) -> Outcome {
    match read {
        Ok(program) => outcome(Box::new(program)),
        Err(code) => Outcome::Exit(code),
    }
}

/// The file that decides alone, if a flag or a variable names one.
fn config_file(flags: &FlagSet, environment: &Environment) -> Option<String> {
    match flags.text("config-file") {
        path if !path.is_empty() => Some(path),
        _ => environment
            .iter()
            .find(|(key, value)| key == "ETCD_CONFIG_FILE" && !value.is_empty())
            .map(|(_, value)| value.clone()),
    }
}

fn from_file(
    path: &str,
    environment: &Environment,
    early: &Dispatch,
    arguments: &[String],
) -> Outcome {
    let mut flags = settings::defaults();
    match file::take(&mut flags, path) {
        Ok(()) => {}
        Err(FileError::Bad(why)) => return failed(early, arguments, &why),
        Err(FileError::Urls(why)) => {
            say(&mut io::stderr(), &format!("{why}\n"));
            return Outcome::Exit(EXIT_FAILED);
        }
    }
    finish(Given { flags: &flags, file: Some(path), environment }, early, arguments)
}

fn from_line(
    mut flags: FlagSet,
    environment: &Environment,
    early: &Dispatch,
    arguments: &[String],
) -> Outcome {
    let taken = with_default(early, || environment::take(&mut flags, environment));
    match taken {
        Taken::Well => {}
        Taken::Bad(why) => return failed(early, arguments, &why),
        Taken::Conflict => return Outcome::Exit(EXIT_FAILED),
    }
    if let Err(why) = with_default(early, || follow_twins(&mut flags)) {
        return failed(early, arguments, &why);
    }
    if flags.text("discovery-fallback") == "proxy" {
        let why =
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"";
        return failed(early, arguments, why);
    }
    finish(Given { flags: &flags, file: None, environment }, early, arguments)
}

/// Carries the `--experimental-*` spellings over to the flags they became.
fn follow_twins(flags: &mut FlagSet) -> Result<(), String> {
    for (old, twin) in EXPERIMENTAL {
        if !flags.is_set(old) {
            continue;
        }
        tracing::warn!(flag = old, ?twin, "flag has a new name in etcd 3.6 and later");
        match twin {
            Twin::Flag(new) => {
                let value = flags.value(old).clone();
                flags.put(new, value);
            }
            Twin::Gate(gate) => {
                flags.set("feature-gates", &format!("{gate}={}", flags.bool(old)))?;
            }
        }
    }
    Ok(())
}

/// All that tells the server what it is to be.
struct Given<'a> {
    flags: &'a FlagSet,
    file: Option<&'a str>,
    environment: &'a Environment,
}

fn finish(given: Given<'_>, early: &Dispatch, arguments: &[String]) -> Outcome {
    let Given { flags, file, environment } = given;
    let mut config = settings::config(flags, file.is_some());
    config.member.http2_debug = environment::asks_for_http2_debug(environment);
    let built = config.build();
    let log = match &built {
        Ok(built) => built.log().clone(),
        // A file's own log is only used once the file is good, as in etcd.
        Err(refused) if file.is_none() => refused.log.clone().unwrap_or_else(|| early.clone()),
        Err(_) => early.clone(),
    };
    with_default(&log, || {
        if let (Some(path), Ok(_)) = (file, &built) {
            tracing::info!(
                path,
                "loaded server configuration, other configuration command line flags and \
                 environment variables will be ignored if provided"
            );
        }
        if built.is_ok() || file.is_none() {
            warn(flags);
        }
    });
    match built {
        Ok(built) => {
            with_default(&log, || tracing::info!(args = ?shown(arguments), "Running: "));
            Outcome::Start(Box::new(built), threads(&flags.text("runtime")))
        }
        Err(refused) => failed(&log, arguments, &refused.to_string()),
    }
}

fn warn(flags: &FlagSet) {
    if flags.is_set("max-snapshots") {
        tracing::warn!("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.");
    }
    if flags.is_set("v2-deprecation") {
        tracing::warn!(
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is \
             enforced, ignoring user input."
        );
    }
    for name in settings::without_effect(flags) {
        tracing::warn!(flag = name, "flag has no effect here");
    }
}

fn failed(log: &Dispatch, arguments: &[String], why: &str) -> Outcome {
    with_default(log, || {
        tracing::info!(args = ?shown(arguments), "Running: ");
        tracing::warn!(error = why, "failed to verify flags");
        if why == ADVERTISE_MISSING {
            tracing::warn!(error = why, "advertise client URLs are not set");
        }
    });
    Outcome::Exit(EXIT_FAILED)
}

/// The arguments, as one may log them: secrets are left out.
fn shown(arguments: &[String]) -> Vec<String> {
    let mut hide_next = false;
    arguments
        .iter()
        .map(|argument| {
            let hide = std::mem::take(&mut hide_next);
            let flag = argument.split_once('=').map_or(argument.as_str(), |(flag, _)| flag);
            let secret = flag.starts_with('-') && is_secret(flag.trim_start_matches('-'));
            hide_next = secret && flag == argument;
            if hide {
                REDACTED.to_owned()
            } else if secret && !hide_next {
                format!("{flag}={REDACTED}")
            } else {
                argument.clone()
            }
        })
        .collect()
}

fn threads(word: &str) -> Threads {
    match word {
        "single" => Threads::Single,
        "multi" => Threads::Multi,
        _ if cores() <= SINGLE_THREAD_CORES => Threads::Single,
        _ => Threads::Multi,
    }
}

/// The log before anybody knows which log is wanted.
fn early_log() -> Dispatch {
    telemetry::dispatch(Severity::Info, Format::Json, &[Output::Stderr])
        .expect("standard error is always there")
}

/// A sub-command's flags from the whole command line; otherwise the exit code, after all was said.
fn parsed<F: clap::Parser>(arguments: &[String]) -> Result<F, u8> {
    F::try_parse_from(arguments.iter().skip(1)).map_err(|why| {
        if why.use_stderr() {
            say(&mut io::stderr(), &why.to_string());
            EXIT_USAGE
        } else {
            say(&mut io::stdout(), &why.to_string());
            0
        }
    })
}

fn say(to: &mut impl Write, text: &str) {
    // Nowhere is left to say that nobody listens.
    let _ = to.write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_on_the_command_line_are_not_shown() {
        let line = |text: &str| {
            let arguments: Vec<String> = text.split(' ').map(str::to_owned).collect();
            shown(&arguments).join(" ")
        };
        for (given, want) in [
            ("--discovery-user=root:hunter2 --name=a", "--discovery-user=[redacted] --name=a"),
            ("-discovery-user root:hunter2 --name=a", "-discovery-user [redacted] --name=a"),
            ("--discovery-password=hunter=2 --name=a", "--discovery-password=[redacted] --name=a"),
            ("--discovery-password hunter=2 --name=a", "--discovery-password [redacted] --name=a"),
            ("--name discovery-user a:b", "--name discovery-user a:b"),
            ("--discovery-token=t --data-dir /x", "--discovery-token=t --data-dir /x"),
        ] {
            assert_eq!(line(given), want);
        }
    }
}
