//! What nodes, strangers and other super-peers ask of this super-peer, and its answers.
//!
//! Questions that memory can answer are answered in the loop; those that need the database run in tasks of their own,
//! whose number the network layer bounds per peer.

use std::{sync::Arc, time::Instant};

use quarta_metrics::superpeer::{PublicationOutcome, Query, QueryOutcome};
use quarta_protocols::{
    cbor,
    credentials::Membership,
    limits::{MEMBER_PAGE_ENTRIES, PAGE_FILL_BYTES, QUERY_MAX_BYTES, RECORD_PAGE_ENTRIES},
    messages::{
        admission::{self, Admission},
        index::{Index, ListedFile, Publication, Refusal, Request, Response},
    },
    names::{FILE_NAME_MAX_BYTES, MEMBER_NAME_MAX_BYTES, MemberName},
    network::Asked,
};

use super::{Shared, holding, joining, renewing};
use crate::{
    admission::{Redemption, Renewal},
    balancing,
    catalog::{Catalog, CatalogError, FilePage, Published, StoredFile, Viewer},
    health::Input,
    store::StoreError,
};

/// Files in one page of an answer: a screenful and more, in a few hundred kilobytes.
const PAGE_FILES: u32 = 200;

/// Answers a member's question.
pub(super) fn index(shared: &Arc<Shared>, asked: Asked<Index>) {
    let Some(membership) = asked.membership else { return };
    let responder = asked.responder;
    match asked.request {
        Request::Register { page, load, addresses } => {
            responder.respond(shared.register(&membership, page, load, addresses));
        }
        Request::Report { content, outcomes } => {
            shared.report(&membership, content, &outcomes);
            responder.respond(Response::Noted);
        }
        Request::Presence { online } => {
            let peer = membership.peer;
            shared.feed(if online { Input::SignedOn(peer) } else { Input::SignedOff(peer) });
            responder.respond(Response::Noted);
        }
        Request::Unreachable { peer } => {
            shared.feed(Input::ReportedUnreachable(peer));
            responder.respond(Response::Noted);
        }
        request => {
            let shared = shared.clone();
            tokio::spawn(async move { responder.respond(from_database(&shared, membership, request).await) });
        }
    }
}

async fn from_database(shared: &Arc<Shared>, membership: Membership, request: Request) -> Response {
    let started = Instant::now();
    let viewer = Viewer::Member(membership.peer);
    match request {
        Request::Publish(records) => publish(shared, membership, records).await,
        Request::Search { query, owner, after, limit } => {
            if query.len() > QUERY_MAX_BYTES {
                shared.metrics.superpeer.queries.inc((Query::Search, QueryOutcome::Refused));
                return Response::Refused(Refusal::TooLong);
            }
            let kind = if query.is_empty() { Query::List } else { Query::Search };
            let limit = limit.clamp(1, PAGE_FILES);
            let found = shared
                .store
                .read(move |reader| {
                    let owner = match &owner {
                        None => None,
                        Some(name) => match reader.member_by_name(name)? {
                            Some(member) => Some(member.peer),
                            None => return Ok(FilePage::default()),
                        },
                    };
                    reader.search(viewer, &query, owner, after.as_ref(), limit)
                })
                .await;
            answer_files(shared, kind, started, found.map(|page| (page.files, page.next)))
        }
        Request::Resolve { reference } => {
            if reference.len() > FILE_NAME_MAX_BYTES + MEMBER_NAME_MAX_BYTES + 1 {
                return Response::Refused(Refusal::TooLong);
            }
            let found = shared.store.read(move |reader| reader.resolve(viewer, &reference)).await;
            answer_files(shared, Query::Search, started, found.map(|files| (files, None)))
        }
        Request::Members { after } => members(shared, after, started).await,
        Request::PublishKeys { audiences, wraps } => {
            let wall_ms = super::wall_ms();
            let publish =
                move |catalog: &mut Catalog| catalog.publish_keys(&membership, audiences, wraps, wall_ms);
            published(shared, shared.store.write(publish).await).await
        }
        Request::Holders { file } => holding::of_file(shared, viewer, file, started).await,
        Request::Locate { content, wanted_bytes, except } => {
            let request =
                balancing::Request { asker: membership.peer, content, wanted_bytes, except: &except };
            locate(shared, &request, started).await
        }
        Request::Register { .. }
        | Request::Report { .. }
        | Request::Presence { .. }
        | Request::Unreachable { .. } => Response::Refused(Refusal::Busy),
    }
}

