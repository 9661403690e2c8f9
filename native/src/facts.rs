//! What a decision needs to know of a trace: statuses, times, tokens, shape. The rules are those of `model.trace`, `model.structure`
//! and `model.tree`.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest as _};

use crate::brief::Brief;
use crate::item::{Head, SpanId, LLM};
use crate::msgpack::{NotPlain, Read, Reader, MAX_DEPTH};
use crate::names::Names;

pub type Digest = [u8; 16];

/// A number of tokens is below this, and so is their sum, which is cut.
const MOST_TOKENS: i64 = 1 << 53;

/// A number as the policies read it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Int(i64),
    Float(f64),
}

impl Amount {
    fn as_float(self) -> f64 {
        match self {
            Amount::Int(amount) => amount as f64,
            Amount::Float(amount) => amount,
        }
    }
}

/// The spellings of the attributes that every summary needs, the preferred one first.
#[derive(Default)]
pub struct Spellings {
    /// Each spelling with its attribute and its rank. They are few.
    ranks: Vec<(Vec<u8>, usize, usize)>,
    /// A bit for each length that a spelling has, the last bit for all long ones. Most keys have another length.
    lengths: u64,
}

impl Spellings {
    pub fn new(input: &[String], output: &[String], cost: &[String]) -> Self {
        let mut ranks = Vec::new();
        let mut lengths = 0;
        for (which, names) in [input, output, cost].into_iter().enumerate() {
            for (rank, name) in names.iter().enumerate() {
                ranks.push((name.as_bytes().to_vec(), which, rank));
                lengths |= bit_of(name.as_bytes());
            }
        }
        Spellings { ranks, lengths }
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<(usize, usize)> {
        if self.lengths & bit_of(key) == 0 {
            return None;
        }
        self.ranks.iter().find(|(name, ..)| name == key).map(|(_, which, rank)| (*which, *rank))
    }
}

fn bit_of(key: &[u8]) -> u64 {
    1 << key.len().min(63)
}

/// What is kept from one trace to the next: names, and memory.
#[derive(Default)]
pub struct Memo {
    pub names: Names,
    /// Spans that were visited so far, each once in each stage but the quick ones.
    pub visited: u64,
    structure: Structure,
    holds: Vec<bool>,
    digests: Vec<Digest>,
    tops: Vec<Digest>,
    below: Vec<Digest>,
}

/// The facts of one trace; indexes are those of its spans.
#[derive(Default)]
pub struct Facts {
    pub errors: usize,
    pub start_ns: i64,
    pub duration_ns: i64,
    /// Spans that start before their parent or end after it.
    pub outside_parent: usize,
    pub randomness: Option<i64>,
    /// Empty: that of every span is 0.
    pub thresholds: Vec<i64>,
    pub foremost: usize,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub costs: Vec<Amount>,
    pub shape: Digest,
    /// Wanted attributes of every span, in pieces: MessagePack arrays with one map for each. Empty: none are wanted.
    pub selected: Vec<Vec<u8>>,
}

/// What one model call used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    pub input: i64,
    pub output: i64,
    pub cost: Option<Amount>,
}

impl Usage {
    /// Reads an attribute map that is at the beginning of these bytes.
    pub fn read(attributes: &[u8], spellings: &Spellings) -> Read<Usage> {
        if attributes.is_empty() {
            return Ok(Usage { input: 0, output: 0, cost: None });
        }
        Usage::walk(&mut Reader::new(attributes), MAX_DEPTH, spellings)
    }

