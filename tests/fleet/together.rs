//! S0.11: several that join at once, from processes of their own, by nodes of their own.

use std::process::Child;
use std::time::Duration;

use super::daemon::{Daemon, eventually};
use super::writer::Writer;

/// Lets all of them join at once; who is told that another one joins tries again.
async fn join_at_once(joiners: &[Daemon], by: &[&Daemon]) {
    let token = |at: usize, joiner: &Daemon| by[at % by.len()].token(&joiner.name);
    let tokens: Vec<String> =
        joiners.iter().enumerate().map(|(at, node)| token(at, node)).collect();
    let begin = |at: usize| joiners[at].begins(&["join-cluster", &tokens[at]]);
    let mut under_way: Vec<(usize, Child)> = (0..joiners.len()).map(|at| (at, begin(at))).collect();
    while let Some((at, child)) = under_way.pop() {
        let output = child.wait_with_output().expect("it ends");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("another node is joining"), "{}: {said}", joiners[at].name);
            under_way.insert(0, (at, begin(at)));
        }
    }
}

async fn all_vote(node: &Daemon, count: usize) {
    eventually("registry and raft agree", async || {
        let status = node.try_status().await;
        status.is_some_and(|status| status["membership"]["consistent"] == true)
    })
    .await;
    assert_eq!(node.voters().await, count, "and no learner is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_11_two_processes_that_join_at_once_are_both_in() {
    let first = Daemon::start("n1");
    first.does(&["bootstrap"]);
    let writer = Writer::start(first.store(), Duration::from_millis(50));
    let joiners = [Daemon::start("n2"), Daemon::start("n3")];
    join_at_once(&joiners, &[&first]).await;
    assert_eq!(writer.stop().await.failures, Vec::<String>::new());
    for node in joiners.iter().chain([&first]) {
        all_vote(node, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_11_three_processes_that_join_at_once_by_two_nodes_are_all_in() {
    let (first, second) = (Daemon::start("n1"), Daemon::start("n2"));
    first.does(&["bootstrap"]);
    second.does(&["join-cluster", &first.token("n2")]);
    let joiners = [Daemon::start("n3"), Daemon::start("n4"), Daemon::start("n5")];
    join_at_once(&joiners, &[&first, &second]).await;
    for node in joiners.iter().chain([&first, &second]) {
        all_vote(node, 5).await;
    }
}
