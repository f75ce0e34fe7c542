//! Which of the missing chunks to ask a source for.
//!
//! Alone with whole sources, the lowest first: disks and the running checksum like that best. In a crowd, where other
//! receivers of the content are sources too, that would let all of them fetch the same chunks from the first holder, and
//! its line would carry each chunk as often as there are receivers. So there
//!
//! - the chunks come first that fewest other receivers offer: what nobody else has is asked of the holder, what others
//!   have is asked of them, and a chunk spreads before it is fetched twice;
//! - of those, a source is asked to go on where its last run ended, else at any one of them, drawn at random: each
//!   receiver works its way through stretches of its own, so that what one does not know yet of another hardly matters.
//!   (To begin in the longest stretch left keeps runs longer and is worse by far: all receivers see the same one.)
//!
//! Nobody has to be told who takes what, and the sender knows nothing of it. A sender that chose by itself what to send
//! would waste a few hundredths less, at the price of a second way to ask on the wire.
//!
//! Everybody may begin at the same moment, before any receiver knows of another. So the first chunks of a large file are
//! taken from places drawn at random.

use super::{Schedule, source::Source};
use crate::download::chunk_set::ChunkSet;

/// Chunks that a fetch takes from random places while it knows of no other receiver: what arrives until it would.
const SPREAD_CHUNKS: u32 = 16;
/// Contents of fewer chunks are fetched before others hear of it: always from their beginning.
const SPREAD_FROM_CHUNKS: u32 = 64;

/// How many offer a chunk, as far as it matters.
pub(super) struct Offered {
    once: ChunkSet,
    twice: ChunkSet,
}

impl Offered {
    fn by<'a>(chunks: u32, offers: impl Iterator<Item = &'a ChunkSet>) -> Self {
        let none = Self { once: ChunkSet::none(chunks), twice: ChunkSet::none(chunks) };
        offers.fold(none, |before, offers| Self {
            twice: before.twice.or(&before.once.and(offers)),
            once: before.once.or(offers),
        })
    }

    /// Of these chunks those that fewest offer.
    fn rarest(&self, wanted: ChunkSet) -> ChunkSet {
        let mut levels = [&self.once, &self.twice].into_iter().map(|offered| wanted.without(offered));
        levels.find(|level| !level.is_empty()).unwrap_or(wanted)
    }
}

impl Schedule {
    /// Whether other receivers of the content are among the sources.
    pub(super) fn is_crowd(&self) -> bool {
        self.living().any(|(_, source)| source.partial)
    }

    /// What the other receivers offer; none where there are none.
    pub(super) fn crowd(&self) -> Option<Offered> {
        let receivers = self.living().filter(|(_, source)| source.partial);
        self.is_crowd()
            .then(|| Offered::by(self.missing.chunks(), receivers.map(|(_, source)| &source.offers)))
    }

    /// Whether some missing chunk is offered by one source at most.
    pub(super) fn is_thin(&self) -> bool {
        let offers = self.living().map(|(_, source)| &source.offers);
        !self.missing.without(&Offered::by(self.missing.chunks(), offers).twice).is_empty()
    }

    /// Missing chunks that the source offers, as one run of at most so many.
    pub(super) fn missing_run(
        &self,
        source: &Source,
        chunks: u32,
        crowd: Option<&Offered>,
    ) -> Option<(u32, u32)> {
        self.missing.first_in_both(&source.offers)?;
        let wanted = self.missing.and(&source.offers);
        let wanted = match crowd {
            Some(offered) => offered.rarest(wanted),
            None => wanted,
        };
        let first = if crowd.is_some() || self.begins() {
            let goes_on = source.goes_on_at.filter(|index| wanted.contains(*index));
            goes_on.or_else(|| wanted.nth(self.draw(wanted.count())))
        } else {
            wanted.next_from(0)
        }?;
        let more = (first + 1..first.saturating_add(chunks)).take_while(|index| wanted.contains(*index));
        Some((first, more.last().unwrap_or(first) + 1))
    }

    /// Whether others may have begun at the same moment.
    fn begins(&self) -> bool {
        let chunks = self.missing.chunks();
        chunks >= SPREAD_FROM_CHUNKS && chunks - self.missing_chunks < SPREAD_CHUNKS
    }

    /// A number below `below`, another one for each run and each receiver.
    #[allow(clippy::cast_possible_truncation, reason = "a remainder by a number of 32 bits")]
    fn draw(&self, below: u32) -> u32 {
        // The finaliser of SplitMix64.
        let mut mixed =
            self.seed.wrapping_add(self.next_run.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed % u64::from(below.max(1))) as u32
    }
}
