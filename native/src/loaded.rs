//! The committed decisions that a replay needs, as `assembly.loaded` specifies them: until they take effect, and then until all items
//! that they cover were read.
//!
//! A decision takes 44 bytes, its entry, and 6 to 12 bytes of the index if it covers items that are read again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::item::TraceId;
use crate::shards::Shards;

const BLOCK: usize = 1024;

/// Decisions of one run that follow one another.
struct Block {
    ids: Vec<TraceId>,
    times: Vec<i64>,
    firsts: Vec<i64>,
    cuts: Vec<i64>,
    /// The end of each entry in `entries`. That of a dropped trace is empty.
    ends: Vec<u32>,
    entries: Vec<u8>,
}

impl Block {
    fn new() -> Self {
        Block {
            ids: Vec::with_capacity(BLOCK),
            times: Vec::with_capacity(BLOCK),
            firsts: Vec::with_capacity(BLOCK),
            cuts: Vec::with_capacity(BLOCK),
            ends: Vec::with_capacity(BLOCK),
            entries: Vec::new(),
        }
    }

    fn entry(&self, place: usize) -> Option<&[u8]> {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Some(&self.entries[start..self.ends[place] as usize]).filter(|entry| !entry.is_empty())
    }
}

/// A run and a place in it; the first one by time and cut offset, and of loading if these are equal.
type Head = Reverse<(i64, i64, usize, usize)>;

/// Walks over the decisions of all runs.
#[derive(Default)]
struct Cursor {
    heads: BinaryHeap<Head>,
}

impl Cursor {
    fn new(rows: &Rows) -> Self {
        Cursor { heads: (0..rows.runs.len()).filter_map(|run| rows.head(run, 0)).collect() }
    }

    fn time(&self) -> Option<i64> {
        self.heads.peek().map(|Reverse((time, ..))| *time)
    }

    /// The block and the place of the next decision; moves on.
    fn next(&mut self, rows: &Rows) -> Option<(usize, usize)> {
        let Reverse((_, _, run, at)) = self.heads.pop()?;
        self.heads.extend(rows.head(run, at + 1));
        Some((rows.runs[run][at / BLOCK] as usize, at % BLOCK))
    }
}

/// The decisions, in blocks. Those that are loaded in order are in one run.
#[derive(Default)]
struct Rows {
    blocks: Vec<Option<Box<Block>>>,
    /// The blocks of each run.
    runs: Vec<Vec<u32>>,
}

impl Rows {
    fn block(&self, number: usize) -> Option<&Block> {
        self.blocks.get(number)?.as_deref()
    }

    fn id(&self, number: u32) -> Option<&TraceId> {
        self.block(number as usize / BLOCK)?.ids.get(number as usize % BLOCK)
    }

    fn covers(&self, number: u32, id: &TraceId, offset: i64) -> bool {
        let place = number as usize % BLOCK;
        let block = self.block(number as usize / BLOCK);
        block.is_some_and(|block| block.ids[place] == *id && (block.firsts[place]..block.cuts[place]).contains(&offset))
    }

    fn head(&self, run: usize, at: usize) -> Option<Head> {
        let block = self.block(*self.runs[run].get(at / BLOCK)? as usize)?;
        let time = *block.times.get(at % BLOCK)?;
        Some(Reverse((time, block.cuts[at % BLOCK], run, at)))
    }

    /// The block of a run for its next decision.
    fn last_block(&mut self, run: usize) -> usize {
        let last = self.runs[run].last().map(|block| *block as usize);
        if let Some(last) = last.filter(|last| self.block(*last).is_some_and(|block| block.ids.len() < BLOCK)) {
            return last;
        }
        self.blocks.push(Some(Box::new(Block::new())));
        self.runs[run].push(self.blocks.len() as u32 - 1);
        self.blocks.len() - 1
    }
}

/// Load all decisions before the first one is read.
#[derive(Default)]
pub struct Loaded {
    /// The clock at which the replay starts. It does not read again what earlier decisions cover.
    from_ms: i64,
    rows: Rows,
    /// The time and the cut offset of the last decision of each run. They descend.
    lasts: Vec<(i64, i64)>,
    /// The decisions that cover items.
    index: Option<Shards>,
    cursors: Option<Cursors>,
}

