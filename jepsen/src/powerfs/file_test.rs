//! Bug guarded: a sync that returned and lost a byte, or a cut that invents content no write ever had.

use rand::Rng;
use rand::rngs::StdRng;

use super::file::{FileData, PAGE, SECTOR};
use super::odds::{Losses, NameSurvival, Odds};
use super::seeds::for_seeds;

const ALL_LOST: Odds =
    Odds { page: 0.0, torn: 0.0, size: 0.0, name: 0.0, names: NameSurvival::Subset, mixed: false };
const ALL_KEPT: Odds = Odds { page: 1.0, size: 1.0, name: 1.0, ..ALL_LOST };

/// Every state the file had since its last sync, oldest first.
struct History(Vec<Vec<u8>>);

impl History {
    fn push(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut next = self.0.last().cloned().unwrap_or_default();
        change(&mut next);
        self.0.push(next);
    }

    fn byte_was(&self, at: usize, byte: u8) -> bool {
        self.0.iter().any(|state| state.get(at).copied().unwrap_or(0) == byte)
    }
}

fn whole(file: &FileData) -> Vec<u8> {
    file.read(0, file.size() as usize)
}

fn change(rng: &mut StdRng, seq: u64, file: &mut FileData, history: &mut History) {
    let limit = 6 * PAGE;
    let at = rng.random_range(0..limit);
    match rng.random_range(0..10u8) {
        0 => {
            file.truncate(seq, at as u64);
            history.push(|state| state.resize(at, 0));
        }
        1 => {
            let len = rng.random_range(1..2 * PAGE);
            file.zero(seq, at as u64, len as u64);
            history.push(|state| {
                let end = state.len().min(at + len);
                state[at.min(end)..end].fill(0);
            });
        }
        _ => {
            let data = vec![rng.random_range(1..=255); rng.random_range(1..2 * PAGE)];
            file.write(seq, at as u64, &data);
            history.push(|state| {
                state.resize(state.len().max(at + data.len()), 0);
                state[at..at + data.len()].copy_from_slice(&data);
            });
        }
    }
}

#[test]
fn what_is_read_is_what_was_written_last() {
    for_seeds("what_is_read_is_what_was_written_last", 300, |rng| {
        let (mut file, mut history) = (FileData::default(), History(vec![Vec::new()]));
        for seq in 1..30 {
            change(rng, seq, &mut file, &mut history);
            assert_eq!(&whole(&file), history.0.last().unwrap());
        }
    });
}

#[test]
fn a_cut_leaves_only_bytes_that_were_there_since_the_last_sync() {
    for_seeds("a_cut_leaves_only_bytes_that_were_there_since_the_last_sync", 400, |rng| {
        let (mut file, mut history) = (FileData::default(), History(vec![Vec::new()]));
        let mut in_flight = None;
        for seq in 1..40 {
            match rng.random_range(0..8u8) {
                0 if in_flight.is_none() => {
                    in_flight = Some((file.begin_sync(seq), history.0.len() - 1));
                }
                1 => {
                    if let Some((point, covered)) = in_flight.take() {
                        file.finish_sync(point);
                        history.0.drain(..covered);
                    }
                }
                _ => change(rng, seq, &mut file, &mut history),
            }
            // Positions in the history of an in-flight sync stay right: only its own end drains.
        }
        let odds = Odds::draw(rng, true, NameSurvival::Either);
        let left = whole(&file.survive(rng, &odds, &mut Losses::default()));
        assert!(history.0.iter().any(|state| state.len() == left.len()), "a size that was");
        for (at, byte) in left.iter().enumerate() {
            assert!(history.byte_was(at, *byte), "byte {at} is {byte}, with {odds:?}");
        }
    });
}

#[test]
fn a_finished_sync_survives_whatever_the_odds() {
    for_seeds("a_finished_sync_survives_whatever_the_odds", 200, |rng| {
        let (mut file, mut history) = (FileData::default(), History(vec![Vec::new()]));
        for seq in 1..20 {
            change(rng, seq, &mut file, &mut history);
        }
        let point = file.begin_sync(20);
        file.finish_sync(point);
        let mut losses = Losses::default();
        let odds = Odds::draw(rng, true, NameSurvival::Either);
        assert_eq!(whole(&file.survive(rng, &odds, &mut losses)), whole(&file));
        assert_eq!(losses, Losses::default());
    });
}

#[test]
fn a_write_behind_the_start_of_a_sync_is_not_covered_by_it() {
    let mut rng = rand::SeedableRng::seed_from_u64(1);
    let mut file = FileData::default();
    file.write(1, 0, b"old");
    let point = file.begin_sync(2);
    file.write(3, 0, b"new");
    file.finish_sync(point);
    let mut losses = Losses::default();
    assert_eq!(whole(&file.survive(&mut rng, &ALL_LOST, &mut losses)), b"old");
    assert_eq!(losses.pages_lost, 1);
    assert_eq!(whole(&file.survive(&mut rng, &ALL_KEPT, &mut losses)), b"new");
}

#[test]
fn a_sync_that_a_later_one_overtook_takes_nothing_back() {
    let mut rng = rand::SeedableRng::seed_from_u64(1);
    let mut file = FileData::default();
    file.write(1, 0, b"old");
    let first = file.begin_sync(2);
    file.write(3, 0, b"new");
    let second = file.begin_sync(4);
    file.finish_sync(second);
    file.finish_sync(first);
    assert_eq!(whole(&file.survive(&mut rng, &ALL_LOST, &mut Losses::default())), b"new");
}

#[test]
fn a_lost_truncation_takes_what_was_written_after_it_along() {
    let mut rng = rand::SeedableRng::seed_from_u64(1);
    let mut file = FileData::default();
    file.write(1, 0, &[1; PAGE]);
    let point = file.begin_sync(1);
    file.finish_sync(point);
    file.truncate(2, 0);
    file.write(3, 0, &[3; PAGE]);
    let size_lost = Odds { size: 0.0, ..ALL_KEPT };
    for _ in 0..50 {
        let left = whole(&file.survive(&mut rng, &size_lost, &mut Losses::default()));
        assert!(left.is_empty() || left == [1; PAGE], "never the new bytes in the old blocks");
    }
}

#[test]
fn pages_tear_between_sectors_and_nowhere_else() {
    let mut rng = rand::SeedableRng::seed_from_u64(1);
    let mut file = FileData::default();
    file.write(1, 0, &[1; PAGE]);
    let point = file.begin_sync(1);
    file.finish_sync(point);
    file.write(2, 0, &[2; PAGE]);
    let mut losses = Losses::default();
    let torn = Odds { torn: 1.0, ..ALL_KEPT };
    let left = whole(&file.survive(&mut rng, &torn, &mut losses));
    assert_eq!(losses.pages_torn, 1);
    for sector in left.chunks(SECTOR) {
        assert!(sector.iter().all(|byte| *byte == sector[0]));
    }
    assert!(left.contains(&1) && left.contains(&2));
}
