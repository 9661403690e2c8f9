//! One undecided trace: its items as bytes, and the counts that show whether it is complete.
//!
//! Items are only collected when they arrive. `fold` counts what is new, once, when a deadline is checked. A trace that is checked
//! again and again is folded incrementally, so its cost per span is that of any other trace.

use std::collections::HashMap;

use crate::brief::{Brief, Parsed};
use crate::item::{SpanId, TraceId, BY_PROCESSOR, COUNTED, NOT_COUNTED, PENDING, REMOTE_PARENT, RESUME, SPAN, START, SUSPEND};
use crate::small::SmallMap;

/// What a trace waits for. The numbers are those of `assembly.completeness`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    Complete = 0,
    Remote = 1,
    Root = 2,
    Idle = 3,
    Lost = 4,
    Suspended = 5,
    IdleWithoutHeartbeats = 6,
    OtlpRoot = 7,
}

/// The evidence for completeness, weakest last. The numbers are the indexes into `model.decision.Basis`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Basis {
    Counts = 0,
    CountingProcessor = 1,
    QuietTime = 2,
}

const STARTED: u8 = 0;
const OPEN: u8 = 1;
const ENDED: u8 = 2;
/// Up to so many spans are searched one by one; a map would cost more.
const FEW: usize = 16;
/// Replaced items are removed from the bytes once they are more than what is left, and more than this.
const GARBAGE: usize = 4096;

/// A span with the place of the item that won.
#[derive(Clone, Copy)]
pub struct Span {
    id: SpanId,
    brief: u32,
    level: u8,
    beats: bool,
}

/// The items of a trace.
#[derive(Clone, Copy)]
struct Items<'a> {
    bytes: &'a [u8],
    briefs: &'a [Brief],
}

/// The counts of the items that were folded.
#[derive(Default)]
pub struct Fold {
    pub spans: Vec<Span>,
    /// Places of the spans by id, once there are more than a few.
    index: HashMap<SpanId, u32>,
    /// Missing parents, with the number of spans that name each.
    missing: SmallMap<u32>,
    /// Received counted children minus `child_count`, where it is not zero.
    balance: SmallMap<i64>,
    injects: SmallMap<u32>,
    answers: SmallMap<HashMap<u32, i64>>,
    suspended: SmallMap<()>,
    unanswered: i64,
    roots: i64,
    unknown: i64,
    /// Spans with only a START item.
    pub starts: u32,
    /// Spans that have not ended.
    pub open: u32,
    /// Open spans whose process sends heartbeats.
    beating: u32,
    /// Bytes of the items that won.
    pub live: usize,
    /// SPAN items that did not win their span.
    duplicates: u32,
    /// How many items are folded; those that are not follow.
    end: u32,
    /// No control item was applied, so the items alone give these counts.
    is_plain: bool,
}

/// Folds of decided traces, for the next ones: each has several lists, and these would be allocated for every trace.
#[derive(Default)]
#[allow(clippy::vec_box)] // a trace takes the box
pub struct Spare(Vec<Box<Fold>>);

impl Spare {
    /// So many are kept, and none with more spans than a list has.
    const MOST: usize = 128;

    fn take(&mut self) -> Box<Fold> {
        let mut fold = self.0.pop().unwrap_or_default();
        fold.is_plain = true;
        fold
    }

    pub fn give(&mut self, mut fold: Box<Fold>) {
        if self.0.len() < Spare::MOST && fold.clear() {
            self.0.push(fold);
        }
    }
}

/// Another process of a trace than its first.
#[derive(Clone, Copy)]
pub struct Other {
    pub process: u32,
    /// Offset of the record with its first item of this trace.
    pub since: i64,
}

