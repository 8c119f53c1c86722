//! What devices with a life of their own need: configuration space, announcements after a
//! migration, and the channel for messages of the back-end.

use std::os::fd::AsFd;

use eal::PeerFd;
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::error::SessionError;
use super::{Device, Reply, Session};
use crate::protocol::{ConfigSpace, FrontendRequest, ProtocolFeatures};

/// The protocol features of this module. Which of them are offered is up to the device.
pub(super) const IMPLEMENTED: ProtocolFeatures = ProtocolFeatures::RARP
    .union(ProtocolFeatures::BACKEND_REQ)
    .union(ProtocolFeatures::CONFIG)
    .union(ProtocolFeatures::BACKEND_SEND_FD)
    .union(ProtocolFeatures::HOST_NOTIFIER);

/// Reads a part of configuration space (GET_CONFIG).
pub(super) fn get_config(device: &Device, mut part: ConfigSpace) -> Result<Reply, SessionError> {
    let request = FrontendRequest::GetConfig.name();
    // Whatever the device leaves alone is not what the front-end sent.
    part.bytes.fill(0);
    let read = device.backend.read_config(part.offset, &mut part.bytes);
    read.map_err(|source| SessionError::Backend { request, source })?;
    Ok(Reply::Config(Box::new(part)))
}

/// Writes a part of configuration space (SET_CONFIG).
pub(super) fn set_config(device: &mut Device, part: &ConfigSpace) -> Result<(), SessionError> {
    let request = FrontendRequest::SetConfig.name();
    if part.flags & !ConfigSpace::MIGRATION != 0 {
        return Err(SessionError::Value {
            request,
            what: "flags",
            value: part.flags.into(),
            expected: "no bit but bit 0",
        });
    }
    let migration = part.flags & ConfigSpace::MIGRATION != 0;
    let written = device.backend.write_config(part.offset, &part.bytes, migration);
    written.map_err(|source| SessionError::Backend { request, source })
}

/// Has the device announce the guest (SEND_RARP): the address is in the first six bytes.
pub(super) fn send_rarp(device: &mut Device, mac: u64) {
    let [a, b, c, d, e, f, ..] = mac.to_ne_bytes();
    device.backend.announce_guest([a, b, c, d, e, f]);
}

impl Session {
    /// Takes another channel (SET_BACKEND_REQ_FD). It will be read from and written to, so it must
    /// be what front-ends send, a Unix stream socket.
    pub(super) fn set_channel(&mut self, fd: PeerFd) -> Result<(), SessionError> {
        let stream = sockopt::socket_type(fd.as_fd()).is_ok_and(|kind| kind == SocketType::STREAM)
            && sockopt::socket_domain(fd.as_fd()).is_ok_and(|domain| domain == AddressFamily::UNIX);
        if !stream {
            return Err(SessionError::NoSocket);
        }
        self.channel = Some(fd);
        Ok(())
    }
}
