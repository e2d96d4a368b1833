//! The commands of a fleet's operator: they ask a node's API over its unix socket.
//!
//! ```text
//!   quorate WORD ... ── line ──> Fleet::run ─┬─ api ──> <state-dir>/api.sock ──> answer ── format ──> stdout
//!                                            ├─ origin, pages: nobody is asked
//!                                            └─ Failure ──> "Error: ..." on stderr, and an exit code
//! ```
//!
//! Words and order are those of Canonical's `k8s`, so that its users find their way; flags and texts are ours.
//!
//! **Invariant:** a command holds no rule of the fleet: what may be, the node says. Nothing here reads or writes the
//! state directory but the socket and the node's token.

mod api;
mod certificates;
mod entry;
mod failure;
mod format;
mod journal;
mod line;
mod origin;
mod pages;
mod rows;
mod settings;
mod spans;
mod sse;
mod status;
mod table;
mod tokens;
mod words;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use serde_json::json;

use self::api::{Api, GRACE};
use self::failure::Failure;
use self::format::Answer;
use self::line::{Capi, Command, Config, Globals, Line, Operation, Status};
use super::environment::Environment;
use super::{EXIT_USAGE, say};

pub use self::line::DEFAULT_STATE_DIR;
pub use self::rows::ROWS;

/// The name of the socket in a state directory.
const SOCKET: &str = "api.sock";

/// A command that was read.
#[derive(Debug)]
pub struct Fleet {
    line: Line,
}

/// Whether the first argument is a command of this folder.
pub fn is_command(word: &str) -> bool {
    let command = Line::command();
    word == "help"
        || command
            .get_subcommands()
            .any(|sub| sub.get_name() == word || sub.get_all_aliases().any(|alias| alias == word))
}

/// Every command with its arguments, for tables of them.
pub fn commands() -> clap::Command {
    let mut command = Line::command();
    command.build();
    command
}

/// The programs that make and watch nodes, with their arguments: for tables, too.
pub fn daemons() -> [clap::Command; 3] {
    pages::daemons()
}

/// Reads the command line (the program's name first, then the command); otherwise the exit code, after all was said.
pub fn read(arguments: &[String]) -> Result<Fleet, u8> {
    match Line::try_parse_from(arguments) {
        Ok(line) => Ok(Fleet { line }),
        Err(why) if !why.use_stderr() => {
            say(&mut io::stdout(), &why.to_string());
            Err(0)
        }
        Err(why) => {
            say(&mut io::stderr(), &why.to_string());
            Err(EXIT_USAGE)
        }
    }
}

impl Fleet {
    /// Does what was asked; the exit code, after all was said.
    pub async fn run(self, environment: &Environment) -> u8 {
        let format = self.line.globals.output_format;
        let text = match self.answer(environment).await {
            Ok(Some(answer)) => answer.text(format),
            Ok(None) => return 0,
            Err(failure) => Err(failure),
        };
        match text {
            Ok(text) => {
                say(&mut io::stdout(), &text);
                0
            }
            Err(failure) => {
                say(&mut io::stderr(), &format!("Error: {failure}\n"));
                failure.code()
            }
        }
    }

    /// `None`: it has been written already.
    async fn answer(self, environment: &Environment) -> Result<Option<Answer>, Failure> {
        let Line { globals, command } = self.line;
        let api = Api::new(globals.state_dir.join(SOCKET), globals.timeout);
        let (doing, patience) = (command.word(), command.patience(&globals));
        let work = Box::pin(act(&api, &globals, command, environment));
        match patience {
            None => work.await,
            Some(patience) => match tokio::time::timeout(patience, work).await {
                Ok(answer) => answer,
                Err(_elapsed) => {
                    Err(Failure::TimedOut { doing: doing.to_owned(), after: globals.timeout })
                }
            },
        }
    }
}

