//! The undecided traces of one partition, and when each is to be decided. A function of the log: time is an argument.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::brief::{Brief, Parsed};
use crate::deadlines::Deadlines;
use crate::decided::Decided;
use crate::facts::Spellings;
use crate::item::{Envelope, Head, TraceId, FOREIGN, LOST, SPAN, TICK};
use crate::msgpack::{NotPlain, Read, Reader, MAX_DEPTH};
use crate::names::Names;
use crate::processes::Registry;
use crate::slots::Slots;
use crate::trace::{Beginning, Processes, Spare, Trace, Wait};

/// Most items of a record, as `MAX_ITEMS` of `prela_stream.codec.spans`.
const MAX_ITEMS: usize = 16_384;

/// The memory for the items of a larger record is not kept.
const KEPT_ITEMS: usize = 1024;

/// An item counts once more as work for each so many bytes.
const STEP_BYTES: usize = 4096;

pub const MAX_SPANS: u8 = 8;
pub const MAX_BYTES: u8 = 9;
pub const MEMORY: u8 = 10;

/// `next_deadline_ms` checks so many traces and folds about so many spans: less than a millisecond.
const CHECKED: usize = 256;

/// The deadline of a trace that is found to be due: it is not queued any more.
const TAKEN: i64 = i64::MIN;

#[derive(Clone, Copy)]
pub struct Options {
    /// By `Wait`.
    pub waits: [i64; 8],
    pub lost_ms: i64,
    pub silence_ms: i64,
    pub max_age_ms: i64,
    pub max_spans: usize,
    pub max_bytes: usize,
    /// Of an item and its resource together.
    pub max_item_bytes: usize,
    /// A trace with so many collected items is folded at once.
    pub most_pending: usize,
}

/// What became of the items of one record.
#[derive(Default)]
pub struct Applied {
    pub items: u64,
    pub control: u64,
    pub spans: u64,
    /// Items of loaded decisions, in a replay: they are not taken in.
    pub covered: u64,
    /// Span items whose trace is decided: the trace, the index in the record, and the bytes.
    pub late: Vec<(TraceId, u32, Vec<u8>)>,
    /// The process of the record if any item is late.
    pub late_resource: Option<Py<PyBytes>>,
}

/// An open trace; the largest is decided first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Heavy {
    weight: u128,
    /// Offset and index of its first item.
    first: Reverse<(i64, u32)>,
    slot: u32,
    bytes: usize,
}

/// What is known while the heaviest traces are taken out.
struct Relief {
    most: usize,
    trace_bytes: usize,
    held: usize,
    /// The slots before this one are weighed.
    weighed: u32,
    open: BinaryHeap<Heavy>,
    found: BinaryHeap<Reverse<((i64, u32), u32)>>,
}

/// A record that is taken in, in pieces.
struct Record {
    offset: i64,
    replay: bool,
    /// Where its resource is in its value.
    resource: Range<usize>,
    /// Items that are not read yet, and where they begin.
    unread: usize,
    at: usize,
    items: Vec<Parsed>,
    /// So many of `items` are applied.
    done: usize,
    /// What has become of them, once all are read.
    adding: Option<Adding>,
}

/// The items of a record that are applied, in pieces.
struct Adding {
    process: u32,
    offset: i64,
    replay: bool,
    applied: Applied,
}

/// Whether a record is taken in.
pub enum Added {
    Whole(Applied),
    /// Call `add_more`.
    Part,
    NotPlain,
}

/// A trace that left the partition, and why.
pub struct Closed {
    pub trace: Trace,
    pub trigger: u8,
    pub due_ms: i64,
}

