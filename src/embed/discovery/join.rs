//! The steps of joining, over a [`Registry`].
//!
//! ```text
//!   size, members ── full without us? ──> refused
//!   register ── size, members ── full before us? ──> refused
//!                             └─ too few: watch ──> the first so many
//! ```
//!
//! A service that does not answer is asked again after 2, 4, 8 … 256 s, for ever: the members of a cluster and its
//! discovery service may be started in any order.

use std::time::Duration;

use quorate_core::api::ids::MemberId;

use super::Fault;
use super::registry::{Prefix, Registry, Unanswered};
use super::roster::Roster;
use crate::support::go::duration::GoDuration;

/// From so many tries on the time between two of them does not grow any more.
const GROWING_TRIES: u32 = 8;

/// One member on its way in.
pub(super) struct Joining<R> {
    registry: R,
    prefix: Prefix,
    key: String,
    tries: u32,
}

/// The first members, once they have all registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::embed) struct Joined {
    /// As `--initial-cluster` would list them.
    pub(in crate::embed) listed: String,
    /// How many the service wants.
    pub(in crate::embed) size: usize,
}

/// What the service knows of a cluster.
struct Found {
    roster: Roster,
    size: usize,
    revision: i64,
}

impl<R: Registry> Joining<R> {
    pub(super) fn new(registry: R, prefix: Prefix, id: MemberId) -> Joining<R> {
        let key = prefix.member(&id.to_string());
        Joining { registry, prefix, key, tries: 0 }
    }

    /// Registers as `own` and returns the first members once there are enough.
    pub(super) async fn join(mut self, own: &str) -> Result<Joined, Fault> {
        self.check().await?;
        self.register(own).await;
        let Found { mut roster, size, revision } = self.check().await?;
        if roster.len() < size {
            self.wait(&mut roster, size, revision).await;
        }
        Ok(Joined { listed: roster.initial_cluster(size)?, size })
    }

    /// What is registered; refused if the cluster is full without this member.
    async fn check(&mut self) -> Result<Found, Fault> {
        loop {
            if let Some(size) = self.size().await?
                && let Some((roster, revision)) = self.members().await
            {
                self.tries = 0;
                if roster.is_full_for(&self.key, size) {
                    return Err(Fault::Full);
                }
                return Ok(Found { roster, size, revision });
            }
            self.back_off("cluster status check").await;
        }
    }

    /// How many members are wanted; `None` if the service did not say.
    async fn size(&mut self) -> Result<Option<usize>, Fault> {
        match self.registry.size().await {
            Ok(None) => Err(Fault::NoSize),
            Ok(Some(text)) => {
                let size = text.parse::<i64>().ok().filter(|size| *size > 0);
                let size = size.and_then(|size| usize::try_from(size).ok());
                size.map(Some).ok_or(Fault::BadSize)
            }
            Err(why) => {
                tracing::warn!(
                    "clusterSizeKey" = self.prefix.size(),
                    error = %why,
                    "failed to get cluster size from discovery service"
                );
                Ok(None)
            }
        }
    }

    async fn members(&mut self) -> Option<(Roster, i64)> {
        let members = self.prefix.members();
        match self.registry.members().await {
            Ok((found, revision)) => {
                let mut roster = Roster::default();
                for entry in found {
                    roster.take(entry, &members);
                }
                Some((roster, revision))
            }
            Err(why) => {
                tracing::warn!(
                    "membersKeyPrefix" = members,
                    error = %why,
                    "failed to get cluster members from discovery service"
                );
                None
            }
        }
    }

    async fn register(&mut self, own: &str) {
        while let Err(why) = self.registry.register(&self.key, own).await {
            tracing::warn!(
                "memberKey" = self.key,
                error = %why,
                "failed to register members itself to the discovery service"
            );
            self.back_off("register member itself").await;
        }
        self.tries = 0;
        tracing::info!(
            "memberKey" = self.key,
            "memberInfo" = own,
            "register member itself successfully"
        );
    }

    /// Takes in members as they register, until there are `size`.
    async fn wait(&mut self, roster: &mut Roster, size: usize, mut revision: i64) {
        tracing::info!(
            "clusterSize" = size,
            "found-peers" = roster.len(),
            "waiting for peers from discovery service"
        );
        while let Err(why) = self.watch(roster, size, revision).await {
            tracing::warn!(
                "membersKeyPrefix" = self.prefix.members(),
                error = %why,
                "failed to watch cluster members at discovery service"
            );
            self.back_off("wait for peers").await;
            // The revisions after `revision` may be compacted by now.
            if let Ok((found, now)) = self.registry.members().await {
                roster.add_missing(found, &self.prefix.members());
                revision = now;
            }
        }
        tracing::info!(
            "clusterSize" = size,
            "found-peers" = roster.len(),
            "found all needed peers from discovery service"
        );
    }

    async fn watch(
        &mut self,
        roster: &mut Roster,
        size: usize,
        revision: i64,
    ) -> Result<(), Unanswered> {
        if roster.len() >= size {
            return Ok(());
        }
        self.registry.watch(revision + 1).await?;
        self.tries = 0;
        while roster.len() < size {
            for entry in self.registry.changes().await? {
                roster.take(entry, &self.prefix.members());
            }
        }
        Ok(())
    }

    async fn back_off(&mut self, step: &'static str) {
        self.tries = (self.tries + 1).min(GROWING_TRIES);
        let pause = Duration::from_secs(1 << self.tries);
        tracing::warn!(
            reason = step,
            backoff = %GoDuration::from_std(pause),
            "retry connecting to discovery service"
        );
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
#[path = "join_test.rs"]
mod tests;
