//! The ways in which a holder can fail a fetcher, and the bytes in which each shows.
//!
//! Pure: [`answer`] says what to write, step by step, and the `wire` half writes it. The bytes are made here from the
//! protocol's description and not by its codec, so that they can be such as no correct holder could send.

use super::goods::Goods;
use quarta_protocols::cbor;
use quarta_protocols::content::SEALED_CHUNK_MAX_BYTES;
use quarta_protocols::messages::chunk::{Abort, Head, Refusal, Request};
use quarta_protocols::messages::index::Fault;
use serde_bytes::ByteBuf;

/// Ends a body.
const END: [u8; 4] = [0; 4];
/// Announces that the sender gives up.
const ABORT: [u8; 4] = [0xff; 4];

/// What a lying holder does. Where a lie is about runs, it gives the manifest and its offers honestly, and the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lie {
    /// Bytes that are nothing.
    RandomBytes,
    /// The right chunk but for one bit.
    FlippedBit,
    /// Another chunk of the same content.
    OtherChunk,
    /// The same chunk of another content of the same file.
    OtherContent,
    /// A chunk without its last byte.
    TruncatedChunk,
    /// A chunk with a byte more.
    LongChunk,
    /// A chunk of which it announces nearly 4 GiB.
    HugeChunk,
    /// As many bytes for every chunk as the largest chunk of any content has.
    LargestChunk,
    /// Half of the chunks asked for, and then says that it is done.
    FewerChunks,
    /// One chunk more than asked for.
    MoreChunks,
    /// Takes the request and says nothing.
    Stalls,
    /// Half a chunk, and then nothing.
    StopsMidway,
    /// A chunk at one byte a second.
    Drips,
    /// Is listed for the content and does not have it.
    NotHeld,
    /// Offers every chunk and then has none of them.
    FalseOffers,
    /// Offers chunks in a bitmap that is not one of this content.
    WrongOffers,
    /// Is busy whenever it is asked.
    AlwaysBusy,
    /// Ends the stream in the middle of a chunk.
    BreaksOff,
    /// Says in the middle of a run that it gives up.
    GivesUp,
    /// Answers a run with the head of a manifest.
    WrongHead,
    /// Answers with a head that is not CBOR.
    GarbledHead,
    /// Answers with a head of which it announces more than any head has.
    HugeHead,
    /// The manifest of another content.
    OtherManifest,
    /// A manifest of which it announces more than any has.
    HugeManifest,
    /// A manifest at one byte a second.
    DrippingManifest,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::RandomBytes,
        Self::FlippedBit,
        Self::OtherChunk,
        Self::OtherContent,
        Self::TruncatedChunk,
        Self::LongChunk,
        Self::HugeChunk,
        Self::LargestChunk,
        Self::FewerChunks,
        Self::MoreChunks,
        Self::Stalls,
        Self::StopsMidway,
        Self::Drips,
        Self::NotHeld,
        Self::FalseOffers,
        Self::WrongOffers,
        Self::AlwaysBusy,
        Self::BreaksOff,
        Self::GivesUp,
        Self::WrongHead,
        Self::GarbledHead,
        Self::HugeHead,
        Self::OtherManifest,
        Self::HugeManifest,
        Self::DrippingManifest,
    ];

    /// What a fetcher must say of whoever tells it; none where it is no fault, or shows only in waiting.
    pub const fn fault(self) -> Option<Fault> {
        match self {
            Self::RandomBytes
            | Self::FlippedBit
            | Self::OtherChunk
            | Self::OtherContent
            | Self::TruncatedChunk
            | Self::LongChunk
            | Self::HugeChunk
            | Self::LargestChunk
            | Self::MoreChunks
            | Self::WrongOffers
            | Self::WrongHead
            | Self::GarbledHead
            | Self::HugeHead
            | Self::OtherManifest
            | Self::HugeManifest => Some(Fault::WrongBytes),
            Self::Stalls | Self::StopsMidway | Self::Drips => Some(Fault::Stalled),
            Self::NotHeld | Self::FalseOffers => Some(Fault::NotHeld),
            Self::FewerChunks | Self::BreaksOff | Self::GivesUp => Some(Fault::BrokeOff),
            // A full house is no fault, and whoever brings the manifest first is not waited for beside another.
            Self::AlwaysBusy | Self::DrippingManifest => None,
        }
    }

    /// Whether it is told about the manifest, which is asked from one source at a time.
    pub const fn is_about_the_manifest(self) -> bool {
        matches!(self, Self::OtherManifest | Self::HugeManifest | Self::DrippingManifest)
    }

    /// Whether it claims to hold a part only, so that it is asked which.
    pub const fn is_about_offers(self) -> bool {
        matches!(self, Self::FalseOffers | Self::WrongOffers)
    }

    /// A name for a member that tells it.
    pub fn member_name(self) -> String {
        let mut name = String::from("liar");
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

/// One thing to do while answering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write these bytes.
    Write(Vec<u8>),
    /// Write these bytes, one each second.
    Drip(Vec<u8>),
    /// Write nothing, and do not end.
    Wait,
    /// End the stream as if the machine had died.
    Reset,
}

