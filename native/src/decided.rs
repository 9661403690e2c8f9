//! The decisions of a partition during their late window, as `assembly.decided` specifies them.
//!
//! All decisions are in one ring in the order of their time: the older ones are forgotten, the others live. So a decision costs its id,
//! its time and a place in the index, about 40 bytes. The ring and the index grow in blocks, so that none of them stops the worker.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use pyo3::prelude::*;

use crate::item::TraceId;

const BLOCK: usize = 1024;
const SHARDS: usize = 256;
/// What a decision, and in addition a kept one, counts where the memory of decisions is bounded.
const DECISION_BYTES: usize = 64;

#[derive(Clone, Copy)]
struct Entry {
    id: TraceId,
    at: i64,
}

/// Entries by their number. The first ones are removed.
#[derive(Default)]
struct Ring {
    blocks: VecDeque<Vec<Entry>>,
    /// Number of the first entry of the first block.
    base: u64,
    front: u64,
    end: u64,
}

impl Ring {
    fn get(&self, number: u64) -> Option<&Entry> {
        let place = number.checked_sub(self.base)? as usize;
        self.blocks.get(place / BLOCK)?.get(place % BLOCK)
    }

    fn push(&mut self, entry: Entry) -> u64 {
        if self.blocks.back().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push_back(Vec::with_capacity(BLOCK));
        }
        if let Some(block) = self.blocks.back_mut() {
            block.push(entry);
        }
        self.end += 1;
        self.end - 1
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = *self.get(self.front)?;
        self.front += 1;
        if self.front == self.base + BLOCK as u64 {
            self.blocks.pop_front();
            self.base = self.front;
        }
        Some(entry)
    }
}

struct Loaded {
    decided_at_ms: i64,
    cut_offset: i64,
    first_offset: i64,
    id: TraceId,
    entry: Option<Py<PyAny>>,
}

pub struct Decided {
    window_ms: i64,
    most_bytes: usize,
    ring: Ring,
    /// Number of the first live entry; those before it are forgotten.
    live: u64,
    /// The number of the last entry of each id.
    index: Vec<HashTable<u64>>,
    known: usize,
    keys: RandomState,
    kept: HashMap<TraceId, Py<PyAny>>,
    loaded: VecDeque<Loaded>,
    in_order: bool,
    passing: VecDeque<(i64, TraceId, i64, i64)>,
    /// Offsets that loaded decisions cover, `first..cut`.
    ranges: HashMap<TraceId, Vec<(i64, i64)>>,
}

impl Decided {
    pub fn new(window_ms: i64, most_bytes: usize) -> Self {
        Decided {
            window_ms,
            most_bytes,
            ring: Ring::default(),
            live: 0,
            index: (0..SHARDS).map(|_| HashTable::new()).collect(),
            known: 0,
            keys: RandomState::new(),
            kept: HashMap::new(),
            loaded: VecDeque::new(),
            in_order: true,
            passing: VecDeque::new(),
            ranges: HashMap::new(),
        }
    }

    /// The number of the last entry of an id.
    fn number(&self, id: &TraceId) -> Option<u64> {
        let hash = self.keys.hash_one(id);
        let is_it = |number: &u64| self.ring.get(*number).is_some_and(|entry| entry.id == *id);
        self.index.get(hash as usize % SHARDS)?.find(hash, is_it).copied()
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
        DECISION_BYTES * (self.known + self.kept.len())
    }

    /// The entry of a live decision; None for a dropped trace.
    pub fn entry(&self, id: &TraceId) -> Option<&Py<PyAny>> {
        self.kept.get(id)
    }

    /// A trace was decided. One that is live already gets the new entry and keeps its time.
    pub fn remember(&mut self, id: TraceId, entry: Option<Py<PyAny>>, decided_at_ms: i64) {
        if !self.contains(&id) {
            self.remove(&id); // it was forgotten
            // Stream time never goes back, but a loaded decision may be from the same millisecond as the last one.
            let last = self.ring.end.checked_sub(1).and_then(|number| self.ring.get(number));
            let at = last.filter(|_| self.live < self.ring.end).map_or(decided_at_ms, |last| decided_at_ms.max(last.at));
            let number = self.ring.push(Entry { id, at });
            let hash = self.keys.hash_one(id);
            let (ring, keys) = (&self.ring, &self.keys);
            if let Some(shard) = self.index.get_mut(hash as usize % SHARDS) {
                shard.insert_unique(hash, number, |one| ring.get(*one).map_or(0, |entry| keys.hash_one(entry.id)));
                self.known += 1;
            }
        }
        match entry {
            Some(entry) => self.kept.insert(id, entry),
            None => self.kept.remove(&id),
        };
    }

