//! A command's side of the local API: HTTP/1.1 over `DATA/api.sock`.
//!
//! Every request has its own connection; on a Unix socket that costs less than keeping a pool right. Whole
//! responses and single lines are bounded, streams are not. There is no timeout on an answer: adding a large
//! file takes as long as it takes, and a person can press Ctrl-C. Dropping a future or a stream of this
//! module abandons its request.

use crate::http::{Problem, SOCKET_FILE};
use axum::http::{HeaderValue, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// The longest whole JSON response, in bytes. Listings are paged far below it.
pub const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// The longest line of a streamed response, in bytes; one line is one event or record.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

/// What RFC 3986 leaves unreserved stays readable.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A path of the API with its query, encoded so that file names of any kind survive.
///
/// ```
/// let target = quarta_daemon::client::Target::new("/api/v1/files").segment("a/b c").query("query", "50%&");
/// assert_eq!(target.as_str(), "/api/v1/files/a%2Fb%20c?query=50%25%26");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    text: String,
    queried: bool,
}

impl Target {
    /// A target from a fixed path of the API, which needs no encoding.
    pub fn new(path: &'static str) -> Self {
        Self { text: path.to_owned(), queried: false }
    }

    /// Adds one path segment. Call it before [`Target::query`].
    #[must_use]
    pub fn segment(mut self, segment: &str) -> Self {
        // To a server, these two are not names but steps.
        match segment {
            "." => self.text.push_str("/%2E"),
            ".." => self.text.push_str("/%2E%2E"),
            name => {
                let _ = write!(self.text, "/{}", utf8_percent_encode(name, RESERVED));
            }
        }
        self
    }

    /// Adds a parameter.
    #[must_use]
    pub fn query(mut self, key: &str, value: &str) -> Self {
        let mark = if std::mem::replace(&mut self.queried, true) { '&' } else { '?' };
        let (key, value) = (utf8_percent_encode(key, RESERVED), utf8_percent_encode(value, RESERVED));
        let _ = write!(self.text, "{mark}{key}={value}");
        self
    }

    /// The encoded target.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&'static str> for Target {
    fn from(path: &'static str) -> Self {
        Self::new(path)
    }
}

/// Why a request brought no answer, or not the wished one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket. Nothing was done.
    #[error("the daemon of {} is not running; start it with `serve`", data.display())]
    NotRunning {
        /// The data folder.
        data: PathBuf,
    },
    /// The socket is another user's. Nothing was done.
    #[error("the data folder {} belongs to another user; run the command as that user", data.display())]
    NotPermitted {
        /// The data folder.
        data: PathBuf,
    },
    /// The daemon answered that it will not or cannot.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The connection ended without an answer; what was asked may have been done or not.
    #[error("the connection to the daemon broke off: {why}; see whether the daemon is running and try again")]
    Broken {
        /// What the connection said.
        why: String,
    },
    /// The daemon answered something that this version does not understand.
    #[error(
        "the daemon's answer makes no sense to this version: {why}; \
         use the daemon's own version of this command"
    )]
    Unexpected {
        /// What does not fit.
        why: String,
    },
}

impl ClientError {
    fn broken(error: &dyn std::error::Error) -> Self {
        let mut why = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let _ = write!(why, ": {cause}");
            next = cause.source();
        }
        Self::Broken { why }
    }

    fn unexpected(error: impl std::fmt::Display) -> Self {
        Self::Unexpected { why: error.to_string() }
    }
}

/// Asks the daemon of one data folder.
#[derive(Debug, Clone)]
pub struct Client {
    data: PathBuf,
}