    /// Reads an attribute map. `depth` limits the nesting of its values.
    pub fn walk(reader: &mut Reader, depth: usize, spellings: &Spellings) -> Read<Usage> {
        let mut best: [Option<(usize, Value)>; 3] = [None, None, None];
        for _ in 0..reader.map()? {
            let key = reader.text()?;
            let start = reader.at;
            reader.skip(depth)?;
            let Some((which, rank)) = spellings.find(key) else {
                continue;
            };
            let value = Value::read(&reader.bytes[start..reader.at])?;
            match &best[which] {
                // a nil counts as absent, and a key that is there twice counts with its last value
                Some((held, _)) if *held < rank => {}
                Some((held, _)) if *held == rank && value == Value::Nil => return Err(NotPlain),
                _ if value == Value::Nil => {}
                _ => best[which] = Some((rank, value)),
            }
        }
        let count = |found: &Option<(usize, Value)>| match found {
            Some((_, Value::Amount(Amount::Int(count)))) if (0..MOST_TOKENS).contains(count) => *count,
            _ => 0,
        };
        let cost = match best[2] {
            Some((_, Value::Amount(Amount::Float(cost)))) if !cost.is_finite() => None,
            Some((_, Value::Amount(cost))) => Some(cost),
            _ => None,
        };
        Ok(Usage { input: count(&best[0]), output: count(&best[1]), cost })
    }
}

/// The items of a trace, which are parts of `bytes`.
#[derive(Clone, Copy)]
pub struct Items<'a> {
    pub heads: &'a [Brief],
    pub bytes: &'a [u8],
}

/// What facts are read with.
#[derive(Clone, Copy)]
pub struct Tools<'a> {
    pub spellings: &'a Spellings,
    /// Attribute keys, in order.
    pub wanted: &'a [Vec<u8>],
}

/// The stages in which facts are read, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Scan,
    Index,
    Parents,
    Order,
    Times,
    Calls,
    Costs,
    Shapes,
    Orphans,
    Select,
    Done,
}

/// A span is visited so often, that of a small trace included.
pub const STAGES: usize = 10;

/// The facts of one trace, read in pieces.
pub struct Reading {
    facts: Facts,
    stage: Stage,
    /// So many spans, or groups of orphans, are done in this stage.
    at: usize,
    any_unsampled: bool,
    /// The thresholds, once there are more than a few.
    thresholds: HashSet<i64>,
    index: Index,
    structure: Structure,
    holds: Vec<bool>,
    digests: Vec<Digest>,
    tops: Vec<Digest>,
}

impl Reading {
    /// Takes memory from `memo`; `finish` gives it back.
    pub fn new(memo: &mut Memo) -> Self {
        Reading {
            facts: Facts::default(),
            stage: Stage::Scan,
            at: 0,
            any_unsampled: false,
            thresholds: HashSet::new(),
            index: Index(None),
            structure: std::mem::take(&mut memo.structure),
            holds: std::mem::take(&mut memo.holds),
            digests: std::mem::take(&mut memo.digests),
            tops: std::mem::take(&mut memo.tops),
        }
    }

    pub fn finish(mut self, memo: &mut Memo) -> Facts {
        if self.digests.capacity() <= KEPT_SPANS {
            self.tops.clear();
            memo.structure = self.structure;
            memo.holds = self.holds;
            memo.digests = self.digests;
            memo.tops = self.tops;
        }
        self.facts
    }

    /// Reads on, until about `left` spans were visited, each once in each stage. Returns whether all is read. `NotPlain`: an attribute
    /// map is unusual, and Python has to read it.
    pub fn step(&mut self, items: Items, tools: Tools, memo: &mut Memo, left: &mut usize) -> Read<bool> {
        while self.stage != Stage::Done {
            if *left == 0 {
                return Ok(false);
            }
            let count = if self.stage == Stage::Orphans { self.structure.orphans.len() } else { items.heads.len() };
            let end = (self.at.saturating_add(*left)).min(count);
            let done = self.visit(items, tools, memo, end)?;
            if done == end {
                memo.visited += (done - self.at) as u64;
            }
            *left = left.saturating_sub((done - self.at).max(1));
            self.at = done;
            if done == count {
                self.at = 0;
                self.stage = self.next(items, tools);
            }
        }
        Ok(true)
    }

    fn next(&self, items: Items, tools: Tools) -> Stage {
        match self.stage {
            Stage::Scan if items.heads.len() > FEW => Stage::Index,
            Stage::Scan | Stage::Index => Stage::Parents,
            Stage::Parents => Stage::Order,
            Stage::Order => Stage::Times,
            Stage::Times => Stage::Calls,
            Stage::Calls if self.facts.costs.len() > FEW => Stage::Costs,
            Stage::Calls | Stage::Costs => Stage::Shapes,
            Stage::Shapes => Stage::Orphans,
            Stage::Orphans if !tools.wanted.is_empty() => Stage::Select,
            Stage::Orphans | Stage::Select | Stage::Done => Stage::Done,
        }
    }

