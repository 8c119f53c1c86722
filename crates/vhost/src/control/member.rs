//! What the control thread serves.

use std::fmt;
use std::path::Path;
use std::time::Instant;

/// A device with the files that its other side talks over. All methods are called on the control
/// thread and must not wait for a peer.
pub(super) trait Member: Send {
    /// The path of its socket or device file, for log lines.
    fn path(&self) -> &Path;

    /// When [`on_deadline`](Self::on_deadline) is due, if ever.
    fn deadline(&self) -> Option<Instant>;

    /// Does what is due.
    fn on_deadline(&mut self, now: Instant);

    /// Somebody waits at its listening socket.
    fn on_listener(&mut self, now: Instant);

    /// There is something to read from its other side, or to write to it.
    fn on_connection(&mut self, now: Instant);

    /// There is something to read from its other side's channel for messages of the back-end, or
    /// to write to it.
    fn on_channel(&mut self) {}

    /// A file that is watched under `token` is readable.
    fn on_watch(&mut self, token: u16, now: Instant);

    /// Stops everything: the other side is let go of.
    fn close(&mut self, now: Instant);
}

impl fmt::Debug for dyn Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Member(..)")
    }
}
