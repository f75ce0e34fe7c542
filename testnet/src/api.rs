//! Asking members' daemons, with the types of their own APIs.
//!
//! Everything goes over the socket in the member's data folder, as commands do, except `scrape`, which goes over TCP
//! with the bearer token, as Prometheus does. Listings are read to their last page.

use crate::cluster::ClusterError;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST};
use hyper_util::rt::TokioIo;
use quarta_daemon::client::{Client, ClientError, MAX_RESPONSE_BYTES, Target};
use quarta_node::api::model as node;
use quarta_superpeer::api::model as superpeer;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a scrape may take, as Prometheus has it by default.
const SCRAPE_DEADLINE: Duration = Duration::from_secs(10);

/// A fetch's events as they come; the last is `Done` or `Failed`.
pub type Fetch = BoxStream<'static, Result<node::FetchEvent, ClusterError>>;

/// Asks a node.
#[derive(Debug, Clone)]
pub struct NodeApi {
    member: String,
    client: Client,
}

impl NodeApi {
    pub(crate) fn new(member: &str, client: Client) -> Self {
        Self { member: member.to_owned(), client }
    }

    /// The node's name.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// How it is.
    ///
    /// # Errors
    /// [`ClusterError::Request`], as all of this type's methods.
    pub async fn status(&self) -> Result<node::Status, ClusterError> {
        self.client.get("/api/v1/status").await.map_err(|cause| self.request(cause))
    }

    /// The files whose names match, all for an empty query.
    ///
    /// # Errors
    /// As [`NodeApi::status`].
    pub async fn files(&self, query: &str) -> Result<Vec<node::File>, ClusterError> {
        let target = Target::new("/api/v1/files").query("query", query);
        let files = self.client.get_all(target, |page: node::FilePage| (page.files, page.next));
        files.await.map_err(|cause| self.request(cause))
    }

    /// The members as it hears of them.
    ///
    /// # Errors
    /// As [`NodeApi::status`].
    pub async fn members(&self) -> Result<Vec<node::Member>, ClusterError> {
        let members =
            self.client.get_all("/api/v1/members", |page: node::MemberPage| (page.members, page.next));
        members.await.map_err(|cause| self.request(cause))
    }

    /// Its transfers.
    ///
    /// # Errors
    /// As [`NodeApi::status`].
    pub async fn transfers(&self) -> Result<Vec<node::Transfer>, ClusterError> {
        let transfers =
            self.client.get_all("/api/v1/transfers", |page: node::TransferPage| (page.transfers, page.next));
        transfers.await.map_err(|cause| self.request(cause))
    }

    /// One of its transfers, by its number or as the latest of a file.
    ///
    /// # Errors
    /// As [`NodeApi::status`].
    pub async fn transfer(&self, transfer: &str) -> Result<node::Transfer, ClusterError> {
        let target = Target::new("/api/v1/transfers").segment(transfer);
        self.client.get(target).await.map_err(|cause| self.request(cause))
    }

    /// Pauses or resumes one of its transfers: `how` is `pause` or `resume`.
    ///
    /// # Errors
    /// As [`NodeApi::status`].
    pub async fn steer(&self, transfer: &str, how: &str) -> Result<node::Transfer, ClusterError> {
        let target = Target::new("/api/v1/transfers").segment(transfer).segment(how);
        self.client.post(target, &serde_json::json!({})).await.map_err(|cause| self.request(cause))
    }

    /// Shares the file at `path` under `name`, or under its own, and waits until it is shared.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] when the node will not share it; otherwise as [`NodeApi::status`].
    pub async fn add(&self, path: &Path, name: Option<String>) -> Result<node::File, ClusterError> {
        let mut added = self.add_all(path, name).await?;
        added.pop().ok_or_else(|| {
            let why = "it answered nothing".to_owned();
            self.refused(format!("cannot share {}", path.display()), why, "see its log".to_owned())
        })
    }

    /// Shares the files in a folder under their paths within it, and waits until all are shared.
    ///
    /// # Errors
    /// As [`NodeApi::add`], with the first file that the node will not share.
    pub async fn add_folder(&self, folder: &Path) -> Result<Vec<node::File>, ClusterError> {
        self.add_all(folder, None).await
    }

    async fn add_all(&self, path: &Path, name: Option<String>) -> Result<Vec<node::File>, ClusterError> {
        let paths = vec![path.to_string_lossy().into_owned()];
        let request = node::AddRequest { paths, name, in_place: false, hide_from: Vec::new(), only: None };
        let mut events = self
            .client
            .post_lines::<node::AddEvent>("/api/v1/local/add", &request)
            .await
            .map_err(|cause| self.request(cause))?;
        let mut added = Vec::new();
        while let Some(event) = events.try_next().await.map_err(|cause| self.request(cause))? {
            match event {
                node::AddEvent::Progress { .. } => {}
                node::AddEvent::Added { file, .. } => added.push(file),
                node::AddEvent::Failed { path, why, next_step } => {
                    return Err(self.refused(format!("cannot share {path}"), why, next_step));
                }
            }
        }
        Ok(added)
    }

