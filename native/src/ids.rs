//! A keyed hash of trace ids. Senders choose the ids; they must not be able to choose many with equal hashes.

use std::hash::{BuildHasher, RandomState};

use crate::item::TraceId;

/// Random keys of pair-multiply-shift (Thorup, "String hashing for linear probing", 2009), which is strongly universal: a sender that does
/// not know the keys cannot find two ids whose hashes are equal more often than those of random ids. It costs four multiplications.
pub struct Keys {
    high: [u64; 5],
    low: [u64; 5],
}

impl Default for Keys {
    fn default() -> Self {
        let random = RandomState::new();
        Keys { high: std::array::from_fn(|at| random.hash_one(at)), low: std::array::from_fn(|at| random.hash_one(at + 5)) }
    }
}

impl Keys {
    #[inline]
    pub fn hash(&self, id: &TraceId) -> u64 {
        let digit = |at: usize| u64::from(u32::from_le_bytes([id[at], id[at + 1], id[at + 2], id[at + 3]]));
        let digits = [digit(0), digit(4), digit(8), digit(12)];
        half(&self.high, digits) & 0xffff_ffff_0000_0000 | half(&self.low, digits) >> 32
    }
}

/// The upper 32 bits are the hash.
#[inline]
fn half(keys: &[u64; 5], [a, b, c, d]: [u64; 4]) -> u64 {
    let first = keys[0].wrapping_add(b).wrapping_mul(keys[1].wrapping_add(a));
    let second = keys[2].wrapping_add(d).wrapping_mul(keys[3].wrapping_add(c));
    first.wrapping_add(second).wrapping_add(keys[4])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Ids that differ in few bits, as a sender could choose them.
    fn similar() -> impl Iterator<Item = TraceId> {
        (0..1_u128 << 16).flat_map(|number| [number, number << 56, number << 112]).map(u128::to_le_bytes)
    }

    #[test]
    fn spreads_similar_ids_in_every_part_of_the_hash() {
        let keys = Keys::default();
        let ids: HashSet<TraceId> = similar().collect();
        let hashes: HashSet<u64> = ids.iter().map(|id| keys.hash(id)).collect();
        assert_eq!(hashes.len(), ids.len());
        for shift in [0, 8, 16, 32, 40, 56] {
            let mut counts = [0_u32; 256];
            for hash in &hashes {
                counts[(hash >> shift) as usize % 256] += 1;
            }
            let most = counts.iter().max().copied().unwrap_or(0);
            assert!(most < 4 * (ids.len() / 256) as u32, "{most} of {} at bit {shift}", ids.len());
        }
    }

    #[test]
    fn depends_on_its_keys() {
        assert_ne!(Keys::default().hash(&[7; 16]), Keys::default().hash(&[7; 16]));
    }
}
