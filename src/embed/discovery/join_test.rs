//! Joining against a double of the service: what it was asked, and what it answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_core::api::ids::MemberId;
use tokio::time::Instant;

use super::super::registry::Entry;
use super::*;

/// The service of a test: it fails as told, and others register while this member waits.
#[derive(Default)]
struct Double {
    size: Option<String>,
    members: BTreeMap<String, Entry>,
    revision: i64,
    /// So many questions fail, from the first on.
    failing: u32,
    asked: Vec<&'static str>,
    /// Who registers just before this member does.
    before: Option<(u64, &'static str)>,
    /// Who registers while a watch is open; an error breaks it.
    later: VecDeque<Later>,
}

/// What happens while a watch is open.
enum Later {
    /// Somebody registers, and the watch tells.
    Told(u64, &'static str),
    /// Somebody registers as the watch breaks.
    Cut(Option<(u64, &'static str)>),
}

const PREFIX: &str = "/_etcd/registry/t/members";

impl Double {
    fn of(size: &str) -> Double {
        Double { size: Some(size.to_owned()), ..Double::default() }
    }

    fn with(mut self, id: u64, value: &str) -> Double {
        self.add((id, value));
        self
    }

    fn add(&mut self, (id, value): (u64, &str)) -> Entry {
        self.put(&format!("{PREFIX}/{id:x}"), value)
    }

    fn put(&mut self, key: &str, value: &str) -> Entry {
        self.revision += 1;
        let (revision, value) = (self.revision, value.to_owned());
        let first = Entry { key: key.to_owned(), value: String::new(), create_revision: revision };
        let entry = self.members.entry(key.to_owned()).or_insert(first);
        entry.value = value;
        entry.clone()
    }

    fn answer<T>(&mut self, asked: &'static str, answer: T) -> Result<T, Unanswered> {
        self.asked.push(asked);
        match self.failing.checked_sub(1) {
            Some(rest) => {
                self.failing = rest;
                Err(Unanswered("not now".to_owned()))
            }
            None => Ok(answer),
        }
    }
}

impl Registry for &mut Double {
    async fn size(&mut self) -> Result<Option<String>, Unanswered> {
        let size = self.size.clone();
        self.answer("size", size)
    }

    async fn members(&mut self) -> Result<(Vec<Entry>, i64), Unanswered> {
        let found = (self.members.values().cloned().collect(), self.revision);
        self.answer("members", found)
    }

    async fn register(&mut self, key: &str, value: &str) -> Result<(), Unanswered> {
        self.answer("register", ())?;
        if let Some(other) = self.before.take() {
            self.add(other);
        }
        self.put(key, value);
        Ok(())
    }

    async fn watch(&mut self, from: i64) -> Result<(), Unanswered> {
        assert_eq!(from, self.revision + 1, "nothing is missed");
        self.answer("watch", ())
    }

    async fn changes(&mut self) -> Result<Vec<Entry>, Unanswered> {
        match self.later.pop_front().expect("whoever waits is told something") {
            Later::Told(id, value) => Ok(vec![self.add((id, value))]),
            Later::Cut(other) => {
                if let Some(other) = other {
                    self.add(other);
                }
                Err(Unanswered("cut".to_owned()))
            }
        }
    }
}

async fn join(service: &mut Double) -> Result<String, Fault> {
    let joining = Joining::new(service, Prefix::of("t"), MemberId(0xa));
    joining.join("a=http://a:1").await.map(|joined| joined.listed)
}

#[tokio::test]
async fn the_first_members_are_those_who_came_first() {
    let mut service = Double::of("3").with(0xb, "b=http://b:1");
    service.later =
        [Later::Told(0xd, "no member"), Later::Told(0xc, "c=http://c:1,c=http://c:2")].into();
    let joined = join(&mut service).await;
    assert_eq!(joined.as_deref(), Ok("b=http://b:1,a=http://a:1,c=http://c:1,c=http://c:2"));
    assert_eq!(service.asked, ["size", "members", "register", "size", "members", "watch"]);
    let own = &service.members["/_etcd/registry/t/members/a"];
    assert_eq!(own.value, "a=http://a:1");
}

#[tokio::test]
async fn a_member_that_has_registered_before_comes_back_to_its_place() {
    let mut service = Double::of("2").with(0xa, "a=http://a:1").with(0xb, "b=http://b:1");
    assert_eq!(join(&mut service).await.as_deref(), Ok("a=http://a:1,b=http://b:1"));
}

#[tokio::test]
async fn what_the_service_knows_refuses_the_start_in_etcds_words() {
    for (mut service, want) in [
        (Double::default(), "discovery: size key not found"),
        (Double::of("three"), "discovery: size key is bad"),
        (Double::of("0"), "discovery: size key is bad"),
        (Double::of("1").with(0xb, "b=http://b:1"), "discovery: cluster is full"),
        (Double::of("2").with(0xb, "b=nowhere"), "discovery: invalid peer URL"),
    ] {
        assert_eq!(join(&mut service).await.unwrap_err().to_string(), want);
    }
}

#[tokio::test]
async fn who_comes_too_late_in_a_race_is_refused_after_registering() {
    let mut service = Double::of("2").with(0xb, "b=http://b:1");
    service.before = Some((0xc, "c=http://c:1"));
    assert_eq!(join(&mut service).await, Err(Fault::Full));
    assert!(service.asked.contains(&"register"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_answer_is_asked_again_after_longer_and_longer_pauses() {
    let began = Instant::now();
    let mut service = Double { failing: 10, ..Double::of("1") };
    assert_eq!(join(&mut service).await.as_deref(), Ok("a=http://a:1"));
    let pauses = [2, 4, 8, 16, 32, 64, 128, 256, 256, 256];
    assert_eq!(began.elapsed().as_secs(), pauses.iter().sum::<u64>());
}

#[tokio::test(start_paused = true)]
async fn an_answer_makes_the_next_pause_short_again() {
    let began = Instant::now();
    let mut service = Double { failing: 2, ..Double::of("2") };
    service.later = [Later::Cut(None), Later::Told(0xb, "b=http://b:1")].into();
    assert_eq!(join(&mut service).await.as_deref(), Ok("a=http://a:1,b=http://b:1"));
    assert_eq!(began.elapsed(), Duration::from_secs(2 + 4 + 2));
}

#[tokio::test(start_paused = true)]
async fn whoever_registers_while_the_watch_is_cut_is_found_all_the_same() {
    let mut service = Double::of("2");
    service.later = [Later::Cut(Some((0xb, "b=http://b:1")))].into();
    assert_eq!(join(&mut service).await.as_deref(), Ok("a=http://a:1,b=http://b:1"));
}