pub struct Partition {
    options: Options,
    soonest_ms: i64,
    pub decided: Decided,
    pub processes: Registry,
    slots: Slots,
    pub spare: Spare,
    /// When the deadlines of the open traces are to be checked.
    queue: Deadlines,
    /// Traces that wait for heartbeats, by the clock that skips silence.
    watched: Deadlines,
    over: Vec<u32>,
    /// Memory for the items of a record.
    parsed: Vec<Parsed>,
    /// A plain record that is taken in in part, and one whose items Python decodes.
    record: Option<Record>,
    adding: Option<Adding>,
    /// What `collect` found: deadline, first item, slot, and the wait that ends.
    found: BinaryHeap<Reverse<(i64, (i64, u32), u32, u8)>>,
    relief: Option<Relief>,
    /// Stream time minus the clock that skips silence, before the last step.
    ahead: i64,
    heard: i64,
    pub clock_ms: i64,
    clock_before: i64,
    /// SPAN items held for undecided traces. One that is a duplicate counts until its trace is folded.
    pub open_spans: i64,
    pub open_bytes: usize,
    /// Duplicates found so far.
    pub duplicates: u64,
    /// Items read and applied, spans folded, and traces closed so far: a test checks that no call does much of it.
    pub work: u64,
}

impl Partition {
    pub fn new(options: Options, decided: Decided, describe: Py<PyAny>) -> Self {
        let waits = [Wait::Complete, Wait::Remote, Wait::Root, Wait::OtlpRoot, Wait::Idle, Wait::IdleWithoutHeartbeats];
        let shortest = waits.iter().map(|wait| options.waits[*wait as usize]).min().unwrap_or(0);
        Partition {
            options,
            soonest_ms: shortest.min(options.lost_ms),
            decided,
            processes: Registry::new(describe),
            slots: Slots::default(),
            spare: Spare::default(),
            queue: Deadlines::default(),
            watched: Deadlines::default(),
            over: Vec::new(),
            parsed: Vec::new(),
            record: None,
            adding: None,
            found: BinaryHeap::new(),
            relief: None,
            ahead: 0,
            heard: 0,
            clock_ms: 0,
            clock_before: 0,
            open_spans: 0,
            open_bytes: 0,
            duplicates: 0,
            work: 0,
        }
    }

    pub fn open_traces(&self) -> usize {
        self.slots.len()
    }

    pub fn restore_clock(&mut self, clock_ms: i64) {
        self.clock_ms = clock_ms;
        self.clock_before = clock_ms;
        self.decided.restore_clock(clock_ms);
    }

    /// Begins to take in a plain record: until about `work` items were read and applied. If that is a part of it, call `add_more` until
    /// the whole record is taken in. `NotPlain` leaves everything as it was: all items are read before the first is applied.
    #[allow(clippy::too_many_arguments)]
    pub fn add(
        &mut self,
        py: Python<'_>,
        value: &[u8],
        offset: i64,
        replay: bool,
        work: usize,
        names: (&Spellings, &mut Names),
    ) -> PyResult<Added> {
        let Ok(envelope) = Envelope::read(value) else {
            return Ok(Added::NotPlain);
        };
        if envelope.items > MAX_ITEMS || u32::try_from(value.len()).is_err() {
            return Ok(Added::NotPlain); // Python dead-letters the record
        }
        let mut items = std::mem::take(&mut self.parsed);
        items.clear();
        // A declared count is not believed: an item takes at least two bytes.
        items.reserve(envelope.items.min(value.len() / 2));
        let start = envelope.resource_at;
        let resource = start..start + envelope.resource.len();
        let (unread, at) = (envelope.items, envelope.reader.at);
        let record = Record { offset, replay, resource, unread, at, items, done: 0, adding: None };
        self.continue_with(py, value, record, work, names)
    }

    /// Takes in more of the record whose value this is; see `add`.
    pub fn add_more(&mut self, py: Python<'_>, value: &[u8], work: usize, names: (&Spellings, &mut Names)) -> PyResult<Added> {
        match self.record.take() {
            Some(record) => self.continue_with(py, value, record, work, names),
            None => Ok(Added::NotPlain),
        }
    }

