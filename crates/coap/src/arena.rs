//! Values with small numbers for names, in pieces of memory that never move: it grows by one piece, not
//! to twice its size.

/// Values of a piece.
const PIECE: usize = 64;

/// No number of any value.
pub(crate) const NONE: u32 = u32::MAX;

/// Values and the numbers by which they are found.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    pieces: Vec<Vec<Option<T>>>,
    vacant: Vec<u32>,
    len: usize,
}

impl<T> Arena<T> {
    pub(crate) fn new() -> Self {
        Self {
            pieces: Vec::new(),
            vacant: Vec::new(),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The values that fit without another piece.
    pub(crate) fn capacity(&self) -> usize {
        self.pieces.len() * PIECE
    }

    /// Keeps a value; its number is another one's when it was removed.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if let Some(at) = self.vacant.pop()
            && let Some(slot) = self.slot(at)
        {
            *slot = Some(value);
            return at;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let full = (self.pieces.len() - 1) * PIECE;
        let piece = self.pieces.last_mut().expect("one was pushed");
        piece.push(Some(value));
        u32::try_from(full + piece.len() - 1).expect("fewer values than 2^32")
    }

    pub(crate) fn remove(&mut self, at: u32) -> Option<T> {
        let value = self.slot(at)?.take()?;
        self.vacant.push(at);
        self.len -= 1;
        Some(value)
    }

    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        let (piece, slot) = place(at);
        self.pieces.get(piece)?.get(slot)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.slot(at)?.as_mut()
    }

    /// Moves the values together. Returns the new number of each old one.
    pub(crate) fn compact(&mut self) -> Vec<u32> {
        let old = std::mem::replace(self, Self::new());
        let slots = old.pieces.into_iter().flatten();
        let renamed = slots.map(|slot| slot.map_or(NONE, |value| self.insert(value)));
        renamed.collect()
    }

    fn slot(&mut self, at: u32) -> Option<&mut Option<T>> {
        let (piece, slot) = place(at);
        self.pieces.get_mut(piece)?.get_mut(slot)
    }
}

fn place(at: u32) -> (usize, usize) {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    (at / PIECE, at % PIECE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn each_number_finds_its_value(steps in proptest::collection::vec(0_u32..400, 0..2000)) {
            let (mut arena, mut model) = (Arena::new(), HashMap::new());
            for (value, step) in steps.into_iter().enumerate() {
                if step < 200 {
                    let at = arena.insert(value);
                    prop_assert!(model.insert(at, value).is_none());
                } else {
                    prop_assert_eq!(arena.remove(step - 200), model.remove(&(step - 200)));
                }
                if step == 399 {
                    let renamed = arena.compact();
                    let moved = model.drain().map(|(at, value)| (renamed[at as usize], value));
                    model = moved.collect();
                    prop_assert!(arena.capacity() < arena.len() + PIECE);
                }
                prop_assert_eq!(arena.len(), model.len());
            }
            for (at, value) in &model {
                prop_assert_eq!(arena.get(*at), Some(value));
            }
        }
    }
}
