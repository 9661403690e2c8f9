//! What a decision needs to know of a trace: statuses, times, tokens, shape. The rules are those of `model.trace`, `model.structure`
//! and `model.tree`.

use std::collections::HashMap;

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest as _};

use crate::brief::Brief;
use crate::item::{Head, SpanId, LLM};
use crate::msgpack::{NotPlain, Read, Reader, MAX_DEPTH};
use crate::names::Names;

pub type Digest = [u8; 16];

const MOST_TOKENS: i64 = 1 << 53;

/// A number as the policies read it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Int(i64),
    Float(f64),
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
    structure: Structure,
    holds: Vec<bool>,
    digests: Vec<Digest>,
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
    /// Wanted attributes of every span: a MessagePack array with one map for each.
    pub selected: Option<Vec<u8>>,
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

impl Facts {
    /// Reads the facts of a trace: its items are parts of `bytes`. `NotPlain`: an attribute map is unusual, and Python has to read it.
    pub fn of(heads: &[Brief], bytes: &[u8], spellings: &Spellings, wanted: &[Vec<u8>], memo: &mut Memo) -> Read<Facts> {
        let mut facts = Facts::default();
        let mut any_unsampled = false;
        for head in heads {
            if head.span_type() == LLM && head.is_odd() {
                return Err(NotPlain);
            }
            facts.errors += usize::from(head.is_error());
            if !head.has_sampling() {
                any_unsampled = true;
                continue;
            }
            let whole = Head::of(head.item(bytes))?;
            facts.randomness = facts.randomness.or(whole.randomness);
            let threshold = whole.threshold.unwrap_or(0);
            if !facts.thresholds.contains(&threshold) {
                facts.thresholds.push(threshold);
            }
        }
        if any_unsampled && !facts.thresholds.is_empty() && !facts.thresholds.contains(&0) {
            facts.thresholds.push(0);
        }
        let Memo { names, structure, holds, digests, below } = memo;
        structure.build(heads);
        facts.foremost = structure.foremost(heads);
        (facts.start_ns, facts.duration_ns) = structure.times(heads);
        facts.outside_parent = structure.outside_parent(heads);
        structure.each_leaf_call(heads, holds, |head| {
            let usage = match head.usage() {
                Some(usage) => usage,
                None => Usage::read(head.attributes(bytes), spellings)?,
            };
            facts.input_tokens += usage.input;
            facts.output_tokens += usage.output;
            facts.costs.extend(usage.cost);
            Ok(())
        })?;
        facts.shape = structure.shape(heads, bytes, names, digests, below);
        if !wanted.is_empty() {
            facts.selected = Some(select(heads, bytes, wanted, spellings)?);
        }
        Ok(facts)
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

/// The wanted attributes of every span. Values are copied as they are; Python decodes them. It would also read the attributes of
/// the summary, so those have to be readable too.
fn select(heads: &[Brief], bytes: &[u8], wanted: &[Vec<u8>], spellings: &Spellings) -> Read<Vec<u8>> {
    let mut out = vec![0xdd];
    out.extend_from_slice(&(heads.len() as u32).to_be_bytes());
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
    Ok(out)
}

/// Clocks of several hosts agree no better than this.
const SAME_TIME_NS: i64 = 1_000_000;
const ROOT: u32 = u32::MAX;
const ORPHAN: u32 = u32::MAX - 1;
/// Up to so many spans are searched one by one; a map would cost more.
const FEW: usize = 24;

/// Who is below whom.
#[derive(Default)]
struct Structure {
    /// The parent of each span: an index, ROOT or ORPHAN.
    parents: Vec<u32>,
    /// Spans whose parent is missing, by the id of that parent.
    orphans: Vec<(SpanId, Vec<u32>)>,
    /// The children of span `i` are `children[starts[i]..starts[i + 1]]`.
    starts: Vec<u32>,
    children: Vec<u32>,
    /// Every span once, parents before their children.
    order: Vec<u32>,
}

impl Structure {
    /// Makes this the structure of these spans.
    fn build(&mut self, heads: &[Brief]) {
        let index = Index::of(heads);
        self.parents.clear();
        self.orphans.clear();
        for (at, head) in heads.iter().enumerate() {
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
        self.walk();
        if self.order.len() < heads.len() {
            self.cut_cycles();
            self.walk();
        }
    }

    fn add_orphan(&mut self, parent_id: SpanId, at: u32) {
        match self.orphans.iter_mut().find(|(id, _)| *id == parent_id) {
            Some((_, group)) => group.push(at),
            None => self.orphans.push((parent_id, vec![at])),
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

    /// Calls `visit` with each LLM span that has no LLM span below it.
    fn each_leaf_call(&self, heads: &[Brief], holds: &mut Vec<bool>, mut visit: impl FnMut(&Brief) -> Read<()>) -> Read<()> {
        holds.clear();
        holds.resize(heads.len(), false);
        for at in self.order.iter().rev() {
            let covered = self.below(*at).iter().any(|child| holds[*child as usize]);
            let head = &heads[*at as usize];
            let is_call = head.span_type() == LLM;
            holds[*at as usize] = covered || is_call;
            if is_call && !covered {
                visit(head)?;
            }
        }
        Ok(())
    }

    fn shape(&self, heads: &[Brief], bytes: &[u8], names: &Names, digests: &mut Vec<Digest>, below: &mut Vec<Digest>) -> Digest {
        digests.clear();
        digests.resize(heads.len(), [0; 16]);
        for at in self.order.iter().rev() {
            let head = &heads[*at as usize];
            let children = self.below(*at);
            let known = if children.is_empty() { names.shape(head.name_number()) } else { None };
            digests[*at as usize] = known.unwrap_or_else(|| {
                join(children, digests, below);
                shape_of(i64::from(head.span_type()), head.name(bytes), below.as_flattened())
            });
        }
        let mut tops: Vec<Digest> = self.roots().map(|at| digests[at]).collect();
        for (_, group) in &self.orphans {
            join(group, digests, below);
            tops.push(shape_of(-1, b"", below.as_flattened()));
        }
        tops.sort_unstable();
        shape_of(-2, b"", tops.as_flattened())
    }
}

/// Finds spans by id.
struct Index(Option<HashMap<SpanId, u32>>);

impl Index {
    fn of(heads: &[Brief]) -> Index {
        if heads.len() <= FEW {
            return Index(None);
        }
        Index(Some(heads.iter().enumerate().map(|(at, head)| (head.id, at as u32)).collect()))
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
