//! The payload of SET_DEVICE_STATE_FD ("Device state transfer parameters"), and its reply.

use super::Payload;
use super::payload::PayloadBuf;

/// Which way a device's state is to go, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateTransfer {
    /// [`SAVE`](Self::SAVE) or [`LOAD`](Self::LOAD).
    pub direction: u32,
    /// What guest and device do meanwhile: [`STOPPED`](Self::STOPPED).
    pub phase: u32,
}

impl StateTransfer {
    /// From the back-end to the front-end, where the guest leaves.
    pub const SAVE: u32 = 0;
    /// From the front-end to the back-end, where it arrives.
    pub const LOAD: u32 = 1;
    /// The guest and all rings are stopped.
    pub const STOPPED: u32 = 0;

    /// In the reply: no descriptor comes with it, and the front-end's is used.
    pub const NO_FILE: u64 = 1 << 8;
    /// In the reply: what says why the transfer cannot be.
    pub const ERROR: u64 = 0xff;
}

impl Payload for StateTransfer {
    const SIZE: usize = 8;

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { direction: u32::take(bytes)?, phase: u32::take(bytes)? })
    }

    fn put(&self, out: &mut PayloadBuf) {
        self.direction.put(out);
        self.phase.put(out);
    }
}
