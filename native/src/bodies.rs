//! Whether every reader can read the body of a span, as `codec.bodies` checks it. Only a kept trace is written with its bodies.
//!
//! A body that is unusual in any way is not plain, and Python checks it. So this check may be stricter than that one.

use crate::item::{Head, SpanId, TraceId};
use crate::msgpack::{NotPlain, Read, Reader, MAX_DEPTH};

/// Whether attributes, events and links consist of text, numbers, arrays and maps with text as keys.
pub fn are_plain(head: &Head) -> bool {
    check(head).is_ok()
}

fn check(head: &Head) -> Read<()> {
    if !head.attributes.is_empty() {
        whole(head.attributes, attributes)?;
    }
    if !head.events.is_empty() {
        whole(head.events, |reader| each(reader, event))?;
    }
    if !head.links.is_empty() {
        whole(head.links, |reader| each(reader, link))?;
    }
    Ok(())
}

fn whole(bytes: &[u8], check: impl FnOnce(&mut Reader) -> Read<()>) -> Read<()> {
    let mut reader = Reader::new(bytes);
    check(&mut reader)?;
    if reader.at_end() {
        Ok(())
    } else {
        Err(NotPlain)
    }
}

fn each(reader: &mut Reader, check: fn(&mut Reader, usize) -> Read<()>) -> Read<()> {
    for _ in 0..reader.array()? {
        let fields = reader.array()?;
        check(reader, fields)?;
    }
    Ok(())
}

fn attributes(reader: &mut Reader) -> Read<()> {
    for _ in 0..reader.map()? {
        reader.text()?;
        reader.check_value(MAX_DEPTH)?;
    }
    Ok(())
}

/// Name, time and attributes.
fn event(reader: &mut Reader, fields: usize) -> Read<()> {
    reader.text()?;
    reader.int(i64::MIN, i64::MAX)?;
    match fields {
        2 => Ok(()),
        3 => attributes(reader),
        _ => Err(NotPlain),
    }
}

/// Trace id, span id and attributes.
fn link(reader: &mut Reader, fields: usize) -> Read<()> {
    reader.id::<{ size_of::<TraceId>() }>()?.ok_or(NotPlain)?;
    reader.id::<{ size_of::<SpanId>() }>()?.ok_or(NotPlain)?;
    match fields {
        2 => Ok(()),
        3 => attributes(reader),
        _ => Err(NotPlain),
    }
}
