//! Damage to a folder that the member must be able to lose at any time, done to the disk between two lives.

use std::ffi::OsStr;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;

use crate::powerfs::image::{Image, Stat};
use crate::powerfs::names::{Ino, ROOT};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The folder is gone: the member must rebuild it.
    Deleted,
    /// Some bytes of one of its files.
    Flipped { bytes: usize },
    /// One of its files is shorter.
    Truncated,
    /// It is as some lives ago.
    RolledBack,
}

impl Damage {
    /// How often the member may say that it rebuilt the folder: a flip may hit dead bytes, an older copy may be
    /// whole and new enough.
    pub(crate) fn rebuilds(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Deleted => 1..=1,
            Self::Flipped { .. } | Self::Truncated | Self::RolledBack => 0..=1,
        }
    }
}

/// A name in a directory of an image.
#[derive(Debug, Clone)]
struct Place {
    /// Names from the root to the folder, itself the last.
    path: Vec<String>,
    dir: Ino,
    ino: Ino,
}

/// Damages one folder that matches `glob`, below the root; None when there is none yet.
///
/// # Errors
/// Only if the image refuses: it is not in use, so it does not.
pub(crate) fn damage(
    image: &mut Image,
    older: &[Image],
    glob: &str,
    rng: &mut StdRng,
) -> Result<Option<Damage>> {
    let places = find(image, glob)?;
    if places.is_empty() {
        return Ok(None);
    }
    let place = &places[rng.random_range(0..places.len())];
    let done = match rng.random_range(0..4u8) {
        0 => {
            remove_tree(image, place.dir, place.ino, last(place)?)?;
            Damage::Deleted
        }
        1 => flip(image, place, rng)?,
        2 => truncate(image, place, rng)?,
        _ => roll_back(image, place, older, rng)?,
    };
    *image = image.settled();
    Ok(Some(done))
}

/// Flips bytes in one folder that matches `glob`, or shortens a file of it, while it is in use. Whether there is one.
///
/// # Errors
/// The image refuses: its power is off.
pub(crate) fn in_place(image: &mut Image, glob: &str, rng: &mut StdRng) -> Result<bool> {
    let places = find(image, glob)?;
    let Some(place) = places.first() else { return Ok(false) };
    if rng.random_bool(0.8) {
        flip(image, place, rng)?
    } else {
        truncate(image, place, rng)?
    };
    Ok(true)
}

