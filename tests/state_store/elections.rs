//! Claims about elections: who leads, until when, and who is next.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use quorate::fleet::store::{
    Compare, EventType, Guard, Lost, Op, StateStore, Store, StoreError, Watched,
};
use quorate::support::spawn::Blocking;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::rig::{LONG, Rig, ok, soon};
use super::severed::Severed;

/// The shortest that etcd gives with its default election timeout, and so do we.
const TTL: Duration = Duration::from_secs(2);

/// Long enough for what must not happen to be seen if it does.
const A_WHILE: Duration = Duration::from_millis(700);

fn spawn(store: &Store, id: &'static str, ttl: Duration) -> JoinHandle<Guard> {
    let store = store.clone();
    tokio::spawn(async move { ok(store.campaign("e", id, ttl).await) })
}

async fn win(store: &Store, id: &str, ttl: Duration) -> Guard {
    ok(soon("the lead", store.campaign("e", id, ttl)).await)
}

/// Returns once so many stand in the line.
async fn until_in_line(store: &Store, count: usize) {
    let mut events = ok(store.watch(Watched::Prefix(b"e/"), 0).await);
    let counted = async {
        while ok(store.list(b"e/").await).len() != count {
            ok(events.next().await.expect("it does not end by itself"));
        }
    };
    soon("candidates", counted).await;
}

pub(crate) async fn s3_8_campaign_blocks_until_the_lead_is_free(rig: &Rig) {
    let (one, two) = (rig.store(), rig.store());
    let first = win(&one, "one", LONG).await;
    let mut second = spawn(&two, "two", LONG);
    until_in_line(&one, 2).await;
    assert!(timeout(A_WHILE, &mut second).await.is_err(), "the lead is taken");
    assert!(first.is_held());
    ok(first.resign().await);
    assert_eq!(first.lost(), Some(Lost::Resigned));
    let second = soon("the lead", second).await.expect("no panic");
    assert!(second.is_held());
    assert!(second.revision() > first.revision(), "the fence rises");
}

pub(crate) async fn s3_8_a_guard_ends_when_its_key_is_deleted(rig: &Rig) {
    let store = rig.store();
    let guard = win(&store, "one", LONG).await;
    assert!(ok(store.delete(guard.key()).await));
    assert_eq!(soon("the end", guard.until_lost()).await, Lost::KeyGone);
    assert!(!guard.is_held());
}

/// The first is cut off: its guard must end by the clock before the second can have won.
pub(crate) async fn s3_8_a_guard_that_nobody_answers_ends_before_another_wins(rig: &Rig) {
    let (line, cut_off) = Severed::new(&rig.store());
    let first = win(&cut_off, "one", TTL).await;
    let other = rig.store();
    let second = spawn(&other, "two", TTL);
    until_in_line(&other, 2).await;
    line.cut();
    let cut_at = Instant::now();
    let lost = async { (first.until_lost().await, Instant::now()) };
    let won = async { (second.await.expect("no panic"), Instant::now()) };
    let ((why, lost_at), (second, won_at)) =
        soon("a change", async { tokio::join!(lost, won) }).await;
    assert_eq!(why, Lost::Expired);
    assert!(lost_at < won_at, "two led for {:?}", lost_at - won_at);
    assert!(second.is_held() && !first.is_held());
    // S3.10: a leader that is not heard of any more is replaced within its TTL and a second.
    let took = won_at - cut_at;
    assert!(took <= TTL + Duration::from_secs(1), "the second waited for {took:?}");
    line.mend();
    sleep(A_WHILE).await;
    assert!(!first.is_held(), "what was lost is never held again");
    assert!(second.is_held(), "the first one's late words take nothing from the second");
}

pub(crate) async fn s3_8_a_campaign_that_is_dropped_leaves_the_line(rig: &Rig) {
    let (one, two) = (rig.store(), rig.store());
    let _first = win(&one, "one", LONG).await;
    let second = spawn(&two, "two", LONG);
    until_in_line(&one, 2).await;
    second.abort();
    until_in_line(&one, 1).await;
}

pub(crate) async fn s3_9_resigning_frees_at_once_and_the_leader_is_told(rig: &Rig) {
    let (one, two) = (rig.store(), rig.store());
    assert_eq!(ok(one.get_leader("e").await), None);
    let guard = win(&one, "one", LONG).await;
    assert_eq!(ok(two.get_leader("e").await).as_deref(), Some("one"));
    assert_eq!(ok(two.get_leader("e2").await), None, "another election");
    ok(two.resign("e").await);
    assert!(guard.is_held(), "the other store leads nothing that it could give up");
    ok(one.resign("e").await);
    assert_eq!(guard.lost(), Some(Lost::Resigned));
    assert_eq!(ok(two.get_leader("e").await), None, "it was gone when the call returned");
    ok(one.resign("e").await);
}