    /// Visits the spans from `self.at` to `end` in this stage. Returns up to where; that is all of them in a stage that is quick.
    fn visit(&mut self, items: Items, tools: Tools, memo: &mut Memo, end: usize) -> Read<usize> {
        let Items { heads, bytes } = items;
        match self.stage {
            Stage::Scan => self.scan(items, end)?,
            Stage::Index => self.index.add(heads, self.at..end),
            Stage::Parents => self.structure.find_parents(heads, &self.index, self.at..end),
            Stage::Order => {
                self.structure.find_order();
                return Ok(heads.len());
            }
            Stage::Times => {
                self.facts.foremost = self.structure.foremost(heads);
                (self.facts.start_ns, self.facts.duration_ns) = self.structure.times(heads);
                self.facts.outside_parent = self.structure.outside_parent(heads);
                return Ok(heads.len());
            }
            Stage::Calls => self.add_calls(items, tools.spellings, end)?,
            Stage::Costs => {
                self.facts.costs.sort_unstable_by(|one, other| one.as_float().total_cmp(&other.as_float()));
                return Ok(heads.len());
            }
            Stage::Shapes => {
                if self.at == 0 {
                    self.digests.clear();
                    self.digests.resize(heads.len(), [0; 16]);
                }
                let shapes = (&memo.names, &mut self.digests, &mut memo.below);
                self.structure.add_shapes(heads, bytes, shapes, self.at..end);
            }
            Stage::Orphans => {
                if self.at == 0 {
                    self.tops.clear();
                    self.tops.extend(self.structure.roots().map(|at| self.digests[at]));
                }
                for (_, group) in &self.structure.orphans[self.at..end] {
                    join(group, &self.digests, &mut memo.below);
                    self.tops.push(shape_of(-1, b"", memo.below.as_flattened()));
                }
                if end == self.structure.orphans.len() {
                    self.tops.sort_unstable();
                    self.facts.shape = shape_of(-2, b"", self.tops.as_flattened());
                }
            }
            Stage::Select => {
                let mut out = vec![0xdd];
                out.extend_from_slice(&((end - self.at) as u32).to_be_bytes());
                select(&heads[self.at..end], bytes, tools, &mut out)?;
                self.facts.selected.push(out);
            }
            Stage::Done => {}
        }
        Ok(end)
    }

    fn scan(&mut self, Items { heads, bytes }: Items, end: usize) -> Read<()> {
        let facts = &mut self.facts;
        for head in &heads[self.at..end] {
            if head.span_type() == LLM && head.is_odd() {
                return Err(NotPlain);
            }
            facts.errors += usize::from(head.is_error());
            if !head.has_sampling() {
                self.any_unsampled = true;
                continue;
            }
            let whole = Head::of(head.item(bytes))?;
            facts.randomness = facts.randomness.or(whole.randomness);
            let threshold = whole.threshold.unwrap_or(0);
            if facts.thresholds.len() > FEW && self.thresholds.is_empty() {
                self.thresholds.extend(&facts.thresholds);
            }
            let is_new = if self.thresholds.is_empty() {
                !facts.thresholds.contains(&threshold)
            } else {
                self.thresholds.insert(threshold)
            };
            if is_new {
                facts.thresholds.push(threshold);
            }
        }
        if end == heads.len() && self.any_unsampled && !facts.thresholds.is_empty() && !facts.thresholds.contains(&0) {
            facts.thresholds.push(0);
        }
        Ok(())
    }

