//! Boards without members: the test is the members, and sends what they would.

use quorate_core::api::pb::etcdserverpb::WatchCreateRequest;
use quorate_core::api::pb::mvccpb::KeyValue;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;

use super::super::super::namespace::Namespace;
use super::super::super::upstream::Caller;
use super::super::outbox::Due;
use super::*;
use crate::support::metrics::Metrics;

fn board() -> (Arc<Board>, Figures) {
    let figures = Figures::new(&Metrics::default());
    let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
    let subject = Subject::new(&Namespace::default(), &create, Caller::default());
    (Board::new(subject, figures.clone()), figures)
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

fn created(revision: i64) -> WatchResponse {
    WatchResponse { header: header(revision), created: true, ..WatchResponse::default() }
}

/// An event, known by its revision and its number in it.
fn event((revision, number): Place) -> Event {
    let version = i64::try_from(number).unwrap();
    let pair = KeyValue { mod_revision: revision, version, ..KeyValue::default() };
    Event { kv: Some(pair), ..Event::default() }
}

fn events(places: &[Place], fragment: bool) -> WatchResponse {
    let events: Vec<Event> = places.iter().copied().map(event).collect();
    let revision = places.last().map_or(0, |last| last.0);
    WatchResponse { header: header(revision), events, fragment, ..WatchResponse::default() }
}

/// What a client is to hear beside its events.
fn words(outbox: &Outbox) -> Vec<WatchResponse> {
    let word = || match outbox.due(u64::MAX)? {
        Due::Word(word) => Some(word),
        Due::End(status) => panic!("{status}"),
    };
    std::iter::from_fn(word).collect()
}

fn told(response: &WatchResponse) -> Vec<Place> {
    let place = |event: &Event| {
        let pair = event.kv.as_ref().unwrap();
        (pair.mod_revision, usize::try_from(pair.version).unwrap())
    };
    response.events.iter().map(place).collect()
}

struct Client {
    outbox: Arc<Outbox>,
    queued: mpsc::Receiver<WatchResponse>,
    id: i64,
    /// From which revision on it must hear everything.
    from: i64,
    told: Vec<Place>,
}

impl Client {
    fn open(board: &Arc<Board>, start: i64) -> (Client, Begun) {
        let (outbox, queued) = Outbox::new();
        let id = outbox.claim(0, board).unwrap();
        let begun = board.open(&outbox, id, start, false);
        (Client { outbox, queued, id, from: start, told: Vec::new() }, begun)
    }

    fn read(&mut self, most: usize) {
        for _ in 0..most {
            let Ok(response) = self.queued.try_recv() else { return };
            assert_eq!(response.watch_id, self.id);
            if response.created && self.from == 0 {
                self.from = response.header.unwrap().revision + 1;
            }
            self.told.extend(told(&response));
        }
    }
}

#[test]
fn watchers_join_a_feed_that_is_not_ahead_of_them_and_take_only_what_is_news() {
    let (board, figures) = board();
    let (mut old, first) = Client::open(&board, 5);
    assert!(!board.take(first.id, &created(9)).over);
    let (mut new, second) = Client::open(&board, 0);
    // A member has made the second watch at revision 9: what it needs comes by the first, too.
    assert!(board.take(second.id, &created(9)).over);
    assert_eq!(board.start(second.id), None);
    assert_eq!(figures.watchers_shared.get(), 1);
    board.take(first.id, &events(&[(7, 0), (9, 0), (10, 0)], false));
    old.read(9);
    new.read(9);
    assert_eq!(old.told, [(7, 0), (9, 0), (10, 0)]);
    assert_eq!((new.from, &new.told[..]), (10, &[(10, 0)][..]));
    assert_eq!(figures.events_shared.get(), 1);
    // One that wants history is served apart, and joins when it has caught up.
    let (mut third, third_feed) = Client::open(&board, 7);
    assert!(!board.take(third_feed.id, &created(10)).over);
    assert!(board.take(third_feed.id, &events(&[(7, 0), (9, 0), (10, 0)], false)).over);
    board.take(first.id, &events(&[(11, 0)], false));
    third.read(9);
    assert_eq!(third.told, [(7, 0), (9, 0), (10, 0), (11, 0)]);
    assert!(board.remove(&old.outbox, old.id).is_some());
    assert!(board.remove(&old.outbox, old.id).is_none());
    assert!(board.remove(&new.outbox, new.id).is_some());
    assert!(board.remove(&third.outbox, third.id).is_some());
    assert!(board.is_empty());
    assert_eq!(figures.watchers_shared.get(), 0);
}

#[test]
fn fragments_that_broke_off_are_not_told_again() {
    let (board, _) = board();
    let (mut client, begun) = Client::open(&board, 3);
    board.take(begun.id, &created(9));
    board.take(begun.id, &events(&[(3, 0), (4, 0), (4, 1)], true));
    board.broken(begun.id);
    assert_eq!(board.start(begun.id), Some(4));
    board.take(begun.id, &created(9));
    board.take(begun.id, &events(&[(4, 0)], true));
    board.take(begun.id, &events(&[(4, 1), (4, 2), (5, 0)], false));
    client.read(9);
    assert_eq!(client.told, [(3, 0), (4, 0), (4, 1), (4, 2), (5, 0)]);
    assert_eq!(board.start(begun.id), Some(6));
}

#[test]
fn progress_is_told_of_all_watches_only_when_all_have_reached_it() {
    let (board, _) = board();
    let (outbox, _queued) = Outbox::new();
    let open = |start| {
        let id = outbox.claim(0, &board).unwrap();
        (id, board.open(&outbox, id, start, false))
    };
    let ((_, ahead), (late, behind)) = (open(20), open(2));
    board.take(ahead.id, &created(9));
    board.take(behind.id, &created(9));
    assert_eq!(outbox.ask().len(), 2);
    let progress =
        |revision| WatchResponse { header: header(revision), watch_id: NO_WATCH, ..created(0) };
    let progress = |revision| WatchResponse { created: false, ..progress(revision) };
    board.take(behind.id, &progress(30));
    assert!(words(&outbox).is_empty());
    board.take(ahead.id, &progress(25));
    let said = words(&outbox);
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].watch_id, said[0].header.unwrap().revision), (NO_WATCH, 25));
    // One that ends is not waited for.
    assert_eq!(outbox.ask().len(), 2);
    outbox.forget(late);
    board.take(ahead.id, &progress(26));
    assert_eq!(words(&outbox).len(), 1);
}

