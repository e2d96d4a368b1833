//! Who says who leads, and since which term.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use crate::client::Client;
use crate::pb::etcdserverpb::StatusRequest;

const PATIENCE: Duration = Duration::from_millis(400);

/// What one member said of leadership at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) member: u64,
    /// 0: none.
    pub(crate) leader: u64,
    pub(crate) term: u64,
}

impl Claim {
    pub(crate) fn is_own(&self) -> bool {
        self.leader == self.member
    }
}

/// Asks Status, on a connection of its own.
pub(crate) async fn ask(endpoint: &str) -> Option<Claim> {
    timeout(PATIENCE, async { ask_over(&mut Client::connect(endpoint).await.ok()?).await })
        .await
        .ok()?
}

async fn ask_over(client: &mut Client) -> Option<Claim> {
    let status = client.maintenance.status(StatusRequest {}).await.ok()?.into_inner();
    Some(Claim { member: status.header?.member_id, leader: status.leader, term: status.raft_term })
}

/// The number of the member that `quorum` members, itself among them, say leads in the newest term anyone knows.
pub(crate) async fn leader(endpoints: &[String], quorum: usize) -> Option<usize> {
    let claims = join_all(endpoints.iter().map(|endpoint| ask(endpoint))).await;
    let newest = claims.iter().flatten().map(|claim| claim.term).max()?;
    let own = |claim: &Option<Claim>| claim.is_some_and(|c| c.term == newest && c.is_own());
    let nth = claims.iter().position(own)?;
    let id = claims[nth]?.member;
    let agree = claims.iter().flatten().filter(|c| c.term == newest && c.leader == id).count();
    (agree >= quorum).then_some(nth)
}

/// Who became leader in which term, from the lines with which servers tell of it in etcd's words. Status does not tell:
/// its term is that of the last applied entry, which for a while after an election is of the term before.
pub(crate) fn elected(log: &str) -> Vec<Claim> {
    let told = |line: &str| {
        let (before, after) = line.split_once(" became leader at term ")?;
        let id = before.rsplit(|c: char| !c.is_ascii_hexdigit()).next()?;
        let term: String = after.chars().take_while(char::is_ascii_digit).collect();
        let leader = u64::from_str_radix(id, 16).ok()?;
        Some(Claim { member: leader, leader, term: term.parse().ok()? })
    };
    log.lines().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elections_are_read_from_logs() {
        let log =
            "{\"level\":\"info\",\"msg\":\"8e9e05c52164694d became leader at term 2\"}\nelse\n";
        let id = 0x8e9e_05c5_2164_694d;
        assert_eq!(elected(log), [Claim { member: id, leader: id, term: 2 }]);
    }
}
