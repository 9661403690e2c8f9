//! The items of a record of `spans`, as docs/wire.md specifies them. The ranges are those of `SpanHead` in Python.

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
    /// Reads a whole item. `depth` limits the nesting of what is skipped.
    pub fn read(reader: &mut Reader<'a>, depth: usize) -> Read<Head<'a>> {
        let (mut head, left) = Head::begin(reader)?;
        for index in (FIELDS..).take(left) {
            if index == 19 {
                if !reader.nil() {
                    reader.text()?;
                }
                continue;
            }
            let start = reader.at;
            reader.skip(depth)?;
            let body = &reader.bytes[start..reader.at];
            match index {
                16 => head.attributes = body,
                17 => head.events = body,
                18 => head.links = body,
                _ => {}
            }
        }
        Ok(head)
    }

    /// Reads an item up to its attributes. Returns also how many fields are left.
    fn begin(reader: &mut Reader<'a>) -> Read<(Head<'a>, usize)> {
        let fields = reader.array()?;
        if fields == 0 {
            return Err(NotPlain);
        }
        let mut head = Head {
            kind: reader.int(0, i64::from(TICK))? as u8,
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
            name: &[],
            randomness: None,
            threshold: None,
            attributes: &[],
            events: &[],
            links: &[],
        };
        for index in 1..fields.min(FIELDS) {
            match index {
                1 => head.trace_id = reader.id()?,
                2 => head.span_id = reader.id()?,
                3 => head.parent_id = reader.id()?,
                4 => head.flags = reader.int(0, COUNT)? as u32,
                5 => head.status = reader.int(0, 3)? as u8,
                6 => head.revision = reader.int(0, COUNT)? as u32,
                7 => head.child_count = reader.optional_int(0, COUNT)?.map(|count| count as u32),
                8 => head.inject_count = reader.optional_int(0, COUNT)?.map(|count| count as u32),
                9 => head.inject_ordinal = reader.optional_int(0, COUNT)?.map(|count| count as u32),
                10 => head.span_type = reader.int(0, 5)? as u8,
                11 => head.start_ns = reader.int(0, NANOSECONDS)?,
                12 => head.duration_ns = reader.optional_int(0, NANOSECONDS)?,
                13 => head.name = reader.text()?,
                14 => head.randomness = reader.optional_int(0, BITS_56)?,
                _ => head.threshold = reader.optional_int(0, BITS_56)?,
            }
        }
        let needs_ids = head.kind != TICK && head.kind != LOST;
        if needs_ids && (head.trace_id.is_none() || head.span_id.is_none()) {
            return Err(NotPlain);
        }
        Ok((head, fields.saturating_sub(FIELDS)))
    }

    /// Reads an item that is alone in its bytes and was accepted before. Its `attributes` extend to the end of the item, because
    /// most callers need a few of them or none; `events` and `links` are not read.
    pub fn of(bytes: &'a [u8]) -> Read<Head<'a>> {
        let mut reader = Reader::new(bytes);
        let (mut head, left) = Head::begin(&mut reader)?;
        if left > 0 {
            head.attributes = &bytes[reader.at..];
        }
        Ok(head)
    }

    /// As `of`, with attributes, events and links.
    pub fn whole(bytes: &'a [u8]) -> Read<Head<'a>> {
        Head::read(&mut Reader::new(bytes), usize::MAX)
    }
}

/// A record of `spans`: the bytes of its resource, and a reader at its first item.
pub struct Envelope<'a> {
    pub resource: &'a [u8],
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
        Ok(Envelope { resource, items, reader })
    }
}
