//! Turns by key: the keys of waiting items come one after the other, whatever the number of items of
//! each key is.
//!
//! Within a key, items have the order in which they came. A key that begins to wait gets the last
//! place, and so does a key that has had a turn: where k keys wait, each gets every k-th turn (round
//! robin). A turn is one item, or several small items ([`Turns::pop_sized`]). The time of an operation
//! grows with the logarithm of the number of keys. [`Turns::remove`] also moves up to half of the items
//! of its key.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

/// Items that wait for their turn. Nothing here waits by itself: the caller takes the items.
#[derive(Debug)]
pub struct Turns<K, T> {
    /// The waiting items by key.
    lines: HashMap<K, Line<T>, RandomState>,
    /// The same keys by their place; the first has the next turn.
    order: BTreeMap<u64, K>,
    /// The next place or ticket.
    next: u64,
}

/// The waiting items of one key, at least one.
#[derive(Debug)]
struct Line<T> {
    place: u64,
    /// The size of the items that were taken in its present turn.
    taken: usize,
    /// In the order of their tickets.
    items: VecDeque<(u64, T)>,
}

impl<K, T> Default for Turns<K, T> {
    /// No item waits.
    fn default() -> Self {
        Self { lines: HashMap::default(), order: BTreeMap::new(), next: 0 }
    }
}

impl<K: Copy + Eq + Hash, T> Turns<K, T> {
    /// Lets an item wait as the last of its key. Returns its ticket, for [`Self::remove`].
    pub fn push(&mut self, key: K, item: T) -> u64 {
        let ticket = self.number();
        if let Some(line) = self.lines.get_mut(&key) {
            line.items.push_back((ticket, item));
        } else {
            let place = self.number();
            self.lines.insert(key, Line { place, taken: 0, items: [(ticket, item)].into() });
            self.order.insert(place, key);
        }
        ticket
    }

    /// Takes the item whose turn it is, which ends the turn.
    pub fn pop(&mut self) -> Option<T> {
        self.pop_sized(0, |_| Some(0))
    }

    /// Takes the item whose turn it is, if `size` gives its size. Otherwise it keeps its turn. A turn
    /// ends when the items that were taken in it have the size `most` together.
    pub fn pop_sized(&mut self, most: usize, size: impl FnOnce(&T) -> Option<usize>) -> Option<T> {
        let (&place, &key) = self.order.first_key_value()?;
        let line = self.lines.get_mut(&key)?;
        let (_, next) = line.items.front()?;
        line.taken = line.taken.saturating_add(size(next)?);
        let (_, item) = line.items.pop_front()?;
        if line.items.is_empty() {
            self.order.remove(&place);
            self.lines.remove(&key);
        } else if line.taken >= most {
            self.next += 1;
            (line.place, line.taken) = (self.next, 0);
            self.order.remove(&place);
            self.order.insert(self.next, key);
        }
        Some(item)
    }

    /// Takes out an item that no longer waits; `None` where it has had its turn. The other items of the
    /// key keep its place.
    pub fn remove(&mut self, key: K, ticket: u64) -> Option<T> {
        let line = self.lines.get_mut(&key)?;
        let at = line.items.binary_search_by_key(&ticket, |(number, _)| *number).ok()?;
        let (_, item) = line.items.remove(at)?;
        if line.items.is_empty() {
            self.order.remove(&line.place);
            self.lines.remove(&key);
        }
        Some(item)
    }

