//! The parts of a ring: what lies where.

use std::ptr::NonNull;

use super::{RingSetup, SetupError};
use crate::features::Features;
use crate::memory::{GuestMemory, Miss};
use crate::ring::QueueSize;

/// Bytes of an event structure.
pub(super) const EVENT_BYTES: usize = 4;

/// A part of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingPart {
    name: &'static str,
    addr: u64,
    len: usize,
    align: usize,
    /// Whether the device writes it.
    write: bool,
}

impl RingPart {
    /// The parts of a split ring: descriptors, available and used ring (alignments: virtio 1.3
    /// section 2.7).
    pub(super) fn split(setup: &RingSetup, size: QueueSize) -> [Self; 3] {
        let part = |name, addr, len, align, write| Self { name, addr, len, align, write };
        [
            part("descriptor table", setup.desc, size.desc_bytes(), 16, false),
            part("available ring", setup.avail, size.avail_bytes(), 2, false),
            part("used ring", setup.used, size.used_bytes(), 4, true),
        ]
    }

    /// The parts of a packed ring: descriptors, and the event structures of driver and device
    /// (alignments: virtio 1.3 section 2.8).
    pub(super) fn packed(setup: &RingSetup) -> [Self; 3] {
        let part = |name, addr, len, align, write| Self { name, addr, len, align, write };
        [
            part("descriptor ring", setup.desc, 16 * usize::from(setup.size), 16, true),
            part("driver event structure", setup.avail, EVENT_BYTES, 4, false),
            part("device event structure", setup.used, EVENT_BYTES, 4, true),
        ]
    }

    /// The parts of a ring of the format that was negotiated.
    pub(super) fn all(setup: &RingSetup) -> Result<[Self; 3], SetupError> {
        if setup.features.contains(Features::RING_PACKED) {
            return Ok(Self::packed(setup));
        }
        let size = QueueSize::new(setup.size).ok_or(SetupError::Size(setup.size))?;
        Ok(Self::split(setup, size))
    }

    /// Its length in bytes.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Where it lies in `memory`, all of it.
    pub(super) fn find(self, memory: &GuestMemory) -> Result<NonNull<u8>, SetupError> {
        let Self { name: part, addr, len, align, write } = self;
        memory.ring_part(addr, len, align, write).ok_or(SetupError::Unmapped { part, addr })
    }

    /// The first address of the ring's parts that has no translation in `memory`.
    pub(super) fn first_miss(memory: &GuestMemory, setup: &RingSetup) -> Option<Miss> {
        let parts = Self::all(setup).ok()?;
        parts.iter().find_map(|part| memory.miss(part.addr, part.len as u64, part.write))
    }
}
