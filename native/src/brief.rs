//! What is remembered of an item beside its bytes, so that they are parsed once: in the record, where they are in the cache.

use crate::facts::{Amount, Usage};
use crate::item::{Head, SpanId, TraceId, ERROR, REMOTE_PARENT};
use crate::msgpack::{Read, Reader, MAX_DEPTH};
use crate::names::Names;

/// An absent number. Those of items are not negative.
const ABSENT: i64 = -1;

const HAS_PARENT: u16 = 1;
const HAS_CHILD_COUNT: u16 = 2;
const HAS_INJECT_ORDINAL: u16 = 4;
/// `numbers` are the inject count and ordinal; otherwise they are the tokens.
const HAS_INJECTS: u16 = 8;
/// The item has a randomness or a threshold of head sampling; both are rare, and read again.
const HAS_SAMPLING: u16 = 16;
const HAS_COST: u16 = 32;
/// Its usage does not fit here, and is read again.
const REREAD: u16 = 64;
/// Its attributes are unusual: Python has to read them.
const ODD: u16 = 128;
const HAS_NAME: u16 = 256;
const HAS_ATTRIBUTES: u16 = 512;
/// The flags of the item that matter here are the bits from this one on.
const FLAGS_FROM: u32 = 11;
const FLAGS: u32 = 0x1f;
/// Name, randomness and threshold.
const FIELDS_TO_ATTRIBUTES: usize = 3;

/// An item in the bytes of its record or of its trace. Each undecided span has one, so it is packed: 72 bytes.
#[derive(Clone, Copy)]
pub struct Brief {
    pub id: SpanId,
    parent: SpanId,
    pub start_ns: i64,
    duration_ns: i64,
    cost: f64,
    /// Where the item starts.
    pub at: u32,
    length: u32,
    pub process: u32,
    /// Of its name.
    name_number: u32,
    child_count: u32,
    numbers: [u32; 2],
    bits: u16,
    /// Kind, status and span type: 3, 2 and 3 bits.
    kinds: u8,
    /// Where the name starts in the item, with its length before it. The fields in front of it take less than 256 bytes.
    name_at: u8,
}

const _: () = assert!(size_of::<Brief>() == 72);

impl Brief {
    /// `at`: where the item, of this length, starts in the bytes that `head` was read from.
    pub fn of(head: &Head, usage: Option<Read<Usage>>, at: usize, length: usize, names: &mut Names) -> Brief {
        let bit = |is_set: bool, bit: u16| if is_set { bit } else { 0 };
        let injects = head.inject_count.unwrap_or(0);
        let has_injects = injects != 0 || head.inject_ordinal.is_some();
        let mut brief = Brief {
            id: head.span_id.unwrap_or_default(),
            parent: head.parent_id.unwrap_or_default(),
            start_ns: head.start_ns,
            duration_ns: head.duration_ns.unwrap_or(ABSENT),
            cost: 0.0,
            at: at as u32,
            length: length as u32,
            process: 0,
            name_number: names.number(head.span_type, head.name),
            child_count: head.child_count.unwrap_or(0),
            numbers: if has_injects { [injects, head.inject_ordinal.unwrap_or(0)] } else { [0, 0] },
            bits: bit(head.parent_id.is_some(), HAS_PARENT)
                | bit(head.child_count.is_some(), HAS_CHILD_COUNT)
                | bit(head.inject_ordinal.is_some(), HAS_INJECT_ORDINAL)
                | bit(has_injects, HAS_INJECTS)
                | bit(head.randomness.is_some() || head.threshold.is_some(), HAS_SAMPLING)
                | bit(!head.name.is_empty(), HAS_NAME)
                | bit(!head.attributes.is_empty(), HAS_ATTRIBUTES)
                | ((head.flags & FLAGS) << FLAGS_FROM) as u16,
            kinds: head.kind | head.status << 3 | head.span_type << 5,
            name_at: head.name_at.saturating_sub(at) as u8,
        };
        if let Some(usage) = usage {
            brief.note(usage);
        }
        brief
    }

    fn note(&mut self, usage: Read<Usage>) {
        let Ok(usage) = usage else {
            self.bits |= ODD;
            return;
        };
        let is_free = !self.has(HAS_INJECTS) || usage.input | usage.output == 0;
        match (u32::try_from(usage.input), u32::try_from(usage.output), usage.cost) {
            (Ok(input), Ok(output), None | Some(Amount::Float(_))) if is_free => {
                if !self.has(HAS_INJECTS) {
                    self.numbers = [input, output];
                }
                if let Some(Amount::Float(cost)) = usage.cost {
                    self.cost = cost;
                    self.bits |= HAS_COST;
                }
            }
            _ => self.bits |= REREAD,
        }
    }

    /// Moves the item to other bytes.
    pub fn moved(mut self, from: u32, to: u32) -> Brief {
        self.at = self.at - from + to;
        self
    }

    /// The item as one of this process.
    pub fn by(mut self, process: u32) -> Brief {
        self.process = process;
        self
    }

    fn has(&self, bit: u16) -> bool {
        self.bits & bit != 0
    }

    pub fn kind(&self) -> u8 {
        self.kinds & 7
    }

    pub fn status(&self) -> u8 {
        self.kinds >> 3 & 3
    }

    pub fn span_type(&self) -> u8 {
        self.kinds >> 5
    }

    /// COUNTED, REMOTE_PARENT and those of FOREIGN.
    pub fn flags(&self) -> u32 {
        u32::from(self.bits) >> FLAGS_FROM
    }

    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Where the item ends.
    pub fn end(&self) -> usize {
        self.at as usize + self.len()
    }

    pub fn item<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.at as usize..self.end()).unwrap_or_default()
    }

    pub fn name_number(&self) -> u32 {
        self.name_number
    }

    /// Only items of one span are compared by it, so it is not held here.
    pub fn revision(&self, bytes: &[u8]) -> u32 {
        Head::of(self.item(bytes)).map_or(0, |head| head.revision)
    }

    pub fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if !self.has(HAS_NAME) {
            return &[];
        }
        self.at_name(bytes).raw_text().unwrap_or_default()
    }

    fn at_name<'a>(&self, bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes: self.item(bytes), at: usize::from(self.name_at) }
    }

    /// The attribute map and what follows it; empty if there is none.
    pub fn attributes<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if !self.has(HAS_ATTRIBUTES) {
            return &[];
        }
        let mut reader = self.at_name(bytes);
        for _ in 0..FIELDS_TO_ATTRIBUTES {
            if reader.skip(MAX_DEPTH).is_err() {
                return &[];
            }
        }
        reader.bytes.get(reader.at..).unwrap_or_default()
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

    /// 0 if the item has none.
    pub fn inject_count(&self) -> u32 {
        if self.has(HAS_INJECTS) {
            self.numbers[0]
        } else {
            0
        }
    }

    pub fn inject_ordinal(&self) -> Option<u32> {
        self.has(HAS_INJECT_ORDINAL).then_some(self.numbers[1])
    }

    pub fn is_local_root(&self) -> bool {
        self.flags() & REMOTE_PARENT != 0 && !self.has(HAS_INJECT_ORDINAL)
    }

    pub fn is_error(&self) -> bool {
        self.status() == ERROR
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
        let [input, output] = if self.has(HAS_INJECTS) { [0, 0] } else { self.numbers };
        Some(Usage { input: i64::from(input), output: i64::from(output), cost })
    }
}

/// An item of a record.
pub struct Parsed {
    pub trace_id: Option<TraceId>,
    /// Its place in the record.
    pub index: u32,
    pub brief: Brief,
}
