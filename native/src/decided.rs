//! The decisions of a partition during their late window, as `assembly.decided` specifies them.
//!
//! All decisions are in one ring in the order of their time: the older ones are forgotten, the others live. A decision costs its id, its
//! time, the end of its entry, and a place in the index: 35 to 40 bytes. A live one of a kept trace also costs its entry. The ring and the
//! index grow in blocks, and no call touches more than a given number of decisions, so that none of them stops the worker.

use std::collections::{HashMap, VecDeque};

use crate::item::TraceId;
use crate::loaded::Loaded;
use crate::shards::Shards;

const BLOCK: usize = 1024;
/// What a decision counts where the memory of decisions is bounded, and the least that the entry of a kept one counts in addition.
const DECISION_BYTES: usize = 64;
/// What a decision that is forgotten early counts as in a step, because the caller remembers its id.
const EARLY: usize = 8;

/// Decisions that follow one another.
struct Block {
    ids: Vec<TraceId>,
    times: Vec<i64>,
    /// The end of each entry in `entries`. That of a dropped trace is empty.
    ends: Vec<u32>,
    entries: Vec<u8>,
}

impl Block {
    fn new() -> Self {
        Block {
            ids: Vec::with_capacity(BLOCK),
            times: Vec::with_capacity(BLOCK),
            ends: Vec::with_capacity(BLOCK),
            entries: Vec::new(),
        }
    }

    fn entry(&self, place: usize) -> &[u8] {
        let end_of = |place: usize| self.ends.get(place).map_or(0, |end| *end as usize);
        let start = place.checked_sub(1).map_or(0, end_of);
        self.entries.get(start..end_of(place)).unwrap_or(&[])
    }
}

/// Decisions by their number. The first ones are removed.
#[derive(Default)]
struct Ring {
    blocks: VecDeque<Block>,
    /// Number of the first decision of the first block.
    base: u64,
    front: u64,
    end: u64,
}

impl Ring {
    fn find(&self, number: u64) -> Option<(&Block, usize)> {
        let place = number.checked_sub(self.base)? as usize;
        let block = self.blocks.get(place / BLOCK)?;
        (place % BLOCK < block.ids.len()).then_some((block, place % BLOCK))
    }

    fn id(&self, number: u64) -> Option<&TraceId> {
        self.find(number).map(|(block, place)| &block.ids[place])
    }

    fn time(&self, number: u64) -> Option<i64> {
        self.find(number).map(|(block, place)| block.times[place])
    }

    fn entry(&self, number: u64) -> &[u8] {
        self.find(number).map_or(&[], |(block, place)| block.entry(place))
    }

    /// The number whose last 32 bits the index holds.
    fn whole(&self, short: u32) -> u64 {
        self.base + u64::from(short.wrapping_sub(self.base as u32))
    }

    fn push(&mut self, id: TraceId, time: i64, entry: &[u8]) -> u64 {
        if self.blocks.back().is_none_or(|block| block.ids.len() == BLOCK) {
            self.blocks.push_back(Block::new());
        }
        if let Some(block) = self.blocks.back_mut() {
            block.ids.push(id);
            block.times.push(time);
            if block.entries.capacity() - block.entries.len() < entry.len() {
                block.entries.reserve_exact(entry.len().max(block.entries.len() / 8));
            }
            block.entries.extend_from_slice(entry);
            block.ends.push(block.entries.len() as u32);
            if block.ids.len() == BLOCK {
                block.entries.shrink_to_fit();
            }
        }
        self.end += 1;
        self.end - 1
    }

    /// Removes the first decision.
    fn pop(&mut self) {
        self.front += 1;
        if self.front == self.base + BLOCK as u64 {
            self.blocks.pop_front();
            self.base = self.front;
        }
    }

    /// Frees the entries of a block all of whose decisions are before this one.
    fn free_before(&mut self, number: u64) {
        let place = (number - self.base) as usize;
        if place % BLOCK == 0 && place > 0 {
            if let Some(block) = self.blocks.get_mut(place / BLOCK - 1) {
                block.entries = Vec::new();
            }
        }
    }
}

