//! What members tell of leaders before, in groups over journals on device doubles and on paused time.

use quorate_core::api::ids::Term;

use super::*;
use crate::consensus::network::{Shipment, Step};
use crate::consensus::types::RaftVote;

/// openraft dates a quorum by it, as by an append's answer.
#[tokio::test(start_paused = true)]
async fn a_step_of_a_whole_state_counts_as_heard_when_it_arrives() {
    let cluster = Cluster::start().await;
    cluster.write(0..5).await;
    let leader = cluster.leader().await;
    let term = leader.consensus.leader_view().term;
    let other = cluster.members.iter().find(|member| member.id != leader.id).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = other.consensus.heard_before(term).expect("its vote is of the term");
    assert!(before.elapsed() >= Duration::from_secs(4), "no leader before this one was heard");
    let vote = RaftVote::new_committed(term.0 - 1, leader.id.0);
    let shipment = Shipment { vote, step: Step::Finish { session: 1 } };
    let arrives = Instant::now();
    other.consensus.serve_peer(Ask::Snapshot(shipment).encode()).await.unwrap();
    assert!(other.consensus.heard_before(term) >= Some(arrives));
    cluster.stop().await;
}

/// Whoever led before need have asked nobody of a config that was made since.
#[tokio::test(start_paused = true)]
async fn the_voters_before_a_term_are_told_until_its_leader_makes_others() {
    let cluster = Cluster::start().await;
    cluster.write(0..5).await;
    let leader = &cluster.leader().await.consensus;
    let term = leader.leader_view().term;
    assert_eq!(leader.voters_before(term), Some(vec![MEMBERS.into()]));
    cluster.add(FOURTH).await;
    assert_eq!(leader.leader_view().term, term);
    assert_eq!(leader.voters_before(term), None);
    let next = Term(term.0 + 1);
    assert_eq!(leader.voters_before(next), Some(vec![MEMBERS.into()]), "it has no vote yet");
    cluster.stop().await;
}
