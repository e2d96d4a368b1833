//! A1.5: one member becomes two, of which the second comes late; three become five and three again: under load, with
//! one watch open all the time.
//!
//! ```text
//!   one-to-two      m0 ── add m1 ── writes go on ── m1 starts, leads, is removed ── m0
//!   three-to-five   m0 m1 m2 ── m3 as a learner ── m4 as a voter ── the leader goes, one that is down goes, one is replaced
//!        every step: refused where etcd refuses it, in its words; the longest time without a write
//!   the end         every member tells one history; the watch has seen all of it; everything acknowledged is there
//! ```

mod refusals;
mod stage;
mod stories;
mod watched;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use self::stage::{Limits, Stage};
use crate::cluster::network::permitted;
use crate::member::Workspace;
use crate::verdict::Verdict;

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test, ours or etcd's; etcd's stops writing in the first story until the second member runs.
    #[arg(long)]
    server: PathBuf,
    #[arg(long = "story", value_enum, value_delimiter = ',', default_values_t = [Story::OneToTwo, Story::ThreeToFive])]
    stories: Vec<Story>,
    /// Seconds from the answer to the first story's MemberAdd to the start of the new member.
    #[arg(long, default_value_t = 60.0)]
    late: f64,
    /// A minute's worth: the second member comes after four seconds, and nobody is replaced.
    #[arg(long)]
    short: bool,
    /// Seconds without a successful write that a change may cost.
    #[arg(long, default_value_t = 1.0)]
    gap_max: f64,
    /// Seconds without one that it may cost to remove the leader: one election timeout, and the client's own.
    #[arg(long, default_value_t = 1.5)]
    leader_gap_max: f64,
    /// Seconds after which a removed member has ended by itself.
    #[arg(long, default_value_t = 5.0)]
    exit_max: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// More flags for the server.
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// What happens to the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Story {
    OneToTwo,
    ThreeToFive,
}

impl Options {
    fn late(&self) -> Duration {
        if self.short { Duration::from_secs(4) } else { Duration::from_secs_f64(self.late) }
    }

    fn limits(&self) -> Limits {
        Limits {
            gap: Duration::from_secs_f64(self.gap_max),
            leader_gap: Duration::from_secs_f64(self.leader_gap_max),
            exit: Duration::from_secs_f64(self.exit_max),
        }
    }
}

/// Plays the stories, each with a cluster of its own.
///
/// # Errors
/// What hinders the harness: no namespaces, no binary.
pub(crate) async fn grow(options: Options) -> Result<Verdict> {
    permitted()?;
    ensure!(options.server.is_file(), "no server at {}", options.server.display());
    let mut unknown = None;
    for story in &options.stories {
        println!("{story:?}");
        let workspace = Workspace::create("grow")?;
        let verdict = play(&options, *story, &workspace).await;
        match verdict.unwrap_or_else(|error| Verdict::Invalid(vec![format!("{error:#}")])) {
            Verdict::Valid => {}
            Verdict::Unknown(why) => {
                println!("unknown: {why}");
                unknown = Some(why);
            }
            Verdict::Invalid(mut findings) => {
                findings.push(format!("kept: {}", workspace.path().display()));
                let again: Vec<_> = std::env::args().skip(1).collect();
                findings.push(format!("again: quorate-jepsen {}", again.join(" ")));
                return Ok(Verdict::Invalid(findings));
            }
        }
        workspace.discard()?;
    }
    Ok(unknown.map_or(Verdict::Valid, Verdict::Unknown))
}

async fn play(options: &Options, story: Story, workspace: &Workspace) -> Result<Verdict> {
    let (seats, first, watched): (usize, &[usize], usize) = match story {
        Story::OneToTwo => (3, &[0], 0),
        Story::ThreeToFive => (5, &stories::FIRST, 2),
    };
    let mut stage = Stage::begin(options, workspace.path(), seats, first, watched).await?;
    let told = match story {
        Story::OneToTwo => stories::one_to_two(&mut stage, options.late()).await,
        Story::ThreeToFive => stories::three_to_five(&mut stage, options.short).await,
    };
    if let Err(error) = told {
        stage.findings.push(format!("{error:#}"));
    }
    stage.end().await
}