impl Client {
    /// A client for the daemon whose data folder is `data`. Does not connect yet.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into() }
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Gets a JSON answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, target: impl Into<Target>) -> Result<T, ClientError> {
        json(self.send(Method::GET, &target.into(), None, empty()).await?).await
    }

    /// Gets a listing to its last page; `split` gives a page's entries and its `next`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_all<P: DeserializeOwned, T>(
        &self,
        target: impl Into<Target>,
        split: impl Fn(P) -> (Vec<T>, Option<String>),
    ) -> Result<Vec<T>, ClientError> {
        let (target, mut all) = (target.into(), Vec::new());
        let mut cursor: Option<String> = None;
        loop {
            let here = match &cursor {
                Some(cursor) => target.clone().query("cursor", cursor),
                None => target.clone(),
            };
            let (entries, next) = split(self.get(here).await?);
            all.extend(entries);
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Posts JSON and reads a JSON answer; an empty answer reads as `()` or `None`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        target: impl Into<Target>,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.with_json(Method::POST, target.into(), body).await
    }

    /// Puts JSON and reads a JSON answer; an empty answer reads as `()` or `None`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put<T: DeserializeOwned>(
        &self,
        target: impl Into<Target>,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.with_json(Method::PUT, target.into(), body).await
    }

    /// Deletes and reads a JSON answer; an empty answer reads as `()` or `None`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete<T: DeserializeOwned>(&self, target: impl Into<Target>) -> Result<T, ClientError> {
        json(self.send(Method::DELETE, &target.into(), None, empty()).await?).await
    }

    /// Sends raw bytes piece by piece, in constant memory, and reads a JSON answer.
    ///
    /// # Errors
    /// [`ClientError`]; one of `pieces` ends the request and shows as [`ClientError::Broken`] with its text.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        method: Method,
        target: impl Into<Target>,
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<T, ClientError> {
        let body = StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync();
        json(self.send(method, &target.into(), Some("application/octet-stream"), body).await?).await
    }

    /// Gets raw bytes piece by piece, in constant memory.
    ///
    /// # Errors
    /// [`ClientError`], also as the stream's last item when the connection ends early.
    pub async fn download(
        &self,
        target: impl Into<Target>,
    ) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        Ok(pieces(self.send(Method::GET, &target.into(), None, empty()).await?))
    }

    /// Gets an answer of one JSON value a line, each as soon as it comes.
    ///
    /// # Errors
    /// [`ClientError`], also as the stream's last item.
    pub async fn lines<T: DeserializeOwned + Send + 'static>(
        &self,
        target: impl Into<Target>,
    ) -> Result<BoxStream<'static, Result<T, ClientError>>, ClientError> {
        Ok(lines(pieces(self.send(Method::GET, &target.into(), None, empty()).await?)))
    }

    /// As [`Client::lines`], for an operation that takes JSON and reports as it goes.
    ///
    /// # Errors
    /// [`ClientError`], also as the stream's last item.
    pub async fn post_lines<T: DeserializeOwned + Send + 'static>(
        &self,
        target: impl Into<Target>,
        body: &impl Serialize,
    ) -> Result<BoxStream<'static, Result<T, ClientError>>, ClientError> {
        let body = encoded(body)?;
        Ok(lines(pieces(self.send(Method::POST, &target.into(), Some("application/json"), body).await?)))
    }

    async fn with_json<T: DeserializeOwned>(
        &self,
        method: Method,
        target: Target,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = encoded(body)?;
        json(self.send(method, &target, Some("application/json"), body).await?).await
    }

    async fn send(
        &self,
        method: Method,
        target: &Target,
        content_type: Option<&'static str>,
        body: Body,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream =
            UnixStream::connect(self.data.join(SOCKET_FILE)).await.map_err(|cause| match cause.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning { data: self.data.clone() }
                }
                io::ErrorKind::PermissionDenied => ClientError::NotPermitted { data: self.data.clone() },
                _ => ClientError::broken(&cause),
            })?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = target.as_str().parse().map_err(ClientError::unexpected)?;
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        if let Some(content_type) = content_type {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ClientError::broken(&error))?;
        // Ends by itself when the response was read or dropped; what goes wrong shows there.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| ClientError::broken(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn encoded(body: &impl Serialize) -> Result<Body, ClientError> {
    let bytes = serde_json::to_vec(body).map_err(ClientError::unexpected)?;
    Ok(Full::from(bytes).map_err(|never| match never {}).boxed_unsync())
}

