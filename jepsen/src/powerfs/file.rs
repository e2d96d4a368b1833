//! One file's bytes: what is read now, what is durable, and every page write and size change between the two.
//!
//! ```text
//!            durable    unsynced versions        live
//!  page 0      A                                   A
//!  page 1      B          C(7)  D(9)               D     a cut leaves B, C or D, or sectors of two of them
//!  page 2      -          E(8)                     E     a cut leaves a hole or E
//!  size      8192         8200(8) 12288(9)       12288   a cut leaves a prefix of the changes
//! ```
//! The number is the image's sequence number of the call that wrote.
//!
//! Size changes survive as a prefix, because one inode's metadata is logged in order. A truncation that survived
//! clears what was written before it, one that did not takes everything written after it along: blocks that a
//! truncation frees are not used again before it is durable.
//!
//! **Invariant:** bytes beyond a size are zero, in the live image and in the durable one.
//! **Invariant:** a page has unsynced versions exactly when it was written since the last finished sync.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;

use super::odds::{Losses, Odds};

/// The unit in which unsynced writes survive or not.
pub(crate) const PAGE: usize = 4096;
/// The unit that a disk writes whole; pages tear between them.
pub(crate) const SECTOR: usize = 512;

/// Bounds memory: of more versions of a page since the last sync, the oldest but one is forgotten.
const VERSIONS_MAX: usize = 6;
/// Bounds memory: beyond it, growth is merged into the growth before it.
const SIZES_MAX: usize = 64;

/// A page's content; absent is a hole that reads as zeros.
type Page = Option<Arc<[u8; PAGE]>>;

#[derive(Debug, Clone)]
struct Version {
    seq: u64,
    content: Page,
}

#[derive(Debug, Clone, Copy)]
struct SizeChange {
    seq: u64,
    size: u64,
    shrinks: bool,
}

/// What a sync that began will make durable when it ends.
#[derive(Debug)]
pub(crate) struct SyncPoint {
    seq: u64,
    size: u64,
    pages: Vec<(u64, Page)>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileData {
    size: u64,
    live: BTreeMap<u64, Arc<[u8; PAGE]>>,
    durable_size: u64,
    durable: BTreeMap<u64, Arc<[u8; PAGE]>>,
    durable_seq: u64,
    unsynced: BTreeMap<u64, Vec<Version>>,
    sizes: Vec<SizeChange>,
}

// === impl FileData ===

impl FileData {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Pages that hold something now, for `st_blocks` and the disk's fill.
    pub(crate) fn allocated_pages(&self) -> u64 {
        self.live.len() as u64
    }

    pub(crate) fn size_changed(&self) -> bool {
        !self.sizes.is_empty()
    }

    /// Up to `len` bytes from `offset`; shorter only at the end of the file.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = self.size.min(offset.saturating_add(len as u64));
        let mut out = Vec::with_capacity(len);
        for span in spans(offset, end) {
            match self.live.get(&span.page) {
                Some(content) => out.extend_from_slice(&content[span.from..span.to]),
                None => out.resize(out.len() + span.to - span.from, 0),
            }
        }
        out
    }

    pub(crate) fn write(&mut self, seq: u64, offset: u64, data: &[u8]) {
        let end = offset + data.len() as u64;
        let mut rest = data;
        for span in spans(offset, end) {
            let (head, tail) = rest.split_at(span.to - span.from);
            let mut content = self.page_copy(span.page);
            content[span.from..span.to].copy_from_slice(head);
            self.put_page(seq, span.page, Some(Arc::new(content)));
            rest = tail;
        }
        if end > self.size {
            self.set_size(seq, end);
        }
    }

    /// Zeroes a range without changing the size, as punching a hole does.
    pub(crate) fn zero(&mut self, seq: u64, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        for span in spans(offset, end) {
            if !self.live.contains_key(&span.page) {
                continue;
            }
            if span.to - span.from == PAGE {
                self.put_page(seq, span.page, None);
            } else {
                let mut content = self.page_copy(span.page);
                content[span.from..span.to].fill(0);
                self.put_page(seq, span.page, Some(Arc::new(content)));
            }
        }
    }

