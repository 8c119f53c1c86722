//! How a device is told that there is something in a ring (virtio 1.3 section 2.9).

use std::sync::Arc;

use eal::PeerEvent;
use eal::pci::{Bar, PciDevice};

/// The way to notify the device of one ring. It is chosen when the ring is made; using it costs
/// a branch beside a system call or a store that leaves the processor.
#[derive(Debug)]
pub enum Kick {
    /// A file that the back-end waits for.
    Event(PeerEvent),
    /// A register of a PCI device.
    Doorbell(Doorbell),
}

/// A register that is written to notify a device (virtio 1.3 section 4.1.5.2).
#[derive(Debug)]
pub struct Doorbell {
    register: Register,
    /// The ring's number.
    index: u16,
    /// NOTIFICATION_DATA was negotiated: the ring's position goes along.
    with_position: bool,
}

#[derive(Debug)]
enum Register {
    /// Of a modern device: mapped memory.
    Memory(Arc<Bar>, usize),
    /// Of a legacy device: an I/O port, which is reached by a system call.
    Port(Arc<dyn PciDevice>, u8, u64),
}

impl Doorbell {
    /// The notify register at byte `offset` of `bar`, for ring `index`.
    #[must_use]
    pub const fn memory(bar: Arc<Bar>, offset: usize, index: u16, with_position: bool) -> Self {
        Self { register: Register::Memory(bar, offset), index, with_position }
    }

    /// The 16-bit notify register at `offset` of I/O register `bar`, for ring `index`.
    #[must_use]
    pub fn port(device: Arc<dyn PciDevice>, bar: u8, offset: u64, index: u16) -> Self {
        Self { register: Register::Port(device, bar, offset), index, with_position: false }
    }

    /// Stores and fences before this are visible to the device when it sees the write: on x86 a
    /// store to a device's register comes after all stores before it.
    fn ring(&self, position: u16) {
        match &self.register {
            Register::Memory(bar, offset) if self.with_position => {
                bar.write32(*offset, u32::from(position) << 16 | u32::from(self.index));
            }
            Register::Memory(bar, offset) => bar.write16(*offset, self.index),
            Register::Port(device, bar, offset) => {
                // It fails only if the device is gone, which the port's thread finds out.
                let _ = device.write_io(*bar, *offset, &self.index.to_le_bytes());
            }
        }
    }
}

impl Kick {
    /// Notifies the device; `position` is that of the ring, see
    /// [`DriverRing::position`](virtio::driver::DriverRing::position).
    #[inline(never)]
    pub fn signal(&self, position: u16) {
        match self {
            Self::Event(event) => {
                // The peer cannot make it fail, and the driver could do nothing about it.
                let _ = event.signal();
            }
            Self::Doorbell(doorbell) => doorbell.ring(position),
        }
    }
}