    fn continue_with(
        &mut self,
        py: Python<'_>,
        value: &[u8],
        mut record: Record,
        work: usize,
        names: (&Spellings, &mut Names),
    ) -> PyResult<Added> {
        let mut left = work;
        let (unread, done) = (record.unread, record.done);
        let added = match self.read(value, &mut record, &mut left, names) {
            Err(NotPlain) => Added::NotPlain,
            Ok(()) if record.unread > 0 => Added::Part,
            Ok(()) => match self.apply(py, value, &mut record, &mut left)? {
                Some(applied) => Added::Whole(applied),
                None => Added::Part,
            },
        };
        self.work += (unread - record.unread + record.done - done) as u64;
        if matches!(added, Added::Part) {
            self.record = Some(record);
        } else if record.items.capacity() <= KEPT_ITEMS {
            self.parsed = record.items;
        }
        Ok(added)
    }

    /// Reads items until about `left` are read.
    fn read(
        &self,
        value: &[u8],
        record: &mut Record,
        left: &mut usize,
        (spellings, names): (&Spellings, &mut Names),
    ) -> Read<()> {
        if record.unread == 0 && !record.items.is_empty() {
            return Ok(());
        }
        let most = self.options.max_item_bytes.saturating_sub(record.resource.len());
        let mut reader = Reader { bytes: value, at: record.at };
        while record.unread > 0 && *left > 0 {
            let start = reader.at;
            let mut head = Head::EMPTY;
            let usage = head.read(&mut reader, MAX_DEPTH, spellings)?;
            let length = reader.at - start;
            if length > most {
                return Err(NotPlain);
            }
            let brief = Brief::of(&head, usage, start, length, names);
            record.items.push(Parsed { trace_id: head.trace_id, index: record.items.len() as u32, brief });
            record.unread -= 1;
            *left = left.saturating_sub(1 + length / STEP_BYTES);
        }
        record.at = reader.at;
        if record.unread > 0 || reader.at_end() {
            Ok(())
        } else {
            Err(NotPlain)
        }
    }

    /// Applies items of which all are read, until about `left` are applied. Returns what became of all items once that is known.
    fn apply(&mut self, py: Python<'_>, value: &[u8], record: &mut Record, left: &mut usize) -> PyResult<Option<Applied>> {
        let mut adding = match record.adding.take() {
            Some(adding) => adding,
            None => self.begin(py, &value[record.resource.clone()], record.offset, record.replay)?,
        };
        while let Some(first) = record.items.get(record.done) {
            if *left == 0 {
                record.adding = Some(adding);
                return Ok(None);
            }
            let rest = &record.items[record.done..];
            let is_next = |one: &&Parsed| one.brief.kind() == SPAN && one.trace_id == first.trace_id;
            let count = if first.brief.kind() == SPAN { rest.iter().take(*left).take_while(is_next).count() } else { 1 };
            self.take(value, &rest[..count], &mut adding);
            record.done += count;
            *left -= count;
        }
        Ok(Some(self.end(py, adding)))
    }

    fn begin(&mut self, py: Python<'_>, resource: &[u8], offset: i64, replay: bool) -> PyResult<Adding> {
        self.over.clear();
        let process = self.processes.find_or_add(py, resource)?;
        Ok(Adding { process, offset, replay, applied: Applied::default() })
    }

    /// Begins to take in a record whose readable items Python decodes. Then call `add_items` with all of them, and `end_items`.
    pub fn begin_items(&mut self, py: Python<'_>, resource: &[u8], offset: i64, replay: bool) -> PyResult<()> {
        self.adding = Some(self.begin(py, resource, offset, replay)?);
        Ok(())
    }

    /// Takes in the next items of the record, with their indexes in it.
    pub fn add_items(&mut self, items: &[(u32, Vec<u8>)], (spellings, names): (&Spellings, &mut Names)) -> Read<()> {
        let mut adding = self.adding.take().ok_or(NotPlain)?;
        self.work += items.len() as u64;
        for (index, item) in items {
            let mut reader = Reader::new(item);
            let mut head = Head::EMPTY;
            let usage = head.read(&mut reader, usize::MAX, spellings)?;
            if !reader.at_end() || u32::try_from(item.len()).is_err() {
                return Err(NotPlain);
            }
            let brief = Brief::of(&head, usage, 0, item.len(), names);
            let one = Parsed { trace_id: head.trace_id, index: *index, brief };
            self.take(item, std::slice::from_ref(&one), &mut adding);
        }
        self.adding = Some(adding);
        Ok(())
    }

