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

/// A member, as a super-peer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its peer id.
    pub peer_id: String,
    /// `node` or `superpeer`.
    pub role: String,
    /// `online`, `suspect` or `offline`.
    pub state: String,
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
            last_seen: member.last_seen.map(|seen| seen.0),
            version: member.version,
            files: member.files,
            stored_bytes: member.stored_bytes,
            free_bytes: member.free_bytes,
            addresses: member.addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The parameters of a listing: letters to search for, and where to go on.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Paging {
    #[serde(default)]
    query: String,
    cursor: Option<String>,
}

impl Paging {
    /// The letters to search for; empty for all.
    ///
    /// # Errors
    /// A problem where it is longer than [`QUERY_MAX_BYTES`].
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
        Paging { query: String::new(), cursor: Some(cursor.to_owned()) }
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
        let query = |len| Paging { query: "x".repeat(len), cursor: None };
        assert!(query(QUERY_MAX_BYTES).query().is_ok());
        assert_eq!(query(QUERY_MAX_BYTES + 1).query().unwrap_err().code, "query-too-long");
    }
}