#[test]
fn a_watch_that_is_not_made_is_told_so_and_one_that_ends_with_its_own_id() {
    let (board, _) = board();
    let refusal = WatchResponse {
        watch_id: NO_WATCH,
        canceled: true,
        cancel_reason: "etcdserver: permission denied".to_owned(),
        ..created(9)
    };
    let (client, begun) = Client::open(&board, 0);
    assert!(board.take(begun.id, &refusal).over);
    let said = words(&client.outbox).remove(0);
    assert!(said.created && said.canceled && said.watch_id == NO_WATCH);
    let (other, _queued) = Outbox::new();
    assert_eq!((other.claim(7, &board), other.claim(7, &board)), (Some(7), None));
    let begun = board.open(&other, 7, 1, false);
    board.take(begun.id, &created(9));
    let compacted =
        WatchResponse { canceled: true, compact_revision: 5, ..WatchResponse::default() };
    assert!(board.take(begun.id, &compacted).over);
    let said = words(&other).remove(0);
    assert!(!said.created && said.canceled);
    assert_eq!((said.watch_id, said.compact_revision), (7, 5));
    assert!(board.is_empty());
}

/// What a member sends on one conversation.
struct Conversation {
    begun: Begun,
    /// The next event, as an index; `None` until the watch is made.
    next: Option<usize>,
}

