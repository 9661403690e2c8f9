//! What is remembered of an item beside its bytes, so that they are parsed once: in the record, where they are in the cache.

use crate::facts::{Amount, Spellings, Usage};
use crate::item::{Head, SpanId, TraceId, ERROR, LLM, REMOTE_PARENT};

/// An absent number. Those of items are not negative.
const ABSENT: i64 = -1;

const HAS_PARENT: u8 = 1;
const HAS_CHILD_COUNT: u8 = 2;
const HAS_INJECT_COUNT: u8 = 4;
const HAS_INJECT_ORDINAL: u8 = 8;
/// The item has a randomness or a threshold of head sampling; both are rare, and read again.
const HAS_SAMPLING: u8 = 16;
const HAS_COST: u8 = 32;
/// Its usage does not fit here, and is read again.
const REREAD: u8 = 64;
/// Its attributes are unusual: Python has to read them.
const ODD: u8 = 128;

/// An item in the bytes of its record or of its trace.
#[derive(Clone, Copy)]
pub struct Brief {
    pub id: SpanId,
    parent: SpanId,
    pub start_ns: i64,
    duration_ns: i64,
    cost: f64,
    /// Where the item starts and ends.
    pub at: u32,
    pub end: u32,
    pub process: u32,
    pub flags: u32,
    pub revision: u32,
    child_count: u32,
    inject_count: u32,
    inject_ordinal: u32,
    name_at: u32,
    name_end: u32,
    attributes_at: u32,
    input_tokens: u32,
    output_tokens: u32,
    pub kind: u8,
    pub status: u8,
    pub span_type: u8,
    bits: u8,
}

impl Brief {
    /// `item` is `at..` of the bytes that the item is in.
    pub fn of(head: &Head, item: &[u8], at: usize, spellings: &Spellings) -> Brief {
        let place = |part: &[u8]| (at + (part.as_ptr() as usize - item.as_ptr() as usize)) as u32;
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let mut brief = Brief {
            id: head.span_id.unwrap_or_default(),
            parent: head.parent_id.unwrap_or_default(),
            start_ns: head.start_ns,
            duration_ns: head.duration_ns.unwrap_or(ABSENT),
            cost: 0.0,
            at: at as u32,
            end: (at + item.len()) as u32,
            process: 0,
            flags: head.flags,
            revision: head.revision,
            child_count: head.child_count.unwrap_or(0),
            inject_count: head.inject_count.unwrap_or(0),
            inject_ordinal: head.inject_ordinal.unwrap_or(0),
            name_at: 0,
            name_end: 0,
            attributes_at: 0,
            input_tokens: 0,
            output_tokens: 0,
            kind: head.kind,
            status: head.status,
            span_type: head.span_type,
            bits: bit(head.parent_id.is_some(), HAS_PARENT)
                | bit(head.child_count.is_some(), HAS_CHILD_COUNT)
                | bit(head.inject_count.is_some(), HAS_INJECT_COUNT)
                | bit(head.inject_ordinal.is_some(), HAS_INJECT_ORDINAL)
                | bit(head.randomness.is_some() || head.threshold.is_some(), HAS_SAMPLING),
        };
        if !head.name.is_empty() {
            brief.name_at = place(head.name);
            brief.name_end = brief.name_at + head.name.len() as u32;
        }
        if !head.attributes.is_empty() {
            brief.attributes_at = place(head.attributes);
            if head.span_type == LLM {
                brief.note_usage(head.attributes, spellings);
            }
        }
        brief
    }

    fn note_usage(&mut self, attributes: &[u8], spellings: &Spellings) {
        let Ok(usage) = Usage::read(attributes, spellings) else {
            self.bits |= ODD;
            return;
        };
        match (u32::try_from(usage.input), u32::try_from(usage.output), usage.cost) {
            (Ok(input), Ok(output), None) => (self.input_tokens, self.output_tokens) = (input, output),
            (Ok(input), Ok(output), Some(Amount::Float(cost))) => {
                (self.input_tokens, self.output_tokens, self.cost) = (input, output, cost);
                self.bits |= HAS_COST;
            }
            _ => self.bits |= REREAD,
        }
    }

    /// Moves the item to other bytes.
    pub fn moved(mut self, from: u32, to: u32) -> Brief {
        let moved = |place: u32| if place == 0 { 0 } else { place - from + to };
        self.name_at = moved(self.name_at);
        self.name_end = moved(self.name_end);
        self.attributes_at = moved(self.attributes_at);
        self.at = self.at - from + to;
        self.end = self.end - from + to;
        self
    }

    /// The item as one of this process.
    pub fn by(mut self, process: u32) -> Brief {
        self.process = process;
        self
    }

    fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    pub fn len(&self) -> usize {
        (self.end - self.at) as usize
    }

    pub fn item<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.at as usize..self.end as usize).unwrap_or_default()
    }

    pub fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.name_at as usize..self.name_end as usize).unwrap_or_default()
    }

    /// The attribute map and what follows it; empty if there is none.
    pub fn attributes<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if self.attributes_at == 0 {
            return &[];
        }
        bytes.get(self.attributes_at as usize..self.end as usize).unwrap_or_default()
    }

    pub fn parent(&self) -> Option<SpanId> {
        self.has(HAS_PARENT).then_some(self.parent)
    }

    pub fn has_parent(&self) -> bool {
        self.has(HAS_PARENT)
    }

    pub fn duration_ns(&self) -> Option<i64> {
        (self.duration_ns != ABSENT).then_some(self.duration_ns)
    }

    pub fn child_count(&self) -> Option<u32> {
        self.has(HAS_CHILD_COUNT).then_some(self.child_count)
    }

    pub fn inject_count(&self) -> Option<u32> {
        self.has(HAS_INJECT_COUNT).then_some(self.inject_count)
    }

    pub fn inject_ordinal(&self) -> Option<u32> {
        self.has(HAS_INJECT_ORDINAL).then_some(self.inject_ordinal)
    }

    pub fn is_local_root(&self) -> bool {
        self.flags & REMOTE_PARENT != 0 && !self.has(HAS_INJECT_ORDINAL)
    }

    pub fn is_error(&self) -> bool {
        self.status == ERROR
    }

    pub fn has_sampling(&self) -> bool {
        self.has(HAS_SAMPLING)
    }

    /// Whether Python has to read its attributes.
    pub fn is_odd(&self) -> bool {
        self.has(ODD)
    }

    /// The usage of a model call that is not odd; None: read it in the attributes.
    pub fn usage(&self) -> Option<Usage> {
        if self.has(REREAD) {
            return None;
        }
        let cost = self.has(HAS_COST).then_some(Amount::Float(self.cost));
        Some(Usage { input: i64::from(self.input_tokens), output: i64::from(self.output_tokens), cost })
    }
}

/// An item of a record.
pub struct Parsed {
    pub trace_id: Option<TraceId>,
    /// Its place in the record.
    pub index: u32,
    pub brief: Brief,
}
