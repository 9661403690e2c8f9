//! The open traces of a partition, by number, by id, and in the order in which they began. Memory grows in blocks: one array would
//! double, and half of it would be unused. The index holds numbers only, because each id is in its trace. Its hash is keyed: senders
//! choose the ids. A large index does not grow in one go, which would stop the worker: each trace that is added moves a few.

use hashbrown::HashTable;

use crate::ids::Keys;
use crate::item::TraceId;
use crate::trace::Trace;

const BLOCK: usize = 1024;
/// An index with fewer traces grows in one go: less than a millisecond.
const LARGE: usize = 4096;
/// Traces that are moved when one is added, and slots that are looked at.
const MOVED: usize = 8;
const LOOKED_AT: u32 = 256;

/// The slot of no trace.
const NONE: u32 = u32::MAX;

/// An open trace, and the slots of those that began just before and just after it.
struct Open {
    trace: Trace,
    before: u32,
    after: u32,
}

pub struct Slots {
    blocks: Vec<Vec<Option<Open>>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    /// While the index grows: the traces that are not yet in it.
    rest: HashTable<u32>,
    /// They have this slot or one behind it.
    next: u32,
    keys: Keys,
    /// The traces that began first and last.
    first: u32,
    last: u32,
}

impl Default for Slots {
    fn default() -> Self {
        let (index, rest) = (HashTable::new(), HashTable::new());
        let (blocks, free, keys) = (Vec::new(), Vec::new(), Keys::default());
        Slots { blocks, free, index, rest, next: 0, keys, first: NONE, last: NONE }
    }
}