    /// Whether no item waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        debug_assert_eq!(self.lines.len(), self.order.len(), "each key that waits has one place");
        self.order.is_empty()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(turns: &mut Turns<char, u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.pop()).collect()
    }

    #[test]
    fn keys_take_turns_however_much_of_each_waits() {
        let mut turns = Turns::default();
        for item in 0..5 {
            turns.push('a', item);
        }
        turns.push('b', 10);
        turns.push('b', 11);
        turns.push('c', 20);
        assert_eq!(all(&mut turns), [0, 10, 20, 1, 11, 2, 3, 4]);
        assert!(turns.is_empty() && turns.lines.is_empty());
    }

    #[test]
    fn a_key_that_comes_again_has_the_last_place() {
        let mut turns = Turns::default();
        turns.push('a', 0);
        turns.push('b', 10);
        assert_eq!(turns.pop(), Some(0));
        turns.push('c', 20);
        turns.push('a', 1);
        assert_eq!(all(&mut turns), [10, 20, 1]);
    }

    #[test]
    fn what_is_not_wanted_keeps_its_turn() {
        let mut turns = Turns::default();
        let pop_if = |turns: &mut Turns<char, u32>, wanted: u32| {
            turns.pop_sized(1, |item| (*item == wanted).then_some(1))
        };
        assert_eq!(pop_if(&mut turns, 0), None);
        turns.push('a', 0);
        turns.push('a', 1);
        turns.push('b', 10);
        assert_eq!((pop_if(&mut turns, 1), pop_if(&mut turns, 0)), (None, Some(0)));
        assert_eq!((pop_if(&mut turns, 1), all(&mut turns)), (None, vec![10, 1]));
    }

    #[test]
    fn a_turn_has_several_small_items_or_a_large_one() {
        let mut turns = Turns::default();
        for (key, sizes) in [('a', &[4, 4, 4, 4, 4][..]), ('b', &[90, 1, 90]), ('c', &[1])] {
            for size in sizes {
                turns.push(key, *size);
            }
        }
        let sized = |size: &u32| usize::try_from(*size).ok();
        let taken: Vec<_> = std::iter::from_fn(|| turns.pop_sized(10, sized)).collect();
        assert_eq!(taken, [4, 4, 4, 90, 1, 4, 4, 1, 90]);
        assert!(turns.is_empty() && turns.lines.is_empty());
    }

    #[test]
    fn what_is_taken_out_leaves_nothing_behind_and_takes_no_place_from_others() {
        let mut turns = Turns::default();
        let [first, second] = [0, 1].map(|item| turns.push('a', item));
        let other = turns.push('b', 10);
        assert_eq!((turns.remove('a', first), turns.remove('a', first)), (Some(0), None));
        assert_eq!((turns.remove('b', second), turns.remove('b', other)), (None, Some(10)));
        turns.push('b', 11);
        assert_eq!(all(&mut turns), [1, 11]);
        assert!(turns.lines.is_empty() && turns.order.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Pop,
        Remove(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..4).prop_map(Step::Push),
            3 => Just(Step::Pop),
            1 => any::<prop::sample::Index>().prop_map(Step::Remove),
        ]
    }

    proptest! {
        /// No key has a second turn while another one, which waited before its first, has none; and items
        /// of a key keep their order.
        #[test]
        fn no_key_passes_another_twice(steps in prop::collection::vec(step(), 1..200)) {
            let mut turns = Turns::default();
            // All that waits: key, ticket, and the keys that had a turn since this key waits for its own.
            let mut waiting: Vec<(u8, u64)> = Vec::new();
            let mut passed: HashMap<u8, Vec<u8>> = HashMap::new();
            for (item, step) in (0_u64..).zip(steps) {
                match step {
                    Step::Push(key) => {
                        waiting.push((key, turns.push(key, (key, item))));
                        passed.entry(key).or_default();
                    }
                    Step::Remove(index) => {
                        if waiting.is_empty() { continue; }
                        let (key, ticket) = waiting.remove(index.index(waiting.len()));
                        prop_assert_eq!(turns.remove(key, ticket).map(|(of, _)| of), Some(key));
                    }
                    Step::Pop => {
                        let Some((key, _)) = turns.pop() else {
                            prop_assert!(waiting.is_empty());
                            continue;
                        };
                        let at = waiting.iter().position(|(of, _)| *of == key);
                        let (_, ticket) = waiting.remove(at.unwrap());
                        prop_assert_eq!(turns.remove(key, ticket), None, "the first of its key had the turn");
                        passed.insert(key, Vec::new());
                        for (_, others) in passed.iter_mut().filter(|(other, _)| **other != key) {
                            prop_assert!(!others.contains(&key), "{} had two turns", key);
                            others.push(key);
                        }
                    }
                }
                passed.retain(|key, _| waiting.iter().any(|(of, _)| of == key));
                prop_assert_eq!(turns.is_empty(), waiting.is_empty());
            }
        }
    }
}
