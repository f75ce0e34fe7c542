//! What both services' APIs have in common: a member's shape, cursors, and the answer to a scraper.

use super::Problem;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use quarta_protocols::cbor;
use quarta_protocols::limits::QUERY_MAX_BYTES;
use quarta_protocols::messages::index::ListedMember;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use utoipa::{IntoParams, ToSchema};

/// The most entries that a page holds, and how many it holds unless asked for fewer: a page of the longest names
/// stays far below a client's bound on an answer.
pub const PAGE_MAX: usize = 500;

/// A member, as a super-peer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Its name.
    #[schema(example = "filial-recife")]
    pub name: String,
    /// Its peer id.
    #[schema(example = "12D3KooWGsiRqJWRLGvUmZ4e1sQ4Zc3BMuJrnyhYNm4jXsPzoo8x")]
    pub peer_id: String,
    /// `node` or `superpeer`.
    #[schema(example = "node")]
    pub role: String,
    /// `online`, `suspect`, `offline`, `left` or `revoked`.
    #[schema(example = "online")]
    pub state: String,
    /// Whether it is connected with the super-peer through a relay only.
    #[serde(default)]
    pub relayed: bool,
    /// When it last answered, in seconds since 1970 UTC.
    pub last_seen: Option<u64>,
    /// Its software's version.
    pub version: String,
    /// Files in its library.
    pub files: u64,
    /// Bytes it stores.
    pub stored_bytes: u64,
    /// Bytes left on its disk.
    pub free_bytes: u64,
    /// Where it is reached.
    pub addresses: Vec<String>,
}

impl From<ListedMember> for Member {
    fn from(member: ListedMember) -> Self {
        Self {
            name: member.name.to_string(),
            peer_id: member.peer.to_string(),
            role: member.role.to_string(),
            state: member.state.to_string(),
            relayed: member.relayed,
            last_seen: member.last_seen.map(|seen| seen.0),
            version: member.version,
            files: member.files,
            stored_bytes: member.stored_bytes,
            free_bytes: member.free_bytes,
            addresses: member.addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A page of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberPage {
    /// The members, in name order.
    pub members: Vec<Member>,
    /// Continue with `cursor=` this; none after the last page.
    pub next: Option<String>,
}

/// Where in a listing to go on, and how many entries to show at once.
///
/// A listing's order is fixed and a cursor is a place in it, so entries that come or go meanwhile make no other entry
/// appear twice or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Go on after this: the `next` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
    /// Entries of the page, at most.
    #[param(minimum = 1, maximum = 500, default = 500, example = 100)]
    limit: Option<u32>,
}

/// The letters to search a listing for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Search {
    /// Letters that occur in the name, whatever their case and accents; all files where it is left out. One or two
    /// letters must begin the name. At most 256 bytes.
    #[serde(default)]
    #[param(max_length = 256, example = "verao")]
    query: String,
}

impl Search {
    /// The letters; empty for all.
    ///
    /// # Errors
    /// A problem where there are more than [`QUERY_MAX_BYTES`].
    pub fn query(&self) -> Result<&str, Problem> {
        if self.query.len() > QUERY_MAX_BYTES {
            let detail = format!("a query has at most {QUERY_MAX_BYTES} bytes");
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "query-too-long",
                detail,
                "search for fewer letters",
            ));
        }
        Ok(&self.query)
    }
}

impl Paging {
    /// The place to go on after, as [`cursor`] gave it.
    ///
    /// # Errors
    /// A problem for any other text.
    pub fn after<T: DeserializeOwned>(&self) -> Result<Option<T>, Problem> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        bytes.and_then(|bytes| cbor::from_slice(&bytes).ok()).map(Some).ok_or_else(|| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "bad-cursor",
                "the cursor is not one that this API gave",
                "start again without a cursor",
            )
        })
    }

    /// How many entries to show: [`PAGE_MAX`] unless fewer are asked for.
    ///
    /// # Errors
    /// A problem for none and for more.
    pub fn limit(&self) -> Result<NonZeroUsize, Problem> {
        let asked = self.limit.map_or(PAGE_MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        NonZeroUsize::new(asked).filter(|limit| limit.get() <= PAGE_MAX).ok_or_else(|| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "bad-limit",
                format!("a page has 1 to {PAGE_MAX} entries"),
                "ask for another limit, or for none",
            )
        })
    }

    /// Cuts a page out of a whole listing in order: the entries after the cursor, and the cursor of the next page.
    ///
    /// # Errors
    /// As [`Paging::after`] and [`Paging::limit`].
    pub fn cut<T, K: Ord + Serialize + DeserializeOwned>(
        &self,
        mut all: Vec<T>,
        place: impl Fn(&T) -> K,
    ) -> Result<(Vec<T>, Option<String>), Problem> {
        let (after, limit) = (self.after::<K>()?, self.limit()?.get());
        let begin = after.map_or(0, |after| all.partition_point(|entry| place(entry) <= after));
        let mut page = all.split_off(begin);
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| more).map(|last| cursor(&place(last)));
        Ok((page, next))
    }
}

/// A place in a listing as opaque text.
pub fn cursor(place: &impl Serialize) -> String {
    BASE64URL_NOPAD.encode(&cbor::to_vec(place))
}

/// The exposition of a registry as a scraper expects it.
pub fn exposition(registry: &quarta_metrics::registry::Registry) -> Response {
    ([(header::CONTENT_TYPE, quarta_metrics::registry::CONTENT_TYPE)], registry.encode()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paging(cursor: &str) -> Paging {
        Paging { cursor: Some(cursor.to_owned()), limit: None }
    }

    #[test]
    fn a_cursor_leads_back_to_its_place_and_other_texts_are_refused() {
        let place = (7u64, "plano.csv".to_owned());
        assert_eq!(paging(&cursor(&place)).after::<(u64, String)>().unwrap(), Some(place));
        assert_eq!(Paging::default().after::<u64>().unwrap(), None);
        for text in ["", "!", "AAAA", "é"] {
            assert_eq!(paging(text).after::<(u64, String)>().unwrap_err().code, "bad-cursor", "{text:?}");
        }
    }

    #[test]
    fn a_query_has_a_longest_length() {
        let search = |len| Search { query: "x".repeat(len) };
        assert!(search(QUERY_MAX_BYTES).query().is_ok());
        assert_eq!(search(QUERY_MAX_BYTES + 1).query().unwrap_err().code, "query-too-long");
    }

    #[test]
    fn a_page_has_one_to_five_hundred_entries() {
        let limit = |limit| Paging { cursor: None, limit }.limit();
        assert_eq!(limit(None).unwrap().get(), PAGE_MAX);
        assert_eq!(limit(Some(1)).unwrap().get(), 1);
        for bad in [0, 501, u32::MAX] {
            assert_eq!(limit(Some(bad)).unwrap_err().code, "bad-limit", "{bad}");
        }
    }

    #[test]
    fn pages_show_every_entry_once_while_others_come_and_go() {
        let listing = |names: &[&'static str]| names.to_vec();
        let page = |cursor: Option<String>, names| {
            Paging { cursor, limit: Some(2) }.cut(listing(names), |name| (*name).to_owned()).unwrap()
        };
        let (first, next) = page(None, &["b", "d", "f", "h"]);
        assert_eq!(first, ["b", "d"]);
        // The last one shown is gone, and others are new before and after it.
        let (second, next) = page(next, &["a", "b", "e", "f", "h"]);
        assert_eq!(second, ["e", "f"]);
        let (third, next) = page(next, &["a", "b", "e", "f", "h"]);
        assert_eq!((third, next), (vec!["h"], None));
    }
}
