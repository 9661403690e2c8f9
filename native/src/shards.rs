//! Numbers by trace id, in tables that are so small that the growth of none of them stops the worker.

use hashbrown::HashTable;

use crate::ids::Keys;
use crate::item::TraceId;

const SHARDS: usize = 1024;

/// The caller has the ids: it finds the one of a number.
pub struct Shards {
    keys: Keys,
    tables: Vec<HashTable<u32>>,
    pub count: usize,
}

impl Default for Shards {
    fn default() -> Self {
        Shards { keys: Keys::default(), tables: (0..SHARDS).map(|_| HashTable::new()).collect(), count: 0 }
    }
}

impl Shards {
    /// A table finds its places by the lower and the uppermost bits, so it is chosen by others.
    fn place(&self, id: &TraceId) -> (u64, usize) {
        let hash = self.keys.hash(id);
        (hash, (hash >> 40) as usize % SHARDS)
    }

    /// The number of this id that `is_it` accepts.
    pub fn find(&self, id: &TraceId, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (hash, shard) = self.place(id);
        self.tables.get(shard)?.find(hash, |number| is_it(*number)).copied()
    }

    /// Adds a number. `id_of` finds the id of any number in the table.
    pub fn insert<'a>(&mut self, id: &TraceId, number: u32, id_of: impl Fn(u32) -> Option<&'a TraceId>) {
        let (hash, shard) = self.place(id);
        let keys = &self.keys;
        if let Some(table) = self.tables.get_mut(shard) {
            table.insert_unique(hash, number, |one| id_of(*one).map_or(0, |id| keys.hash(id)));
            self.count += 1;
        }
    }

    /// Removes the number of this id that `is_it` accepts. Frees a table that is empty.
    pub fn remove(&mut self, id: &TraceId, mut is_it: impl FnMut(u32) -> bool) {
        let (hash, shard) = self.place(id);
        if let Some(table) = self.tables.get_mut(shard) {
            if let Ok(found) = table.find_entry(hash, |number| is_it(*number)) {
                found.remove();
                self.count -= 1;
                if table.is_empty() {
                    *table = HashTable::new();
                }
            }
        }
    }
}