/// Whether a file below `dir` has a name that begins with `prefix`.
///
/// # Errors
/// The image does not know the directory.
pub(crate) fn holds(image: &Image, dir: Ino, prefix: &str) -> Result<bool> {
    for (name, stat) in image.list(dir)? {
        let found = if stat.directory {
            holds(image, stat.ino, prefix)?
        } else {
            name.to_string_lossy().starts_with(prefix)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

fn last(place: &Place) -> Result<&str> {
    place.path.last().map(String::as_str).context("a place has a name")
}

fn find(image: &Image, glob: &str) -> Result<Vec<Place>> {
    let mut places = vec![Place { path: Vec::new(), dir: ROOT, ino: ROOT }];
    for part in glob.split('/') {
        let mut next = Vec::new();
        for place in places {
            if !image.stat(place.ino)?.directory {
                continue;
            }
            for (name, stat) in image.list(place.ino)? {
                let name = name.to_string_lossy().into_owned();
                if matches(part, &name) {
                    let path = [place.path.clone(), vec![name]].concat();
                    next.push(Place { path, dir: place.ino, ino: stat.ino });
                }
            }
        }
        places = next;
    }
    Ok(places)
}

/// A pattern in which `*` stands for any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((tail, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(tail)
}

/// The files with content below a node.
fn files(image: &Image, ino: Ino) -> Result<Vec<Stat>> {
    let stat = image.stat(ino)?;
    if !stat.directory {
        return Ok(if stat.size > 0 { vec![stat] } else { Vec::new() });
    }
    let mut all = Vec::new();
    for (_, stat) in image.list(ino)? {
        all.extend(files(image, stat.ino)?);
    }
    Ok(all)
}

fn flip(image: &mut Image, place: &Place, rng: &mut StdRng) -> Result<Damage> {
    let files = files(image, place.ino)?;
    let bytes = rng.random_range(1..64);
    for _ in 0..if files.is_empty() { 0 } else { bytes } {
        let file = files[rng.random_range(0..files.len())];
        let at = rng.random_range(0..file.size);
        let old = image.read(file.ino, at, 1)?;
        image.write(file.ino, at, &[old[0] ^ rng.random_range(1..=255)])?;
    }
    Ok(Damage::Flipped { bytes })
}

fn truncate(image: &mut Image, place: &Place, rng: &mut StdRng) -> Result<Damage> {
    let files = files(image, place.ino)?;
    if !files.is_empty() {
        let file = files[rng.random_range(0..files.len())];
        image.truncate(file.ino, rng.random_range(0..file.size))?;
    }
    Ok(Damage::Truncated)
}

fn roll_back(
    image: &mut Image,
    place: &Place,
    older: &[Image],
    rng: &mut StdRng,
) -> Result<Damage> {
    ensure!(!older.is_empty(), "an older image is kept from the first life on");
    let from = &older[rng.random_range(0..older.len())];
    let name = last(place)?;
    remove_tree(image, place.dir, place.ino, name)?;
    let same_path = find(from, &place.path.join("/"))?;
    if let Some(source) = same_path.first() {
        copy_tree(from, source.ino, image, place.dir, name)?;
    }
    let nothing_left = same_path.is_empty();
    Ok(if nothing_left { Damage::Deleted } else { Damage::RolledBack })
}

fn remove_tree(image: &mut Image, dir: Ino, ino: Ino, name: &str) -> Result<()> {
    let directory = image.stat(ino)?.directory;
    if directory {
        for (child, stat) in image.list(ino)? {
            remove_tree(image, ino, stat.ino, &child.to_string_lossy())?;
        }
    }
    Ok(image.remove(dir, OsStr::new(name), directory)?)
}

fn copy_tree(from: &Image, ino: Ino, to: &mut Image, dir: Ino, name: &str) -> Result<()> {
    let stat = from.stat(ino)?;
    let copy = to.create(dir, OsStr::new(name), stat.directory, stat.permissions)?;
    if !stat.directory {
        let content = from.read(ino, 0, usize::try_from(stat.size)?)?;
        return Ok(to.write(copy.ino, 0, &content)?);
    }
    for (child, stat) in from.list(ino)? {
        copy_tree(from, stat.ino, to, copy.ino, &child.to_string_lossy())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::powerfs::image::{Lies, NameSync};

    fn disk(content: &[u8]) -> Image {
        let mut image = Image::new(NameSync::Strict, Lies::default());
        let group = image.create(ROOT, OsStr::new("g1"), true, 0o700).unwrap().ino;
        let state = image.create(group, OsStr::new("state-1"), true, 0o700).unwrap().ino;
        let db = image.create(state, OsStr::new("db"), false, 0o600).unwrap().ino;
        image.write(db, 0, content).unwrap();
        image.create(group, OsStr::new("base-1"), false, 0o600).unwrap();
        image.settled()
    }

    fn content(image: &Image) -> Option<Vec<u8>> {
        let place = find(image, "g*/state-*/db").unwrap().pop()?;
        let size = image.stat(place.ino).unwrap().size;
        Some(image.read(place.ino, 0, size as usize).unwrap())
    }

    #[test]
    fn stars_stand_for_any_run_of_characters() {
        for (pattern, name, fits) in [
            ("state-*", "state-12", true),
            ("state-*", "base-12", false),
            ("*", "x", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("member", "member", true),
            ("member", "members", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn each_damage_is_what_it_says_and_touches_nothing_else() {
        let older = [disk(b"older")];
        let mut seen = [false; 4];
        for seed in 0..64 {
            let mut image = disk(b"newer content");
            let mut rng = StdRng::seed_from_u64(seed);
            let done = damage(&mut image, &older, "g*/state-*", &mut rng).unwrap().unwrap();
            let (kind, right) = match (done, content(&image)) {
                (Damage::Deleted, left) => (0, left.is_none()),
                (Damage::Flipped { .. }, left) => (1, left.unwrap().len() == 13),
                (Damage::Truncated, left) => (2, b"newer content".starts_with(&left.unwrap())),
                (Damage::RolledBack, left) => (3, left.unwrap() == b"older"),
            };
            assert!(right, "{done:?}");
            assert_eq!(find(&image, "g1/base-1").unwrap().len(), 1);
            seen[kind] = true;
        }
        assert_eq!(seen, [true; 4]);
    }
}