pub struct Decided {
    window_ms: i64,
    most_bytes: usize,
    ring: Ring,
    /// Number of the first live decision; those before it are forgotten.
    live: u64,
    /// The last 32 bits of the number of the last decision of each id.
    index: Shards,
    /// Nominal bytes of the entries of live decisions.
    entry_bytes: usize,
    /// Entries that replaced those in the ring, by number. Rarely any.
    replaced: HashMap<u64, Option<Box<[u8]>>>,
    loaded: Loaded,
    /// A loaded decision took effect, and the memory is not yet within its bound.
    arrived: bool,
}

impl Decided {
    pub fn new(window_ms: i64, most_bytes: usize) -> Self {
        Decided {
            window_ms,
            most_bytes,
            ring: Ring::default(),
            live: 0,
            index: Shards::default(),
            entry_bytes: 0,
            replaced: HashMap::new(),
            loaded: Loaded::default(),
            arrived: false,
        }
    }

    /// The number of the last decision of an id.
    fn number(&self, id: &TraceId) -> Option<u64> {
        let ring = &self.ring;
        self.index.find(id, |short| ring.id(ring.whole(short)) == Some(id)).map(|short| ring.whole(short))
    }

    pub fn contains(&self, id: &TraceId) -> bool {
        self.number(id).is_some_and(|number| number >= self.live)
    }

    /// Decisions that are live.
    pub fn len(&self) -> usize {
        (self.ring.end - self.live) as usize
    }

    /// Nominal bytes of all remembered decisions.
    fn bytes(&self) -> usize {
        DECISION_BYTES * self.index.count + self.entry_bytes
    }

    fn entry_of(&self, number: u64) -> Option<&[u8]> {
        match self.replaced.get(&number) {
            Some(entry) => entry.as_deref(),
            None => Some(self.ring.entry(number)).filter(|entry| !entry.is_empty()),
        }
    }

    /// The entry of a live decision; None for a dropped trace.
    pub fn entry(&self, id: &TraceId) -> Option<&[u8]> {
        self.entry_of(self.number(id).filter(|number| *number >= self.live)?)
    }

    /// A trace was decided. One that is live already gets the new entry and keeps its time.
    pub fn remember(&mut self, id: TraceId, entry: Option<&[u8]>, decided_at_ms: i64) {
        self.entry_bytes += nominal(entry);
        let earlier = self.number(&id);
        if let Some(number) = earlier.filter(|number| *number >= self.live) {
            self.entry_bytes -= nominal(self.entry_of(number));
            self.replaced.insert(number, entry.map(Box::from));
            return;
        }
        if earlier.is_some() {
            self.remove(&id); // it was forgotten
        }
        // Stream time never goes back, but a loaded decision may be from the same millisecond as the last one.
        let last = self.ring.end.checked_sub(1).and_then(|number| self.ring.time(number));
        let at = last.filter(|_| self.live < self.ring.end).map_or(decided_at_ms, |last| decided_at_ms.max(last));
        let number = self.ring.push(id, at, entry.unwrap_or(&[]));
        let ring = &self.ring;
        self.index.insert(&id, number as u32, |short| ring.id(ring.whole(short)));
    }

    fn remove(&mut self, id: &TraceId) {
        let ring = &self.ring;
        self.index.remove(id, |short| ring.id(ring.whole(short)) == Some(id));
    }

    /// Forgets the oldest decisions completely until at most `most_bytes` are left; appends their ids. Returns whether it is done.
    fn forget_oldest(&mut self, early: &mut Vec<TraceId>, left: &mut usize) -> bool {
        while self.bytes() > self.most_bytes && self.ring.front < self.ring.end {
            if *left == 0 {
                return false;
            }
            if self.ring.front == self.live {
                self.forget_first();
            }
            early.extend(self.pop());
            *left = left.saturating_sub(EARLY);
        }
        true
    }

