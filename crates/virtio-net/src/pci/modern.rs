//! The registers of devices of virtio 1.0 and later (virtio 1.3 section 4.1.4.3).

use eal::pci::{PciAddress, PciDevice, PciError};
use virtio::Features;

use super::capability::Layout;
use super::registers::{NO_VECTOR, QueueInfo, Registers, RingPlace};
use super::window::{Window, Windows};
use virtio_queues::kick::Kick;

const DEVICE_FEATURE_SELECT: usize = 0;
const DEVICE_FEATURE: usize = 4;
const DRIVER_FEATURE_SELECT: usize = 8;
const DRIVER_FEATURE: usize = 12;
const CONFIG_VECTOR: usize = 16;
const NUM_QUEUES: usize = 18;
const STATUS: usize = 20;
const CONFIG_GENERATION: usize = 21;
const QUEUE_SELECT: usize = 22;
const QUEUE_SIZE: usize = 24;
const QUEUE_VECTOR: usize = 26;
const QUEUE_ENABLE: usize = 28;
const QUEUE_NOTIFY_OFFSET: usize = 30;
const QUEUE_DESC: usize = 32;
const QUEUE_DRIVER: usize = 40;
const QUEUE_DEVICE: usize = 48;

/// How often to read a configuration that changes while it is read.
const MOST_READS: usize = 16;

/// The registers of a modern device.
#[derive(Debug)]
pub(super) struct ModernRegisters {
    address: PciAddress,
    layout: Layout,
    windows: Box<dyn Windows>,
    common: Box<dyn Window>,
    isr: Box<dyn Window>,
    device: Box<dyn Window>,
}

impl ModernRegisters {
    /// Maps the registers that `layout` tells of.
    ///
    /// # Errors
    /// When they are not inside of their base address registers.
    pub(super) fn open(
        pci: &dyn PciDevice,
        layout: Layout,
        mut windows: Box<dyn Windows>,
    ) -> Result<Self, PciError> {
        let common = windows.open(layout.common)?;
        let isr = windows.open(layout.isr)?;
        let device = windows.open(layout.device)?;
        windows.open(layout.notify)?;
        Ok(Self { address: pci.info().address, layout, windows, common, isr, device })
    }

    /// Writes a 64-bit register as two halves, as section 4.1.3.1 has it.
    fn write64(&self, offset: usize, value: u64) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.common.write32(offset, u32::from_le_bytes([a, b, c, d]));
        self.common.write32(offset + 4, u32::from_le_bytes([e, f, g, h]));
    }

    fn read_bytes(&self, offset: usize, into: &mut [u8]) {
        for (at, byte) in (offset..).zip(into) {
            *byte = self.device.read8(at);
        }
    }
}

impl Registers for ModernRegisters {
    fn is_legacy(&self) -> bool {
        false
    }

    fn status(&self) -> u8 {
        self.common.read8(STATUS)
    }

    fn set_status(&self, status: u8) {
        self.common.write8(STATUS, status);
    }

    fn offered(&self) -> Features {
        let half = |select| {
            self.common.write32(DEVICE_FEATURE_SELECT, select);
            u64::from(self.common.read32(DEVICE_FEATURE))
        };
        Features::from_bits_truncate(half(0) | half(1) << 32)
    }

    fn accept(&self, features: Features) {
        let [a, b, c, d, e, f, g, h] = features.bits().to_le_bytes();
        for (select, half) in [(0, [a, b, c, d]), (1, [e, f, g, h])] {
            self.common.write32(DRIVER_FEATURE_SELECT, select);
            self.common.write32(DRIVER_FEATURE, u32::from_le_bytes(half));
        }
    }

    fn queue_count(&self) -> Option<u16> {
        Some(self.common.read16(NUM_QUEUES))
    }

    fn queue(&self, index: u16) -> QueueInfo {
        self.common.write16(QUEUE_SELECT, index);
        QueueInfo {
            size: self.common.read16(QUEUE_SIZE),
            notify_offset: self.common.read16(QUEUE_NOTIFY_OFFSET),
        }
    }

    fn start_queue(&self, index: u16, ring: RingPlace, vector: u16) -> bool {
        let RingPlace { size, descriptors, driver, device } = ring;
        self.common.write16(QUEUE_SELECT, index);
        self.common.write16(QUEUE_SIZE, size);
        self.common.write16(QUEUE_VECTOR, vector);
        let has_vector = self.common.read16(QUEUE_VECTOR) == vector;
        self.write64(QUEUE_DESC, descriptors);
        self.write64(QUEUE_DRIVER, driver);
        self.write64(QUEUE_DEVICE, device);
        self.common.write16(QUEUE_ENABLE, 1);
        has_vector
    }

    fn set_config_vector(&self, vector: u16) -> bool {
        self.common.write16(CONFIG_VECTOR, vector);
        self.common.read16(CONFIG_VECTOR) == vector || vector == NO_VECTOR
    }

    /// Section 2.5.1: reads again while the generation changes.
    fn read_config(&self, offset: usize, into: &mut [u8]) {
        for _ in 0..MOST_READS {
            let before = self.common.read8(CONFIG_GENERATION);
            self.read_bytes(offset, into);
            if self.common.read8(CONFIG_GENERATION) == before {
                return;
            }
        }
    }

    fn write_config(&self, _offset: usize, _bytes: &[u8]) {
        // Nothing in a modern network device's configuration is written (section 5.1.4).
    }

    fn interrupt_status(&self) -> u8 {
        self.isr.read8(0)
    }

    fn kick(&self, index: u16, info: QueueInfo, with_position: bool) -> Result<Kick, PciError> {
        let width = if with_position { 4 } else { 2 };
        let at = self.layout.notify_at(info.notify_offset, width).ok_or_else(|| {
            let (number, distance) = (info.notify_offset, self.layout.notify_multiplier);
            let reason = format!(
                "ring {index} has notify register {number} at {distance} bytes each, which is not \
                 inside of the {} bytes that there are",
                self.layout.notify.len
            );
            PciError::new(self.address, reason)
        })?;
        self.windows.doorbell(self.layout.notify, at, index, with_position).map(Kick::Doorbell)
    }
}