/// An answer, and whether there is a lie in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) steps: Vec<Step>,
    pub(super) lies: bool,
}

/// What a holder that tells `lie` answers; without goods it knows nothing of the content asked for.
pub(super) fn answer(lie: Lie, request: Request, goods: Option<&Goods>) -> Answer {
    let Some(goods) = goods.filter(|_| lie != Lie::NotHeld) else {
        return Answer { steps: refused(Refusal::NotHeld), lies: true };
    };
    let honest = |steps| Answer { steps, lies: false };
    let lying = |steps| Answer { steps, lies: true };
    match (request, lie) {
        (Request::Manifest { .. }, Lie::OtherManifest) => lying(manifest(&goods.other_manifest)),
        (Request::Manifest { .. }, Lie::HugeManifest) => {
            lying(vec![head(&Head::Manifest), Step::Write(0xffff_fff0_u32.to_be_bytes().into()), Step::Wait])
        }
        (Request::Manifest { .. }, Lie::DrippingManifest) => {
            let length = length(goods.manifest.len());
            lying(vec![
                head(&Head::Manifest),
                Step::Write(length.into()),
                Step::Drip(goods.manifest.clone()),
                Step::Wait,
            ])
        }
        (Request::Manifest { .. }, _) => honest(manifest(&goods.manifest)),
        (Request::Availability { .. }, Lie::WrongOffers) => lying(offers(vec![0xff; 5])),
        (Request::Availability { .. }, _) => {
            let mut bitmap = vec![0xff; goods.chunks.len().div_ceil(8)];
            let beyond = bitmap.len() * 8 - goods.chunks.len();
            if let Some(last) = bitmap.last_mut() {
                *last <<= beyond;
            }
            honest(offers(bitmap))
        }
        (Request::Run { first, count, .. }, lie) => {
            let first = first as usize;
            let asked = first..first.saturating_add(count as usize).min(goods.chunks.len());
            match run(lie, goods, asked.clone()) {
                Some(steps) => lying(steps),
                None => honest(body(asked.map(|index| goods.chunks[index].clone()))),
            }
        }
    }
}

/// What is said to a run; none where this lie is not about runs.
fn run(lie: Lie, goods: &Goods, asked: std::ops::Range<usize>) -> Option<Vec<Step>> {
    let first = asked.start;
    let chunk = |index: usize| goods.chunks[index % goods.chunks.len()].clone();
    let each = |change: &dyn Fn(usize) -> Vec<u8>| body(asked.clone().map(change));
    let begin = || vec![head(&Head::Run)];
    Some(match lie {
        Lie::RandomBytes => each(&|index| noise(index as u64, goods.chunks[index].len())),
        Lie::FlippedBit => each(&|index| {
            let mut bytes = chunk(index);
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        }),
        Lie::OtherChunk => each(&|index| chunk(index + 1)),
        Lie::OtherContent => each(&|index| goods.other_chunks[index].clone()),
        Lie::TruncatedChunk => each(&|index| {
            let mut bytes = chunk(index);
            bytes.pop();
            bytes
        }),
        Lie::LongChunk => each(&|index| {
            let mut bytes = chunk(index);
            bytes.push(0);
            bytes
        }),
        Lie::HugeChunk => {
            [begin(), vec![Step::Write(0xffff_fff0_u32.to_be_bytes().into()), Step::Wait]].concat()
        }
        Lie::LargestChunk => each(&|_| vec![0x5a; SEALED_CHUNK_MAX_BYTES]),
        Lie::FewerChunks => body((first..first + asked.len() / 2).map(chunk)),
        Lie::MoreChunks => body((first..=asked.end).map(chunk)),
        Lie::Stalls => vec![Step::Wait],
        Lie::StopsMidway => [begin(), half_of(&chunk(first)), vec![Step::Wait]].concat(),
        Lie::Drips => {
            let bytes = chunk(first);
            let length = Step::Write(length(bytes.len()).into());
            [begin(), vec![length, Step::Drip(bytes), Step::Wait]].concat()
        }
        Lie::FalseOffers => refused(Refusal::NoSuchChunk),
        Lie::AlwaysBusy => refused(Refusal::Busy),
        Lie::BreaksOff => [begin(), half_of(&chunk(first)), vec![Step::Reset]].concat(),
        Lie::GivesUp => {
            let abort = [&ABORT[..], &[Abort::Changed.code()]].concat();
            [begin(), vec![Step::Write(abort)]].concat()
        }
        Lie::WrongHead => manifest(&goods.manifest),
        Lie::GarbledHead => vec![Step::Write([&[0, 0, 0, 8][..], &[0xff; 8]].concat()), Step::Wait],
        Lie::HugeHead => vec![Step::Write(0x00ff_ffff_u32.to_be_bytes().into()), Step::Wait],
        Lie::NotHeld | Lie::WrongOffers | Lie::OtherManifest | Lie::HugeManifest | Lie::DrippingManifest => {
            return None;
        }
    })
}

fn head(head: &Head) -> Step {
    let bytes = cbor::to_vec(head);
    Step::Write([&length(bytes.len())[..], &bytes].concat())
}