async fn act(
    api: &Api,
    globals: &Globals,
    command: Command,
    environment: &Environment,
) -> Result<Option<Answer>, Failure> {
    let answer = match command {
        Command::Bootstrap(entry) => {
            let tell = tells(entry.progress);
            with_progress(api, tell, Box::pin(entry::bootstrap(api, entry))).await
        }
        Command::JoinCluster(join) => {
            let tell = tells(join.entry.progress);
            with_progress(api, tell, Box::pin(entry::join(api, join))).await
        }
        Command::GetJoinToken(join) => entry::join_token(api, join).await,
        Command::RemoveNode(remove) => {
            with_progress(api, tells(false), Box::pin(entry::remove(api, remove))).await
        }
        Command::Status(Status { wait_ready: true }) => {
            status::wait_ready(api, globals.timeout).await
        }
        Command::Status(Status { wait_ready: false }) => status::status(api).await,
        Command::NodeStatus => status::node(api).await,
        Command::Info { wait: true } => status::wait_info(api, globals.timeout).await,
        Command::Info { wait: false } => status::info(api).await,
        Command::Nodes => status::nodes(api).await,
        Command::Tokens => tokens::joining(api).await,
        Command::Config(Config::Get { key }) => settings::get(api, key).await,
        Command::Config(Config::Set { pairs, file }) => settings::set(api, pairs, file).await,
        Command::Config(Config::Show { origin, changed, flags }) => {
            show(&flags, environment, origin, changed)
        }
        Command::CertsStatus => certificates::status(api).await,
        Command::RefreshCerts(refresh) => certificates::refresh(api, refresh).await,
        Command::AuthToken(command) => tokens::auth(api, command).await,
        Command::Capi(command) => tokens::capi(api, &globals.state_dir, command).await,
        Command::Audit { limit } => journal::audit(api, limit).await,
        Command::Operation(command) => {
            journal::operation(api, command, globals.timeout.to_std().as_secs()).await
        }
        Command::Man { out } => pages::man(&out).map(|written| {
            let plain = written.join("\n") + "\n";
            Answer::said(json!(written), plain)
        }),
        Command::Events(events) => {
            journal::follow(api, events, globals.output_format).await?;
            return Ok(None);
        }
        Command::Completion { shell } => {
            pages::completion(shell);
            return Ok(None);
        }
    };
    answer.map(Some)
}

/// Whether steps are told: where somebody sees them, or asks for them.
fn tells(asked: bool) -> bool {
    asked || io::stderr().is_terminal()
}

async fn with_progress(
    api: &Api,
    tell: bool,
    work: impl Future<Output = Result<Answer, Failure>>,
) -> Result<Answer, Failure> {
    if tell { journal::told(api, work).await } else { work.await }
}

fn show(
    flags: &[String],
    environment: &Environment,
    origin: bool,
    changed: bool,
) -> Result<Answer, Failure> {
    let mut settings = origin::settings_of(flags, environment)?;
    if changed {
        settings.retain(|setting| setting.origin != origin::Origin::Default);
    }
    Ok(Answer::said(origin::metadata(&settings, origin)?, origin::plain(&settings, origin)))
}

impl Command {
    fn word(&self) -> &'static str {
        match self {
            Command::Bootstrap(_) => "the bootstrap",
            Command::JoinCluster(_) => "the join",
            Command::RemoveNode(_) => "the removal",
            Command::Config(Config::Set { .. }) => "the change",
            Command::RefreshCerts(_) => "the renewal",
            Command::GetJoinToken(_)
            | Command::Status(_)
            | Command::NodeStatus
            | Command::Info { .. }
            | Command::Nodes
            | Command::Tokens
            | Command::Config(Config::Get { .. } | Config::Show { .. })
            | Command::CertsStatus
            | Command::AuthToken(_)
            | Command::Capi(_)
            | Command::Events(_)
            | Command::Audit { .. }
            | Command::Operation(_)
            | Command::Completion { .. }
            | Command::Man { .. } => "the request",
        }
    }

    /// How long it may take; `None` for what asks nobody, or goes on until it is interrupted. Where the node keeps to
    /// `--timeout` it gets a little more, because its word says more than our own.
    fn patience(&self, globals: &Globals) -> Option<Duration> {
        let timeout = globals.timeout.to_std();
        match self {
            Command::Bootstrap(_)
            | Command::JoinCluster(_)
            | Command::RemoveNode(_)
            | Command::Capi(Capi::RemoveNode { .. })
            | Command::Status(Status { wait_ready: true })
            | Command::Info { wait: true }
            | Command::Operation(Operation::Wait { .. }) => Some(timeout + GRACE),
            Command::Status(Status { wait_ready: false })
            | Command::GetJoinToken(_)
            | Command::NodeStatus
            | Command::Info { wait: false }
            | Command::Nodes
            | Command::Tokens
            | Command::Config(Config::Get { .. } | Config::Set { .. })
            | Command::CertsStatus
            | Command::RefreshCerts(_)
            | Command::AuthToken(_)
            | Command::Capi(_)
            | Command::Audit { .. }
            | Command::Operation(_) => Some(timeout),
            Command::Events(_)
            | Command::Config(Config::Show { .. })
            | Command::Completion { .. }
            | Command::Man { .. } => None,
        }
    }
}

#[cfg(test)]
#[path = "fleet_test.rs"]
mod tests;
