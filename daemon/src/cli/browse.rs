//! The command `browse`, which both services have.

use super::{During, Failure, Output};
use crate::client::Client;
use crate::http::LoginLink;

/// Prints a link that lets one browser in. It is not opened here: the browser may well be on another screen than the
/// one where the command runs, and a link among a program's arguments could be seen by others.
///
/// # Errors
/// A [`Failure`] where the daemon gives none.
pub async fn browse(client: &Client, output: &mut Output) -> Result<(), Failure> {
    let link: LoginLink =
        client.post("/api/v1/local/login", &()).await.during("cannot make a link for a browser")?;
    output.line(&link, &link.url)
}
