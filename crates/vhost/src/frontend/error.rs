//! What can go wrong between a front-end and its back-end.

use std::io;
use std::time::Duration;

use eal::unix::SocketError;
use virtio::Features;

use crate::connection::ConnectionError;

/// Why a session cannot start or go on. After any of these but the first three the session is over.
#[derive(Debug, thiserror::Error)]
pub enum FrontendError {
    /// The socket cannot be used.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// There is no back-end to connect to at the moment.
    #[error("{0}; is the back-end running?")]
    NoBackend(SocketError),
    /// A back-end that wants to connect cannot be let in.
    #[error("{socket}: cannot accept a connection: {source}")]
    Accept {
        /// The socket's path.
        socket: String,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke.
    #[error("{socket}: {request}: {source}")]
    Connection {
        /// The socket's path.
        socket: String,
        /// The message at hand.
        request: &'static str,
        /// What happened.
        source: ConnectionError,
    },
    /// The back-end is too slow, or hangs.
    #[error("{socket}: {request}: no answer from the back-end within {after:?}")]
    Timeout {
        /// The socket's path.
        socket: String,
        /// The message at hand.
        request: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// The caller wants no answer any more.
    #[error("{socket}: {request}: cancelled")]
    Cancelled {
        /// The socket's path.
        socket: String,
        /// The message at hand.
        request: &'static str,
    },
    /// The back-end did not do what it was told.
    #[error("{socket}: the back-end refuses {request} (code {code})")]
    Refused {
        /// The socket's path.
        socket: String,
        /// The message at hand.
        request: &'static str,
        /// What the back-end says, which means nothing but "not 0".
        code: u64,
    },
    /// The back-end sent something else than the reply.
    #[error("{socket}: {request}: expected {expected}, the back-end sent {got}")]
    Reply {
        /// The socket's path.
        socket: String,
        /// The message at hand.
        request: &'static str,
        /// What should have come.
        expected: String,
        /// What came.
        got: String,
    },
    /// The back-end does not accept a set of features.
    #[error("{socket}: the back-end does not accept the features {features:?}")]
    Features {
        /// The socket's path.
        socket: String,
        /// What was set.
        features: Features,
    },
    /// A back-end that lacks something indispensable.
    #[error("{socket}: the back-end offers {offered:?}, which lacks {missing}")]
    Missing {
        /// The socket's path.
        socket: String,
        /// What it offers.
        offered: Features,
        /// What is needed, and for what.
        missing: &'static str,
    },
    /// More memory regions than the back-end takes.
    #[error("{socket}: {count} memory regions, the back-end takes {most}")]
    Regions {
        /// The socket's path.
        socket: String,
        /// Regions to share.
        count: usize,
        /// What the back-end takes.
        most: u64,
    },
}