    /// What became of the items.
    pub fn end_items(&mut self, py: Python<'_>) -> Read<Applied> {
        let adding = self.adding.take().ok_or(NotPlain)?;
        Ok(self.end(py, adding))
    }

    /// Takes in one item, or SPAN items of one trace that follow one another in `bytes`.
    fn take(&mut self, bytes: &[u8], run: &[Parsed], adding: &mut Adding) {
        let Adding { process, offset, replay, ref mut applied } = *adding;
        let Some(first) = run.first() else {
            return;
        };
        applied.items += run.len() as u64;
        let (kind, count) = (first.brief.kind(), run.len() as u64);
        let Some(id) = first.trace_id else {
            applied.control += count;
            if kind == LOST {
                // for all traces of the process that are open now or in this record; they ask for it
                self.processes.set_lost(process, offset);
            }
            return;
        };
        if replay && self.decided.any_covers() && self.decided.covers(&id, offset) {
            applied.covered += count;
            return;
        }
        if kind != SPAN {
            applied.control += count;
            if kind == TICK {
                return;
            }
        }
        let Some(slot) = self.find_or_begin(id, first.index, process, offset) else {
            if kind == SPAN {
                applied.late.extend(run.iter().map(|one| (id, one.index, one.brief.item(bytes).to_vec())));
            }
            return;
        };
        self.touch(slot, process, offset);
        let Some(trace) = self.slots.get_mut(slot) else {
            return;
        };
        for one in run.iter().filter(|one| one.brief.flags() & FOREIGN != 0) {
            trace.sources |= one.brief.flags();
        }
        let before = trace.stored();
        if kind == SPAN {
            trace.push(bytes, run, process);
            applied.spans += count;
            self.open_spans += count as i64;
        } else if kind == LOST {
            trace.lost = true;
        } else {
            let found = trace.control(bytes, first, process, &self.processes, &mut self.spare);
            self.open_spans -= i64::from(found);
            self.duplicates += u64::from(found);
        }
        self.open_bytes = self.open_bytes + trace.stored() - before;
        if trace.pending as usize >= self.options.most_pending {
            self.fold(slot); // so that no later fold takes long
        }
    }

    fn find_or_begin(&mut self, id: TraceId, index: u32, process: u32, offset: i64) -> Option<u32> {
        if let Some(slot) = self.slots.find(&id) {
            return Some(slot);
        }
        if self.decided.contains(&id) {
            return None;
        }
        let slot = self.slots.insert(Trace::new(Beginning {
            id,
            offset,
            index,
            process,
            heartbeats: self.processes.beats(process),
            now_ms: self.clock_ms,
            heard: self.heard,
            clock_before: self.clock_before,
        }));
        self.processes.hold(process);
        Some(slot)
    }

    /// An item of this trace arrived: its waits start again.
    fn touch(&mut self, slot: u32, process: u32, offset: i64) {
        let Some(trace) = self.slots.get_mut(slot) else {
            return;
        };
        if trace.touched == offset {
            return;
        }
        trace.touched = offset;
        trace.last_ms = self.clock_ms;
        trace.heard = self.heard;
        if trace.meet(process, offset) {
            trace.heartbeats |= self.processes.beats(process);
            self.processes.hold(process);
        }
        let deadline = (self.clock_ms + self.soonest_ms).min(trace.first_ms + self.options.max_age_ms);
        if deadline < trace.pushed {
            trace.pushed = deadline;
            self.queue.set(slot, deadline);
        }
        self.over.push(slot);
    }

    fn end(&mut self, py: Python<'_>, adding: Adding) -> Applied {
        let Adding { process, mut applied, .. } = adding;
        if !applied.late.is_empty() {
            applied.late_resource = Some(self.processes.resource(py, process));
        }
        let (max_bytes, max_spans) = (self.options.max_bytes, self.options.max_spans);
        let slots = &self.slots;
        self.over
            .retain(|slot| slots.get(*slot).is_some_and(|trace| trace.stored() > max_bytes || trace.most_spans() > max_spans));
        self.processes.forget_if_unused(py, process);
        applied
    }

