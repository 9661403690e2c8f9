//! The shapes of spans without children, by span type and name: the agents of a service repeat them.
//!
//! A name is looked up once, when its record is read and its bytes are in the cache. At the decision the number is enough.

use std::collections::HashMap;

use crate::facts::{shape_of, Digest};

/// Names that are known at a time.
const MOST: usize = 8192;
const LONGEST: usize = 128;
/// The number of a name that is not known.
const UNKNOWN: u32 = u32::MAX;

#[derive(Default)]
pub struct Names {
    /// Number of the first name that is known; those before it were forgotten.
    base: u32,
    shapes: Vec<Digest>,
    numbers: [HashMap<Vec<u8>, u32>; 6],
    /// The name before: siblings often have one name.
    last: (u8, Vec<u8>),
    last_number: Option<u32>,
}

impl Names {
    /// The number of a name.
    pub fn number(&mut self, span_type: u8, name: &[u8]) -> u32 {
        if let Some(number) = self.last_number.filter(|_| self.last.0 == span_type && self.last.1 == name) {
            return number;
        }
        let number = self.find_or_add(span_type, name);
        if name.len() <= LONGEST {
            self.last.0 = span_type;
            self.last.1.clear();
            self.last.1.extend_from_slice(name);
            self.last_number = Some(number);
        }
        number
    }

    fn find_or_add(&mut self, span_type: u8, name: &[u8]) -> u32 {
        let kind = usize::from(span_type);
        if name.len() > LONGEST || kind >= self.numbers.len() {
            return UNKNOWN;
        }
        if let Some(number) = self.numbers[kind].get(name) {
            return *number;
        }
        if self.base > UNKNOWN - 2 * MOST as u32 {
            return UNKNOWN; // a number is never used twice
        }
        if self.shapes.len() == MOST {
            self.base += MOST as u32;
            self.shapes.clear();
            self.numbers.iter_mut().for_each(HashMap::clear);
        }
        let number = self.base + self.shapes.len() as u32;
        self.shapes.push(shape_of(i64::from(span_type), name, &[]));
        self.numbers[kind].insert(name.to_vec(), number);
        number
    }

    /// The shape of a span with this name and no children; None if the name was forgotten.
    pub fn shape(&self, number: u32) -> Option<Digest> {
        self.shapes.get(number.checked_sub(self.base)? as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_shape_of_each_name_or_none() {
        let mut names = Names::default();
        let name = |number: usize| format!("name {}", number % 20_000).into_bytes();
        let mut numbers = Vec::new();
        for at in 0..30_000 {
            let kind = (at % 6) as u8;
            let number = names.number(kind, &name(at));
            assert_eq!(number, names.number(kind, &name(at)));
            assert_eq!(names.shape(number), Some(shape_of(i64::from(kind), &name(at), &[])));
            numbers.push(number);
        }
        for (at, number) in numbers.into_iter().enumerate() {
            let found = names.shape(number);
            assert!(found.is_none_or(|shape| shape == shape_of((at % 6) as i64, &name(at), &[])), "{at}");
        }
    }

    #[test]
    fn a_name_of_two_span_types_has_two_shapes() {
        let mut names = Names::default();
        assert_ne!(names.number(1, b"a"), names.number(2, b"a"));
        let long = names.number(1, &[b'a'; 129]);
        assert_eq!(names.shape(long), None);
    }
}
