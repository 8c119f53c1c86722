//! The registers of a virtio device over PCI, whatever their generation.

use std::fmt;

use eal::pci::PciError;
use virtio::Features;
use virtio::driver::{DriverQueue, DriverRing as _};

use virtio_queues::kick::Kick;

/// Status: the driver has noticed the device (virtio 1.3 section 2.1).
pub const ACKNOWLEDGE: u8 = 1;
/// Status: the driver knows how to drive it.
pub const DRIVER: u8 = 2;
/// Status: the driver is set up.
pub const DRIVER_OK: u8 = 4;
/// Status: features are agreed upon.
pub const FEATURES_OK: u8 = 8;
/// Status: the device cannot go on.
pub const NEEDS_RESET: u8 = 0x40;
/// Status: the driver has given up.
pub const FAILED: u8 = 0x80;

/// No interrupt vector (section 4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xFFFF;

/// Interrupt status: a ring was used (section 4.1.4.5).
pub const ISR_QUEUE: u8 = 1;
/// Interrupt status: the configuration changed.
pub const ISR_CONFIG: u8 = 2;

/// What the device says of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Most entries; 0 for a ring that is not there.
    pub size: u16,
    /// Which notify register it has.
    pub notify_offset: u16,
}

/// Where the device finds a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPlace {
    /// Number of entries.
    pub size: u16,
    /// The device's address of the descriptor table or packed ring.
    pub descriptors: u64,
    /// Of the available ring, or the driver's event structure.
    pub driver: u64,
    /// Of the used ring, or the device's event structure.
    pub device: u64,
}

impl From<&DriverQueue> for RingPlace {
    fn from(queue: &DriverQueue) -> Self {
        let (descriptors, driver, device) = queue.device_addresses();
        Self { size: queue.entries(), descriptors, driver, device }
    }
}

/// A device's registers. A device that is gone reads as all ones, and takes no writes.
pub trait Registers: Send {
    /// Whether it is a device before virtio 1.0.
    fn is_legacy(&self) -> bool;

    /// The device's status. All ones from a device that is gone.
    fn status(&self) -> u8;

    /// Writes the status; 0 resets the device, which is over when the status reads 0 again.
    fn set_status(&self, status: u8);

    /// The features that the device offers, of those that are known here.
    fn offered(&self) -> Features;

    /// Tells the device which features are used.
    fn accept(&self, features: Features);

    /// Number of rings, where the device tells it.
    fn queue_count(&self) -> Option<u16>;

    /// What the device says of ring `index`.
    fn queue(&self, index: u16) -> QueueInfo;

    /// Tells the device where ring `index` lies, has it interrupt with `vector`, and enables it.
    /// `false` when it has no resources for the vector.
    fn start_queue(&self, index: u16, ring: RingPlace, vector: u16) -> bool;

    /// Has changes of the configuration interrupt with `vector`; `false` when the device has no
    /// resources for that.
    fn set_config_vector(&self, vector: u16) -> bool;

    /// Reads bytes of the device's configuration, all of the same moment.
    fn read_config(&self, offset: usize, into: &mut [u8]);

    /// Writes bytes of the device's configuration, as only legacy devices allow.
    fn write_config(&self, offset: usize, bytes: &[u8]);

    /// Reads and clears the interrupt status.
    fn interrupt_status(&self) -> u8;

    /// How ring `index` is notified. `with_position` as NOTIFICATION_DATA says.
    ///
    /// # Errors
    /// When the device places the notify register where none can be.
    fn kick(&self, index: u16, info: QueueInfo, with_position: bool) -> Result<Kick, PciError>;
}

impl fmt::Debug for dyn Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registers(..)")
    }
}