    /// Starts to fetch the file with id `file`.
    ///
    /// # Errors
    /// As [`NodeApi::status`], also as the stream's last item.
    pub async fn fetch(&self, file: &str) -> Result<Fetch, ClusterError> {
        let target = Target::new("/api/v1/files").segment(file).segment("fetch");
        let events = self
            .client
            .post_lines::<node::FetchEvent>(target, &serde_json::json!({}))
            .await
            .map_err(|cause| self.request(cause))?;
        let api = self.clone();
        Ok(events.map_err(move |cause| api.request(cause)).boxed())
    }

    /// Fetches the file with id `file` to its end.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] when it cannot be fetched; otherwise as [`NodeApi::status`].
    pub async fn fetched(&self, file: &str) -> Result<node::Transfer, ClusterError> {
        let mut events = self.fetch(file).await?;
        while let Some(event) = events.try_next().await? {
            if let Some(ended) = self.ended(event) {
                return ended;
            }
        }
        Err(self.broke_off(file))
    }

    /// What a fetch's event says about its end; none while it goes on.
    pub fn ended(&self, event: node::FetchEvent) -> Option<Result<node::Transfer, ClusterError>> {
        match event {
            node::FetchEvent::Progress(_) => None,
            node::FetchEvent::Done(transfer) => Some(Ok(transfer)),
            node::FetchEvent::Failed { transfer, why, next_step } => {
                Some(Err(self.refused(format!("cannot fetch {}", transfer.name), why, next_step)))
            }
        }
    }

    /// The error of a fetch whose events ended before it did.
    pub fn broke_off(&self, file: &str) -> ClusterError {
        let why = "its answer broke off".to_owned();
        self.refused(format!("cannot fetch {file}"), why, "see its log".to_owned())
    }

    fn request(&self, cause: ClientError) -> ClusterError {
        ClusterError::Request { member: self.member.clone(), cause }
    }

    fn refused(&self, what: String, why: String, next_step: String) -> ClusterError {
        ClusterError::Refused { member: self.member.clone(), what, why, next_step }
    }
}

/// Asks a super-peer.
#[derive(Debug, Clone)]
pub struct SuperpeerApi {
    member: String,
    client: Client,
}

impl SuperpeerApi {
    pub(crate) fn new(member: &str, client: Client) -> Self {
        Self { member: member.to_owned(), client }
    }

    /// The super-peer's name.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// How it is.
    ///
    /// # Errors
    /// [`ClusterError::Request`], as all of this type's methods.
    pub async fn status(&self) -> Result<superpeer::Status, ClusterError> {
        self.client.get("/api/v1/status").await.map_err(|cause| self.request(cause))
    }

    /// All members.
    ///
    /// # Errors
    /// As [`SuperpeerApi::status`].
    pub async fn members(&self) -> Result<Vec<superpeer::Member>, ClusterError> {
        let members =
            self.client.get_all("/api/v1/members", |page: superpeer::MemberPage| (page.members, page.next));
        members.await.map_err(|cause| self.request(cause))
    }

    /// The catalog.
    ///
    /// # Errors
    /// As [`SuperpeerApi::status`].
    pub async fn files(&self) -> Result<Vec<superpeer::File>, ClusterError> {
        let files = self.client.get_all("/api/v1/files", |page: superpeer::FilePage| (page.files, page.next));
        files.await.map_err(|cause| self.request(cause))
    }

    /// The list that a node was polled for.
    ///
    /// # Errors
    /// As [`SuperpeerApi::status`].
    pub async fn held(&self, member: &str) -> Result<Vec<superpeer::Held>, ClusterError> {
        let target = Target::new("/api/v1/members").segment(member).segment("files");
        let entries = self.client.get_all(target, |page: superpeer::HeldPage| (page.entries, page.next));
        entries.await.map_err(|cause| self.request(cause))
    }

    /// Issues an invite.
    ///
    /// # Errors
    /// As [`SuperpeerApi::status`].
    pub async fn invite(
        &self,
        role: &str,
        uses: u32,
        expires_in: Duration,
    ) -> Result<superpeer::Invite, ClusterError> {
        let expires_in_seconds = expires_in.as_secs();
        let request =
            superpeer::InviteRequest { role: role.to_owned(), uses, expires_in_seconds, replaces: None };
        self.client.post("/api/v1/invites", &request).await.map_err(|cause| self.request(cause))
    }

    fn request(&self, cause: ClientError) -> ClusterError {
        ClusterError::Request { member: self.member.clone(), cause }
    }
}

/// Gets `path` from a member's TCP address with its bearer token; anything but success is an error in words.
pub(crate) async fn scrape(address: SocketAddr, path: &str, token: &str) -> Result<String, String> {
    let exchange = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        // Ends by itself with the answer; what goes wrong shows there.
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(HOST, address.to_string())
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES)
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        if status.is_success() {
            Ok(String::from_utf8_lossy(&body).into_owned())
        } else {
            Err(format!("it answered {status}"))
        }
    };
    tokio::time::timeout(SCRAPE_DEADLINE, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", SCRAPE_DEADLINE.as_secs())))
}
