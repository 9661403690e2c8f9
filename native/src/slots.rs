//! The open traces of a partition, by number and by id. Memory grows in blocks: one array would double, and half of it would be
//! unused. The index holds numbers only, because each id is in its trace. Its hash is keyed: senders choose the ids.

use hashbrown::HashTable;

use crate::ids::Keys;
use crate::item::TraceId;
use crate::trace::Trace;

const BLOCK: usize = 1024;

#[derive(Default)]
pub struct Slots {
    blocks: Vec<Vec<Option<Trace>>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    keys: Keys,
}

impl Slots {
    pub fn get(&self, slot: u32) -> Option<&Trace> {
        self.blocks.get(slot as usize / BLOCK)?.get(slot as usize % BLOCK)?.as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Trace> {
        self.blocks.get_mut(slot as usize / BLOCK)?.get_mut(slot as usize % BLOCK)?.as_mut()
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// All slots are below this one.
    pub fn end(&self) -> u32 {
        let last = self.blocks.last().map_or(0, Vec::len);
        (self.blocks.len().saturating_sub(1) * BLOCK + last) as u32
    }

    pub fn find(&self, id: &TraceId) -> Option<u32> {
        let is_it = |slot: &u32| self.get(*slot).is_some_and(|trace| trace.id == *id);
        self.index.find(self.keys.hash(id), is_it).copied()
    }

    /// Adds a trace whose id no other open trace has.
    pub fn insert(&mut self, trace: Trace) -> u32 {
        let hash = self.keys.hash(&trace.id);
        let slot = self.place(trace);
        let (blocks, keys) = (&self.blocks, &self.keys);
        let hash_of = |slot: &u32| {
            let trace = blocks.get(*slot as usize / BLOCK).and_then(|block| block.get(*slot as usize % BLOCK));
            trace.and_then(Option::as_ref).map_or(0, |trace| keys.hash(&trace.id))
        };
        self.index.insert_unique(hash, slot, hash_of);
        slot
    }

    fn place(&mut self, trace: Trace) -> u32 {
        if let Some(slot) = self.free.pop() {
            if let Some(place) = self.blocks.get_mut(slot as usize / BLOCK).and_then(|block| block.get_mut(slot as usize % BLOCK))
            {
                *place = Some(trace);
            }
            return slot;
        }
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let blocks = self.blocks.len();
        let last = &mut self.blocks[blocks - 1];
        last.push(Some(trace));
        ((blocks - 1) * BLOCK + last.len() - 1) as u32
    }

    pub fn remove(&mut self, slot: u32) -> Option<Trace> {
        let trace = self.blocks.get_mut(slot as usize / BLOCK)?.get_mut(slot as usize % BLOCK)?.take()?;
        if let Ok(entry) = self.index.find_entry(self.keys.hash(&trace.id), |one| *one == slot) {
            entry.remove();
        }
        self.free.push(slot);
        Some(trace)
    }
}
