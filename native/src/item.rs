//! The items of a record of `spans`, as docs/wire.md specifies them. The ranges are those of `SpanHead` in Python.

use crate::facts::{Spellings, Usage};
use crate::msgpack::{NotPlain, Read, Reader, MAX_DEPTH};

pub type TraceId = [u8; 16];
pub type SpanId = [u8; 8];

pub const SPAN: u8 = 0;
pub const START: u8 = 1;
pub const SUSPEND: u8 = 3;
pub const RESUME: u8 = 4;
pub const LOST: u8 = 5;
pub const TICK: u8 = 6;

pub const PENDING: u8 = 0;
pub const ERROR: u8 = 2;

pub const COUNTED: u32 = 1;
pub const REMOTE_PARENT: u32 = 4;
pub const BY_PROCESSOR: u32 = 8;
pub const NOT_COUNTED: u32 = 16;
pub const FOREIGN: u32 = BY_PROCESSOR | NOT_COUNTED;

pub const LLM: u8 = 1;

/// Fields before the attributes.
const FIELDS: usize = 16;
const COUNT: i64 = (1 << 31) - 1;
const NANOSECONDS: i64 = (1 << 62) - 1;
const BITS_56: i64 = (1 << 56) - 1;

/// An item without its attributes, events and links.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    pub kind: u8,
    pub trace_id: Option<TraceId>,
    pub span_id: Option<SpanId>,
    pub parent_id: Option<SpanId>,
    pub flags: u32,
    pub status: u8,
    pub revision: u32,
    pub child_count: Option<u32>,
    pub inject_count: Option<u32>,
    pub inject_ordinal: Option<u32>,
    pub span_type: u8,
    pub start_ns: i64,
    pub duration_ns: Option<i64>,
    /// Where the name starts, with its length before it.
    pub name_at: usize,
    /// Valid UTF-8.
    pub name: &'a [u8],
    pub randomness: Option<i64>,
    pub threshold: Option<i64>,
    /// The attribute map; an empty slice if the item has none. So are events and links.
    pub attributes: &'a [u8],
    pub events: &'a [u8],
    pub links: &'a [u8],
}

impl<'a> Head<'a> {
    /// Reads a whole item into this empty head. `depth` limits the nesting of what is skipped. Returns what a model call used; that
    /// is `NotPlain` if its attributes are unusual.
    pub fn read(&mut self, reader: &mut Reader<'a>, depth: usize, spellings: &Spellings) -> Read<Option<Read<Usage>>> {
        let left = self.begin(reader)?;
        if left == 0 {
            return Ok(None);
        }
        let start = reader.at;
        let mut usage = None;
        if self.span_type == LLM {
            let found = Usage::walk(reader, depth.saturating_sub(1).min(MAX_DEPTH), spellings);
            if found.is_err() {
                reader.at = start;
                reader.skip(depth)?;
            }
            usage = Some(found);
        } else {
            reader.skip(depth)?;
        }
        self.attributes = &reader.bytes[start..reader.at];
        self.read_rest(reader, left - 1, depth)?;
        Ok(usage)
    }