/// The first renews for longer than its TTL; the second sees who leads all the while.
pub(crate) async fn s3_9_a_second_candidate_waits_while_the_first_renews(rig: &Rig) {
    let (one, two) = (rig.store(), rig.store());
    let first = win(&one, "one", TTL).await;
    let second = spawn(&two, "two", TTL);
    until_in_line(&two, 2).await;
    let until = Instant::now() + TTL + TTL;
    while Instant::now() < until {
        assert!(first.is_held() && !second.is_finished());
        assert_eq!(ok(two.get_leader("e").await).as_deref(), Some("one"));
        sleep(Duration::from_millis(100)).await;
    }
    drop(first);
    soon("the lead", second).await.expect("no panic");
}

pub(crate) async fn s3_10_closing_hands_over_within_half_a_second(rig: &Rig) {
    let (one, two) = (rig.store(), rig.store());
    let first = win(&one, "one", LONG).await;
    let second = spawn(&two, "two", LONG);
    until_in_line(&two, 2).await;
    let began = Instant::now();
    one.close().await;
    assert_eq!(first.lost(), Some(Lost::Closed));
    soon("the lead", second).await.expect("no panic");
    let took = began.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
}

pub(crate) async fn s3_11_election_keys_have_etcds_shape(rig: &Rig) {
    let store = rig.store();
    let guard = win(&store, "one", LONG).await;
    let line = ok(store.list(b"e/").await);
    let [kv] = &line[..] else { panic!("{line:?}") };
    assert_eq!((&kv.key, &kv.value[..], kv.created), (guard.key(), &b"one"[..], guard.revision()));
    let lease = std::str::from_utf8(&kv.key[2..]).expect("text");
    assert!(lease.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{lease}");
    let id = i64::from_str_radix(lease, 16).expect("hex");
    let ttl = store.calls().lease_keep_alive(id).await;
    assert!(ok(ttl) > 0, "the key is named after its lease");
}

/// The deposed leader does not know yet, or does not care: the store refuses it all the same.
pub(crate) async fn s3_12_a_deposed_leaders_late_write_is_refused(rig: &Rig) {
    let (one, two) = (rig.store(), rig.store());
    let first = win(&one, "one", LONG).await;
    let write = async |store: &Store, guard: &Guard, value: &'static str| {
        let fenced = [guard.fence()];
        ok(store.do_transaction(&fenced, &[Op::put("decided", value)], &[]).await).committed
    };
    assert!(write(&one, &first, "by one").await);
    ok(two.delete(first.key()).await);
    let second = win(&two, "two", LONG).await;
    assert!(!write(&one, &first, "late").await);
    assert!(write(&two, &second, "by two").await);
    assert_eq!(&ok(two.get(b"decided").await).value[..], b"by two");
    // A key of the same name that somebody else made is not the one that won.
    ok(two.put(first.key(), b"one").await);
    assert!(!write(&one, &first, "late").await);
    assert_eq!(Compare::created(first.key().clone(), first.revision()), first.fence());
}

struct Etcdctl(Child);

impl Drop for Etcdctl {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ours leads, etcdctl waits, leads and is told of; it goes, and ours leads again.
pub(crate) async fn contend_with_etcdctl(rig: &Rig) {
    let Some(mut command) = rig.etcdctl() else {
        eprintln!("not tried: there is no etcdctl");
        return;
    };
    let store = rig.store();
    let first = win(&store, "ours", LONG).await;
    let mut child = command
        .args(["elect", "e", "theirs"])
        .stdout(Stdio::piped())
        .spawn()
        .map(Etcdctl)
        .expect("etcdctl is a program");
    until_in_line(&store, 2).await;
    assert!(first.is_held());
    assert_eq!(ok(store.get_leader("e").await).as_deref(), Some("ours"));
    ok(first.resign().await);
    // It prints its key and its value once it leads.
    let out = child.0.stdout.take().expect("it is piped");
    let aside = Blocking::bounded(1);
    let said = aside.run(move || {
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        [lines.next().unwrap_or_default(), lines.next().unwrap_or_default()]
    });
    let [key, value] = soon("etcdctl's lead", said).await;
    assert_eq!(value, "theirs");
    assert_eq!(ok(store.get_leader("e").await).as_deref(), Some("theirs"));
    assert_eq!(&ok(store.get(key.as_bytes()).await).value[..], b"theirs");

    let second = spawn(&store, "ours again", LONG);
    until_in_line(&store, 2).await;
    assert!(!second.is_finished(), "etcdctl leads");
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let second = soon("the lead", second).await.expect("no panic");
    assert!(second.is_held());
}

#[test]
fn values_print_for_who_reads_a_log() {
    assert_eq!(Lost::Expired.to_string(), "no keep-alive was answered in time");
    let why = StoreError::from(Lost::KeyGone).to_string();
    assert_eq!(why, "no place in the election any more: the key was deleted");
    assert_eq!((EventType::Put as i32, EventType::Delete as i32), (0, 1));
}
