//! What people are told of a fetch that did not end with its file.

use crate::{download::fetch::FetchError, landing::LandingError};

/// Why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) why: String,
    pub(super) next_step: String,
}

impl Told {
    pub(super) fn new(why: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { why: why.into(), next_step: next_step.into() }
    }
}

/// What did not work.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The fetch itself.
    Fetch(FetchError<LandingError>),
    /// Noting in the database the file that had arrived.
    Note(String),
}

const ASK_OWNER: &str = "ask the owner to add the file anew";

/// What a failure is called.
pub(super) fn failed(trouble: &Trouble) -> Told {
    let again = "run the command again";
    match trouble {
        Trouble::Note(why) => Told::new(
            format!("the file arrived and could not be noted in the database: {why}"),
            "make room or check the disk, and run the command again: nothing is fetched twice",
        ),
        Trouble::Fetch(error) => match error {
            FetchError::NoSources => Told::new(
                error.to_string(),
                "wait until a branch that holds it is back; `quarta members` shows who is there",
            ),
            FetchError::SourcesExhausted { .. } | FetchError::Cancelled => {
                Told::new(error.to_string(), again)
            }
            FetchError::WrongRecord | FetchError::WrongChecksum => Told::new(error.to_string(), ASK_OWNER),
            FetchError::Store(LandingError::WrongKey | LandingError::OtherChecksum { .. }) => {
                Told::new("the file is not what its record says", ASK_OWNER)
            }
            FetchError::Store(LandingError::Library(cause)) => {
                // The library's errors end with their own advice.
                let text = cause.to_string();
                let why = text.rsplit_once("; ").map_or(text.as_str(), |(why, _)| why);
                Told::new(
                    why,
                    "make room or check the disk, and run the command again: it goes on where it was",
                )
            }
            FetchError::Store(cause) => {
                let text = cause.to_string();
                let why = text.rsplit_once("; ").map_or(text.as_str(), |(why, _)| why);
                Told::new(
                    why,
                    "make room or check the disk, and run the command again: it goes on where it was",
                )
            }
        },
    }
}

/// What a wait is called.
pub(super) fn waits(trouble: &Trouble) -> Told {
    let why = match trouble {
        Trouble::Fetch(error) => error.to_string(),
        Trouble::Note(why) => why.clone(),
    };
    Told::new(
        why,
        "it goes on by itself once a branch that holds the file is back; `quarta transfers` shows how it stands",
    )
}
