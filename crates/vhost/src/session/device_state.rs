//! Moving the state of the device to another back-end (SET_DEVICE_STATE_FD, CHECK_DEVICE_STATE;
//! chapter "Migrating back-end state").
//!
//! The front-end sends a file to move it over, which may be anything, and which whoever has the
//! other end of can make us wait for. So it is not used: the protocol lets the back-end answer
//! with a file of its own, and ours is memory. A state that is saved is in there before the
//! front-end has the file, and one that is loaded was written when we are asked whether it arrived.

use std::io;
use std::os::fd::OwnedFd;

use super::{Device, Reply, Session, SessionError};
use crate::protocol::{FrontendRequest, StateTransfer};

/// Bytes of the largest state that is taken: many times those of any network device.
const MAX_STATE: usize = 1 << 16;

/// A transfer that the front-end has begun.
#[derive(Debug)]
pub(super) enum Transfer {
    /// All of the state is in the front-end's hands.
    Saved,
    /// The front-end writes into this file.
    Loading(OwnedFd),
}

impl Session {
    /// Begins to move the state.
    pub(super) fn begin_transfer(
        &mut self,
        device: &Device,
        transfer: StateTransfer,
    ) -> Result<Reply, SessionError> {
        let request = FrontendRequest::SetDeviceStateFd.name();
        let wrong = |what, value: u32, expected| {
            Err(SessionError::Value { request, what, value: value.into(), expected })
        };
        self.transfer = None;
        if transfer.phase != StateTransfer::STOPPED {
            return wrong("the phase", transfer.phase, "0, with everything stopped");
        }
        self.check_stopped(request)?;
        let failed = |source| SessionError::State { request, source };
        match transfer.direction {
            StateTransfer::SAVE => {
                let state = device.backend.save_state();
                let state = state.map_err(|source| SessionError::Backend { request, source })?;
                self.attached = Some(file_with(&state).map_err(failed)?);
                self.transfer = Some(Transfer::Saved);
            }
            StateTransfer::LOAD => {
                let file = file_for(MAX_STATE).map_err(failed)?;
                self.attached = Some(file.try_clone().map_err(failed)?);
                self.transfer = Some(Transfer::Loading(file));
            }
            other => return wrong("the direction", other, "0 to save or 1 to load"),
        }
        Ok(Reply::U64(0))
    }

    /// Ends the transfer: has the device take over what has arrived.
    pub(super) fn check_transfer(&mut self, device: &mut Device) -> Result<Reply, SessionError> {
        let request = FrontendRequest::CheckDeviceState.name();
        match self.transfer.take() {
            None => {
                let feature = "SET_DEVICE_STATE_FD, which comes before it,";
                return Err(SessionError::NotNegotiated { request, feature });
            }
            Some(Transfer::Saved) => {}
            Some(Transfer::Loading(file)) => {
                self.check_stopped(request)?;
                let failed = |source| SessionError::State { request, source };
                let state = read_all(&file).map_err(failed)?;
                let loaded = device.backend.load_state(&state);
                loaded.map_err(|source| SessionError::Backend { request, source })?;
            }
        }
        Ok(Reply::U64(0))
    }
}

fn file_for(bytes: usize) -> io::Result<OwnedFd> {
    eal::mem::memory_file(c"ringway-state", bytes as u64)
}

/// A file of these bytes, which is read from its beginning.
fn file_with(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = file_for(bytes.len())?;
    let written = rustix::io::pwrite(&file, bytes, 0)?;
    if written < bytes.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(file) }
}

/// What was written to a file of ours, and zeroes.
fn read_all(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; MAX_STATE];
    let read = rustix::io::pread(file, bytes.as_mut_slice(), 0)?;
    bytes.truncate(read);
    Ok(bytes)
}
