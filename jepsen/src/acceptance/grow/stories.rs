//! What happens to the members, step by step.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use super::refusals::{
    BAD_URLS, NOT_A_LEARNER, NOT_IN_SYNC, TOO_FEW_STARTED, TOO_MANY_LEARNERS, UNHEALTHY, UNKNOWN,
    URL_TAKEN, is,
};
use super::stage::{NOT_LET_IN, Stage};
use crate::cluster::START_DEADLINE;

/// Who begins the second story.
pub(super) const FIRST: [usize; 3] = [0, 1, 2];
/// Nobody's id.
const NOBODY: u64 = 0xdead;
/// A connection that has not held for five seconds does not count; after this it may.
const YOUNG: Duration = Duration::from_secs(4);
/// A learner that serves is in sync by then.
const IN_SYNC: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(50);

/// m0 alone; m1 is added and comes late, leads, is removed while it leads, and may not come back.
pub(super) async fn one_to_two(stage: &mut Stage, late: Duration) -> Result<()> {
    let only = stage.id(0).await?;
    nonsense(stage).await?;
    let answer = stage.try_remove(only, 0).await?;
    stage.refused("the last voter goes", &answer, TOO_FEW_STARTED);

    let from = stage.now();
    stage.add(1, false).await?;
    let listed = stage.listed().await?;
    let voters = listed.iter().filter(|member| !member.is_learner).count();
    let unnamed = listed.iter().filter(|member| member.name.is_empty()).count();
    stage.claim((voters, unnamed) == (2, 1), format!("after MemberAdd: {listed:?}"));
    let answer = stage.try_add(2, false).await?;
    stage.refused("a third while the second has never run", &answer, TOO_FEW_STARTED);
    let answer = stage.try_remove(only, 0).await?;
    stage.refused("the only one that has ever run goes", &answer, TOO_FEW_STARTED);
    sleep(late).await;
    stage.done("m1 was added and did not run", from, stage.limits.gap);

    let launched = stage.now();
    stage.join(1).await?;
    if stage.now() - launched < YOUNG {
        let answer = stage.try_add(2, false).await?;
        stage.refused("one more within five seconds", &answer, UNHEALTHY);
    }
    stage.lead(1).await.context("it has caught up, and votes")?;
    stage.remove(1, 1, "which leads").await?;
    stage.ends(1, "removed while it led")?;
    stage.comes_back(1, "removed while it led").await
}

/// Three become five, by a learner and by a voter; then the leader goes, then one that is down, and one is replaced.
pub(super) async fn three_to_five(stage: &mut Stage, short: bool) -> Result<()> {
    if stage.age() < YOUNG {
        let answer = stage.try_add(3, false).await?;
        stage.refused("a fourth within five seconds", &answer, UNHEALTHY);
        ensure!(answer.is_err(), "m3 was added within five seconds");
    }
    nonsense(stage).await?;
    grow(stage).await?;
    if !short {
        without_a_quorum(stage).await?;
    }
    let gone = shrink(stage, short).await?;
    if !short {
        replace(stage, gone).await?;
    }
    Ok(())
}

/// What nobody means.
async fn nonsense(stage: &mut Stage) -> Result<()> {
    let taken = stage.cluster.spec(stage.watched).peer_url();
    let unknown = stage.try_remove(NOBODY, stage.watched).await?;
    stage.refused("an unknown one goes", &unknown, UNKNOWN);
    let answer = stage.try_promote(NOBODY).await?;
    stage.refused("an unknown one is promoted", &answer, UNKNOWN);
    let answer = stage.try_update(NOBODY, "http://nobody:2380".to_owned()).await?;
    stage.refused("an unknown one moves", &answer, UNKNOWN);
    for urls in [&[][..], &["nobody:2380"], &["http://nobody"]] {
        let answer = stage.try_add_urls(urls).await?;
        stage.refused(&format!("one at {urls:?} is added"), &answer, BAD_URLS);
    }
    let answer = stage.try_add_urls(&[taken.as_str()]).await?;
    let young = is(&answer, UNHEALTHY);
    if !young {
        stage.refused("another one where one is", &answer, URL_TAKEN);
    }
    Ok(())
}

async fn grow(stage: &mut Stage) -> Result<()> {
    let learner = stage.add(3, true).await?;
    let taken = stage.cluster.spec(0).peer_url();
    let answer = stage.try_add_urls(&[taken.as_str()]).await?;
    stage.refused("another one where one is", &answer, URL_TAKEN);
    let answer = stage.try_promote(learner).await?;
    stage.refused("a learner that has never run gets a vote", &answer, NOT_IN_SYNC);
    let answer = stage.try_add(4, true).await?;
    stage.refused("a second learner", &answer, TOO_MANY_LEARNERS);
    stage.join(3).await?;
    promote(stage, 3, learner).await?;
    let answer = stage.try_promote(learner).await?;
    stage.refused("a voter is promoted", &answer, NOT_A_LEARNER);
    let voter = stage.id(stage.watched).await?;
    let answer = stage.try_update(voter, stage.cluster.spec(3).peer_url()).await?;
    stage.refused("one moves to where another is", &answer, URL_TAKEN);
    stage.add(4, false).await?;
    stage.join(4).await
}

