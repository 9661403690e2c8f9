//! The decisions of a partition during their late window, as `assembly.decided` specifies them.
//!
//! A live decision is an id in a set; only a kept one has an entry, the object that the caller gave. So a dropped trace costs its id
//! twice: in the set, and in the queue of expiries.

use std::collections::{HashMap, HashSet, VecDeque};

use pyo3::prelude::*;

use crate::item::TraceId;

struct Loaded {
    decided_at_ms: i64,
    cut_offset: i64,
    first_offset: i64,
    id: TraceId,
    entry: Option<Py<PyAny>>,
}

pub struct Decided {
    window_ms: i64,
    live: HashSet<TraceId>,
    kept: HashMap<TraceId, Py<PyAny>>,
    /// Until when each forgotten id is known.
    forgotten: HashMap<TraceId, i64>,
    live_queue: VecDeque<(i64, TraceId)>,
    forgotten_queue: VecDeque<(i64, TraceId)>,
    loaded: VecDeque<Loaded>,
    in_order: bool,
    passing: VecDeque<(i64, TraceId, i64, i64)>,
    /// Offsets that loaded decisions cover, `first..cut`.
    ranges: HashMap<TraceId, Vec<(i64, i64)>>,
}

impl Decided {
    pub fn new(window_ms: i64) -> Self {
        Decided {
            window_ms,
            live: HashSet::new(),
            kept: HashMap::new(),
            forgotten: HashMap::new(),
            live_queue: VecDeque::new(),
            forgotten_queue: VecDeque::new(),
            loaded: VecDeque::new(),
            in_order: true,
            passing: VecDeque::new(),
            ranges: HashMap::new(),
        }
    }

    pub fn contains(&self, id: &TraceId) -> bool {
        self.live.contains(id)
    }

    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// The entry of a live decision; None for a dropped trace.
    pub fn entry(&self, id: &TraceId) -> Option<&Py<PyAny>> {
        self.kept.get(id)
    }

    /// A trace was decided. One that is live already gets the new entry and keeps its time.
    pub fn remember(&mut self, id: TraceId, entry: Option<Py<PyAny>>, decided_at_ms: i64) {
        if self.live.insert(id) {
            // Stream time never goes back, but a loaded decision may be from the same millisecond as the last one.
            let at = self.live_queue.back().map_or(decided_at_ms, |(last, _)| decided_at_ms.max(*last));
            self.live_queue.push_back((at, id));
        }
        match entry {
            Some(entry) => self.kept.insert(id, entry),
            None => self.kept.remove(&id),
        };
    }

    pub fn load(&mut self, id: TraceId, entry: Option<Py<PyAny>>, decided_at_ms: i64, first_offset: i64, cut_offset: i64) {
        self.loaded.push_back(Loaded { decided_at_ms, cut_offset, first_offset, id, entry });
        self.in_order = false;
        self.ranges.entry(id).or_default().push((first_offset, cut_offset));
    }

    pub fn expire(&mut self, now_ms: i64) {
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
    }

    pub fn was_forgotten(&self, id: &TraceId, now_ms: i64) -> bool {
        self.forgotten.get(id).is_some_and(|until| now_ms < *until)
    }

    /// Whether an item of this trace in the record at `offset` belongs to a loaded decision.
    pub fn covers(&self, id: &TraceId, offset: i64) -> bool {
        self.ranges.get(id).is_some_and(|ranges| ranges.iter().any(|(first, cut)| (*first..*cut).contains(&offset)))
    }

    pub fn any_covers(&self) -> bool {
        !self.ranges.is_empty()
    }

    fn forget(&mut self, now_ms: i64) {
        while self.live_queue.front().is_some_and(|(at, _)| at + self.window_ms <= now_ms) {
            let Some((decided_at, id)) = self.live_queue.pop_front() else {
                break;
            };
            let until = decided_at + 2 * self.window_ms;
            self.live.remove(&id);
            self.kept.remove(&id);
            self.forgotten.insert(id, until);
            self.forgotten_queue.push_back((until, id));
        }
        while self.forgotten_queue.front().is_some_and(|(until, _)| *until <= now_ms) {
            let Some((until, id)) = self.forgotten_queue.pop_front() else {
                break;
            };
            if self.forgotten.get(&id).is_some_and(|known| *known <= until) {
                self.forgotten.remove(&id);
            }
        }
    }
}