pub struct Trace {
    pub id: TraceId,
    pub first_offset: i64,
    pub first_ms: i64,
    pub last_ms: i64,
    /// Time of the last item on the clock that skips silence.
    pub heard: i64,
    pub clock_before: i64,
    /// The deadline with which it is queued, never later than the real one.
    pub pushed: i64,
    /// Offset of the last record with items of this trace.
    pub touched: i64,
    pub first_index: u32,
    pub process: u32,
    pub lost: bool,
    /// Whether any of its processes sends heartbeats.
    pub heartbeats: bool,
    /// The flags of all foreign items.
    pub sources: u32,
    /// Items that are not folded yet. They are the last ones.
    pub pending: u32,
    /// All items that are stored, one after the other.
    pub bytes: Vec<u8>,
    briefs: Vec<Brief>,
    #[allow(clippy::box_collection)] // most traces have none, and this is one word of each
    others: Option<Box<Vec<Other>>>,
    pub fold: Option<Box<Fold>>,
}

/// The first item of a trace.
pub struct Beginning {
    pub id: TraceId,
    pub offset: i64,
    pub index: u32,
    pub process: u32,
    pub heartbeats: bool,
    pub now_ms: i64,
    pub heard: i64,
    pub clock_before: i64,
}

/// What the fold of a trace needs to know of processes.
pub trait Processes {
    fn beats(&self, process: u32) -> bool;
    fn lost_offset(&self, process: u32) -> i64;
}

impl Trace {
    pub fn new(first: Beginning) -> Self {
        Trace {
            id: first.id,
            first_offset: first.offset,
            first_ms: first.now_ms,
            last_ms: first.now_ms,
            heard: first.heard,
            clock_before: first.clock_before,
            pushed: i64::MAX,
            touched: -1,
            first_index: first.index,
            process: first.process,
            lost: false,
            heartbeats: first.heartbeats,
            sources: 0,
            pending: 0,
            bytes: Vec::new(),
            briefs: Vec::new(),
            others: None,
            fold: None,
        }
    }

    /// Bytes of the items that are stored, replaced ones included.
    pub fn stored(&self) -> usize {
        self.bytes.len()
    }

    /// Upper bound of the spans that are held; a suspended one counts once more.
    pub fn most_spans(&self) -> usize {
        self.pending as usize + self.sizes().0
    }

    /// The item that won each span.
    fn won(&self) -> impl ExactSizeIterator<Item = &Brief> {
        self.spans().iter().map(|span| &self.briefs[span.brief as usize])
    }

    /// As `won`; the trace has no items after that.
    pub fn take_won(&mut self) -> Vec<Brief> {
        let spans = self.spans();
        let are_all = spans.len() == self.briefs.len() && spans.iter().enumerate().all(|(at, span)| span.brief as usize == at);
        if are_all {
            std::mem::take(&mut self.briefs)
        } else {
            self.won().copied().collect()
        }
    }

    pub fn spans(&self) -> &[Span] {
        self.fold.as_ref().map_or(&[], |fold| &fold.spans)
    }

    pub fn others(&self) -> &[Other] {
        self.others.as_ref().map_or(&[], |others| others)
    }

    /// Whether this process is new to the trace; it is recorded then.
    pub fn meet(&mut self, process: u32, since: i64) -> bool {
        if process == self.process || self.others().iter().any(|other| other.process == process) {
            return false;
        }
        self.others.get_or_insert_default().push(Other { process, since });
        true
    }

    /// Stores SPAN items that follow one another in `bytes`.
    pub fn push(&mut self, bytes: &[u8], items: &[Parsed], process: u32) {
        self.store(bytes, items, process);
        self.pending += items.len() as u32;
    }

    /// Memory grows by an eighth: doubling it would waste half of it.
    fn store(&mut self, bytes: &[u8], items: &[Parsed], process: u32) {
        let (Some(first), Some(last)) = (items.first(), items.last()) else {
            return;
        };
        let (from, end) = (first.brief.at, last.brief.end() as u32);
        let chunk = bytes.get(from as usize..end as usize).unwrap_or_default();
        if self.bytes.capacity() - self.bytes.len() < chunk.len() {
            self.bytes.reserve_exact(chunk.len().max(self.bytes.len() / 8));
        }
        if self.briefs.capacity() - self.briefs.len() < items.len() {
            self.briefs.reserve_exact(items.len().max(self.briefs.len() / 8));
        }
        let to = self.bytes.len() as u32;
        self.bytes.extend_from_slice(chunk);
        self.briefs.extend(items.iter().map(|item| item.brief.moved(from, to).by(process)));
    }

