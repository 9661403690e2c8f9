//! Numbers by trace id, in tables that are so small that the growth of none of them stops the worker.

use hashbrown::HashTable;

use crate::ids::Keys;
use crate::item::TraceId;

const SHARDS: usize = 4096;
/// Numbers that a table has room for when it is empty.
const SMALL: usize = 14;
const PARTS: u64 = 1 << 20;

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
    fn place(&self, id: &TraceId) -> (u64, usize) {
        let hash = self.keys.hash(id);
        (hash, shard_of(hash))
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

    /// Removes the number of this id that `is_it` accepts. Frees a large table that is empty.
    pub fn remove(&mut self, id: &TraceId, mut is_it: impl FnMut(u32) -> bool) {
        let (hash, shard) = self.place(id);
        if let Some(table) = self.tables.get_mut(shard) {
            if let Ok(found) = table.find_entry(hash, |number| is_it(*number)) {
                found.remove();
                self.count -= 1;
                if table.is_empty() && table.capacity() > SMALL {
                    *table = HashTable::new();
                }
            }
        }
    }
}

/// A table finds its places by the lower and the uppermost bits of the hash, so it is chosen by others. A table doubles when it is full. If
/// all had the same size, all would double at once. So the last one gets twice as much as the first one, and they double one by one.
fn shard_of(hash: u64) -> usize {
    let part = hash >> 36 & (PARTS - 1);
    let bend = part * (PARTS - part) / PARTS;
    let part = part + bend * 343 / 1000; // about log2(1 + part)
    part as usize / (PARTS as usize / SHARDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_double_one_by_one() {
        let mut sizes = vec![0_u32; SHARDS];
        for part in 0..PARTS {
            sizes[shard_of(part << 36)] += 1;
        }
        let quarter = |at: usize| sizes[at * SHARDS / 4..(at + 1) * SHARDS / 4].iter().sum::<u32>() as f64;
        let steps: Vec<f64> = (1..4).map(|at| quarter(at) / quarter(at - 1)).collect();
        assert!(steps.iter().all(|step| (1.1..1.3).contains(step)), "{steps:?}"); // 2 ** (1 / 4) = 1.19
        assert!(sizes.iter().all(|size| (180..400).contains(size)), "{sizes:?}");
    }
}