    /// Sets the size: what a truncation cuts off is gone, what it adds is zeros.
    pub(crate) fn truncate(&mut self, seq: u64, size: u64) {
        let first = size / PAGE as u64;
        let cut_off: Vec<u64> = self.live.range(first..).map(|(page, _)| *page).collect();
        for page in cut_off {
            let content = clamp(self.live.get(&page).cloned(), page, size);
            self.put_page(seq, page, content);
        }
        if size != self.size {
            self.set_size(seq, size);
        }
    }

    /// Notes what a sync beginning now covers; writes that come while it runs are not covered.
    pub(crate) fn begin_sync(&self, seq: u64) -> SyncPoint {
        let pages = self.unsynced.keys().map(|page| (*page, self.live.get(page).cloned()));
        SyncPoint { seq, size: self.size, pages: pages.collect() }
    }

    /// The sync answered: what it covered is durable. One that a later sync overtook changes nothing.
    pub(crate) fn finish_sync(&mut self, point: SyncPoint) {
        if point.seq <= self.durable_seq {
            return;
        }
        for (page, content) in point.pages {
            set(&mut self.durable, page, content);
        }
        self.unsynced.retain(|_, versions| {
            versions.retain(|version| version.seq > point.seq);
            !versions.is_empty()
        });
        self.sizes.retain(|change| change.seq > point.seq);
        self.durable_size = point.size;
        self.durable_seq = point.seq;
    }

    /// The file as a cut leaves it: durable, with a subset of what was not synced.
    pub(crate) fn survive(&self, rng: &mut StdRng, odds: &Odds, losses: &mut Losses) -> Self {
        let kept = self.surviving_sizes(rng, odds, losses);
        let (kept, gone) = self.sizes.split_at(kept);
        let size = kept.last().map_or(self.durable_size, |change| change.size);
        let horizon = gone.iter().find(|change| change.shrinks).map_or(u64::MAX, |c| c.seq);
        let shrinks: Vec<SizeChange> = kept.iter().filter(|c| c.shrinks).copied().collect();

        let mut pages = self.durable.clone();
        for (&page, versions) in &self.unsynced {
            let mut choices =
                vec![self.as_truncated(page, self.durable.get(&page), self.durable_seq, &shrinks)];
            for version in versions.iter().filter(|version| version.seq < horizon) {
                let content = version.content.as_ref();
                choices.push(self.as_truncated(page, content, version.seq, &shrinks));
            }
            let (content, fate) = choose(rng, odds, &choices);
            if fate == Fate::Newest && choices.len() == versions.len() + 1 {
                losses.pages_kept += 1;
            } else if fate == Fate::Torn {
                losses.pages_torn += 1;
            } else {
                losses.pages_lost += 1;
            }
            set(&mut pages, page, content);
        }
        Self::whole(pages, size)
    }

    /// The file as it is now, all of it durable: as an orderly stop and a full sync leave it.
    pub(crate) fn settled(&self) -> Self {
        Self::whole(self.live.clone(), self.size)
    }

    fn whole(mut pages: BTreeMap<u64, Arc<[u8; PAGE]>>, size: u64) -> Self {
        let last = size / PAGE as u64;
        let edge = pages.split_off(&last).remove(&last);
        set(&mut pages, last, clamp(edge, last, size));
        Self { size, durable_size: size, live: pages.clone(), durable: pages, ..Self::default() }
    }

    fn surviving_sizes(&self, rng: &mut StdRng, odds: &Odds, losses: &mut Losses) -> usize {
        if self.sizes.is_empty() {
            return 0;
        }
        if rng.random_bool(odds.size) {
            losses.sizes_kept += 1;
            return self.sizes.len();
        }
        losses.sizes_lost += 1;
        rng.random_range(0..self.sizes.len())
    }

