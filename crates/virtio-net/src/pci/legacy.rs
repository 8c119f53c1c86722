//! The registers of devices before virtio 1.0: I/O ports (virtio 1.3 section 4.1.4.10).

use std::sync::Arc;

use eal::pci::PciDevice;
use virtio::Features;
use virtio::driver::split::LEGACY_ALIGN;

use super::registers::{NO_VECTOR, QueueInfo, Registers, RingPlace};
use virtio_queues::kick::{Doorbell, Kick};

/// The base address register that describes the ports.
const BAR: u8 = 0;

const DEVICE_FEATURES: u64 = 0;
const DRIVER_FEATURES: u64 = 4;
const QUEUE_ADDRESS: u64 = 8;
const QUEUE_SIZE: u64 = 12;
const QUEUE_SELECT: u64 = 14;
const QUEUE_NOTIFY: u64 = 16;
const STATUS: u64 = 18;
const ISR: u64 = 19;
/// There while MSI-X is on.
const CONFIG_VECTOR: u64 = 20;
const QUEUE_VECTOR: u64 = 22;

/// The registers of a legacy device.
#[derive(Debug)]
pub(super) struct LegacyRegisters {
    pci: Arc<dyn PciDevice>,
    /// MSI-X is on.
    msix: bool,
}

impl LegacyRegisters {
    pub(super) fn new(pci: Arc<dyn PciDevice>, msix: bool) -> Self {
        Self { pci, msix }
    }

    /// Where the device's configuration begins.
    const fn config(&self) -> u64 {
        if self.msix { 24 } else { 20 }
    }

    /// All ones when they cannot be read, as from a device that is gone.
    fn read<const WIDTH: usize>(&self, offset: u64) -> [u8; WIDTH] {
        let mut bytes = [0; WIDTH];
        match self.pci.read_io(BAR, offset, &mut bytes) {
            Ok(()) => bytes,
            Err(_) => [u8::MAX; WIDTH],
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        // It fails only for a device that is gone, which reading the status will tell.
        let _ = self.pci.write_io(BAR, offset, bytes);
    }

    fn set_vector(&self, register: u64, vector: u16) -> bool {
        if !self.msix {
            return vector == NO_VECTOR;
        }
        self.write(register, &vector.to_le_bytes());
        u16::from_le_bytes(self.read(register)) == vector
    }
}

impl Registers for LegacyRegisters {
    fn is_legacy(&self) -> bool {
        true
    }

    fn status(&self) -> u8 {
        u8::from_le_bytes(self.read(STATUS))
    }

    fn set_status(&self, status: u8) {
        self.write(STATUS, &[status]);
    }

    fn offered(&self) -> Features {
        Features::from_bits_truncate(u32::from_le_bytes(self.read(DEVICE_FEATURES)).into())
    }

    fn accept(&self, features: Features) {
        let [a, b, c, d, ..] = features.bits().to_le_bytes();
        self.write(DRIVER_FEATURES, &[a, b, c, d]);
    }

    fn queue_count(&self) -> Option<u16> {
        None
    }

    fn queue(&self, index: u16) -> QueueInfo {
        self.write(QUEUE_SELECT, &index.to_le_bytes());
        QueueInfo { size: u16::from_le_bytes(self.read(QUEUE_SIZE)), notify_offset: 0 }
    }

    /// The size is the device's own; the address is told in pages, and one that is not 0 enables
    /// the ring.
    fn start_queue(&self, index: u16, ring: RingPlace, vector: u16) -> bool {
        // Pages that 32 bits cannot tell are refused when the rings are made.
        let page = u32::try_from(ring.descriptors / LEGACY_ALIGN as u64).unwrap_or(0);
        self.write(QUEUE_SELECT, &index.to_le_bytes());
        let has_vector = self.set_vector(QUEUE_VECTOR, vector);
        self.write(QUEUE_ADDRESS, &page.to_le_bytes());
        has_vector
    }

    fn set_config_vector(&self, vector: u16) -> bool {
        self.set_vector(CONFIG_VECTOR, vector)
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        for (at, byte) in (self.config() + offset as u64..).zip(into) {
            *byte = u8::from_le_bytes(self.read(at));
        }
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) {
        for (at, byte) in (self.config() + offset as u64..).zip(bytes) {
            self.write(at, &[*byte]);
        }
    }

    fn interrupt_status(&self) -> u8 {
        u8::from_le_bytes(self.read(ISR))
    }

    fn kick(
        &self,
        index: u16,
        _info: QueueInfo,
        _with_position: bool,
    ) -> Result<Kick, eal::pci::PciError> {
        let device = Arc::clone(&self.pci);
        Ok(Kick::Doorbell(Doorbell::port(device, BAR, QUEUE_NOTIFY, index)))
    }
}