    fn fold(&mut self, slot: u32) {
        let Some(trace) = self.slots.get_mut(slot) else {
            return;
        };
        let before = trace.stored();
        self.work += u64::from(trace.pending);
        let found = trace.fold(&self.processes, &mut self.spare);
        self.open_bytes = self.open_bytes + trace.stored() - before;
        self.open_spans -= i64::from(found);
        self.duplicates += u64::from(found);
    }

    /// Moves the clock, never back. Returns whether any trace may be due; if so, call `collect` until it returns true, and then
    /// `take_due` until it returns nothing.
    pub fn advance(&mut self, now_ms: i64) -> bool {
        self.clock_before = self.clock_ms;
        let (clock, heard) = (self.clock_ms, self.heard);
        if now_ms > clock {
            self.clock_ms = now_ms;
            self.heard = heard + (now_ms - clock).min(self.options.silence_ms);
        }
        self.ahead = clock - heard;
        let is_queued = self.queue.first().is_some_and(|(at, _)| at <= self.clock_ms);
        is_queued || self.watched.first().is_some_and(|(at, _)| at <= self.heard)
    }

    /// Finds traces that are due, until about `work` spans were folded. Returns whether all are found; they are in order then.
    pub fn collect(&mut self, work: usize) -> bool {
        let mut left = work;
        while let Some((_, slot)) = self.queue.first().filter(|(pushed, _)| *pushed <= self.clock_ms) {
            if left == 0 {
                return false;
            }
            left = left.saturating_sub(1 + self.check_queued(slot));
        }
        while let Some((_, slot)) = self.watched.first().filter(|(at, _)| *at <= self.heard) {
            if left == 0 {
                return false;
            }
            left = left.saturating_sub(1 + self.check_watched(slot));
        }
        true
    }

    /// Checks the deadline of a trace that is the first in the queue: it is queued later, or not any more. Returns the number of spans
    /// that this folded.
    fn check_queued(&mut self, slot: u32) -> usize {
        let Some(trace) = self.slots.get(slot) else {
            self.queue.remove(slot);
            return 0;
        };
        let first = (trace.first_offset, trace.first_index);
        let oldest = trace.first_ms + self.options.max_age_ms;
        let soonest = (trace.last_ms + self.soonest_ms).min(oldest);
        if soonest > self.clock_ms {
            self.push(slot, soonest);
            return 0;
        }
        let folded = trace.pending as usize;
        self.fold(slot);
        let (deadline, awaited, awaits) = self.deadline(slot, self.ahead);
        if deadline <= self.clock_ms {
            self.found.push(Reverse((deadline, first, slot, awaited as u8)));
            self.unqueue(slot);
        } else {
            if awaits == Wait::Lost {
                self.watch(slot);
            }
            self.push(slot, deadline);
            self.rest(slot);
        }
        folded
    }

    /// A trace that was checked waits on.
    fn rest(&mut self, slot: u32) {
        if let Some(trace) = self.slots.get_mut(slot) {
            trace.rest(&mut self.spare);
        }
    }

    /// As `check_queued` for a trace that waits for heartbeats.
    fn check_watched(&mut self, slot: u32) -> usize {
        self.watched.remove(slot);
        let Some(trace) = self.slots.get(slot) else {
            return 0;
        };
        if trace.pushed == TAKEN {
            return 0;
        }
        let folded = trace.pending as usize;
        self.fold(slot);
        let (deadline, awaited, awaits) = self.deadline(slot, self.ahead);
        if awaits != Wait::Lost {
            self.rest(slot);
            return folded;
        }
        let Some(trace) = self.slots.get(slot) else {
            return folded;
        };
        if trace.heard + self.options.lost_ms <= self.heard {
            self.found.push(Reverse((deadline, (trace.first_offset, trace.first_index), slot, awaited as u8)));
            self.unqueue(slot);
        } else {
            self.watch(slot);
            self.rest(slot);
        }
        folded
    }

