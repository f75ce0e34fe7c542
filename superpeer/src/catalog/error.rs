//! Why the catalog could not be opened, read or written.

use std::io;

use quarta_protocols::ids::NetworkId;
use rusqlite::ErrorCode;

/// Why the catalog could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The database's file could not be created or made private.
    #[error("cannot prepare the catalog's file: {0}")]
    File(#[source] io::Error),
    /// The file is a database of something else.
    #[error("the file is not a Quarta catalog; choose another data folder")]
    NotACatalog,
    /// A newer Quarta wrote it.
    #[error(
        "the catalog has format {found}, this version knows formats up to {known}; run the newer version that wrote it"
    )]
    Newer {
        /// The file's format.
        found: u32,
        /// The newest format of this program.
        known: u32,
    },
    /// It belongs to another network.
    #[error("the catalog belongs to the network {found}, not to {expected}; choose another data folder")]
    OtherNetwork {
        /// Whose it is.
        found: NetworkId,
        /// Who opens it.
        expected: NetworkId,
    },
    /// What is stored is not what was written.
    #[error(
        "the catalog is damaged ({0}); set it aside and start again: the other super-peers and nodes fill a new one"
    )]
    Damaged(String),
    /// The database could not carry out the operation: full disk, I/O error, locked. Nothing of the operation stands.
    #[error("the catalog's database failed: {0}")]
    Unavailable(#[source] rusqlite::Error),
}

impl CatalogError {
    /// A stored value that its type does not allow.
    pub(crate) fn damaged(what: impl ToString) -> Self {
        Self::Damaged(what.to_string())
    }
}

impl From<rusqlite::Error> for CatalogError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as Sql;
        match &error {
            Sql::FromSqlConversionFailure(..)
            | Sql::IntegralValueOutOfRange(..)
            | Sql::InvalidColumnType(..) => Self::damaged(error),
            _ if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ) =>
            {
                Self::damaged(error)
            }
            _ => Self::Unavailable(error),
        }
    }
}