    /// Counts the collected SPAN items. Returns how many of them, or of those they replaced, are duplicates.
    pub fn fold(&mut self, processes: &dyn Processes, spare: &mut Spare) -> u32 {
        if self.pending == 0 {
            return 0;
        }
        let mut fold = self.fold.take().unwrap_or_else(|| spare.take());
        fold.spans.reserve_exact(self.pending as usize);
        let mut beats = (self.process, processes.beats(self.process));
        for place in fold.end as usize..self.briefs.len() {
            let process = self.briefs[place].process;
            if beats.0 != process {
                beats = (process, processes.beats(process));
            }
            fold.add(Items { bytes: &self.bytes, briefs: &self.briefs }, place, beats.1);
        }
        fold.end = self.briefs.len() as u32;
        self.pending = 0;
        if self.stored() - fold.live > fold.live.max(GARBAGE) {
            self.compact(&mut fold);
        }
        let duplicates = std::mem::take(&mut fold.duplicates);
        self.fold = Some(fold);
        duplicates
    }

    /// Drops the counts of a small trace that waits on: they take more memory than one span, and are counted again quickly. Only the
    /// items must be needed for that: no duplicates, and no control items.
    pub fn rest(&mut self, spare: &mut Spare) {
        let items = self.briefs.len();
        let is_plain = |fold: &mut Box<Fold>| fold.is_plain && fold.spans.len() <= FEW && fold.spans.len() == items;
        if self.pending == 0 && self.fold.as_mut().is_some_and(is_plain) {
            self.fold.take().into_iter().for_each(|fold| spare.give(fold));
            self.pending = items as u32;
        }
    }

    fn compact(&mut self, fold: &mut Fold) {
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(fold.live));
        let briefs = std::mem::replace(&mut self.briefs, Vec::with_capacity(fold.spans.len()));
        for (place, span) in fold.spans.iter_mut().enumerate() {
            let brief = briefs[span.brief as usize];
            let to = self.bytes.len() as u32;
            self.bytes.extend_from_slice(brief.item(&bytes));
            self.briefs.push(brief.moved(brief.at, to));
            span.brief = place as u32;
        }
        fold.end = self.briefs.len() as u32;
    }

    /// Applies a control item at once; everything before it is folded first. Returns the duplicates that this found.
    pub fn control(&mut self, bytes: &[u8], item: &Parsed, process: u32, processes: &dyn Processes, spare: &mut Spare) -> u32 {
        let (id, kind) = (item.brief.id, item.brief.kind());
        if !matches!(kind, START | SUSPEND | RESUME) {
            return 0;
        }
        let duplicates = self.fold(processes, spare);
        let mut fold = self.fold.take().unwrap_or_default();
        fold.is_plain = false;
        match kind {
            START => {
                let place = self.briefs.len();
                self.store(bytes, std::slice::from_ref(item), process);
                fold.end = self.briefs.len() as u32;
                fold.report(Items { bytes: &self.bytes, briefs: &self.briefs }, place, processes.beats(process));
            }
            RESUME => {
                fold.suspended.remove(&id);
            }
            _ => {
                if fold.find(&id).is_none_or(|at| fold.spans[at].level < ENDED) {
                    fold.suspended.insert(id, ());
                }
            }
        }
        self.fold = Some(fold);
        duplicates
    }

    /// What this trace waits for. It must be folded.
    pub fn awaits(&self, processes: &dyn Processes) -> Wait {
        let idle = if self.heartbeats || self.sources != 0 { Wait::Idle } else { Wait::IdleWithoutHeartbeats };
        let Some(fold) = self.fold.as_ref() else {
            return idle;
        };
        if !fold.suspended.is_empty() {
            return Wait::Suspended;
        }
        if fold.open > 0 {
            if fold.beating > 0 {
                return Wait::Lost;
            }
        } else if fold.roots > 0 && fold.is_whole() && !self.is_lost(processes) {
            return if fold.unanswered != 0 { Wait::Remote } else { Wait::Complete };
        }
        if fold.roots > 0 {
            return if self.sources != 0 { Wait::OtlpRoot } else { Wait::Root };
        }
        idle
    }

    /// The evidence for completeness. The trace must be folded.
    pub fn basis(&self) -> Basis {
        let counts = self.fold.as_ref().map_or((0, 0), |fold| (fold.unknown, fold.open));
        if counts.0 != 0 || (counts.1 != 0 && self.sources & NOT_COUNTED != 0) {
            return Basis::QuietTime;
        }
        if self.sources & BY_PROCESSOR != 0 {
            Basis::CountingProcessor
        } else {
            Basis::Counts
        }
    }

    /// Whether a process dropped spans of this trace.
    pub fn is_lost(&self, processes: &dyn Processes) -> bool {
        self.lost
            || processes.lost_offset(self.process) >= self.first_offset
            || self.others().iter().any(|other| processes.lost_offset(other.process) >= other.since)
    }

    /// Exact sizes after a fold: spans (a suspended one counts once more) and bytes.
    pub fn sizes(&self) -> (usize, usize) {
        self.fold.as_ref().map_or((0, 0), |fold| (fold.spans.len() + fold.suspended.len(), fold.live))
    }
}

