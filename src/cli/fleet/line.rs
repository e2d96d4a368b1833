//! The commands of a fleet's operator, as clap reads them.
//!
//! ```text
//!   quorate WORD ... ──> Line { globals, command } ── run ──> one request, or a few, to the node's API
//! ```
//!
//! **Invariant:** what is secret is read into a [`Sensitive`], also on its way through the parser: no log and no complaint
//! of ours shows it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::spans::{expiry, span};
use crate::fleet::api::Sensitive;
use crate::support::go::duration::GoDuration;

/// Where a node keeps what it is, unless it is told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/quorate";

/// The whole command line behind the program's name.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    about = "Runs a fleet of nodes, and asks it",
    disable_version_flag = true,
    arg_required_else_help = true,
    after_help = "Programs of their own, each with --help: daemon, init, agent, gateway, grpc-proxy.\n\
                  Without a command, quorate is etcd: quorate --help lists its flags."
)]
pub(super) struct Line {
    #[command(flatten)]
    pub(super) globals: Globals,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where the help lists what every command takes.
const EVERYWHERE: &str = "Every command";

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub(super) struct Globals {
    /// State directory of the node that is asked; its socket is api.sock in there
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = DEFAULT_STATE_DIR,
        help_heading = EVERYWHERE,
        value_hint = clap::ValueHint::DirPath
    )]
    pub(super) state_dir: PathBuf,
    /// For people, or the answer's metadata for programs
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value = "plain", help_heading = EVERYWHERE)]
    pub(super) output_format: Format,
    /// How long the command may take, such as 90s or 2m30s
    #[arg(long, global = true, value_name = "DURATION", default_value = "1m30s", value_parser = span, help_heading = EVERYWHERE)]
    pub(super) timeout: GoDuration,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    // No more than their names, so that the help stays short.
    Plain,
    Json,
    Yaml,
}

/// What is asked for.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make this node the first of a new fleet
    Bootstrap(Entry),
    /// Create a token with which a node joins this fleet
    GetJoinToken(JoinToken),
    /// List the tokens with which nodes may join
    Tokens,
    /// Make this node one of an existing fleet
    JoinCluster(JoinCluster),
    /// Remove a node from the fleet
    RemoveNode(Removal),
    /// Show how the fleet is
    Status(Status),
    /// Show what this node is
    #[command(visible_alias = "local-node-status")]
    NodeStatus,
    /// Show which daemon answers, and what it is at
    Info {
        /// Wait until one answers, as long as --timeout allows
        #[arg(long)]
        wait: bool,
    },
    /// List the nodes of the fleet
    Nodes,
    /// Show and change settings
    #[command(subcommand)]
    Config(Config),
    /// Show when this node's certificates expire
    CertsStatus,
    /// Renew this node's certificates, or put in others
    RefreshCerts(RefreshCerts),
    /// Create, revoke and check tokens of users
    #[command(subcommand)]
    AuthToken(AuthToken),
    /// What a Cluster API provider asks for
    #[command(subcommand)]
    Capi(Capi),
    /// Follow the node's events until interrupted
    Events(Events),
    /// Show who changed what on this node
    Audit {
        /// The last so many calls
        #[arg(long, value_name = "N", default_value = "100")]
        limit: u32,
    },
    /// Look at what the node was asked to do meanwhile
    #[command(subcommand)]
    Operation(Operation),
    /// Write a shell's completions to standard output
    Completion {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    Man {
        /// Folder that they are written to; it is made if it is not there
        #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
        out: PathBuf,
    },
}

/// How a node comes into a fleet.
#[derive(Args, Debug)]
pub(super) struct Entry {
    /// The node's name in the fleet; what the daemon was given, or the host's, if left out
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Address at which the other nodes reach this node's API; what the daemon was given, if left out
    #[arg(long, value_name = "ADDRESS")]
    pub(super) address: Option<String>,
    /// YAML or JSON file with settings; - reads standard input
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) file: Option<PathBuf>,
    /// Tell on standard error how far it is, also where that is no terminal
    #[arg(long)]
    pub(super) progress: bool,
}

#[derive(Args, Debug)]
pub(super) struct JoinToken {
    /// Name of the node that may join with it; a worker's may be left out
    #[arg(value_name = "NAME", required_unless_present = "worker")]
    pub(super) name: Option<String>,
    /// For a worker: a node that holds no data and carries clients to those that do
    #[arg(long)]
    pub(super) worker: bool,
    /// Time until it expires
    #[arg(long, value_name = "DURATION", default_value = "24h0m0s", value_parser = span)]
    pub(super) expires_in: GoDuration,
}