async fn publish(
    shared: &Arc<Shared>,
    membership: Membership,
    records: Vec<quarta_protocols::records::SignedRecord>,
) -> Response {
    let wall_ms = super::wall_ms();
    let stored = shared.store.write(move |catalog| catalog.publish(&membership, records, wall_ms)).await;
    published(shared, stored).await
}

/// Does what follows from a publication, and answers it.
async fn published(
    shared: &Arc<Shared>,
    stored: Result<Result<Vec<Published>, CatalogError>, StoreError>,
) -> Response {
    match stored {
        Ok(Ok(published)) => {
            for item in &published {
                shared.metrics.superpeer.publications.inc(match &item.outcome {
                    Publication::Stored => PublicationOutcome::Stored,
                    Publication::Known => PublicationOutcome::Known,
                    Publication::Superseded => PublicationOutcome::Superseded,
                    Publication::Invalid(_) | Publication::TooMany => PublicationOutcome::Refused,
                });
                shared.push(&item.entries);
            }
            let applied: Vec<_> = published.iter().filter_map(|item| item.applied.clone()).collect();
            shared.apply(&applied).await;
            Response::Published(published.into_iter().map(|item| item.outcome).collect())
        }
        Ok(Err(error)) => unavailable("storing records", &error),
        Err(error) => unavailable("storing records", &error),
    }
}

/// Names sources of a content that is some file's present one. What was replaced or withdrawn is nobody's to fetch any
/// more, whoever still holds it. Who may read it is not asked: sealed bytes may be kept by those who cannot open them.
async fn locate(shared: &Shared, request: &balancing::Request<'_>, started: Instant) -> Response {
    let content = request.content;
    match shared.store.read(move |reader| reader.is_current(&content)).await {
        Ok(current) => {
            let sources = if current { shared.locate(request) } else { Vec::new() };
            shared.queried(Query::Locate, started, sources.len());
            Response::Sources(sources)
        }
        Err(error) => unavailable("looking for sources", &error),
    }
}

type Found = Result<(Vec<StoredFile>, Option<quarta_protocols::messages::index::Cursor>), StoreError>;

/// Adds who holds the files, as far as they fit one message.
fn answer_files(shared: &Shared, query: Query, started: Instant, found: Found) -> Response {
    let (stored, mut next) = match found {
        Ok(found) => found,
        Err(error) => return unavailable("searching", &error),
    };
    let mut files: Vec<ListedFile> = Vec::with_capacity(stored.len().min(RECORD_PAGE_ENTRIES));
    let mut bytes = 0;
    for file in stored {
        bytes += cbor::to_vec(&file.record).len() + 128;
        if bytes > PAGE_FILL_BYTES && !files.is_empty() {
            next = files.last().and_then(super::place_of);
            break;
        }
        let holders = file
            .record
            .peek()
            .ok()
            .and_then(|body| super::content_of(&body))
            .map_or(0, |content| shared.available_holders(&content));
        files.push(ListedFile { record: file.record, owner: file.owner_name, holders });
    }
    shared.queried(query, started, files.len());
    Response::Files { files, next }
}

async fn members(shared: &Shared, after: Option<MemberName>, started: Instant) -> Response {
    // A member with many addresses takes about a kilobyte.
    let limit = MEMBER_PAGE_ENTRIES.min(PAGE_FILL_BYTES / 2048);
    match shared.store.read(move |reader| reader.members(after.as_ref(), limit)).await {
        Ok(page) => {
            let members = page.members.into_iter().map(|member| shared.describe(member)).collect::<Vec<_>>();
            shared.queried(Query::List, started, members.len());
            Response::Members { members, next: page.next }
        }
        Err(error) => unavailable("listing members", &error),
    }
}

pub(super) fn unavailable(what: &'static str, error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "{what} failed");
    Response::Refused(Refusal::Unavailable)
}

/// Answers whoever wants to join.
pub(super) fn admission(shared: &Arc<Shared>, asked: Asked<Admission>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let response = match asked.request {
            admission::Request::Discover => admission::Response::Superpeers(shared.superpeers().await),
            admission::Request::Redeem { secret, name, sealing_key } => {
                let redemption = Redemption { peer: asked.peer, secret: *secret, name, sealing_key };
                joining::redeem(&shared, redemption, &asked.remote).await
            }
            admission::Request::Renew { credential, sealing_key } => {
                let renewal = Renewal { peer: asked.peer, credential, sealing_key };
                renewing::renew(&shared, renewal, &asked.remote).await
            }
            admission::Request::Leave(departure) => {
                renewing::leave(&shared, departure, asked.peer, &asked.remote).await
            }
        };
        asked.responder.respond(response);
    });
}