impl Fold {
    /// Makes this an empty fold. Returns false if it is not worth keeping.
    fn clear(&mut self) -> bool {
        let is_small = self.spans.len() <= FEW && self.spans.capacity() <= 2 * FEW && self.index.is_empty();
        let lists_are = self.missing.clear() && self.balance.clear() && self.injects.clear() && self.suspended.clear();
        if !is_small || !lists_are || !self.answers.clear() {
            return false;
        }
        self.spans.clear();
        (self.unanswered, self.roots, self.unknown, self.live) = (0, 0, 0, 0);
        (self.starts, self.open, self.beating, self.duplicates, self.end) = (0, 0, 0, 0, 0);
        true
    }

    fn find(&self, id: &SpanId) -> Option<usize> {
        if self.index.is_empty() {
            self.spans.iter().position(|span| span.id == *id)
        } else {
            self.index.get(id).map(|at| *at as usize)
        }
    }

    fn insert(&mut self, span: Span) {
        self.spans.push(span);
        let count = self.spans.len();
        if count == FEW + 1 {
            self.index = self.spans.iter().enumerate().map(|(at, span)| (span.id, at as u32)).collect();
        } else if count > FEW {
            self.index.insert(span.id, (count - 1) as u32);
        }
    }

    fn add(&mut self, items: Items, place: usize, beats: bool) {
        let brief = &items.briefs[place];
        let id = brief.id;
        debug_assert!(brief.kind() == SPAN);
        if brief.status() == PENDING || self.find(&id).is_some() {
            let (fresh, ended) = self.report(items, place, beats);
            self.duplicates += u32::from(!fresh);
            if !ended {
                return;
            }
        } else {
            self.insert(Span { id, brief: place as u32, level: ENDED, beats });
            self.live += brief.len();
            self.missing.remove(&id);
            self.suspended.remove(&id);
        }
        self.count(brief);
    }