    fn remove(&mut self, id: &TraceId) {
        let hash = self.keys.hash_one(id);
        let ring = &self.ring;
        let is_it = |number: &u64| ring.get(*number).is_some_and(|entry| entry.id == *id);
        if let Some(shard) = self.index.get_mut(hash as usize % SHARDS) {
            if let Ok(found) = shard.find_entry(hash, is_it) {
                found.remove();
                self.known -= 1;
            }
        }
    }

    /// Forgets the oldest decisions completely until at most `most_bytes` are left; appends their ids.
    fn forget_oldest(&mut self, early: &mut Vec<TraceId>) {
        while self.bytes() > self.most_bytes {
            let Some(id) = self.pop() else {
                break;
            };
            early.extend(id);
        }
    }

    /// Removes the first entry. None: there is none; the inner None: its id was decided again.
    fn pop(&mut self) -> Option<Option<TraceId>> {
        let number = self.ring.front;
        let id = self.ring.get(number)?.id;
        let is_last = self.number(&id) == Some(number);
        if is_last {
            self.remove(&id);
            self.kept.remove(&id);
        }
        self.ring.pop();
        self.live = self.live.max(self.ring.front);
        Some(is_last.then_some(id))
    }

    pub fn load(&mut self, id: TraceId, entry: Option<Py<PyAny>>, decided_at_ms: i64, first_offset: i64, cut_offset: i64) {
        self.loaded.push_back(Loaded { decided_at_ms, cut_offset, first_offset, id, entry });
        self.in_order = false;
        self.ranges.entry(id).or_default().push((first_offset, cut_offset));
    }

    /// Returns the ids of the decisions that were forgotten early.
    pub fn expire(&mut self, now_ms: i64) -> Vec<TraceId> {
        let mut early = Vec::new();
        if !self.in_order {
            self.loaded.make_contiguous().sort_by_key(|loaded| (loaded.decided_at_ms, loaded.cut_offset));
            self.in_order = true;
        }
        while self.loaded.front().is_some_and(|loaded| loaded.decided_at_ms <= now_ms) {
            let Some(loaded) = self.loaded.pop_front() else {
                break;
            };
            self.forget(loaded.decided_at_ms);
            self.remember(loaded.id, loaded.entry, loaded.decided_at_ms);
            self.passing.push_back((loaded.decided_at_ms, loaded.id, loaded.first_offset, loaded.cut_offset));
            self.forget_oldest(&mut early); // at once, because a trace that was decided again is loaded again
        }
        while self.passing.front().is_some_and(|(at, ..)| *at < now_ms) {
            let Some((_, id, first, cut)) = self.passing.pop_front() else {
                break;
            };
            if let Some(ranges) = self.ranges.get_mut(&id) {
                if let Some(at) = ranges.iter().position(|range| *range == (first, cut)) {
                    ranges.remove(at);
                }
                if ranges.is_empty() {
                    self.ranges.remove(&id);
                }
            }
        }
        self.forget(now_ms);
        self.forget_oldest(&mut early);
        early
    }

    pub fn was_forgotten(&self, id: &TraceId, now_ms: i64) -> bool {
        let found = self.number(id).filter(|number| *number < self.live).and_then(|number| self.ring.get(number));
        found.is_some_and(|entry| now_ms < entry.at + 2 * self.window_ms)
    }

    /// Whether an item of this trace in the record at `offset` belongs to a loaded decision.
    pub fn covers(&self, id: &TraceId, offset: i64) -> bool {
        self.ranges.get(id).is_some_and(|ranges| ranges.iter().any(|(first, cut)| (*first..*cut).contains(&offset)))
    }

    pub fn any_covers(&self) -> bool {
        !self.ranges.is_empty()
    }

    fn forget(&mut self, now_ms: i64) {
        while self.live < self.ring.end {
            let Some(entry) = self.ring.get(self.live).filter(|entry| entry.at + self.window_ms <= now_ms) else {
                break;
            };
            self.kept.remove(&entry.id);
            self.live += 1;
        }
        while self.ring.front < self.live {
            if self.ring.get(self.ring.front).is_none_or(|entry| entry.at + 2 * self.window_ms > now_ms) {
                break;
            }
            self.pop();
        }
    }
}
