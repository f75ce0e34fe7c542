//! What a peer can make a decoder do with bytes that are no message: no panic, no deep recursion, no large allocation.
//!
//! Damaged messages stand in `golden`; here are bytes that were never one.

use proptest::prelude::*;
use quarta_protocols::{
    audiences::{AUDIENCE_MAX_BYTES, Audience, RULE_MEMBERS_MAX, Wrap},
    cbor,
    limits::{
        ADDRESSES_MAX, INVENTORY_PAGE_ENTRIES, MEMBER_PAGE_ENTRIES, PAGE_MESSAGE_BYTES, RECORD_PAGE_ENTRIES,
        SOURCES_MAX, SUPERPEERS_MAX, SYNC_PAGE_ENTRIES,
    },
    members::Enrolment,
    messages::{
        admission::{Admission, PeerAddresses},
        changes::{Change, Changes},
        chunk,
        handover::Handover,
        index::{
            AUDIENCES_PAGE_ENTRIES, HOLDERS_MAX, Holder, Index, ListedFile, ListedMember, Publication,
            Source, SourceOutcome,
        },
        inventory::{Item, Key},
        poll::Poll,
        sync::{Entry, Sync},
        vault::{ASSIGNMENTS_MAX, Assignment, Vault},
    },
    records::{Body, SignedRecord},
    rpc::Protocol,
    signing::Signed,
};
use serde::de::DeserializeOwned;

/// Whether the bytes are a message of one kind.
type Decode = fn(&[u8]) -> bool;

/// Every decoder that a peer's bytes reach, at its cap.
const DECODERS: [Decode; 21] = [
    request::<Admission>,
    response::<Admission>,
    request::<Index>,
    response::<Index>,
    request::<Poll>,
    response::<Poll>,
    request::<Sync>,
    response::<Sync>,
    request::<Changes>,
    response::<Changes>,
    request::<Vault>,
    response::<Vault>,
    request::<Handover>,
    response::<Handover>,
    within::<Audience, AUDIENCE_MAX_BYTES>,
    within::<Wrap, AUDIENCE_MAX_BYTES>,
    within::<chunk::Request, { chunk::MAX_REQUEST_BYTES }>,
    within::<chunk::Head, { chunk::MAX_HEAD_BYTES }>,
    within::<SignedRecord, PAGE_MESSAGE_BYTES>,
    within::<Body, PAGE_MESSAGE_BYTES>,
    within::<Enrolment, PAGE_MESSAGE_BYTES>,
];

fn request<P: Protocol>(bytes: &[u8]) -> bool {
    cbor::from_slice_within::<P::Request>(bytes, P::MAX_REQUEST_BYTES).is_ok()
}

fn response<P: Protocol>(bytes: &[u8]) -> bool {
    cbor::from_slice_within::<P::Response>(bytes, P::MAX_RESPONSE_BYTES).is_ok()
}

fn within<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> bool {
    cbor::from_slice_within::<T>(bytes, LIMIT).is_ok()
}

/// `{name: [element, element, …]}` of a whole page's size.
fn page_of(name: &str, element: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xa1];
    bytes.extend(cbor::to_vec(name));
    let count = (PAGE_MESSAGE_BYTES - bytes.len() - 5) / element.len();
    bytes.push(0x9a);
    bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(element.repeat(count));
    assert!(bytes.len() <= PAGE_MESSAGE_BYTES && bytes.len() > PAGE_MESSAGE_BYTES - 64);
    bytes
}

#[test]
fn a_page_of_a_million_smallest_values_is_no_message_of_any_kind() {
    // Each of them is one byte on the wire and dozens in memory: empty text, null, an empty list.
    for (name, element) in
        [("publish", 0x60), ("push", 0xf6), ("sources", 0x80), ("files", 0x60), ("assign", 0xf6)]
    {
        let bytes = page_of(name, &[element]);
        assert!(DECODERS.iter().all(|decode| !decode(&bytes)), "{name} of {element:#x}");
    }
}