#[derive(Args, Debug)]
pub(super) struct JoinCluster {
    /// The one from get-join-token.
    #[command(flatten)]
    pub(super) token: TokenSource,
    #[command(flatten)]
    pub(super) entry: Entry,
}

#[derive(Args, Debug)]
pub(super) struct Removal {
    /// Name of the node
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// Remove it although it does not answer: it cannot clear its state directory then
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Args, Debug)]
pub(super) struct Status {
    /// Wait until the fleet is ready, as long as --timeout allows
    #[arg(long)]
    pub(super) wait_ready: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Show the fleet's settings
    Get {
        /// Only this one, such as dns.cluster-domain
        #[arg(value_name = "KEY")]
        key: Option<String>,
    },
    /// Change some of the fleet's settings; the others stay
    Set {
        /// Settings, such as dns.enabled=true or dns.upstream-nameservers=[1.1.1.1]
        #[arg(value_name = "KEY=VALUE", required_unless_present = "file")]
        pairs: Vec<String>,
        /// YAML or JSON file with settings; - reads standard input
        #[arg(
            long,
            value_name = "FILE",
            conflicts_with = "pairs",
            value_hint = clap::ValueHint::FilePath
        )]
        file: Option<PathBuf>,
    },
    /// Show the settings that a daemon started like etcd would have
    Show {
        /// Add where each one comes from: a flag, a variable, the file, the default
        #[arg(long)]
        origin: bool,
        /// Only those that are not at their defaults
        #[arg(long)]
        changed: bool,
        /// The daemon's flags, behind --
        #[arg(last = true, value_name = "FLAGS")]
        flags: Vec<String>,
    },
}

#[derive(Args, Debug)]
pub(super) struct RefreshCerts {
    /// Which ones, parted by commas, such as server,peer; ca: the fleet's authority, and all that it signed; all of this
    /// node if left out
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) certificates: Vec<String>,
    /// How long the new ones are good for, such as 1y, 6mo, 90d or 12h
    #[arg(long, value_name = "DURATION", value_parser = expiry)]
    pub(super) expires_in: Option<GoDuration>,
    /// Names and addresses that they are good for besides, parted by commas
    #[arg(long, value_name = "SANS", value_delimiter = ',')]
    pub(super) extra_sans: Vec<String>,
    /// Only show what would be renewed
    #[arg(long)]
    pub(super) plan: bool,
    /// YAML or JSON file with certificates and keys to use instead; - reads standard input
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["certificates", "expires_in", "extra_sans", "plan"],
        value_hint = clap::ValueHint::FilePath
    )]
    pub(super) external_certificates: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuthToken {
    /// Create a user's token, or show the one there is
    Create {
        /// User name
        #[arg(long, value_name = "NAME")]
        username: String,
        /// Groups, parted by commas
        #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
        groups: Vec<String>,
    },
    /// Revoke a token
    Revoke(TokenSource),
    /// Show whose a token is
    Review(TokenSource),
}

/// Where a secret comes from.
#[derive(Args, Debug)]
pub(super) struct TokenSource {
    /// The token; - reads it from standard input, which `ps` does not show
    #[arg(value_name = "TOKEN", required_unless_present = "token_file")]
    pub(super) token: Option<Sensitive>,
    /// File that holds the token
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "token",
        value_hint = clap::ValueHint::FilePath
    )]
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Capi {
    /// Set the token that a provider presents
    SetToken(TokenSource),
    /// Create a join token, as a provider does
    GenerateJoinToken {
        #[command(flatten)]
        join: JoinToken,
        /// File that holds the provider's token
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        auth_token_file: PathBuf,
    },
    /// Remove a node, as a provider does
    RemoveNode {
        #[command(flatten)]
        remove: Removal,
        /// File that holds the provider's token
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        auth_token_file: PathBuf,
    },
    /// Show when this node's certificates expire, by the node's own token
    CertificatesExpiry,
}

#[derive(Args, Debug)]
pub(super) struct Events {
    /// Begin behind the event of this number; 0 begins with all that the node remembers
    #[arg(long, value_name = "ID")]
    pub(super) after: Option<u64>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Operation {
    /// List them
    List,
    /// Show one
    Show {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Wait until one has ended, as long as --timeout allows
    Wait {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Forget one that has ended
    Delete {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
    },
}