struct World {
    board: Arc<Board>,
    rng: StdRng,
    head: i64,
    history: Vec<Place>,
    feeds: Vec<Conversation>,
    clients: Vec<Client>,
}

impl World {
    fn new(seed: u64) -> World {
        let rng = StdRng::seed_from_u64(seed);
        let (history, feeds, clients) = (Vec::new(), Vec::new(), Vec::new());
        World { board: board().0, rng, head: 1, history, feeds, clients }
    }

    fn write(&mut self) {
        self.head += self.rng.random_range(1..3);
        for number in 0..self.rng.random_range(1..4) {
            self.history.push((self.head, number));
        }
    }

    fn watch(&mut self) {
        let start = if self.rng.random() { 0 } else { self.rng.random_range(1..self.head + 3) };
        let (client, begun) = Client::open(&self.board, start);
        self.clients.push(client);
        self.feeds.push(Conversation { begun, next: None });
    }

    fn index(&self, place: Place) -> usize {
        self.history.partition_point(|known| *known < place)
    }

    /// One response on one feed; true if there was one.
    fn speak(&mut self, at: usize) -> bool {
        let id = self.feeds[at].begun.id;
        let Some(start) = self.board.start(id) else {
            self.feeds.swap_remove(at);
            return true;
        };
        let (response, next) = match self.feeds[at].next {
            None => {
                let from = if start == 0 { self.head + 1 } else { start };
                (created(self.head), self.index((from, 0)))
            }
            Some(next) if next == self.history.len() => return false,
            Some(next) => {
                let most = (self.history.len() - next).min(4);
                let mut end = next + self.rng.random_range(1..=most);
                let fragment = self.rng.random_range(0..3) == 0;
                // Only a fragment may end inside a revision.
                while !fragment
                    && self.history.get(end).is_some_and(|e| e.0 == self.history[end - 1].0)
                {
                    end += 1;
                }
                (events(&self.history[next..end], fragment), end)
            }
        };
        let taken = self.board.take(id, &response);
        self.feeds.extend(taken.split.into_iter().map(|begun| Conversation { begun, next: None }));
        if taken.over {
            self.feeds.retain(|feed| feed.begun.id != id);
        } else if taken.full.is_none() {
            self.feeds[at].next = Some(next);
        }
        taken.full.is_none()
    }

    fn step(&mut self) {
        let feed = |world: &mut World| {
            let many = world.feeds.len();
            (many > 0).then(|| world.rng.random_range(0..many))
        };
        match self.rng.random_range(0..20) {
            0..5 => self.write(),
            5 => self.watch(),
            6 => {
                if let Some(at) = feed(self) {
                    self.board.broken(self.feeds[at].begun.id);
                    self.feeds[at].next = None;
                }
            }
            7..15 => {
                if let Some(at) = feed(self) {
                    self.speak(at);
                }
            }
            15 if self.clients.len() > 3 => {
                let at = self.rng.random_range(0..self.clients.len());
                let gone = self.clients.swap_remove(at);
                self.board.remove(&gone.outbox, gone.id);
            }
            _ => {
                let many = self.clients.len();
                if many > 0 {
                    // The last of them reads most.
                    let at = self.rng.random_range(0..many + 3).min(many - 1);
                    self.clients[at].read(5);
                }
            }
        }
    }

    /// Everything is told, however slowly.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for client in &mut self.clients {
                let before = client.queued.len();
                client.read(usize::MAX);
                moved |= before > 0;
            }
            for at in (0..self.feeds.len()).rev() {
                moved |= at < self.feeds.len() && self.speak(at);
            }
            if !moved {
                return;
            }
        }
    }
}

#[test]
fn every_watcher_hears_every_event_once_in_order_whatever_breaks() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(0..300, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.settle();
        for client in &world.clients {
            let from = world.index((client.from, 0));
            assert_eq!(
                client.told,
                world.history[from..],
                "SEED={seed} cargo test -p quorate --lib proxy::watch::board"
            );
        }
        assert!(world.feeds.len() <= world.clients.len());
    }
}
