//! The accept loop: a bounded number of connections, each with its timeouts, ended in order.

use super::Limits;
use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower::util::MapRequestLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;

/// Headers of one request in bytes, with the request line. Browsers' cookies and long queries fit several
/// times.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Header fields of one request; browsers send about 20.
const MAX_HEADERS: usize = 64;

/// What hyper may buffer of one connection in each direction, in bytes; it must hold the headers.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// How long to wait after `accept` failed, most often for want of file descriptors, which only time brings
/// back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A source of connections.
pub(super) trait Acceptor {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection. Cancel-safe.
    fn accept_one(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Serves until `stop` is cancelled; then stops accepting and gives open requests `limits.grace` to end.
pub(super) async fn serve<A: Acceptor>(acceptor: A, router: Router, limits: Limits, stop: CancellationToken) {
    let service = ServiceBuilder::new()
        .layer(RequestBodyTimeoutLayer::new(limits.body_pause))
        .layer(MapRequestLayer::new(|request: hyper::Request<_>| request.map(Body::new)))
        .service(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_header_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER_BYTES);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next(&acceptor, &slots) => accepted,
            Some(_) = open.join_next() => continue,
        };
        match accepted {
            Ok((stream, slot)) => {
                let service = TowerToHyperService::new(service.clone());
                let connection = graceful
                    .watch(http.serve_connection::<_, TowerToHyperService<_>>(TokioIo::new(stream), service));
                open.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "an API connection ended early");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept API connections for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // New connections must be refused from here on, not left in a queue that nobody serves.
    drop(acceptor);
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = open.len(), "cutting off API requests that outlast the daemon");
    }
    open.shutdown().await;
}

/// Takes a slot first, so that a connection beyond the limit waits in the kernel and costs nothing here.
async fn next<A: Acceptor>(
    acceptor: &A,
    slots: &Arc<Semaphore>,
) -> io::Result<(A::Stream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    Ok((acceptor.accept_one().await?, slot))
}
