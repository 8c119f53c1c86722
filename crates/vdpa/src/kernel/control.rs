//! The device's control queue: it is ours, since the guest's is served by its front-end.
//!
//! A device with several queue pairs starts with one and is told by command to use more (virtio
//! 1.3 section 5.1.6.5.5).

use std::time::Duration;

use eal::mem::Pages;
use eal::{DmaArena, PeerEvent, SharedMemory};
use virtio::Features;
use virtio::driver::DriverQueue;
use virtio_net::control::{BUFFER, Command, ControlQueue, Kick, SIZE};

use super::calls::{Calls, GUEST_SPACE, Piece, RingAddresses};
use super::offer::Offer;
use crate::device::DeviceError;

/// How long the device may take for a command. The control thread waits for that.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Where the buffer of commands starts: on cache lines of its own, behind the ring.
const ALIGN: usize = 128;

/// The address space for the control queue.
const CONTROL_SPACE: u32 = 1;

/// The control queue of a session.
#[derive(Debug)]
pub(super) struct Control {
    /// The ring's number.
    pub(super) index: u16,
    /// Number of entries.
    pub(super) size: u16,
    /// The address space that its memory is to be mapped in.
    pub(super) space: u32,
    /// Its memory.
    pub(super) piece: Piece,
    pub(super) kick: PeerEvent,
    pub(super) call: PeerEvent,
    queue: ControlQueue,
}

impl Control {
    /// A control queue for a device whose guest has memory at `guest`, and that agreed on
    /// `features`.
    ///
    /// It is in an address space of its own where the device has two. Where it has one, the guest
    /// could have the device write to the memory of this queue. There is nothing else in it, what
    /// the device writes is checked, and so all that the guest can reach is what its own device
    /// does.
    pub(super) fn new(
        calls: &dyn Calls,
        offer: &Offer,
        guest: &[Piece],
        features: Features,
    ) -> Result<Self, DeviceError> {
        let failed = |reason: &dyn std::fmt::Display| {
            DeviceError(format!("a control queue cannot be made: {reason}"))
        };
        let index = offer.configured_pairs.saturating_mul(2);
        let size = SIZE.min(offer.max_ring);
        let at = DriverQueue::bytes(size, features).next_multiple_of(ALIGN);
        let memory = SharedMemory::allocate_from("vdpa-control", at + BUFFER, Pages::Plain)
            .map_err(|error| failed(&error))?;
        let space = space_for(calls, offer, index);
        let others = if space == GUEST_SPACE { guest } else { &[] };
        let iova = super::memory::free_place(others, offer, memory.len() as u64)
            .ok_or_else(|| failed(&"the guest's memory takes all addresses of the device"))?;
        let parts = DmaArena::shared(memory, iova).and_then(|mut memory| {
            let (ring, buffer) = (memory.take_at(0, at)?, memory.take_at(at, BUFFER)?);
            let queue = DriverQueue::new(ring, size, features)?;
            Some((queue, buffer, Piece::own(memory.backing(), iova)))
        });
        let (queue, buffer, piece) =
            parts.ok_or_else(|| failed(&format_args!("a ring of {size} entries is too small")))?;
        let files = || Ok((PeerEvent::new()?, PeerEvent::new()?));
        let (kick, call) = files().map_err(|error: std::io::Error| failed(&error))?;
        let clones = || Ok((kick.clone(), call.clone()));
        let (kick2, call2) = clones().map_err(|error: std::io::Error| failed(&error))?;
        let queue = ControlQueue::new(queue, buffer, Kick::Event(kick2), Some(call2));
        Ok(Self { index, size, space, piece, kick, call, queue })
    }

    /// Where the parts of its ring are.
    pub(super) fn addresses(&self) -> RingAddresses {
        let (descriptors, driver, device) = self.queue.queue().device_addresses();
        RingAddresses { descriptors, driver, device }
    }

    /// Where the device starts in the ring.
    pub(super) fn base(&self) -> u32 {
        self.queue.queue().first_base()
    }

    /// Has the running device use `pairs` queue pairs.
    pub(super) fn use_pairs(&mut self, pairs: u16) -> Result<(), DeviceError> {
        self.queue.run(Command::QueuePairs(pairs), TIMEOUT).map_err(|error| {
            DeviceError(format!("the device does not start {pairs} queue pairs: {error}"))
        })
    }
}

/// The address space for the control queue: one of its own where the device can have it apart
/// from the rings of the guest.
fn space_for(calls: &dyn Calls, offer: &Offer, index: u16) -> u32 {
    if offer.spaces <= CONTROL_SPACE {
        return GUEST_SPACE;
    }
    let Ok(group) = calls.ring_group(index) else { return GUEST_SPACE };
    let apart =
        (0..offer.pairs * 2).all(|ring| calls.ring_group(ring).is_ok_and(|other| other != group));
    if apart && calls.set_group_space(group, CONTROL_SPACE).is_ok() {
        CONTROL_SPACE
    } else {
        GUEST_SPACE
    }
}
