//! The encoded decision on a dropped trace. Most traces are dropped, and their decision is all that is written of them.
//!
//! The form is that of `model.decision.Decision`. A property test compares the bytes with those of Python's encoder.

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest as _};

use crate::facts::Facts;
use crate::item::TraceId;

/// Names in a decision are cut to this number of characters, as `NAME_CHARACTERS` of `prela_stream.model.trace`.
const NAME_CHARACTERS: usize = 200;

/// What Python knows of the decision.
pub struct Frame<'a> {
    /// Topic and partition, as the decision id contains them.
    pub source: &'a [u8],
    /// Encoded: probability, threshold, weight, policy and reason.
    pub verdict: &'a [u8],
    /// Encoded: the version of the policies.
    pub version: &'a [u8],
    pub cut_offset: i64,
    pub cost: Option<f64>,
    pub weight_biased: bool,
    pub repeated: bool,
    pub trigger: &'a str,
    pub basis: &'a str,
}

/// What is known of the trace beside its facts.
pub struct Known<'a> {
    pub id: &'a TraceId,
    pub complete: bool,
    pub first_offset: i64,
    pub due_ms: i64,
    pub root_name: &'a str,
    pub service: &'a str,
    pub items: usize,
}

/// The decision as MessagePack.
pub fn dropped(frame: &Frame<'_>, known: &Known<'_>, facts: &Facts) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(512));
    out.0.extend_from_slice(&[0xdc, 0, 18]);
    out.bytes(known.id);
    out.bytes(&decision_id(frame.source, known.first_offset, known.id));
    out.boolean(false);
    out.0.extend_from_slice(frame.verdict);
    out.text(frame.trigger);
    out.boolean(known.complete);
    out.int(known.first_offset);
    out.int(frame.cut_offset);
    out.int(known.due_ms);
    out.0.extend_from_slice(frame.version);
    out.0.push(0x9b);
    out.text(cut(known.root_name));
    out.text(cut(known.service));
    out.int(if facts.start_ns == 0 { started(known.due_ms, facts.duration_ns) } else { facts.start_ns });
    out.int(facts.duration_ns);
    out.int(known.items as i64);
    out.int(facts.errors as i64);
    out.int(facts.input_tokens);
    out.int(facts.output_tokens);
    match frame.cost {
        Some(cost) => out.float(cost),
        None => out.0.push(0xc0),
    }
    out.text(&hex(&facts.shape));
    out.int(facts.outside_parent as i64);
    out.boolean(frame.weight_biased);
    out.boolean(frame.repeated);
    out.text(frame.basis);
    out.0
}

/// The start of a trace without a known start: its decision minus its duration.
fn started(due_ms: i64, duration_ns: i64) -> i64 {
    due_ms.saturating_mul(1_000_000).saturating_sub(duration_ns).max(0)
}

/// As `decision_id_of` of `prela_stream.model.decision`.
fn decision_id(source: &[u8], first_offset: i64, trace_id: &TraceId) -> [u8; 16] {
    let mut hasher = Blake2b::<U16>::new();
    hasher.update(source);
    hasher.update(first_offset.to_string().as_bytes());
    hasher.update([0]);
    hasher.update(trace_id);
    hasher.finalize().into()
}

fn cut(text: &str) -> &str {
    match text.char_indices().nth(NAME_CHARACTERS) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Writes each value in its shortest form, as msgspec does.
struct Writer(Vec<u8>);

impl Writer {
    fn boolean(&mut self, value: bool) {
        self.0.push(0xc2 + u8::from(value));
    }

    fn float(&mut self, value: f64) {
        self.0.push(0xcb);
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn int(&mut self, value: i64) {
        if let Ok(value) = u64::try_from(value) {
            if value < 0x80 {
                self.0.push(value as u8);
            } else if let Ok(value) = u8::try_from(value) {
                self.0.extend_from_slice(&[0xcc, value]);
            } else if let Ok(value) = u16::try_from(value) {
                self.tagged(0xcd, &value.to_be_bytes());
            } else if let Ok(value) = u32::try_from(value) {
                self.tagged(0xce, &value.to_be_bytes());
            } else {
                self.tagged(0xcf, &value.to_be_bytes());
            }
        } else if value >= -32 {
            self.0.push(value as i8 as u8);
        } else if let Ok(value) = i8::try_from(value) {
            self.tagged(0xd0, &value.to_be_bytes());
        } else if let Ok(value) = i16::try_from(value) {
            self.tagged(0xd1, &value.to_be_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.tagged(0xd2, &value.to_be_bytes());
        } else {
            self.tagged(0xd3, &value.to_be_bytes());
        }
    }

    fn bytes(&mut self, value: &[u8; 16]) {
        self.tagged(0xc4, &[16]);
        self.0.extend_from_slice(value);
    }

    /// Names are short: at most 200 characters of up to four bytes.
    fn text(&mut self, value: &str) {
        let length = value.len();
        if length < 32 {
            self.0.push(0xa0 | length as u8);
        } else if let Ok(length) = u8::try_from(length) {
            self.tagged(0xd9, &[length]);
        } else if let Ok(length) = u16::try_from(length) {
            self.tagged(0xda, &length.to_be_bytes());
        } else {
            self.tagged(0xdb, &(length as u32).to_be_bytes());
        }
        self.0.extend_from_slice(value.as_bytes());
    }

    fn tagged(&mut self, tag: u8, value: &[u8]) {
        self.0.push(tag);
        self.0.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_shortest_form_of_a_number() {
        for (value, bytes) in [
            (0, &b"\x00"[..]),
            (127, b"\x7f"),
            (128, b"\xcc\x80"),
            (256, b"\xcd\x01\x00"),
            (65_536, b"\xce\x00\x01\x00\x00"),
            (1 << 32, b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00"),
            (-1, b"\xff"),
            (-33, b"\xd0\xdf"),
            (-129, b"\xd1\xff\x7f"),
            (-32_769, b"\xd2\xff\xff\x7f\xff"),
            (i64::MIN, b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00"),
        ] {
            let mut out = Writer(Vec::new());
            out.int(value);
            assert_eq!(out.0, bytes, "{value}");
        }
    }

    #[test]
    fn cuts_names_between_characters() {
        let long = "ü".repeat(NAME_CHARACTERS + 1);
        assert_eq!(cut(&long).chars().count(), NAME_CHARACTERS);
        assert_eq!(cut("short"), "short");
    }
}