    /// Removes the next traces that `collect` found, about `most` spans of them, in the order of decisions.
    pub fn take_due(&mut self, most: usize) -> Vec<Closed> {
        let mut closed = Vec::new();
        let mut left = most;
        while left > 0 {
            let Some(Reverse((deadline, _, slot, awaited))) = self.found.pop() else {
                break;
            };
            if let Some(trace) = self.close(slot) {
                left = left.saturating_sub(trace.sizes().0.max(1));
                closed.push(Closed { trace, trigger: awaited, due_ms: deadline });
            }
        }
        closed
    }

    /// When a trace is due, at the end of which wait, and what it awaits. `ahead`: stream time minus the other clock before the
    /// last step.
    fn deadline(&self, slot: u32, ahead: i64) -> (i64, Wait, Wait) {
        let Some(trace) = self.slots.get(slot) else {
            return (i64::MAX, Wait::Suspended, Wait::Suspended);
        };
        let awaits = trace.awaits(&self.processes);
        let oldest = trace.first_ms + self.options.max_age_ms;
        let deadline = match awaits {
            Wait::Lost => {
                let deadline = trace.heard + self.options.lost_ms;
                if deadline > self.heard {
                    return (oldest, Wait::Suspended, awaits);
                }
                deadline + ahead
            }
            Wait::Suspended => return (oldest, Wait::Suspended, awaits),
            _ => trace.last_ms + self.options.waits[awaits as usize],
        };
        if deadline <= oldest {
            (deadline, awaits, awaits)
        } else {
            (oldest, Wait::Suspended, awaits)
        }
    }

    fn push(&mut self, slot: u32, deadline: i64) {
        if let Some(trace) = self.slots.get_mut(slot) {
            trace.pushed = deadline;
            self.queue.set(slot, deadline);
        }
    }

    fn unqueue(&mut self, slot: u32) {
        if let Some(trace) = self.slots.get_mut(slot) {
            trace.pushed = TAKEN;
        }
        self.queue.remove(slot);
    }

    fn watch(&mut self, slot: u32) {
        if let Some(trace) = self.slots.get(slot) {
            if !self.watched.contains(slot) {
                self.watched.set(slot, trace.heard + self.options.lost_ms);
            }
        }
    }

    fn close(&mut self, slot: u32) -> Option<Trace> {
        let trace = self.slots.remove(slot)?;
        self.queue.remove(slot);
        self.watched.remove(slot);
        self.work += 1;
        self.open_bytes -= trace.stored();
        let held = trace.fold.as_ref().map_or(0, |fold| fold.spans.len() as i64 - i64::from(fold.starts));
        self.open_spans -= held;
        Some(trace)
    }

    /// Begins to take out the traces that the last record made larger than a limit. Returns whether any may be; if so, call
    /// `take_over` until it returns nothing.
    pub fn begin_over(&mut self) -> bool {
        let slots = &self.slots;
        self.over.sort_by_cached_key(|slot| {
            Reverse(slots.get(*slot).map_or((i64::MAX, 0), |trace| (trace.first_offset, trace.first_index)))
        });
        !self.over.is_empty()
    }

    /// Takes out the next traces that are too large, in the order in which they began, until about `work` spans were folded or taken.
    /// None: there are no more.
    pub fn take_over(&mut self, work: usize) -> Option<Vec<Closed>> {
        if self.over.is_empty() {
            return None;
        }
        let mut closed = Vec::new();
        let mut left = work;
        while left > 0 {
            let Some(slot) = self.over.pop() else {
                break;
            };
            self.fold(slot);
            left -= 1;
            let Some(trace) = self.slots.get(slot) else {
                continue;
            };
            let (spans, bytes) = trace.sizes();
            if spans <= self.options.max_spans && bytes <= self.options.max_bytes {
                continue;
            }
            left = left.saturating_sub(spans);
            let trigger = if spans <= self.options.max_spans { MAX_BYTES } else { MAX_SPANS };
            if let Some(trace) = self.close(slot) {
                closed.push(Closed { trace, trigger, due_ms: self.clock_ms });
            }
        }
        Some(closed)
    }

