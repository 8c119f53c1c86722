//! A front-end that behaves: it sends and receives frames and keeps all rules.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::frontend::{BUFFER, Frontend, NET_HEADER, RX, RX_BUFFERS, Setup, TX, TX_BUFFERS};
use crate::ring::{Desc, Format, desc};

/// A well-behaved front-end.
#[derive(Debug)]
pub struct Port {
    pub frontend: Frontend,
    /// Transmit buffers that the device does not have.
    free: Vec<u16>,
}

fn address(start: usize, id: u16) -> usize {
    start + BUFFER * usize::from(id)
}

impl Port {
    /// Connects to a back-end and offers all its receive buffers.
    ///
    /// # Errors
    /// When the back-end refuses anything.
    pub fn start(path: &Path, format: Format, size: u16) -> Result<Self> {
        let frontend = Frontend::start(path, &Setup::new(format, size))?;
        let refusal = &frontend.wire.refusal;
        ensure!(refusal.is_none(), "an honest front-end: {}", refusal.as_deref().unwrap_or(""));
        Ok(Self::new(frontend))
    }

    /// Takes over a front-end that has told the truth.
    pub fn new(mut frontend: Frontend) -> Self {
        let size = frontend.rings[RX].size;
        for ring in &frontend.rings {
            ring.suppress();
        }
        for id in 0..size {
            give(&mut frontend, id);
        }
        frontend.rings[RX].kick();
        Self { frontend, free: (0..size).collect() }
    }

    /// How many frames can be sent now.
    pub fn room(&mut self) -> usize {
        while let Some((id, _)) = self.frontend.rings[TX].used() {
            self.free.push(id);
        }
        self.free.len()
    }

    /// How many frames the device has not taken yet.
    pub fn pending(&mut self) -> usize {
        usize::from(self.frontend.rings[TX].size).saturating_sub(self.room())
    }

    /// Sends a frame of at most a buffer's length; `false` when there is no room.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        let len = NET_HEADER + frame.len();
        if self.room() == 0 || len > BUFFER {
            return false;
        }
        let Some(id) = self.free.pop() else { return false };
        let at = address(TX_BUFFERS, id);
        self.frontend.memory.write(at, &[0; NET_HEADER]);
        self.frontend.memory.write(at + NET_HEADER, frame);
        let len = u32::try_from(len).unwrap_or(0);
        self.frontend.rings[TX].offer(id, Desc::new(at as u64, len, 0));
        true
    }

    /// Tells the device of the frames sent.
    pub fn flush(&self) {
        self.frontend.rings[TX].kick();
    }

    /// The next frame received.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let (id, len) = self.frontend.rings[RX].used()?;
        let len = usize::try_from(len).unwrap_or(0).clamp(NET_HEADER, BUFFER);
        let at = address(RX_BUFFERS, id % self.frontend.rings[RX].size);
        let frame = self.frontend.memory.read(at + NET_HEADER, len - NET_HEADER);
        give(&mut self.frontend, id);
        Some(frame)
    }
}

/// Offers receive buffer `id`.
fn give(frontend: &mut Frontend, id: u16) {
    let buffer = Desc::new(address(RX_BUFFERS, id) as u64, BUFFER as u32, desc::WRITE);
    frontend.rings[RX].offer(id, buffer);
}

/// A frame from one address to another, of an EtherType for experiments (IEEE 802).
pub fn frame(to: [u8; 6], from: [u8; 6], payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb5], payload].concat()
}