    /// Adds up the LLM spans that have no LLM span below them.
    fn add_calls(&mut self, Items { heads, bytes }: Items, spellings: &Spellings, end: usize) -> Read<()> {
        if self.at == 0 {
            self.holds.clear();
            self.holds.resize(heads.len(), false);
        }
        let (structure, holds, facts) = (&self.structure, &mut self.holds, &mut self.facts);
        for at in structure.order[heads.len() - end..heads.len() - self.at].iter().rev() {
            let covered = structure.below(*at).iter().any(|child| holds[*child as usize]);
            let head = &heads[*at as usize];
            let is_call = head.span_type() == LLM;
            holds[*at as usize] = covered || is_call;
            if is_call && !covered {
                let usage = match head.usage() {
                    Some(usage) => usage,
                    None => Usage::read(head.attributes(bytes), spellings)?,
                };
                facts.input_tokens = (facts.input_tokens + usage.input).min(MOST_TOKENS - 1);
                facts.output_tokens = (facts.output_tokens + usage.output).min(MOST_TOKENS - 1);
                facts.costs.extend(usage.cost);
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Value {
    Nil,
    Amount(Amount),
    Other,
}

impl Value {
    fn read(bytes: &[u8]) -> Read<Value> {
        let mut reader = Reader::new(bytes);
        Ok(match bytes.first() {
            Some(0xc0) => Value::Nil,
            Some(0xca | 0xcb) => Value::Amount(Amount::Float(reader.float()?)),
            Some(0x00..=0x7f | 0xe0..=0xff | 0xcc..=0xd3) => Value::Amount(Amount::Int(reader.int(i64::MIN, i64::MAX)?)),
            Some(0xc2 | 0xc3) => Value::Other,
            Some(0xa0..=0xbf | 0xd9..=0xdb) => {
                reader.text()?;
                Value::Other
            }
            _ => return Err(NotPlain),
        })
    }
}

/// Calls `visit` with each key of an attribute map and the bytes of its value.
fn each<'a>(attributes: &'a [u8], mut visit: impl FnMut(&'a [u8], &'a [u8]) -> Read<()>) -> Read<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    let mut reader = Reader::new(attributes);
    for _ in 0..reader.map()? {
        let key = reader.text()?;
        let start = reader.at;
        reader.skip(MAX_DEPTH)?;
        visit(key, &attributes[start..reader.at])?;
    }
    Ok(())
}

/// Adds the wanted attributes of these spans. Values are copied as they are; Python decodes them. It would also read the attributes
/// of the summary, so those have to be readable too.
fn select(heads: &[Brief], bytes: &[u8], Tools { spellings, wanted }: Tools, out: &mut Vec<u8>) -> Read<()> {
    for head in heads {
        let at = out.len();
        out.extend_from_slice(&[0xde, 0, 0]);
        let mut count: u16 = 0;
        each(head.attributes(bytes), |key, value| {
            let is_wanted = wanted.binary_search_by(|one| one.as_slice().cmp(key)).is_ok();
            if is_wanted || spellings.find(key).is_some() {
                Reader::new(value).check_value(MAX_DEPTH)?;
            }
            if is_wanted {
                count = count.checked_add(1).ok_or(NotPlain)?;
                out.push(0xda);
                out.extend_from_slice(&u16::try_from(key.len()).map_err(|_| NotPlain)?.to_be_bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(value);
            }
            Ok(())
        })?;
        out[at + 1..at + 3].copy_from_slice(&count.to_be_bytes());
    }
    Ok(())
}

/// Clocks of several hosts agree no better than this.
const SAME_TIME_NS: i64 = 1_000_000;
const ROOT: u32 = u32::MAX;
const ORPHAN: u32 = u32::MAX - 1;
/// Up to so many spans are searched one by one; a map would cost more.
const FEW: usize = 24;
/// The memory for a larger trace is not kept.
const KEPT_SPANS: usize = 1 << 14;

/// Who is below whom.
#[derive(Default)]
struct Structure {
    /// The parent of each span: an index, ROOT or ORPHAN.
    parents: Vec<u32>,
    /// Spans whose parent is missing, by the id of that parent.
    orphans: Vec<(SpanId, Vec<u32>)>,
    /// The places in `orphans`, once there are more than a few.
    missing: HashMap<SpanId, u32>,
    /// The children of span `i` are `children[starts[i]..starts[i + 1]]`.
    starts: Vec<u32>,
    children: Vec<u32>,
    /// Every span once, parents before their children.
    order: Vec<u32>,
}

impl Structure {
    /// Finds the parents of these spans. Each piece follows the one before it; the first starts again.
    fn find_parents(&mut self, heads: &[Brief], index: &Index, places: Range<usize>) {
        if places.start == 0 {
            self.parents.clear();
            self.orphans.clear();
            self.missing.clear();
        }
        for at in places {
            let head = &heads[at];
            let parent = match head.parent() {
                None => ROOT,
                Some(parent_id) => match index.find(heads, &parent_id) {
                    Some(parent) if parent as usize == at => ROOT,
                    Some(parent) => parent,
                    None if head.is_local_root() => ROOT,
                    None => {
                        self.add_orphan(parent_id, at as u32);
                        ORPHAN
                    }
                },
            };
            self.parents.push(parent);
        }
    }

    /// Finds the order, and cuts cycles.
    fn find_order(&mut self) {
        self.walk();
        if self.order.len() < self.parents.len() {
            self.cut_cycles();
            self.walk();
        }
    }

    fn add_orphan(&mut self, parent_id: SpanId, at: u32) {
        let place = match self.missing.is_empty() {
            true => self.orphans.iter().position(|(id, _)| *id == parent_id),
            false => self.missing.get(&parent_id).map(|place| *place as usize),
        };
        if let Some(place) = place {
            self.orphans[place].1.push(at);
            return;
        }
        self.orphans.push((parent_id, vec![at]));
        if self.orphans.len() == FEW {
            self.missing.extend(self.orphans.iter().enumerate().map(|(place, (id, _))| (*id, place as u32)));
        } else if self.orphans.len() > FEW {
            self.missing.insert(parent_id, (self.orphans.len() - 1) as u32);
        }
    }

    fn below(&self, at: u32) -> &[u32] {
        &self.children[self.starts[at as usize] as usize..self.starts[at as usize + 1] as usize]
    }

    fn walk(&mut self) {
        let count = self.parents.len();
        self.starts.clear();
        self.starts.resize(count + 2, 0);
        for parent in self.parents.iter().filter(|parent| **parent < ORPHAN) {
            self.starts[*parent as usize + 2] += 1;
        }
        for at in 2..self.starts.len() {
            self.starts[at] += self.starts[at - 1];
        }
        self.children.clear();
        self.children.resize(self.starts[count + 1] as usize, 0);
        self.order.clear();
        for at in 0..count {
            let parent = self.parents[at];
            if parent < ORPHAN {
                let next = &mut self.starts[parent as usize + 1];
                self.children[*next as usize] = at as u32;
                *next += 1;
            } else {
                self.order.push(at as u32);
            }
        }
        let mut at = 0;
        while at < self.order.len() {
            let (from, to) = (self.starts[self.order[at] as usize], self.starts[self.order[at] as usize + 1]);
            self.order.extend_from_slice(&self.children[from as usize..to as usize]);
            at += 1;
        }
    }

    /// Makes each member of a cycle a root. A span that was not reached is in a cycle or below one.
    fn cut_cycles(&mut self) {
        let mut reached = vec![false; self.parents.len()];
        for at in &self.order {
            reached[*at as usize] = true;
        }
        let mut members: Vec<u32> = Vec::new();
        for start in 0..self.parents.len() as u32 {
            let mut path: Vec<u32> = Vec::new();
            let mut at = start;
            while at < ORPHAN && !reached[at as usize] {
                reached[at as usize] = true;
                path.push(at);
                at = self.parents[at as usize];
            }
            if let Some(first) = path.iter().position(|one| *one == at) {
                members.extend_from_slice(&path[first..]);
            }
        }
        for member in members {
            self.parents[member as usize] = ROOT;
        }
    }

    fn roots(&self) -> impl Iterator<Item = usize> + '_ {
        self.parents.iter().enumerate().filter(|(_, parent)| **parent == ROOT).map(|(at, _)| at)
    }

    /// The span that names the trace: the first root, or the first span to start if there is none.
    fn foremost(&self, heads: &[Brief]) -> usize {
        let first_root = self.roots().min_by_key(|at| (heads[*at].start_ns, heads[*at].id));
        first_root.or_else(|| (0..heads.len()).min_by_key(|at| heads[*at].start_ns)).unwrap_or(0)
    }

    /// The start and the duration of the trace: those of its root, or else of the spans whose start is known.
    fn times(&self, heads: &[Brief]) -> (i64, i64) {
        let rank = |at: &usize| {
            let head = &heads[*at];
            (head.has_parent(), head.duration_ns().is_none(), head.start_ns == 0, head.start_ns, head.id)
        };
        let root = self.roots().min_by_key(rank).map(|at| &heads[at]);
        let known = || heads.iter().filter(|head| head.start_ns != 0);
        let start = root.map(|root| root.start_ns).filter(|start| *start != 0);
        let start = start.or_else(|| known().map(|head| head.start_ns).min()).unwrap_or(0);
        if let Some(duration) = root.and_then(Brief::duration_ns) {
            return (start, duration);
        }
        let last = known().map(|head| head.start_ns + head.duration_ns().unwrap_or(0)).max();
        let longest = heads.iter().map(|head| head.duration_ns().unwrap_or(0)).max().unwrap_or(0);
        (start, last.map_or(longest, |last| (last - start).max(0)))
    }

    fn outside_parent(&self, heads: &[Brief]) -> usize {
        let is_outside = |(head, parent): (&Brief, &u32)| {
            let Some(parent) = (*parent < ORPHAN).then(|| &heads[*parent as usize]) else {
                return false;
            };
            if parent.start_ns == 0 || head.start_ns == 0 {
                return false;
            }
            let end = parent.duration_ns().map_or(i64::MAX, |duration| parent.start_ns + duration + SAME_TIME_NS);
            head.start_ns < parent.start_ns - SAME_TIME_NS || head.start_ns + head.duration_ns().unwrap_or(0) > end
        };
        heads.iter().zip(&self.parents).filter(|pair| is_outside(*pair)).count()
    }

    /// Adds the digests of the spans at these places of the reverse of `order`.
    fn add_shapes(&self, heads: &[Brief], bytes: &[u8], (names, digests, below): Shapes, places: Range<usize>) {
        for at in self.order[heads.len() - places.end..heads.len() - places.start].iter().rev() {
            let head = &heads[*at as usize];
            let children = self.below(*at);
            let known = if children.is_empty() { names.shape(head.name_number()) } else { None };
            digests[*at as usize] = known.unwrap_or_else(|| {
                join(children, digests, below);
                shape_of(i64::from(head.span_type()), head.name(bytes), below.as_flattened())
            });
        }
    }
}

/// Known shapes, the digest of each span, and memory.
type Shapes<'a> = (&'a Names, &'a mut Vec<Digest>, &'a mut Vec<Digest>);

/// Finds spans by id.
struct Index(Option<HashMap<SpanId, u32>>);

impl Index {
    /// Adds these spans; the first piece reserves memory for all. A trace of a few spans needs none.
    fn add(&mut self, heads: &[Brief], places: Range<usize>) {
        let map = self.0.get_or_insert_with(|| HashMap::with_capacity(heads.len()));
        map.extend(places.map(|at| (heads[at].id, at as u32)));
    }

    fn find(&self, heads: &[Brief], id: &SpanId) -> Option<u32> {
        match &self.0 {
            Some(map) => map.get(id).copied(),
            None => heads.iter().position(|head| head.id == *id).map(|at| at as u32),
        }
    }
}

fn join(indexes: &[u32], digests: &[Digest], below: &mut Vec<Digest>) {
    below.clear();
    below.extend(indexes.iter().map(|at| digests[*at as usize]));
    below.sort_unstable();
}

/// The hash of kind, number of digests below, name, and these digests.
pub fn shape_of(kind: i64, name: &[u8], below: &[u8]) -> Digest {
    let mut hash = Blake2b::<U16>::new();
    for number in [kind, below.len() as i64] {
        match u8::try_from(number) {
            Ok(digit @ 0..=9) => hash.update([b'0' + digit, 0]),
            _ => hash.update(format!("{number}\0").as_bytes()),
        }
    }
    hash.update(name);
    hash.update(below);
    hash.finalize().into()
}
