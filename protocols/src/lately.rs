//! What was verified lately, so that the same bytes cost no signatures the second time.
//!
//! The key is a hash of everything that the verification looked at, and only what was found genuine is kept; so a hit says
//! what verifying again would say. Two generations bound the memory: the older one is forgotten whole when the younger
//! is full, so what is in use stays.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Names what was verified: a hash of all of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark([u8; 32]);

impl Mark {
    /// The mark of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// Verified values by their marks; may be shared between threads. Prints as the number of values.
pub struct Lately<V> {
    generation_max: usize,
    generations: Mutex<Generations<V>>,
}

struct Generations<V> {
    young: HashMap<Mark, V>,
    old: HashMap<Mark, V>,
}

impl<V: Clone> Lately<V> {
    /// Keeps at least the latest `generation_max` values, and at most twice as many.
    pub fn new(generation_max: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { generation_max, generations: Mutex::new(generations) }
    }

    /// The value, if it was verified lately.
    pub fn get(&self, mark: &Mark) -> Option<V> {
        let mut generations = self.lock();
        if let Some(value) = generations.young.get(mark) {
            return Some(value.clone());
        }
        let value = generations.old.remove(mark)?;
        generations.put(*mark, value.clone(), self.generation_max);
        Some(value)
    }

    /// Keeps values that have just been verified.
    pub fn keep(&self, verified: impl IntoIterator<Item = (Mark, V)>) {
        let mut generations = self.lock();
        for (mark, value) in verified {
            generations.put(mark, value, self.generation_max);
        }
    }
}

impl<V> Lately<V> {
    fn lock(&self) -> MutexGuard<'_, Generations<V>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        let generations = self.lock();
        generations.young.len() + generations.old.len()
    }
}

impl<V> fmt::Debug for Lately<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lately({})", self.len())
    }
}

impl<V> Generations<V> {
    fn put(&mut self, mark: Mark, value: V, generation_max: usize) {
        if self.young.len() >= generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(mark, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_memory_is_bounded_by_two_generations() {
        const MAX: usize = 100;
        let lately = Lately::new(MAX);
        let mark = Mark::of(b"in use");
        lately.keep([(mark, 0)]);
        for number in 1..=5 * MAX {
            lately.keep([(Mark::of(&number.to_be_bytes()), number)]);
            if number % (MAX / 2) == 0 {
                assert_eq!(lately.get(&mark), Some(0), "{number}");
            }
            assert!(lately.len() <= 2 * MAX);
        }
        assert_eq!(lately.get(&Mark::of(&1_usize.to_be_bytes())), None, "forgotten");
        assert_eq!(lately.get(&Mark::of(&(5 * MAX).to_be_bytes())), Some(5 * MAX));
    }
}