#[derive(Default)]
struct Cursors {
    arriving: Cursor,
    passing: Cursor,
    /// Decisions between the cursors: those that are in effect and may still cover items.
    waiting: usize,
}

impl Loaded {
    pub fn new(from_ms: i64) -> Self {
        Loaded { from_ms, ..Loaded::default() }
    }

    pub fn load(&mut self, id: TraceId, entry: Option<&[u8]>, decided_at_ms: i64, first_offset: i64, cut_offset: i64) {
        let key = (decided_at_ms, cut_offset);
        let run = self.lasts.partition_point(|last| *last > key); // the first one after whose last decision it is
        if run == self.lasts.len() {
            self.lasts.push(key);
            self.rows.runs.push(Vec::new());
        }
        self.lasts[run] = key;
        let number = self.rows.last_block(run);
        let Some(block) = self.rows.blocks[number].as_mut() else {
            return;
        };
        let place = block.ids.len();
        block.ids.push(id);
        block.times.push(decided_at_ms);
        block.firsts.push(first_offset);
        block.cuts.push(cut_offset);
        let entry = entry.unwrap_or(&[]);
        if block.entries.capacity() - block.entries.len() < entry.len() {
            block.entries.reserve_exact(entry.len().max(block.entries.len() / 8));
        }
        block.entries.extend_from_slice(entry);
        block.ends.push(block.entries.len() as u32);
        if place + 1 == BLOCK {
            block.entries.shrink_to_fit();
        }
        if decided_at_ms >= self.from_ms {
            let rows = &self.rows;
            let index = self.index.get_or_insert_with(Shards::default);
            index.insert(&id, (number * BLOCK + place) as u32, |one| rows.id(one));
        }
        self.cursors = None;
    }

    /// Whether nothing is loaded, or all of it was removed.
    pub fn is_empty(&self) -> bool {
        self.rows.blocks.is_empty()
    }

    fn cursors(&mut self) -> &mut Cursors {
        let rows = &self.rows;
        let begin = || Cursors { arriving: Cursor::new(rows), passing: Cursor::new(rows), waiting: 0 };
        self.cursors.get_or_insert_with(begin)
    }

    /// When the next decision takes effect; None if all are in effect.
    pub fn arrives_ms(&mut self) -> Option<i64> {
        self.cursors().arriving.time()
    }

    /// The time of the first decision that is in effect and was not removed.
    pub fn passes_ms(&mut self) -> Option<i64> {
        let cursors = self.cursors();
        cursors.passing.time().filter(|_| cursors.waiting > 0)
    }

    /// The id, the entry and the time of the next decision. It is in effect now.
    pub fn arrive(&mut self) -> Option<(TraceId, Option<&[u8]>, i64)> {
        let cursors = self.cursors.as_mut()?;
        let (number, place) = cursors.arriving.next(&self.rows)?;
        cursors.waiting += 1;
        let block = self.rows.block(number)?;
        Some((block.ids[place], block.entry(place), block.times[place]))
    }

    /// Whether an item of this trace in the record at `offset` belongs to a decision. False after the replay.
    pub fn covers(&self, id: &TraceId, offset: i64) -> bool {
        let rows = &self.rows;
        self.index.as_ref().is_some_and(|index| index.find(id, |number| rows.covers(number, id, offset)).is_some())
    }

    pub fn any_covers(&self) -> bool {
        self.index.is_some()
    }

    /// Removes the first decision. The clock is past it, so all items that it covers have been read.
    pub fn remove(&mut self) {
        let Some(cursors) = self.cursors.as_mut() else {
            return;
        };
        let Some((number, place)) = cursors.passing.next(&self.rows) else {
            return;
        };
        cursors.waiting -= 1;
        let is_read = cursors.waiting == 0 && cursors.arriving.heads.is_empty();
        let found = self.rows.block(number).map(|block| (block.ids[place], block.times[place]));
        if let Some((id, _)) = found.filter(|(_, time)| *time >= self.from_ms) {
            let row = (number * BLOCK + place) as u32;
            self.index.as_mut().into_iter().for_each(|index| index.remove(&id, |one| one == row));
            self.index = self.index.take().filter(|index| index.count > 0);
        }
        if place + 1 == BLOCK {
            self.rows.blocks[number] = None;
        }
        if is_read {
            *self = Loaded::default();
        }
    }
}
