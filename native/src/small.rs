//! A map by span id that is a list as long as it is small, as it is in most traces. A large one is a hash map with a random key.

use std::collections::HashMap;

use crate::item::SpanId;

/// Up to so many entries are searched one by one; a hash map would cost more.
const FEW: usize = 16;

#[derive(Default)]
pub struct SmallMap<V> {
    few: Vec<(SpanId, V)>,
    #[allow(clippy::box_collection)] // most maps are small, and this is one word of each
    many: Option<Box<HashMap<SpanId, V>>>,
}

impl<V: Default> SmallMap<V> {
    pub fn is_empty(&self) -> bool {
        self.few.is_empty() && self.many.as_ref().is_none_or(|many| many.is_empty())
    }

    /// Removes all entries. Returns false if it was large: then it still takes memory.
    pub fn clear(&mut self) -> bool {
        self.few.clear();
        self.many.take().is_none()
    }

    pub fn len(&self) -> usize {
        self.few.len() + self.many.as_ref().map_or(0, |many| many.len())
    }

    fn place(&self, id: &SpanId) -> Option<usize> {
        self.few.iter().position(|(one, _)| one == id)
    }

    pub fn get(&self, id: &SpanId) -> Option<&V> {
        match &self.many {
            Some(many) => many.get(id),
            None => self.few.iter().find(|(one, _)| one == id).map(|(_, value)| value),
        }
    }

    pub fn get_mut(&mut self, id: &SpanId) -> Option<&mut V> {
        match &mut self.many {
            Some(many) => many.get_mut(id),
            None => self.few.iter_mut().find(|(one, _)| one == id).map(|(_, value)| value),
        }
    }

    /// The value of this id, which is added if it is not there.
    pub fn get_or_add(&mut self, id: SpanId) -> &mut V {
        if self.many.is_none() && self.few.len() >= FEW && self.place(&id).is_none() {
            self.many = Some(Box::new(std::mem::take(&mut self.few).into_iter().collect()));
        }
        match &mut self.many {
            Some(many) => many.entry(id).or_default(),
            None => {
                let place = self.few.iter().position(|(one, _)| *one == id).unwrap_or(self.few.len());
                if place == self.few.len() {
                    self.few.push((id, V::default()));
                }
                &mut self.few[place].1
            }
        }
    }

    pub fn insert(&mut self, id: SpanId, value: V) {
        *self.get_or_add(id) = value;
    }

    pub fn remove(&mut self, id: &SpanId) -> Option<V> {
        match &mut self.many {
            Some(many) => many.remove(id),
            None => self.place(id).map(|place| self.few.swap_remove(place).1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_map_at_any_size() {
        let mut map: SmallMap<u64> = SmallMap::default();
        for number in 0..40_u64 {
            *map.get_or_add(number.to_le_bytes()) += number;
            *map.get_or_add(number.to_le_bytes()) += 1;
            assert_eq!(map.len() as u64, number + 1);
            assert_eq!(map.get(&0_u64.to_le_bytes()), Some(&1));
            assert_eq!(map.get(&number.to_le_bytes()), Some(&(number + 1)));
            assert_eq!(map.get(&99_u64.to_le_bytes()), None);
        }
        for number in (0..40_u64).rev() {
            assert_eq!(map.remove(&number.to_le_bytes()), Some(number + 1));
            assert_eq!(map.remove(&number.to_le_bytes()), None);
        }
        assert!(map.is_empty());
    }
}