impl Slots {
    pub fn get(&self, slot: u32) -> Option<&Trace> {
        trace_in(&self.blocks, slot)
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Trace> {
        self.open_mut(slot).map(|open| &mut open.trace)
    }

    fn open_mut(&mut self, slot: u32) -> Option<&mut Open> {
        self.blocks.get_mut(slot as usize / BLOCK)?.get_mut(slot as usize % BLOCK)?.as_mut()
    }

    /// The trace that began first.
    pub fn oldest(&self) -> Option<&Trace> {
        self.get(self.first)
    }

    pub fn len(&self) -> usize {
        self.index.len() + self.rest.len()
    }

    /// All slots are below this one.
    pub fn end(&self) -> u32 {
        let last = self.blocks.last().map_or(0, Vec::len);
        (self.blocks.len().saturating_sub(1) * BLOCK + last) as u32
    }

    pub fn find(&self, id: &TraceId) -> Option<u32> {
        let is_it = |slot: &u32| self.get(*slot).is_some_and(|trace| trace.id == *id);
        let hash = self.keys.hash(id);
        let found = self.index.find(hash, is_it);
        if found.is_none() && !self.rest.is_empty() {
            return self.rest.find(hash, is_it).copied();
        }
        found.copied()
    }

    /// Adds a trace whose id no other open trace has.
    pub fn insert(&mut self, trace: Trace) -> u32 {
        let hash = self.keys.hash(&trace.id);
        let slot = self.place(Open { trace, before: self.last, after: NONE });
        self.link(self.last, slot);
        self.last = slot;
        if self.rest.is_empty() {
            let traces = self.index.len();
            if traces >= LARGE && traces == self.index.capacity() {
                self.rest = std::mem::replace(&mut self.index, HashTable::with_capacity(2 * traces));
                self.next = 0;
            }
        } else {
            self.move_some();
        }
        self.add(hash, slot);
        slot
    }

    fn add(&mut self, hash: u64, slot: u32) {
        let (blocks, keys) = (&self.blocks, &self.keys);
        let hash_of = |slot: &u32| trace_in(blocks, *slot).map_or(0, |trace| keys.hash(&trace.id));
        self.index.insert_unique(hash, slot, hash_of);
    }

    /// Moves traces from `rest` to `index`, in the order of their slots.
    fn move_some(&mut self) {
        let end = self.next.saturating_add(LOOKED_AT);
        let mut moved = 0;
        while self.next < end && moved < MOVED {
            let slot = self.next;
            self.next += 1;
            if let Some(hash) = self.get(slot).map(|trace| self.keys.hash(&trace.id)) {
                if remove(&mut self.rest, hash, slot) {
                    self.add(hash, slot);
                    moved += 1;
                }
            }
        }
        if self.rest.is_empty() {
            self.rest = HashTable::new();
        }
    }

    fn place(&mut self, open: Open) -> u32 {
        if let Some(slot) = self.free.pop() {
            if let Some(place) = self.blocks.get_mut(slot as usize / BLOCK).and_then(|block| block.get_mut(slot as usize % BLOCK))
            {
                *place = Some(open);
            }
            return slot;
        }
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let blocks = self.blocks.len();
        let last = &mut self.blocks[blocks - 1];
        last.push(Some(open));
        ((blocks - 1) * BLOCK + last.len() - 1) as u32
    }

    /// After the trace in `before`, the one in `after` began. If there is no trace in `before`, it was the first.
    fn link(&mut self, before: u32, after: u32) {
        match self.open_mut(before) {
            Some(open) => open.after = after,
            None => self.first = after,
        }
    }

    pub fn remove(&mut self, slot: u32) -> Option<Trace> {
        let removed = self.blocks.get_mut(slot as usize / BLOCK)?.get_mut(slot as usize % BLOCK)?.take()?;
        let Open { trace, before, after } = removed;
        self.link(before, after);
        match self.open_mut(after) {
            Some(open) => open.before = before,
            None => self.last = before,
        }
        let hash = self.keys.hash(&trace.id);
        if !remove(&mut self.index, hash, slot) {
            remove(&mut self.rest, hash, slot);
        }
        self.free.push(slot);
        Some(trace)
    }
}

fn trace_in(blocks: &[Vec<Option<Open>>], slot: u32) -> Option<&Trace> {
    blocks.get(slot as usize / BLOCK)?.get(slot as usize % BLOCK)?.as_ref().map(|open| &open.trace)
}

/// Whether the slot was in the table.
fn remove(table: &mut HashTable<u32>, hash: u64, slot: u32) -> bool {
    table.find_entry(hash, |one| *one == slot).map(|entry| entry.remove()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Beginning;

    fn trace(number: u128) -> Trace {
        let (offset, now_ms, heard, clock_before, index, process) = (number as i64, 0, 0, 0, 0, 0);
        Trace::new(Beginning { id: number.to_le_bytes(), offset, now_ms, heard, clock_before, index, process, heartbeats: false })
    }

    /// Checks which of the traces below `end` are known.
    fn check(slots: &Slots, end: u128, is_open: impl Fn(u128) -> bool) {
        for number in 0..end {
            let found = slots.find(&number.to_le_bytes()).and_then(|slot| slots.get(slot)).map(|trace| trace.id);
            assert_eq!(found, is_open(number).then_some(number.to_le_bytes()));
        }
        assert_eq!(slots.len(), (0..end).filter(|number| is_open(*number)).count());
    }

    #[test]
    fn grows_a_few_traces_at_a_time() {
        let (mut slots, mut grown) = (Slots::default(), 0);
        for number in 0..100_000 {
            let before = slots.rest.len();
            slots.insert(trace(number));
            grown += usize::from(before == 0 && !slots.rest.is_empty());
            assert!(slots.rest.is_empty() || before == 0 || before - slots.rest.len() <= MOVED);
            if number % 9_999 == 0 {
                check(&slots, number + 1, |_| true);
            }
        }
        assert_eq!(grown, 4); // at 7,168, 14,336, 28,672 and 57,344
        assert!(slots.rest.is_empty());
    }

    #[test]
    fn finds_each_trace_while_others_are_removed() {
        let mut slots = Slots::default();
        let is_open = |number: u128, end: u128| number % 3 == 0 || number + 5_000 > end;
        for number in 0..60_000 {
            slots.insert(trace(number));
            if number >= 5_000 && (number - 5_000) % 3 != 0 {
                let slot = slots.find(&(number - 5_000).to_le_bytes());
                assert!(slot.and_then(|slot| slots.remove(slot)).is_some());
            }
            if number % 1_999 == 0 {
                check(&slots, number + 1, |one| is_open(one, number));
            }
        }
    }

    /// The numbers of the traces in the order in which they began, read in both directions.
    fn order(slots: &Slots) -> Vec<i64> {
        let open = |slot: u32| slots.blocks.get(slot as usize / BLOCK)?.get(slot as usize % BLOCK)?.as_ref();
        let numbers = |from: u32, next: fn(&Open) -> u32| -> Vec<i64> {
            // a list that is a circle has no end
            let all = std::iter::successors(open(from), |one| open(next(one))).take(slots.len() + 1);
            all.map(|one| one.trace.first_offset).collect()
        };
        let found = numbers(slots.first, |one| one.after);
        let mut reversed = numbers(slots.last, |one| one.before);
        reversed.reverse();
        assert_eq!(found, reversed);
        found
    }

    #[test]
    fn knows_the_order_in_which_the_open_traces_began() {
        let mut slots = Slots::default();
        let (mut open, mut number, mut random) = (Vec::new(), 0, 1_u64);
        for step in 0..3_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let chosen = (random >> 33) as usize;
            let share = if step < 1_500 { 7 } else { 3 }; // it grows, then it shrinks
            if chosen % 10 < share {
                open.push((number as i64, slots.insert(trace(number))));
                number += 1;
            } else if !open.is_empty() {
                // often the first or the last one
                let last = open.len() - 1;
                let place = [0, last, chosen % open.len()][chosen / 10 % 3];
                let (number, slot) = open.remove(place);
                assert_eq!(slots.remove(slot).map(|trace| trace.first_offset), Some(number));
            }
            assert_eq!(slots.oldest().map(|trace| trace.first_offset), open.first().map(|(number, _)| *number));
            if step % 10 == 0 {
                assert_eq!(order(&slots), open.iter().map(|(number, _)| *number).collect::<Vec<_>>());
            }
        }
        for (_, slot) in std::mem::take(&mut open) {
            slots.remove(slot);
        }
        assert_eq!(order(&slots), [0_i64; 0]);
        slots.insert(trace(number));
        assert_eq!(order(&slots), [number as i64]);
    }
}