    /// Begins to take out the traces with the most bytes times age, until at most `most` bytes are held, with `trace_bytes` for
    /// each trace. Call `find_heaviest` until it returns true, and then `take_heaviest` until it returns nothing, all of it between
    /// two records.
    pub fn begin_heaviest(&mut self, most: usize, trace_bytes: usize) {
        let traces = self.slots.len();
        let open = BinaryHeap::with_capacity(traces); // at once: to grow it copies all of it
        let held = trace_bytes * traces;
        self.relief = Some(Relief { most, trace_bytes, held, weighed: 0, open, found: BinaryHeap::new() });
    }

    /// Weighs all traces, and finds the heaviest ones, until about `work` spans were folded. Returns whether all are found.
    pub fn find_heaviest(&mut self, work: usize) -> bool {
        let Some(mut relief) = self.relief.take() else {
            return true;
        };
        let mut left = work;
        while left > 0 && relief.weighed < self.slots.end() {
            left = left.saturating_sub(1 + self.weigh(&mut relief));
        }
        while left > 0 && relief.held > relief.most {
            let Some(heavy) = relief.open.pop() else {
                break;
            };
            relief.held = relief.held.saturating_sub(heavy.bytes + relief.trace_bytes);
            relief.found.push(Reverse((heavy.first.0, heavy.slot)));
            left -= 1;
        }
        self.relief = Some(relief);
        left > 0
    }

    /// Weighs the next trace. Returns the number of spans that this folded.
    fn weigh(&mut self, relief: &mut Relief) -> usize {
        let slot = relief.weighed;
        relief.weighed += 1;
        let folded = self.slots.get(slot).map_or(0, |trace| trace.pending as usize);
        self.fold(slot); // duplicates take memory, and do not count
        let Some(trace) = self.slots.get(slot) else {
            return 0;
        };
        let bytes = trace.sizes().1;
        let weight = bytes as u128 * (self.clock_ms - trace.first_ms + 1).max(1) as u128;
        let first = Reverse((trace.first_offset, trace.first_index));
        relief.held += bytes;
        relief.open.push(Heavy { weight, first, slot, bytes });
        self.rest(slot);
        folded
    }

    /// Removes the next of the heaviest traces, about `most` spans of them, in the order in which they began.
    pub fn take_heaviest(&mut self, most: usize) -> Vec<Closed> {
        let mut closed = Vec::new();
        let mut left = most;
        while left > 0 {
            let Some(Reverse((_, slot))) = self.relief.as_mut().and_then(|relief| relief.found.pop()) else {
                break;
            };
            self.fold(slot);
            if let Some(trace) = self.close(slot) {
                left = left.saturating_sub(1 + trace.sizes().0);
                closed.push(Closed { trace, trigger: MEMORY, due_ms: self.clock_ms });
            }
        }
        if closed.is_empty() {
            self.relief = None;
        }
        closed
    }

    /// The open trace whose first item is the oldest.
    pub fn oldest(&self) -> Option<&Trace> {
        self.slots.oldest()
    }

    /// Stream time before which no trace is due unless items arrive. Never late, maybe early: only the first few traces are checked.
    pub fn next_deadline_ms(&mut self) -> Option<i64> {
        let ahead = self.clock_ms - self.heard;
        let mut left = CHECKED;
        while left > 0 {
            let (pushed, slot) = self.queue.first()?;
            left = left.saturating_sub(1 + self.slots.get(slot).map_or(0, |trace| trace.pending as usize));
            self.fold(slot);
            let (deadline, _, awaits) = self.deadline(slot, ahead);
            if awaits == Wait::Lost {
                self.watch(slot);
            }
            self.rest(slot);
            if deadline <= pushed {
                break;
            }
            self.push(slot, deadline);
        }
        let (queued, _) = self.queue.first()?;
        match self.watched.first() {
            Some((at, _)) => Some(queued.min(self.clock_ms + (at - self.heard).max(0))),
            None => Some(queued),
        }
    }
}
