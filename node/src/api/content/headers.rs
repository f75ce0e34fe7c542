//! What is said of a file's bytes: a name to save them under and a type that nothing runs.
//!
//! Both come from other members. A browser that gets them must neither take a part of a name for a header nor show a
//! page that some branch shared as if it were this daemon's.

use std::fmt::Write;

use axum::http::HeaderValue;
use quarta_protocols::names::FileName;

/// For everything that a browser could run, or that is not known.
const OPAQUE: &str = "application/octet-stream";
/// Types outside [`SHOWN`] that a program may want to know.
const KNOWN: [&str; 6] =
    ["application/json", "application/pdf", "application/zip", "text/csv", "text/plain", OPAQUE];
/// What browsers show without running anything in it, but for [`ACTIVE_PICTURE`].
const SHOWN: [&str; 3] = ["audio/", "image/", "video/"];
const ACTIVE_PICTURE: &str = "image/svg";
/// Office documents; browsers save them.
const OFFICE: [&str; 2] = ["application/vnd.openxmlformats-", "application/vnd.oasis.opendocument."];

/// `Content-Disposition` (RFC 6266): save it, under the file's own name. Old clients get the name with `_` for what
/// ASCII does not have; the others read it in full (RFC 8187).
pub(super) fn disposition(name: &FileName) -> HeaderValue {
    let leaf = name.leaf();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.()+ ,=".contains(c) { c } else { '_' };
    let fallback: String = leaf.chars().map(plain).collect();
    let mut text = format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''");
    for byte in leaf.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

/// `Content-Type`: the record's, if nothing can be run in it.
pub(super) fn content_type(media_type: Option<&str>) -> HeaderValue {
    let passive = |media_type: &&str| {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "/.+-".contains(c);
        let starts = |with: &[&str]| with.iter().any(|start| media_type.starts_with(start));
        let known = KNOWN.contains(media_type) || starts(&OFFICE);
        media_type.chars().all(word) && (known || starts(&SHOWN) && !media_type.starts_with(ACTIVE_PICTURE))
    };
    let chosen = media_type.filter(passive).unwrap_or(OPAQUE);
    HeaderValue::try_from(chosen).unwrap_or_else(|_| HeaderValue::from_static(OPAQUE))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_given_in_full_and_in_ascii() {
        let name = FileName::new("fotos/verão \u{201c}50%\u{201d} 'a'.png").unwrap();
        assert_eq!(
            disposition(&name).to_str().unwrap(),
            "attachment; filename=\"ver_o _50__ _a_.png\"; \
             filename*=UTF-8''ver%C3%A3o%20%E2%80%9C50%25%E2%80%9D%20%27a%27.png"
        );
    }

    #[test]
    fn nothing_that_a_browser_runs_keeps_its_type() {
        for passive in ["image/png", "video/mp4", "audio/ogg", "application/pdf", "text/csv", "text/plain"] {
            assert_eq!(content_type(Some(passive)), passive);
        }
        for active in [
            "text/html",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/xml",
            "text/javascript",
            "Image/SVG+xml",
            "image/png\r\nSet-Cookie: a=b",
            "image/png; charset=x",
            "",
        ] {
            assert_eq!(content_type(Some(active)), OPAQUE, "{active:?}");
        }
        assert_eq!(content_type(None), OPAQUE);
    }

    proptest! {
        #[test]
        fn no_name_breaks_out_of_its_quotes(text in "\\PC{1,40}") {
            let Ok(name) = FileName::normalised(&text) else { return Ok(()) };
            let header = disposition(&name);
            let header = header.to_str().unwrap();
            let (quoted, full) = header.split_once("\"; filename*=UTF-8''").unwrap();
            prop_assert_eq!(quoted.matches('"').count(), 1);
            prop_assert!(!quoted.contains(['\\', '\r', '\n', '%']) && !full.contains(['"', ';', ' ', '\'']));
            let decoded = percent(full);
            prop_assert_eq!(decoded, name.leaf().as_bytes());
        }
    }

    fn percent(text: &str) -> Vec<u8> {
        let mut bytes = text.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            if byte == b'%' {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            } else {
                decoded.push(byte);
            }
        }
        decoded
    }
}