    /// A version of a page after the surviving truncations that came later than it.
    fn as_truncated(
        &self,
        page: u64,
        content: Option<&Arc<[u8; PAGE]>>,
        seq: u64,
        shrinks: &[SizeChange],
    ) -> Page {
        let later = shrinks.iter().filter(|change| change.seq > seq);
        later.fold(content.cloned(), |content, change| clamp(content, page, change.size))
    }

    fn page_copy(&self, page: u64) -> [u8; PAGE] {
        self.live.get(&page).map_or([0; PAGE], |content| **content)
    }

    fn put_page(&mut self, seq: u64, page: u64, content: Page) {
        set(&mut self.live, page, content.clone());
        let versions = self.unsynced.entry(page).or_default();
        versions.push(Version { seq, content });
        if versions.len() > VERSIONS_MAX {
            versions.remove(1);
        }
    }

    fn set_size(&mut self, seq: u64, size: u64) {
        let shrinks = size < self.size;
        self.size = size;
        let mergeable = !shrinks && self.sizes.len() >= SIZES_MAX;
        match self.sizes.last_mut() {
            Some(last) if mergeable && !last.shrinks => {
                last.seq = seq;
                last.size = size;
            }
            Some(_) | None => self.sizes.push(SizeChange { seq, size, shrinks }),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Newest,
    Older,
    Torn,
}

/// One of a page's contents, oldest first: usually the newest or the oldest, sometimes one between, or two torn.
fn choose(rng: &mut StdRng, odds: &Odds, choices: &[Page]) -> (Page, Fate) {
    let newest = choices.len() - 1;
    let index = if newest == 0 || !rng.random_bool(odds.page) {
        0
    } else if rng.random_bool(0.8) {
        newest
    } else {
        rng.random_range(1..=newest)
    };
    let chosen = choices[index].clone();
    if index > 0 && rng.random_bool(odds.torn) {
        let under = choices[rng.random_range(0..index)].clone();
        return (tear(rng, under, chosen), Fate::Torn);
    }
    (chosen, if index == newest && newest > 0 { Fate::Newest } else { Fate::Older })
}

/// Some sectors of `over`, the others of `under`.
fn tear(rng: &mut StdRng, under: Page, over: Page) -> Page {
    let mut content = under.map_or([0; PAGE], |content| *content);
    let over = over.map_or([0; PAGE], |content| *content);
    for from in (0..PAGE).step_by(SECTOR) {
        if rng.random_bool(0.5) {
            content[from..from + SECTOR].copy_from_slice(&over[from..from + SECTOR]);
        }
    }
    Some(Arc::new(content))
}

/// A page's content in a file that ends at `size`.
fn clamp(content: Page, page: u64, size: u64) -> Page {
    let start = page * PAGE as u64;
    if size <= start {
        return None;
    }
    let keep = usize::try_from(size - start).unwrap_or(PAGE);
    match content {
        Some(old) if keep < PAGE => {
            let mut content = *old;
            content[keep..].fill(0);
            Some(Arc::new(content))
        }
        other => other,
    }
}

fn set(pages: &mut BTreeMap<u64, Arc<[u8; PAGE]>>, page: u64, content: Page) {
    match content {
        Some(content) => pages.insert(page, content),
        None => pages.remove(&page),
    };
}

/// A part of one page.
#[derive(Debug, Clone, Copy)]
struct Span {
    page: u64,
    from: usize,
    to: usize,
}

/// The pages that `[from, to)` touches, in order.
fn spans(from: u64, to: u64) -> impl Iterator<Item = Span> {
    let size = PAGE as u64;
    let first = from / size;
    let last = if to > from { (to - 1) / size + 1 } else { first };
    (first..last).map(move |page| {
        let start = page * size;
        Span {
            page,
            from: from.saturating_sub(start) as usize,
            to: (to - start).min(size) as usize,
        }
    })
}
