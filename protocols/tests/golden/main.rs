//! Holds every format that leaves a machine still: [`cases`] has one value of each, `wire.txt` its bytes.
//!
//! Members of different versions talk to each other, and signed bytes live as long as the network does. A change that
//! shows up here is therefore a decision and not a detail; what to do about one stands in [`HOW_TO_CHANGE`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod cases;
mod sharing;

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use cases::{Case, REQUEST_DECODERS, cases};
use cbor4ii::core::{Value, dec::Decode, enc::Encode, utils};
use data_encoding::HEXLOWER;

const WIRE: &str = include_str!("wire.txt");

const HOW_TO_CHANGE: &str = "\
Members that run another version, and bytes that have been signed, have the old form. If the change is a mistake, undo \
it. If a field or variant was added, add a case of its own and leave the old lines as they are: what is added must be \
optional for those that do not send it. Anything else needs a new version beside the old one: raise the protocol's \
VERSION, or the number in the statement's DOMAIN or in the hash's context, and add cases for it.";

#[test]
fn every_wire_format_is_held_still() {
    let mut actual = String::new();
    for case in cases() {
        writeln!(actual, "{} = {}", case.name, HEXLOWER.encode(&case.bytes)).unwrap();
    }
    if actual == WIRE {
        return;
    }
    let place = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("wire.txt");
    std::fs::write(&place, &actual).unwrap();
    let (old, new): (Vec<_>, Vec<_>) = (WIRE.lines().collect(), actual.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}\n"));
    let came = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}\n"));
    let changes: String = gone.chain(came).collect();
    panic!(
        "wire formats differ from protocols/tests/golden/wire.txt:\n{changes}\n{HOW_TO_CHANGE}\n\
         What this code makes was written to {}.",
        place.display()
    );
}

#[test]
fn every_message_reads_back_as_the_bytes_it_was() {
    for case in cases() {
        assert_eq!((case.again)(&case.bytes).as_deref(), Ok(&*case.bytes), "{}", case.name);
    }
}

#[test]
fn fields_of_a_later_version_are_ignored_wherever_they_stand() {
    let mut places = 0;
    for case in cases().iter().filter(|case| case.cbor) {
        let value = value_of(&case.bytes);
        for place in 0..structs_in(&value) {
            for first in [true, false] {
                let mut newer = value.clone();
                let mut left = place;
                assert!(add_field(&mut newer, &mut left, first));
                let again = (case.again)(&bytes_of(&newer));
                assert_eq!(again.as_deref(), Ok(&*case.bytes), "{}, struct {place}", case.name);
                places += 1;
            }
        }
    }
    assert!(places > 100, "{places} places only: are structs found at all?");
}

#[test]
fn damaged_messages_end_in_an_error_or_a_value_and_never_in_a_panic() {
    const MUTATIONS: u64 = 2_000;
    /// Generous for a busy machine: a decoder that runs away takes for ever.
    const LONGEST: Duration = Duration::from_secs(2);
    let cases = cases();
    let mut random = Random(7);
    for round in 0..MUTATIONS {
        let case = random.of(&cases);
        let mut bytes = case.bytes.clone();
        for _ in 0..=random.below(3) {
            damage(&mut bytes, &mut random, &cases);
        }
        let begun = Instant::now();
        let _ = (case.again)(&bytes);
        // A peer may send anything to any protocol.
        for decode in REQUEST_DECODERS {
            let _ = decode(&bytes);
        }
        let took = begun.elapsed();
        assert!(took < LONGEST, "round {round}, {}: {took:?} for {}", case.name, HEXLOWER.encode(&bytes));
    }
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random, cases: &[Case]) {
    if bytes.is_empty() {
        bytes.push(random.byte());
        return;
    }
    let at = random.below(bytes.len());
    let end = at + random.below(bytes.len() - at + 1);
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.byte(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let other = &random.of(cases).bytes;
            let piece = other[random.below(other.len())..].to_vec();
            bytes.splice(at..end, piece);
        }
    }
}

/// `SplitMix64`: the same damage in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

fn value_of(bytes: &[u8]) -> Value {
    Value::decode(&mut utils::SliceReader::new(bytes)).unwrap()
}

fn bytes_of(value: &Value) -> Vec<u8> {
    let mut writer = utils::BufWriter::new(Vec::new());
    value.encode(&mut writer).unwrap();
    writer.into_inner()
}

/// Whether a map stands for a struct. An enum's variant with content is a map too, of that variant alone, so structs of
/// one field have to be known by it.
fn is_struct(fields: &[(Value, Value)]) -> bool {
    const ONLY_FIELDS: [&str; 6] = ["addresses", "after", "content", "file", "have_bytes", "reference"];
    match fields {
        [(Value::Text(only), _)] => ONLY_FIELDS.contains(&only.as_str()),
        _ => true,
    }
}

fn structs_in(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(structs_in).sum(),
        Value::Map(fields) => {
            usize::from(is_struct(fields)) + fields.iter().map(|(_, value)| structs_in(value)).sum::<usize>()
        }
        _ => 0,
    }
}

/// Adds a field to the struct before which `left` others stand, as its first or last one; whether it was found.
fn add_field(value: &mut Value, left: &mut usize, first: bool) -> bool {
    match value {
        Value::Array(items) => items.iter_mut().any(|item| add_field(item, left, first)),
        Value::Map(fields) => {
            if is_struct(fields) {
                if *left == 0 {
                    let text = |text: &str| Value::Text(text.to_owned());
                    let content = Value::Map(vec![
                        (text("how"), Value::Array(vec![Value::Integer(1), Value::Null])),
                        (text("raw"), Value::Bytes(vec![1, 2, 3])),
                    ]);
                    let at = if first { 0 } else { fields.len() };
                    fields.insert(at, (text("of_a_later_version"), content));
                    return true;
                }
                *left -= 1;
            }
            fields.iter_mut().any(|(_, value)| add_field(value, left, first))
        }
        _ => false,
    }
}
