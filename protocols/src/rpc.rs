//! What makes a control protocol: its name, its messages, its size caps and its time.
//!
//! Every control exchange is one CBOR request and one CBOR response. [`crate::network`] carries them over libp2p
//! request-response; the codec is the same for all, so that a protocol is these few lines and its message types.

use std::{fmt, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

/// A control protocol.
pub trait Protocol: fmt::Debug + Clone + Copy + Send + Sync + Unpin + 'static {
    /// The protocol's part of its libp2p name: `/quarta/<network>/<NAME>/<VERSION>`.
    const NAME: &'static str;
    /// Counts incompatible changes.
    const VERSION: u32 = 1;
    /// The largest encoded request, in bytes.
    const MAX_REQUEST_BYTES: usize;
    /// The largest encoded response, in bytes.
    const MAX_RESPONSE_BYTES: usize;
    /// How long an exchange may take from opening its stream to the end of the response.
    const TIMEOUT: Duration;

    /// What is asked.
    type Request: Serialize + DeserializeOwned + fmt::Debug + Send + 'static;
    /// What is answered.
    type Response: Serialize + DeserializeOwned + fmt::Debug + Send + 'static;
}