/// A run with these chunks.
fn body(chunks: impl Iterator<Item = Vec<u8>>) -> Vec<Step> {
    let mut steps = vec![head(&Head::Run)];
    for chunk in chunks {
        steps.push(Step::Write(length(chunk.len()).into()));
        steps.push(Step::Write(chunk));
    }
    steps.push(Step::Write(END.into()));
    steps
}

fn manifest(bytes: &[u8]) -> Vec<Step> {
    vec![head(&Head::Manifest), Step::Write([&length(bytes.len())[..], bytes, &END].concat())]
}

fn offers(bitmap: Vec<u8>) -> Vec<Step> {
    vec![head(&Head::Availability(ByteBuf::from(bitmap))), Step::Write(END.into())]
}

fn refused(refusal: Refusal) -> Vec<Step> {
    vec![head(&Head::Refused(refusal)), Step::Write(END.into())]
}

fn half_of(chunk: &[u8]) -> Vec<Step> {
    vec![Step::Write(length(chunk.len()).into()), Step::Write(chunk[..chunk.len() / 2].to_vec())]
}

#[allow(clippy::cast_possible_truncation, reason = "a chunk or manifest is at most 16 MiB")]
const fn length(bytes: usize) -> [u8; 4] {
    (bytes as u32).to_be_bytes()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quarta_protocols::content::{ContentKey, Manifest};
    use quarta_protocols::ids::ContentId;
    use quarta_protocols::limits::RUN_MAX_CHUNKS;
    use quarta_protocols::messages::chunk::Purpose;

    fn goods() -> Goods {
        let plain: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 249) as u8).collect();
        Goods::seal(&plain, &ContentKey::from_bytes([1; 32])).unwrap()
    }

    fn asked(content: ContentId) -> Request {
        Request::Run { content, first: 1, count: 2, purpose: Purpose::Person }
    }

    /// The bytes of the frames in an answer, as a fetcher would read them up to where it breaks.
    fn frames(answer: &Answer) -> Vec<Vec<u8>> {
        let bytes: Vec<u8> = answer
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Write(bytes) => Some(bytes.clone()),
                Step::Drip(_) | Step::Wait | Step::Reset => None,
            })
            .flatten()
            .collect();
        let mut frames = Vec::new();
        let mut rest = &bytes[..];
        while let Some((length, after)) = rest.split_at_checked(4) {
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let Some((frame, after)) = after.split_at_checked(length) else { break };
            frames.push(frame.to_vec());
            rest = after;
        }
        frames
    }

    #[test]
    fn every_lie_is_told_about_what_it_is_about_and_the_rest_is_honest() {
        let goods = goods();
        let content = goods.content();
        for lie in Lie::ALL {
            let told = |request| answer(lie, request, Some(&goods));
            let manifest = told(Request::Manifest { content });
            let run = told(asked(content));
            let offers = told(Request::Availability { content });
            assert!(manifest.lies || run.lies || offers.lies, "{lie:?} never lies");
            if !manifest.lies {
                let bytes = &frames(&manifest)[1];
                assert!(Manifest::verify(bytes, &content).is_ok(), "{lie:?}");
            }
            if !run.lies {
                assert_eq!(frames(&run)[1..], [&goods.chunks[1..3], &[vec![]]].concat(), "{lie:?}");
            }
        }
    }

    #[test]
    fn no_lie_about_a_chunk_is_by_chance_the_truth() {
        let goods = goods();
        let manifest = Manifest::verify(&goods.manifest, &goods.content()).unwrap();
        for lie in Lie::ALL.into_iter().filter(|lie| lie.fault() == Some(Fault::WrongBytes)) {
            let told = answer(lie, asked(goods.content()), Some(&goods));
            let right = frames(&told)
                .iter()
                .skip(1)
                .zip(1..)
                .all(|(chunk, index)| manifest.check(index, chunk).is_ok());
            let harmless = frames(&told).len() <= 1 || lie == Lie::MoreChunks || !told.lies;
            assert!(!right || harmless, "{lie:?}");
        }
    }

    #[test]
    fn any_run_that_may_be_asked_for_is_answered_without_a_panic() {
        let goods = goods();
        let content = goods.content();
        for lie in Lie::ALL.into_iter().filter(|lie| *lie != Lie::LargestChunk) {
            for (first, count) in [(0, 1), (3, 1), (0, 4), (2, RUN_MAX_CHUNKS), (9, 9), (u32::MAX, u32::MAX)]
            {
                let _ = answer(
                    lie,
                    Request::Run { content, first, count, purpose: Purpose::Person },
                    Some(&goods),
                );
            }
            assert!(answer(lie, asked(content), None).lies);
        }
    }

    #[test]
    fn member_names_are_valid_and_distinct() {
        let names: std::collections::BTreeSet<_> = Lie::ALL.iter().map(|lie| lie.member_name()).collect();
        assert_eq!(names.len(), Lie::ALL.len());
        for name in names {
            assert!(quarta_protocols::names::MemberName::new(&name).is_ok(), "{name}");
        }
    }
}
