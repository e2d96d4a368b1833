//! How long whoever wants to come in waits for the members that are there.
//!
//! ```text
//!   another one is on its way to its vote ── waits to the end      then: another node is joining
//!   too few are connected for one more ───── waits a while         then: who is away
//! ```

use std::time::Duration;

use quorate_core::api::ids::MemberId;
use tokio::time::{Instant, sleep};

use super::refusals::of_keyspace;
use crate::fleet::error::FleetError;
use crate::keyspace::{Keyspace, KeyspaceError, MemberRefusal};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// A member that was there a moment ago is connected again by then.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct Waiting<'a> {
    keyspace: &'a Keyspace,
    deadline: Instant,
    /// Since when too few are connected.
    away_since: Option<Instant>,
}

impl<'a> Waiting<'a> {
    pub(super) fn until(keyspace: &'a Keyspace, deadline: Instant) -> Waiting<'a> {
        Waiting { keyspace, deadline, away_since: None }
    }

    /// Waits a little, if `why` may pass and there is time.
    pub(super) async fn wait(&mut self, why: MemberRefusal) -> Result<(), FleetError> {
        let now = Instant::now();
        let until = match why {
            MemberRefusal::NotEnoughStarted => {
                self.away_since = None;
                self.deadline
            }
            MemberRefusal::Unhealthy => {
                let since = *self.away_since.get_or_insert(now);
                self.deadline.min(since + CONNECTED_WITHIN)
            }
            MemberRefusal::BadUrls
            | MemberRefusal::IdExists
            | MemberRefusal::PeerUrlExists
            | MemberRefusal::NotFound
            | MemberRefusal::NotLearner
            | MemberRefusal::TooManyLearners
            | MemberRefusal::LearnerNotReady => {
                return Err(of_keyspace(KeyspaceError::Members(why)));
            }
        };
        if now + LOOK < until {
            sleep(LOOK).await;
            return Ok(());
        }
        Err(match self.away_since {
            None => FleetError::AnotherJoins,
            Some(_) => FleetError::Conflict(format!(
                "too few members are connected for another one: {} cannot be reached; wait for it, \
                 or remove it with force",
                self.away()
            )),
        })
    }

    /// The names of those that are not connected.
    fn away(&self) -> String {
        let members = self.keyspace.members();
        let away = members.iter().filter(|member| !self.keyspace.reaches(MemberId(member.id)));
        let names: Vec<&str> = away.map(|member| member.name.as_str()).collect();
        names.join(", ")
    }
}