async fn refusal(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    match whole(response).await {
        Ok(bytes) => ClientError::Problem(Box::new(problem(status, &bytes))),
        Err(error) => error,
    }
}

fn problem(status: StatusCode, body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| Problem::of_status(status, ""))
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    match Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ClientError::unexpected("it is too long"))
        }
        Err(error) => Err(ClientError::broken(&*error)),
    }
}

async fn json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let bytes = whole(response).await?;
    let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
    serde_json::from_slice(text).map_err(ClientError::unexpected)
}

fn pieces(response: Response<Incoming>) -> BoxStream<'static, Result<Bytes, ClientError>> {
    response.into_body().into_data_stream().map_err(|error| ClientError::broken(&error)).boxed()
}

/// Splits pieces at newlines, however they were cut. Ends after the first error.
fn lines<T>(
    pieces: BoxStream<'static, Result<Bytes, ClientError>>,
) -> BoxStream<'static, Result<T, ClientError>>
where
    T: DeserializeOwned + Send + 'static,
{
    stream::unfold(Some((pieces, BytesMut::new())), |state| async {
        let (mut pieces, mut buffer) = state?;
        match next_line(&mut pieces, &mut buffer).await {
            Ok(None) => None,
            Ok(Some(line)) => match serde_json::from_slice(&line) {
                Ok(value) => Some((Ok(value), Some((pieces, buffer)))),
                Err(error) => Some((Err(ClientError::unexpected(error)), None)),
            },
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

async fn next_line(
    pieces: &mut BoxStream<'static, Result<Bytes, ClientError>>,
    buffer: &mut BytesMut,
) -> Result<Option<BytesMut>, ClientError> {
    let mut searched = 0;
    loop {
        if let Some(end) = buffer[searched..].iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(searched + end + 1);
            searched = 0;
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
            continue;
        }
        searched = buffer.len();
        if searched > MAX_LINE_BYTES {
            return Err(ClientError::unexpected("a line of it is too long"));
        }
        match pieces.next().await {
            Some(piece) => buffer.extend_from_slice(&piece?),
            None if buffer.trim_ascii().is_empty() => return Ok(None),
            None => return Ok(Some(std::mem::take(buffer))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(chunks: Vec<Bytes>) -> Vec<Result<u32, ClientError>> {
        let lines = lines(stream::iter(chunks.into_iter().map(Ok)).boxed());
        futures::executor::block_on(lines.collect())
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_stream_is_cut(
            values in prop::collection::vec(any::<u32>(), 0..20),
            size in 1_usize..9,
            ended in any::<bool>(),
        ) {
            let mut text = values.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            if ended { text.push('\n'); }
            let chunks = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let read: Vec<u32> = read(chunks).into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn a_target_holds_any_name_and_stays_one_path(name in any::<String>()) {
            let target = Target::new("/files").segment(&name).query("q", &name);
            let uri: hyper::Uri = target.as_str().parse().unwrap();
            prop_assert_eq!(uri.path().matches('/').count(), 2);
            let query = uri.query().unwrap().strip_prefix("q=").unwrap();
            let decoded = percent_encoding::percent_decode_str(query).decode_utf8().unwrap();
            prop_assert_eq!(decoded, name);
        }
    }

    #[test]
    fn a_senseless_line_ends_the_stream() {
        let read = read(vec![Bytes::from_static(b"1\nx\n2\n")]);
        assert_eq!(read.len(), 2);
        assert!(matches!(read[1], Err(ClientError::Unexpected { .. })));
    }

    #[test]
    fn an_endless_line_is_given_up() {
        let piece = Bytes::from(vec![b'1'; 64 * 1024]);
        let read = read(vec![piece; 64]);
        assert!(matches!(&read[..], [Err(ClientError::Unexpected { .. })]));
    }
}