    /// Applies a START, a report of an open span, or another item of a known span. Returns whether the item is the first of its
    /// span other than START, and whether the span ended with it and has to be counted.
    fn report(&mut self, items: Items, place: usize, beats: bool) -> (bool, bool) {
        let brief = &items.briefs[place];
        let id = brief.id;
        let level = match (brief.kind(), brief.status()) {
            (START, _) => STARTED,
            (_, PENDING) => OPEN,
            _ => ENDED,
        };
        let mut fresh = level > STARTED;
        let span = Span { id, brief: place as u32, level, beats };
        match self.find(&id) {
            None => {
                self.missing.remove(&id);
                self.starts += u32::from(!fresh);
                self.insert(span);
            }
            Some(at) => {
                let old = self.spans[at];
                let earlier = &items.briefs[old.brief as usize];
                if level < old.level {
                    return (false, false);
                }
                if level == old.level {
                    if brief.revision(items.bytes) <= earlier.revision(items.bytes) {
                        return (false, false);
                    }
                    if level == ENDED {
                        self.uncount(earlier);
                    }
                }
                if old.level < ENDED {
                    self.open -= 1;
                    self.beating -= u32::from(old.beats);
                }
                self.starts -= u32::from(fresh && old.level == STARTED);
                fresh = fresh && old.level == STARTED;
                self.live -= earlier.len();
                self.spans[at] = span;
            }
        }
        if level < ENDED {
            self.open += 1;
            self.beating += u32::from(beats);
        } else {
            self.suspended.remove(&id);
        }
        self.live += brief.len();
        (fresh, level == ENDED)
    }

    fn count(&mut self, head: &Brief) {
        let id = head.id;
        match head.parent() {
            Some(parent) if !head.is_local_root() => {
                if self.find(&parent).is_none() {
                    *self.missing.get_or_add(parent) += 1;
                }
                if head.flags() & REMOTE_PARENT != 0 {
                    self.answer(parent, head.inject_ordinal(), 1);
                } else if head.flags() & COUNTED != 0 {
                    self.add_to_balance(parent, 1);
                }
            }
            _ => self.roots += 1,
        }
        match head.child_count() {
            None => self.unknown += 1,
            Some(children) => self.add_to_balance(id, -i64::from(children)),
        }
        let injects = head.inject_count();
        if injects > 0 {
            self.injects.insert(id, injects);
            self.unanswered += i64::from(injects) - self.answered(&id, injects);
        }
    }

    /// The reverse of `count`, because a higher revision of an ended span arrived.
    fn uncount(&mut self, head: &Brief) {
        let id = head.id;
        match head.parent() {
            Some(parent) if !head.is_local_root() => {
                if let Some(named) = self.missing.get_mut(&parent) {
                    *named -= 1;
                    if *named == 0 {
                        self.missing.remove(&parent);
                    }
                }
                if head.flags() & REMOTE_PARENT != 0 {
                    self.answer(parent, head.inject_ordinal(), -1);
                } else if head.flags() & COUNTED != 0 {
                    self.add_to_balance(parent, -1);
                }
            }
            _ => self.roots -= 1,
        }
        match head.child_count() {
            None => self.unknown -= 1,
            Some(children) => self.add_to_balance(id, i64::from(children)),
        }
        if let Some(injects) = self.injects.remove(&id) {
            self.unanswered -= i64::from(injects) - self.answered(&id, injects);
        }
    }

    fn add_to_balance(&mut self, id: SpanId, change: i64) {
        if change == 0 {
            return;
        }
        let surplus = self.balance.get_or_add(id);
        *surplus += change;
        if *surplus == 0 {
            self.balance.remove(&id);
        }
    }

    fn answer(&mut self, parent: SpanId, ordinal: Option<u32>, change: i64) {
        let Some(ordinal) = ordinal else { return };
        let count = self.answers.get_or_add(parent).entry(ordinal).or_default();
        let before = *count;
        *count += change;
        let turned = before == 0 || *count == 0;
        if turned && ordinal < self.injects.get(&parent).copied().unwrap_or(0) {
            self.unanswered -= change;
        }
    }

    fn answered(&self, id: &SpanId, injects: u32) -> i64 {
        let answers = self.answers.get(id).into_iter().flatten();
        answers.filter(|(ordinal, count)| **count != 0 && **ordinal < injects).count() as i64
    }

    fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.balance.is_empty() && self.unknown == 0
    }
}
