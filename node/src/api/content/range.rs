//! Which part of a file a request wants: RFC 9110's ranges and preconditions, without a socket.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// From the first to the last byte, counted from 0, both within the file.
    Part {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: u64,
    },
    /// Bytes that the file does not have.
    Beyond,
    /// Nothing: the reader has it.
    NotModified,
    /// Nothing: it is not the content that the reader means.
    PreconditionFailed,
}

/// Decides by a request's headers; `etag` is the content's strong tag with its quotes.
///
/// A `Range` that is malformed, of another unit or for several parts is ignored, as RFC 9110 permits: the whole answers
/// such a request too.
pub(super) fn wanted(headers: &HeaderMap, size_bytes: u64, etag: &str) -> Wanted {
    let lists = |name: &HeaderName| headers.contains_key(name).then(|| lists(headers, name, etag));
    if lists(&header::IF_MATCH) == Some(false) {
        return Wanted::PreconditionFailed;
    }
    if lists(&header::IF_NONE_MATCH) == Some(true) {
        return Wanted::NotModified;
    }
    // A date cannot match: a file may change twice in its second.
    let current = headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == etag.as_bytes());
    let mut ranges = headers.get_all(header::RANGE).iter();
    match (ranges.next(), ranges.next()) {
        (Some(range), None) if current => part(range, size_bytes),
        _ => Wanted::Whole,
    }
}

/// Whether one of the tags in the header's lists is the content's, or is `*`.
fn lists(headers: &HeaderMap, name: &HeaderName, etag: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|tag| {
        tag == "*" || tag == etag || name == header::IF_NONE_MATCH && tag.strip_prefix("W/") == Some(etag)
    })
}

fn part(range: &HeaderValue, size_bytes: u64) -> Wanted {
    let ends = range.to_str().ok().and_then(|text| {
        let (unit, ends) = text.split_once('=')?;
        unit.trim().eq_ignore_ascii_case("bytes").then_some(ends.trim())?.split_once('-')
    });
    let Some((first, last)) = ends else { return Wanted::Whole };
    match (first, last) {
        ("", last) => match number(last) {
            None => Wanted::Whole,
            Some(0) => Wanted::Beyond,
            // No part of an empty file can be told; all of it is its end.
            Some(_) if size_bytes == 0 => Wanted::Whole,
            Some(count) => Wanted::Part { first: size_bytes.saturating_sub(count), last: size_bytes - 1 },
        },
        (first, last) => {
            let until = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match (number(first), until) {
                (Some(first), Some(last)) if first > last => Wanted::Whole,
                (Some(first), Some(_)) if first >= size_bytes => Wanted::Beyond,
                (Some(first), Some(last)) => Wanted::Part { first, last: last.min(size_bytes - 1) },
                _ => Wanted::Whole,
            }
        }
    }
}

/// Digits only; more than fit stand for the end.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ETAG: &str = "\"0f\"";

    fn ask(size: u64, headers: &[(HeaderName, &str)]) -> Wanted {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        wanted(&map, size, ETAG)
    }

    fn range(size: u64, text: &str) -> Wanted {
        ask(size, &[(header::RANGE, text)])
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        let part = |first, last| Wanted::Part { first, last };
        for (text, expected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=0-", part(0, 9)),
            ("BYTES = 3-5", part(3, 5)),
            ("bytes=3-99999999999999999999999", part(3, 9)),
            ("bytes=-1", part(9, 9)),
            ("bytes=-99", part(0, 9)),
            ("bytes=9-9", part(9, 9)),
            ("bytes=10-", Wanted::Beyond),
            ("bytes=99999999999999999999999-", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("0-1", Wanted::Whole),
        ] {
            assert_eq!(range(10, text), expected, "{text}");
        }
        assert_eq!(range(0, "bytes=0-"), Wanted::Beyond);
        assert_eq!(range(0, "bytes=-5"), Wanted::Whole);
        assert_eq!(ask(10, &[(header::RANGE, "bytes=0-1"), (header::RANGE, "bytes=2-3")]), Wanted::Whole);
    }

    #[test]
    fn a_range_of_another_content_is_answered_with_the_whole() {
        let with = |tag| ask(10, &[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, tag)]);
        assert_eq!(with(ETAG), Wanted::Part { first: 0, last: 1 });
        for other in ["\"ff\"", "W/\"0f\"", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(with(other), Wanted::Whole, "{other}");
        }
    }

    #[test]
    fn a_reader_that_has_the_content_gets_nothing_and_one_that_means_another_is_told() {
        let none = |tags| ask(10, &[(header::IF_NONE_MATCH, tags), (header::RANGE, "bytes=0-1")]);
        for tags in [ETAG, "*", "\"a\", W/\"0f\"", "\"a\",\"0f\""] {
            assert_eq!(none(tags), Wanted::NotModified, "{tags}");
        }
        assert_eq!(none("\"a\""), Wanted::Part { first: 0, last: 1 });
        let matching = |tags| ask(10, &[(header::IF_MATCH, tags)]);
        assert_eq!((matching("*"), matching(ETAG)), (Wanted::Whole, Wanted::Whole));
        assert_eq!(
            (matching("\"a\""), matching("W/\"0f\"")),
            (Wanted::PreconditionFailed, Wanted::PreconditionFailed)
        );
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file_whatever_is_asked(size in 0_u64..1000, text in "(bytes=)?[-0-9, ]{0,12}") {
            if let Wanted::Part { first, last } = range(size, &text) {
                prop_assert!(first <= last && last < size);
            }
        }

        #[test]
        fn both_ends_are_those_asked_for(size in 1_u64..1000, first in 0_u64..1000, count in 1_u64..1000) {
            prop_assume!(first < size);
            let last = first + count - 1;
            let expected = Wanted::Part { first, last: last.min(size - 1) };
            prop_assert_eq!(range(size, &format!("bytes={first}-{last}")), expected);
            let suffix = Wanted::Part { first: size.saturating_sub(count), last: size - 1 };
            prop_assert_eq!(range(size, &format!("bytes=-{count}")), suffix);
        }
    }
}