    fn read_rest(&mut self, reader: &mut Reader<'a>, left: usize, depth: usize) -> Read<()> {
        for index in (FIELDS + 1..).take(left) {
            if index == 19 {
                if !reader.nil() {
                    reader.text()?;
                }
                continue;
            }
            let start = reader.at;
            reader.skip(depth)?;
            match index {
                17 => self.events = &reader.bytes[start..reader.at],
                18 => self.links = &reader.bytes[start..reader.at],
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads an item up to its attributes. Returns how many fields are left.
    #[inline]
    fn begin(&mut self, reader: &mut Reader<'a>) -> Read<usize> {
        let fields = reader.array()?;
        if fields == 0 {
            return Err(NotPlain);
        }
        self.kind = reader.int(0, i64::from(TICK))? as u8;
        self.fill(reader, fields)?;
        let needs_ids = self.kind != TICK && self.kind != LOST;
        if needs_ids && (self.trace_id.is_none() || self.span_id.is_none()) {
            return Err(NotPlain);
        }
        Ok(fields.saturating_sub(FIELDS))
    }

    /// Reads the fields after the kind; an item may end after any of them.
    #[inline]
    fn fill(&mut self, reader: &mut Reader<'a>, fields: usize) -> Read<()> {
        let count = |reader: &mut Reader| reader.optional_int(0, COUNT).map(|count| count.map(|count| count as u32));
        if fields > 1 {
            self.trace_id = reader.id()?;
        }
        if fields > 2 {
            self.span_id = reader.id()?;
        }
        if fields > 3 {
            self.parent_id = reader.id()?;
        }
        if fields > 4 {
            self.flags = reader.int(0, COUNT)? as u32;
        }
        if fields > 5 {
            self.status = reader.int(0, 3)? as u8;
        }
        if fields > 6 {
            self.revision = reader.int(0, COUNT)? as u32;
        }
        if fields > 7 {
            self.child_count = count(reader)?;
        }
        if fields > 8 {
            self.inject_count = count(reader)?;
        }
        if fields > 9 {
            self.inject_ordinal = count(reader)?;
        }
        if fields > 10 {
            self.span_type = reader.int(0, 5)? as u8;
        }
        if fields > 11 {
            self.start_ns = reader.int(0, NANOSECONDS)?;
        }
        if fields > 12 {
            self.duration_ns = reader.optional_int(0, NANOSECONDS)?;
        }
        if fields > 13 {
            self.name_at = reader.at;
            self.name = reader.text()?;
        }
        if fields > 14 {
            self.randomness = reader.optional_int(0, BITS_56)?;
        }
        if fields > 15 {
            self.threshold = reader.optional_int(0, BITS_56)?;
        }
        Ok(())
    }

    pub const EMPTY: Head<'a> = Head {
        kind: 0,
        trace_id: None,
        span_id: None,
        parent_id: None,
        flags: 0,
        status: 0,
        revision: 0,
        child_count: None,
        inject_count: None,
        inject_ordinal: None,
        span_type: 5,
        start_ns: 0,
        duration_ns: None,
        name_at: 0,
        name: &[],
        randomness: None,
        threshold: None,
        attributes: &[],
        events: &[],
        links: &[],
    };

    /// Reads an item that is alone in its bytes and was accepted before. Its `attributes` extend to the end of the item, because
    /// most callers need a few of them or none; `events` and `links` are not read.
    pub fn of(bytes: &'a [u8]) -> Read<Head<'a>> {
        let mut reader = Reader::new(bytes);
        let mut head = Head::EMPTY;
        let left = head.begin(&mut reader)?;
        if left > 0 {
            head.attributes = &bytes[reader.at..];
        }
        Ok(head)
    }

    /// As `of`, with attributes, events and links.
    pub fn whole(bytes: &'a [u8]) -> Read<Head<'a>> {
        let mut reader = Reader::new(bytes);
        let mut head = Head::EMPTY;
        let left = head.begin(&mut reader)?;
        if left > 0 {
            let start = reader.at;
            reader.skip(usize::MAX)?;
            head.attributes = &bytes[start..reader.at];
            head.read_rest(&mut reader, left - 1, usize::MAX)?;
        }
        Ok(head)
    }
}

/// A record of `spans`: the bytes of its resource, and a reader at its first item.
pub struct Envelope<'a> {
    pub resource: &'a [u8],
    /// Where it begins.
    pub resource_at: usize,
    pub items: usize,
    pub reader: Reader<'a>,
}

impl<'a> Envelope<'a> {
    pub fn read(value: &'a [u8]) -> Read<Envelope<'a>> {
        if value.first() != Some(&1) {
            return Err(NotPlain);
        }
        let mut reader = Reader { bytes: value, at: 1 };
        if reader.array()? != 2 {
            return Err(NotPlain);
        }
        let start = reader.at;
        reader.skip(MAX_DEPTH)?;
        let resource = &value[start..reader.at];
        let items = reader.array()?;
        Ok(Envelope { resource, resource_at: start, items, reader })
    }
}