/// As an operator does: until it is in sync.
async fn promote(stage: &mut Stage, nth: usize, id: u64) -> Result<()> {
    let asked = stage.now();
    loop {
        let from = stage.now();
        let answer = stage.try_promote(id).await?;
        if is(&answer, NOT_IN_SYNC) && from - asked < IN_SYNC {
            sleep(RETRY).await;
            continue;
        }
        answer.with_context(|| format!("promoting m{nth}"))?;
        stage.done(format!("m{nth} promoted"), from, stage.limits.gap);
        return Ok(());
    }
}

/// Two of five are down: none of the three that are left may go, and those that are down may.
async fn without_a_quorum(stage: &mut Stage) -> Result<()> {
    let from = stage.now();
    if [3, 4].contains(&stage.leader().await?) {
        stage.lead(0).await?;
    }
    for nth in [3, 4] {
        stage.cluster.kill(nth)?;
    }
    // The streams to them have to break first.
    sleep(Duration::from_millis(500)).await;
    for nth in [0, stage.watched] {
        let id = stage.id(nth).await?;
        let answer = stage.try_remove(id, stage.watched).await?;
        stage.refused("one of three goes that are left of five", &answer, UNHEALTHY);
    }
    let answer = stage.try_add_urls(&["http://nobody:2380"]).await?;
    stage.refused("a sixth while two of five are down", &answer, UNHEALTHY);
    for nth in [3, 4] {
        stage.cluster.launch(nth)?;
    }
    for nth in [3, 4] {
        stage.cluster.await_ready(nth, START_DEADLINE)?;
    }
    stage.done("m3 and m4 killed and started again", from, stage.limits.leader_gap);
    Ok(())
}

/// The leader goes, then one that is down while it goes; the latter.
async fn shrink(stage: &mut Stage, short: bool) -> Result<usize> {
    let mut leader = stage.leader().await?;
    if leader == stage.watched {
        leader = 0;
        stage.lead(leader).await?;
    }
    let at = if stage.chance(0.5) { leader } else { stage.watched };
    stage.remove(leader, at, "which leads").await?;
    stage.ends(leader, "removed while it led")?;
    stage.comes_back(leader, "removed while it led").await?;

    let others = stage.members_but_leader().await?;
    let away = stage.any(&others);
    stage.cluster.kill(away)?;
    sleep(Duration::from_millis(500)).await;
    stage.remove(away, stage.watched, "which is down").await?;
    for what in ["removed while it was down", "the same again"] {
        stage.comes_back(away, what).await?;
    }
    if !short {
        wiped(stage, away).await?;
        if FIRST.contains(&leader) {
            stage.wipe(leader)?;
            stage.cluster.tell(leader, &FIRST, "new");
            stage.comes_back(leader, "without its directory, to begin as it once did").await?;
        }
    }
    Ok(away)
}

/// With its directory lost, a removed member finds that it is none.
async fn wiped(stage: &mut Stage, nth: usize) -> Result<()> {
    let from = stage.now();
    stage.wipe(nth)?;
    stage.tell_joining(nth);
    stage.cluster.launch(nth)?;
    let status = stage.cluster.await_end(nth, START_DEADLINE)?;
    let log = std::fs::read_to_string(&stage.cluster.spec(nth).log)?;
    let why = log.contains(NOT_LET_IN) && log.contains("member count is unequal");
    stage.claim(!status.success() && why, format!("m{nth} without its directory: {status}"));
    stage.done(format!("m{nth} came without its directory: {status}"), from, stage.limits.gap);
    Ok(())
}

/// One is removed and its place taken by a new one, whose old directory does not help it.
async fn replace(stage: &mut Stage, gone: usize) -> Result<()> {
    let others = stage.members_but_leader().await?;
    let old = stage.any(&others);
    let before = stage.remove(old, stage.watched, "to be replaced").await?;
    stage.ends(old, "to be replaced")?;
    let after = stage.add(old, false).await?;
    stage.claim(before != after, format!("m{old} was added under its old id {before:x}"));
    stage.comes_back(old, "with the directory of before it was replaced").await?;
    stage.wipe(old)?;
    stage.join(old).await?;
    let listed = stage.listed().await?;
    stage.claim(listed.len() == 3, format!("with m{gone} gone: {listed:?}"));
    stage.lead(old).await
}

impl Stage {
    /// Members that may go: neither the leader nor the watched one.
    async fn members_but_leader(&mut self) -> Result<Vec<usize>> {
        let leader = self.leader().await?;
        let watched = self.watched;
        Ok(self.members.iter().copied().filter(|nth| ![leader, watched].contains(nth)).collect())
    }
}
