//! When open traces are to be checked: a binary heap in which each trace has at most one entry. The place of each entry is known, so
//! the entry of a trace is moved or removed in as many steps as the heap is deep. No entry is ever stale: stale ones would have to be
//! removed later, many at once.

/// A time, and the slot of a trace.
type Entry = (i64, u32);

/// The place of a trace without an entry.
const NONE: u32 = u32::MAX;

#[derive(Default)]
pub struct Deadlines {
    heap: Vec<Entry>,
    /// Where in the heap the entry of a slot is.
    places: Vec<u32>,
}

impl Deadlines {
    /// The earliest entry.
    pub fn first(&self) -> Option<Entry> {
        self.heap.first().copied()
    }

    pub fn contains(&self, slot: u32) -> bool {
        self.place(slot).is_some()
    }

    fn place(&self, slot: u32) -> Option<usize> {
        self.places.get(slot as usize).filter(|place| **place != NONE).map(|place| *place as usize)
    }

    /// Adds the entry of a trace, or moves it.
    pub fn set(&mut self, slot: u32, at: i64) {
        let entry = (at, slot);
        let place = self.place(slot).unwrap_or_else(|| {
            self.heap.push(entry);
            self.heap.len() - 1
        });
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, NONE);
        }
        self.sift(place, entry);
    }

    /// Removes the entry of a trace, if it has one.
    pub fn remove(&mut self, slot: u32) {
        let Some(place) = self.place(slot) else {
            return;
        };
        self.places[slot as usize] = NONE;
        if let Some(last) = self.heap.pop() {
            if place < self.heap.len() {
                self.sift(place, last);
            }
        }
    }

    /// Puts an entry where it belongs if the one at this place is replaced: there, or above or below it. Entries of the same time are
    /// in any order.
    fn sift(&mut self, mut place: usize, entry: Entry) {
        while place > 0 && entry.0 < self.heap[(place - 1) / 2].0 {
            let above = (place - 1) / 2;
            self.put(place, self.heap[above]);
            place = above;
        }
        loop {
            let mut below = 2 * place + 1;
            if below + 1 < self.heap.len() && self.heap[below + 1].0 < self.heap[below].0 {
                below += 1;
            }
            if below >= self.heap.len() || entry.0 <= self.heap[below].0 {
                break;
            }
            self.put(place, self.heap[below]);
            place = below;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: Entry) {
        self.heap[place] = entry;
        self.places[entry.1 as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Numbers that look random.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % end
        }
    }

    #[test]
    fn knows_the_earliest_of_one_entry_a_slot() {
        for seed in 0..50 {
            let (mut deadlines, mut random) = (Deadlines::default(), Random(seed));
            let (mut sorted, mut times) = (BTreeSet::new(), BTreeMap::new());
            let slots = 1 + random.below(400);
            for step in 0..4_000 {
                let slot = random.below(slots) as u32;
                if let Some(at) = times.remove(&slot) {
                    sorted.remove(&(at, slot));
                }
                let most = if step < 2_000 { 3 } else { 1 }; // it grows, then it shrinks
                if random.below(4) < most {
                    let at = random.below(100) as i64;
                    sorted.insert((at, slot));
                    times.insert(slot, at);
                    deadlines.set(slot, at);
                } else {
                    deadlines.remove(slot);
                }
                assert_eq!(deadlines.contains(slot), times.contains_key(&slot));
                assert_eq!(deadlines.first().map(|(at, _)| at), sorted.first().map(|(at, _)| *at));
                assert_eq!(deadlines.heap.len(), sorted.len());
            }
            while let Some((at, slot)) = deadlines.first() {
                assert_eq!(sorted.first().map(|(at, _)| *at), Some(at));
                assert!(sorted.remove(&(at, slot)));
                deadlines.remove(slot);
            }
            assert!(sorted.is_empty());
        }
    }

    #[test]
    fn a_slot_without_an_entry_has_none_to_remove() {
        let mut deadlines = Deadlines::default();
        deadlines.remove(7);
        deadlines.set(3, 5);
        deadlines.remove(2);
        deadlines.remove(1_000);
        assert_eq!(deadlines.first(), Some((5, 3)));
    }
}
