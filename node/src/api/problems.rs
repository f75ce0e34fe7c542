//! Errors of the service as problems.

use axum::http::StatusCode;
use quarta_daemon::http::Problem;

use crate::service::{fetching::BeginError, listing::FindError};

/// Why a reference names no file.
pub(super) fn unfound(error: FindError) -> Problem {
    match &error {
        FindError::NotFound(_) => Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-file",
            error.to_string(),
            "run `quarta ls` to see what there is",
        ),
        FindError::Ambiguous { .. } => Problem::new(
            StatusCode::CONFLICT,
            "ambiguous-file",
            error.to_string(),
            "name one as owner:name or by its id",
        ),
        FindError::NotHere(_) => {
            Problem::new(StatusCode::NOT_FOUND, "not-here", error.to_string(), "fetch it with `quarta get`")
        }
        FindError::Unanswered(error) => unanswered(error),
        FindError::Database(_) => broken(&error),
    }
}

/// Why a fetch does not begin.
pub(super) fn unbegun(error: BeginError) -> Problem {
    match error {
        BeginError::NotReadable => {
            Problem::new(StatusCode::FORBIDDEN, "not-readable", error.to_string(), "ask its owner for access")
        }
        BeginError::Deleted => Problem::new(
            StatusCode::NOT_FOUND,
            "deleted",
            error.to_string(),
            "run `quarta ls` to see what there is",
        ),
        BeginError::Busy => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            error.to_string(),
            "wait until one of them has ended; `quarta transfers` shows them",
        ),
        BeginError::Database(_) => broken(&error),
    }
}

/// No super-peer gave an answer.
fn unanswered(error: &dyn std::error::Error) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "no-superpeer",
        error.to_string(),
        "run `quarta status` to see which super-peers are reachable, and try again",
    )
}

/// The node's own database or disk fails.
pub(super) fn broken(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "the database failed");
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "database-unavailable",
        error.to_string(),
        "see the node's log and check its disk",
    )
}
