//! The front-end's part in records of chains in flight: it keeps them.

use std::os::fd::AsFd;

use eal::PeerFd;

use super::error::FrontendError;
use super::{Frontend, ReplyFds};
use crate::protocol::{FrontendMessage, InflightRegion, ProtocolError, ProtocolFeatures};

/// A region in which back-ends record chains in flight, one after the other.
#[derive(Debug)]
pub struct InflightFile {
    region: InflightRegion,
    file: PeerFd,
}

impl Frontend {
    /// Has the back-end make a region for records of `rings` rings with `entries` entries each;
    /// `None` from one that keeps no records.
    ///
    /// # Errors
    /// When it does not answer as it must.
    pub fn get_inflight(
        &mut self,
        rings: u16,
        entries: u16,
    ) -> Result<Option<InflightFile>, FrontendError> {
        if !self.protocol.contains(ProtocolFeatures::INFLIGHT_SHMFD) {
            return Ok(None);
        }
        let asked = InflightRegion { size: 0, offset: 0, rings, entries };
        let message = FrontendMessage::GetInflightFd(asked);
        let request = message.request().name();
        let deadline = self.send(&message, false)?;
        let decode = |payload: &[u8], mut fds: ReplyFds| {
            let region = InflightRegion::decode(request, payload)?;
            match (fds.pop(), fds.len()) {
                (Some(file), 0) => Ok(Some(InflightFile { region, file })),
                (None, 0) if region.size == 0 => Ok(None),
                (file, more) => {
                    let got = more + usize::from(file.is_some());
                    Err(ProtocolError::FdCount { request, got, expected: 1 })
                }
            }
        };
        let Some(file) = self.reply_with(&message, deadline, decode)? else { return Ok(None) };
        if (file.region.rings, file.region.entries) != (rings, entries) {
            let InflightRegion { rings: other, entries: others, .. } = file.region;
            return Err(FrontendError::Reply {
                socket: self.socket.clone(),
                request,
                expected: format!("a region for {rings} rings of {entries} entries"),
                got: format!("one for {other} of {others}"),
            });
        }
        Ok(Some(file))
    }

    /// Hands the back-end the region that it, or another one before it, has made. To be called
    /// before the first ring is started.
    ///
    /// # Errors
    /// When it refuses it.
    pub fn set_inflight(&mut self, file: &InflightFile) -> Result<(), FrontendError> {
        self.tell(&FrontendMessage::SetInflightFd(file.region, file.file.as_fd()))
    }
}
