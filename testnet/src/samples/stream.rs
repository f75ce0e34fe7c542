//! Pseudo-random bytes that are the same on every machine, at memory speed also in a debug build.
//!
//! BLAKE3's extendable output is both: its definition fixes the bytes for ever, which the seeded generators of `rand`
//! do not promise between versions, and its inner loop lives in a dependency that every profile optimises.

use blake3::{Hasher, OutputReader};

/// An endless run of bytes, drawn one after another.
pub(super) struct Stream {
    output: OutputReader,
}

impl Stream {
    /// The stream of this name. Streams of different names have nothing in common, so a change to one document
    /// leaves the others' bytes alone.
    pub(super) fn named(name: &str) -> Self {
        Self {
            output: Hasher::new_derive_key("quarta testnet samples 1").update(name.as_bytes()).finalize_xof(),
        }
    }

    /// Fills `buffer` with the next bytes.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        self.output.fill(buffer);
    }

    /// The next number in `0..bound`; `bound` is 1 or more. The bias towards small numbers, below `bound` in 2³²,
    /// does not show in a sample.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        let mut word = [0; 4];
        self.fill(&mut word);
        let scaled = u64::from(u32::from_le_bytes(word)) * u64::from(bound);
        u32::try_from(scaled >> 32).expect("less than bound, which is a u32")
    }

    /// One of `choices`, which is not empty.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let count = u32::try_from(choices.len()).expect("lists of choices in this module are short");
        choices[self.below(count) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_name_hold_still() {
        let mut bytes = [0; 8];
        Stream::named("golden").fill(&mut bytes);
        assert_eq!(bytes, [116, 34, 12, 30, 40, 155, 170, 6]);
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut stream = Stream::named("numbers");
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[stream.below(7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(stream.below(1), 0);
    }
}