#[test]
fn no_list_takes_more_than_a_few_times_its_messages_bytes_in_memory() {
    // What a list holds at its bound, beside the texts and bytes that its message has to bring along.
    let lists = [
        ("register, poll: present", INVENTORY_PAGE_ENTRIES * size_of::<Item>()),
        ("register, poll: gone", INVENTORY_PAGE_ENTRIES * size_of::<Key>()),
        ("publish", RECORD_PAGE_ENTRIES * size_of::<SignedRecord>()),
        (
            "publish_keys",
            AUDIENCES_PAGE_ENTRIES * size_of::<Signed<Audience>>()
                + RECORD_PAGE_ENTRIES * size_of::<Signed<Wrap>>(),
        ),
        ("holders", HOLDERS_MAX * size_of::<Holder>()),
        ("audience", AUDIENCES_PAGE_ENTRIES * RULE_MEMBERS_MAX * size_of::<libp2p::PeerId>()),
        ("assign", ASSIGNMENTS_MAX * size_of::<Assignment>()),
        ("changes", RECORD_PAGE_ENTRIES * size_of::<Change>()),
        ("published", RECORD_PAGE_ENTRIES * size_of::<Publication>()),
        ("files", RECORD_PAGE_ENTRIES * size_of::<ListedFile>()),
        ("members", MEMBER_PAGE_ENTRIES * size_of::<ListedMember>()),
        ("sources", SOURCES_MAX * (size_of::<Source>() + ADDRESSES_MAX * 16)),
        ("report", SOURCES_MAX * size_of::<SourceOutcome>()),
        ("superpeers", SUPERPEERS_MAX * (size_of::<PeerAddresses>() + ADDRESSES_MAX * 16)),
        ("push, page", SYNC_PAGE_ENTRIES * size_of::<Entry>()),
    ];
    for (name, bytes) in lists {
        assert!(bytes <= 2 * PAGE_MESSAGE_BYTES, "{name}: {bytes} bytes");
    }
}

/// Far deeper than any stack could follow.
const DEEP_BYTES: usize = 256 * 1024;

#[test]
fn nesting_deeper_than_any_stack_ends_in_an_error() {
    let openings: [&[u8]; 8] = [
        &[0x81],
        &[0x9f],
        &[0xa1, 0x61, b'x'],
        &[0xbf, 0x61, b'x'],
        &[0xc1],
        &[0xd9, 0xd9, 0xf7],
        &[0x5f],
        &[0x7f],
    ];
    // Where a value is expected, below a field that is known, and below one that is skipped.
    let known = [&[0xa1][..], &cbor::to_vec("search"), &[0xa1], &cbor::to_vec("query")].concat();
    let unknown = [&[0xa1][..], &cbor::to_vec("locate"), &[0xa1], &cbor::to_vec("unheard of")].concat();
    for opening in openings {
        for before in [&[][..], &known, &unknown] {
            let depth = DEEP_BYTES / opening.len();
            let bytes = [before, &opening.repeat(depth)].concat();
            assert!(DECODERS.iter().all(|decode| !decode(&bytes)), "{opening:x?}");
            // And within the smallest caps.
            let short = &bytes[..1000];
            assert!(DECODERS.iter().all(|decode| !decode(short)), "{opening:x?}");
        }
    }
}

#[test]
fn an_announced_length_is_a_claim_and_allocates_nothing() {
    // Text, bytes, list and map of 2^32 - 1 and 2^63 - 1, of which nothing follows.
    for kind in [0x60, 0x40, 0x80, 0xa0] {
        for length in
            [&[0x1a_u8, 0xff, 0xff, 0xff, 0xff][..], &[0x1b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]]
        {
            let announced = [&[kind | length[0]][..], &length[1..]].concat();
            for name in
                ["publish", "publish_keys", "sources", "availability", "resolve", "push", "assign", "only"]
            {
                let bytes = [&[0xa1][..], &cbor::to_vec(name), &announced].concat();
                assert!(DECODERS.iter().all(|decode| !decode(&bytes)), "{name} {announced:x?}");
            }
            assert!(DECODERS.iter().all(|decode| !decode(&announced)));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        for decode in DECODERS {
            decode(&bytes);
        }
    }

    #[test]
    fn any_bytes_behind_a_known_name_are_read_or_refused(
        name in prop::sample::select(vec![
            "register", "publish", "publish_keys", "holders", "assign", "confirm", "only", "everyone_but", "search", "locate", "report", "resolve", "files", "members", "sources", "push",
            "page", "digest", "run", "manifest", "availability", "refused", "redeem", "joined", "body",
        ]),
        bytes in proptest::collection::vec(any::<u8>(), 0..512),
    ) {
        let bytes = [&[0xa1][..], &cbor::to_vec(name), &bytes].concat();
        for decode in DECODERS {
            decode(&bytes);
        }
    }
}
