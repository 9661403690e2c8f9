//! MessagePack, read without recursion and without trusting any length.
//!
//! A value that is not exactly what the caller expects is `NotPlain`. The caller then leaves the record to the Python decoder, which
//! decides what is readable. So this reader may be stricter than that decoder, but never more permissive.

/// Values nested deeper than this are left to the Python decoder, which has a limit of its own.
pub const MAX_DEPTH: usize = 64;

/// The bytes are not what this reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPlain;

pub type Read<T> = Result<T, NotPlain>;

/// A cursor over a value.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    pub fn at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    #[inline]
    fn byte(&mut self) -> Read<u8> {
        let byte = *self.bytes.get(self.at).ok_or(NotPlain)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or(NotPlain)?;
        let taken = self.bytes.get(self.at..end).ok_or(NotPlain)?;
        self.at = end;
        Ok(taken)
    }

    #[inline]
    fn big_endian(&mut self, size: usize) -> Read<u64> {
        let bytes = self.take(size)?;
        Ok(match *bytes {
            [a] => u64::from(a),
            [a, b] => u64::from(u16::from_be_bytes([a, b])),
            [a, b, c, d] => u64::from(u32::from_be_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
        })
    }

    pub fn array(&mut self) -> Read<usize> {
        match self.byte()? {
            tag @ 0x90..=0x9f => Ok(usize::from(tag & 0x0f)),
            0xdc => Ok(self.big_endian(2)? as usize),
            0xdd => Ok(self.big_endian(4)? as usize),
            _ => Err(NotPlain),
        }
    }

    pub fn map(&mut self) -> Read<usize> {
        match self.byte()? {
            tag @ 0x80..=0x8f => Ok(usize::from(tag & 0x0f)),
            0xde => Ok(self.big_endian(2)? as usize),
            0xdf => Ok(self.big_endian(4)? as usize),
            _ => Err(NotPlain),
        }
    }

    /// Consumes a nil if one is next.
    #[inline]
    pub fn nil(&mut self) -> bool {
        let found = self.bytes.get(self.at) == Some(&0xc0);
        self.at += usize::from(found);
        found
    }

    /// A whole number in `low..=high`, which must fit into 64 bits with a sign.
    #[inline]
    pub fn int(&mut self, low: i64, high: i64) -> Read<i64> {
        let value = match self.bytes.get(self.at) {
            Some(tag @ 0x00..=0x7f) => {
                self.at += 1;
                i64::from(*tag)
            }
            _ => self.long_int()?,
        };
        if (low..=high).contains(&value) {
            Ok(value)
        } else {
            Err(NotPlain)
        }
    }

    #[inline(never)] // so that `int` stays small, and is inlined
    fn long_int(&mut self) -> Read<i64> {
        Ok(match self.byte()? {
            tag @ 0x00..=0x7f => i64::from(tag),
            tag @ 0xe0..=0xff => i64::from(tag as i8),
            0xcc => self.big_endian(1)? as i64,
            0xcd => self.big_endian(2)? as i64,
            0xce => self.big_endian(4)? as i64,
            0xcf => i64::try_from(self.big_endian(8)?).map_err(|_| NotPlain)?,
            0xd0 => i64::from(self.big_endian(1)? as u8 as i8),
            0xd1 => i64::from(self.big_endian(2)? as u16 as i16),
            0xd2 => i64::from(self.big_endian(4)? as u32 as i32),
            0xd3 => self.big_endian(8)? as i64,
            _ => return Err(NotPlain),
        })
    }

    #[inline]
    pub fn optional_int(&mut self, low: i64, high: i64) -> Read<Option<i64>> {
        if self.nil() {
            Ok(None)
        } else {
            self.int(low, high).map(Some)
        }
    }

    /// A text, which is valid UTF-8.
    pub fn text(&mut self) -> Read<&'a [u8]> {
        let text = self.raw_text()?;
        if text.is_ascii() || std::str::from_utf8(text).is_ok() {
            Ok(text)
        } else {
            Err(NotPlain)
        }
    }

    /// A text that may not be UTF-8.
    pub fn raw_text(&mut self) -> Read<&'a [u8]> {
        let length = match self.byte()? {
            tag @ 0xa0..=0xbf => usize::from(tag & 0x1f),
            0xd9 => usize::from(self.byte()?),
            0xda => self.big_endian(2)? as usize,
            0xdb => self.big_endian(4)? as usize,
            _ => return Err(NotPlain),
        };
        self.take(length)
    }

    /// An id of exactly `N` bytes, or nil.
    #[inline]
    pub fn id<const N: usize>(&mut self) -> Read<Option<[u8; N]>> {
        if self.nil() {
            return Ok(None);
        }
        let length = match self.byte()? {
            0xc4 => usize::from(self.byte()?),
            0xc5 => self.big_endian(2)? as usize,
            0xc6 => self.big_endian(4)? as usize,
            _ => return Err(NotPlain),
        };
        self.take(length)?.try_into().map(Some).map_err(|_| NotPlain)
    }

    pub fn float(&mut self) -> Read<f64> {
        match self.byte()? {
            0xca => Ok(f64::from(f32::from_bits(self.big_endian(4)? as u32))),
            0xcb => Ok(f64::from_bits(self.big_endian(8)?)),
            _ => Err(NotPlain),
        }
    }

    /// Skips one value of any kind. `depth` limits its nesting.
    #[inline]
    pub fn skip(&mut self, depth: usize) -> Read<()> {
        match self.skip_one()? {
            0 => Ok(()),
            below => self.skip_below(below, depth),
        }
    }

    /// Skips a value without the values inside of it. Returns how many of those follow.
    #[inline]
    fn skip_one(&mut self) -> Read<u64> {
        let tag = self.byte()?;
        // A value without others inside of it: bytes of its length, and the bytes beside it that are known.
        let (size, extra) = match tag {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => return Ok(0),
            0xa0..=0xbf => (0, usize::from(tag & 0x1f)),
            0x80..=0x8f => return Ok(2 * u64::from(tag & 0x0f)),
            0x90..=0x9f => return Ok(u64::from(tag & 0x0f)),
            0xc1 => return Err(NotPlain),
            0xc4 | 0xd9 => (1, 0),
            0xc5 | 0xda => (2, 0),
            0xc6 | 0xdb => (4, 0),
            0xc7 => (1, 1),
            0xc8 => (2, 1),
            0xc9 => (4, 1),
            0xcc | 0xd0 => (0, 1),
            0xcd | 0xd1 | 0xd4 => (0, 2),
            0xd5 => (0, 3),
            0xca | 0xce | 0xd2 => (0, 4),
            0xd6 => (0, 5),
            0xcb | 0xcf | 0xd3 => (0, 8),
            0xd7 => (0, 9),
            0xd8 => (0, 17),
            0xdc => return self.big_endian(2),
            0xdd => return self.big_endian(4),
            0xde => return Ok(2 * self.big_endian(2)?),
            0xdf => return Ok(2 * self.big_endian(4)?),
        };
        let length = match size {
            0 => 0,
            1 => usize::from(self.byte()?),
            2 => self.big_endian(2)? as usize,
            _ => self.big_endian(4)? as usize,
        };
        self.take(length.checked_add(extra).ok_or(NotPlain)?)?;
        Ok(0)
    }

    /// Skips the values inside of one, and those inside of them.
    fn skip_below(&mut self, below: u64, depth: usize) -> Read<()> {
        if depth == 0 {
            return Err(NotPlain);
        }
        // Values that are still to come at the innermost level, and at the levels around it; most values are flat.
        let (mut left, mut level): (u64, usize) = (below, 1);
        let mut open: Vec<(u64, usize)> = Vec::new();
        loop {
            let below = self.skip_one()?;
            left -= 1;
            if below > 0 {
                if level >= depth {
                    return Err(NotPlain);
                }
                if left > 0 {
                    open.push((left, level));
                }
                (left, level) = (below, level + 1);
            }
            while left == 0 {
                match open.pop() {
                    Some(around) => (left, level) = around,
                    None => return Ok(()),
                }
            }
        }
    }

    /// Skips one value that consists of text, numbers, bytes, arrays, and maps with text as keys.
    pub fn check_value(&mut self, depth: usize) -> Read<()> {
        // As in `skip`; for a map also whether a key is next.
        let mut open: Vec<(u64, bool)> = Vec::new();
        loop {
            if let Some((left, true)) = open.last() {
                if left % 2 == 0 {
                    self.text()?;
                    if let Some((left, _)) = open.last_mut() {
                        *left -= 1;
                    }
                }
            }
            let tag = *self.bytes.get(self.at).ok_or(NotPlain)?;
            let (below, is_map) = match tag {
                0x80..=0x8f | 0xde | 0xdf => (2 * self.map()? as u64, true),
                0x90..=0x9f | 0xdc | 0xdd => (self.array()? as u64, false),
                0xa0..=0xbf | 0xd9..=0xdb => {
                    self.text()?;
                    (0, false)
                }
                0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(NotPlain),
                _ => {
                    self.skip(1)?;
                    (0, false)
                }
            };
            if below > 0 {
                if open.len() >= depth {
                    return Err(NotPlain);
                }
                open.push((below, is_map));
                continue;
            }
            while let Some((left, _)) = open.last_mut() {
                *left -= 1;
                if *left > 0 {
                    break;
                }
                open.pop();
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_exactly_one_value() {
        for (bytes, length) in [
            (&b"\x93\x01\x92\x02\x03\x81\xa1a\xc0rest"[..], 9),
            (b"\xc4\x03abcrest", 5),
            (b"\x90rest", 1),
            (b"\x80rest", 1),
            (b"\xd4\x01\x02rest", 3),
            (b"\xcb\x00\x00\x00\x00\x00\x00\x00\x00rest", 9),
        ] {
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.skip(MAX_DEPTH), Ok(()));
            assert_eq!(reader.at, length, "{bytes:?}");
        }
    }

    #[test]
    fn believes_no_length() {
        for bytes in
            [&b"\xdd\xff\xff\xff\xff"[..], b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b""]
        {
            assert_eq!(Reader::new(bytes).skip(MAX_DEPTH), Err(NotPlain));
        }
    }

    #[test]
    fn limits_nesting_without_recursion() {
        let deep = [vec![0x91; 1_000_000], vec![0xc0]].concat();
        assert_eq!(Reader::new(&deep).skip(MAX_DEPTH), Err(NotPlain));
        assert_eq!(Reader::new(&deep).skip(usize::MAX), Ok(()));
    }

    #[test]
    fn reads_every_form_of_a_number() {
        for (bytes, value) in [
            (&b"\x07"[..], 7),
            (b"\xff", -1),
            (b"\xcc\xff", 255),
            (b"\xd0\xff", -1),
            (b"\xcd\x01\x00", 256),
            (b"\xd1\xff\x00", -256),
            (b"\xce\x00\x01\x00\x00", 65536),
            (b"\xd2\xff\xff\xff\xfe", -2),
            (b"\xcf\x00\x00\x00\x00\x00\x00\x00\x09", 9),
            (b"\xd3\xff\xff\xff\xff\xff\xff\xff\xff", -1),
        ] {
            assert_eq!(Reader::new(bytes).int(i64::MIN, i64::MAX), Ok(value));
        }
        assert_eq!(Reader::new(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff").int(i64::MIN, i64::MAX), Err(NotPlain));
        assert_eq!(Reader::new(b"\x05").int(0, 4), Err(NotPlain));
    }
}