    /// The first live decision is forgotten.
    fn forget_first(&mut self) {
        self.entry_bytes -= nominal(self.entry_of(self.live));
        self.replaced.remove(&self.live);
        self.live += 1;
        self.ring.free_before(self.live);
    }

    /// Removes the first decision. Returns its id, unless that was decided again.
    fn pop(&mut self) -> Option<TraceId> {
        let number = self.ring.front;
        let id = *self.ring.id(number)?;
        let is_last = self.number(&id) == Some(number);
        if is_last {
            self.remove(&id);
        }
        self.ring.pop();
        is_last.then_some(id)
    }

    /// The replay starts at this stream time.
    pub fn restore_clock(&mut self, clock_ms: i64) {
        self.loaded = Loaded::new(clock_ms);
    }

    pub fn load(&mut self, id: TraceId, entry: Option<&[u8]>, decided_at_ms: i64, first_offset: i64, cut_offset: i64) {
        self.loaded.load(id, entry, decided_at_ms, first_offset, cut_offset);
    }

    /// The next loaded decision takes effect.
    fn arrive(&mut self) {
        let mut loaded = std::mem::take(&mut self.loaded);
        if let Some((id, entry, at)) = loaded.arrive() {
            self.remember(id, entry, at);
        }
        self.loaded = loaded;
    }

    /// Makes so many of the loaded decisions effective. Returns whether there are more.
    pub fn end_load(&mut self, step: usize) -> bool {
        for _ in 0..step {
            if self.loaded.arrives_ms().is_none() {
                return false;
            }
            self.arrive();
        }
        self.loaded.arrives_ms().is_some()
    }

    /// Touches about so many decisions, and appends the ids of those that were forgotten early. Returns whether it is done. It
    /// continues where it was, so the pieces change nothing.
    pub fn expire(&mut self, now_ms: i64, step: usize, early: &mut Vec<TraceId>) -> bool {
        let mut left = step.max(1);
        while left > 0 && !self.loaded.is_empty() {
            if self.arrived {
                // a trace that was decided again is loaded again, so there may be more than there were
                if !self.forget_oldest(early, &mut left) {
                    return false;
                }
                self.arrived = false;
            } else if self.loaded.passes_ms().is_some_and(|at| at < now_ms) {
                self.loaded.remove();
                left -= 1;
            } else if let Some(at) = self.loaded.arrives_ms().filter(|at| *at <= now_ms) {
                if !self.forget(at, &mut left) {
                    return false;
                }
                self.arrive();
                self.arrived = true;
                left = left.saturating_sub(1);
            } else {
                break;
            }
        }
        left > 0 && self.forget(now_ms, &mut left) && self.forget_oldest(early, &mut left)
    }

    pub fn was_forgotten(&self, id: &TraceId, now_ms: i64) -> bool {
        let found = self.number(id).filter(|number| *number < self.live).and_then(|number| self.ring.time(number));
        found.is_some_and(|at| now_ms < at + 2 * self.window_ms)
    }

    /// Whether an item of this trace in the record at `offset` belongs to a loaded decision.
    pub fn covers(&self, id: &TraceId, offset: i64) -> bool {
        self.loaded.covers(id, offset)
    }

    pub fn any_covers(&self) -> bool {
        self.loaded.any_covers()
    }

    /// Forgets live decisions, and removes forgotten ones. Returns whether it is done.
    fn forget(&mut self, now_ms: i64, left: &mut usize) -> bool {
        while self.ring.time(self.live).is_some_and(|at| at + self.window_ms <= now_ms) {
            if *left == 0 {
                return false;
            }
            self.forget_first();
            *left -= 1;
        }
        while self.ring.front < self.live && self.ring.time(self.ring.front).is_some_and(|at| at + 2 * self.window_ms <= now_ms) {
            if *left == 0 {
                return false;
            }
            self.pop();
            *left -= 1;
        }
        true
    }
}

/// What the entry of a live decision counts.
fn nominal(entry: Option<&[u8]>) -> usize {
    entry.map_or(0, |entry| entry.len().max(DECISION_BYTES))
}
