//! What a vDPA device does.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use eal::{EventFd, PeerEvent};
use virtio::{DirtyLog, GuestMemory};

/// Why a device does not do what it was asked for. The text names the device's part that is
/// concerned, what was found and what to do; whoever reports it puts the device's name in front.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DeviceError(pub String);

/// A ring that a device is to serve. Addresses are guest-physical; that the ring lies in the
/// memory of its [`Setup`] was checked.
#[derive(Debug)]
pub struct Ring {
    /// Its index: 2n receives for the guest and 2n + 1 transmits (virtio 1.3 section 5.1.2).
    pub index: u16,
    /// Number of descriptors: 1 to 32768, and a power of two unless rings are packed.
    pub size: u16,
    /// Address of the descriptor table (packed: of the ring).
    pub descriptors: u64,
    /// Address of the available ring (packed: of the driver's event suppression area).
    pub driver: u64,
    /// Address of the used ring (packed: of the device's event suppression area).
    pub device: u64,
    /// Where to go on, as in [`vhost::RingSetup::base`].
    pub base: u32,
    /// Whether the ring is enabled: what is in a receive ring that is not stays there.
    pub enabled: bool,
    /// By which the guest notifies the device where its doorbell is not mapped. Without it the
    /// front-end asks for polling, which a device that cannot do that refuses.
    pub kick: Option<PeerEvent>,
    /// By which the device interrupts the guest.
    pub call: Option<PeerEvent>,
}

/// Everything that a device needs to start.
#[derive(Debug)]
pub struct Setup {
    /// The negotiated virtio feature bits, without those of vhost-user (26 and 30).
    pub features: u64,
    /// The guest's memory.
    pub memory: Arc<GuestMemory>,
    /// The rings, by ascending index. Those that are missing do not run.
    pub rings: Vec<Ring>,
}

/// Where the doorbell of a ring can be mapped: memory of one page, which belongs to this ring
/// alone or in which a write of another ring's number does no harm.
#[derive(Debug)]
pub struct NotifyArea {
    /// The file to map.
    pub file: OwnedFd,
    /// Where in the file the page starts, in bytes.
    pub offset: u64,
    /// Its length in bytes, a multiple of the page size.
    pub len: u64,
}

/// A counter of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistic {
    /// Its name, in lower case with underscores: `rx0_kicks`.
    pub name: String,
    /// Its value since the device was opened or its statistics were reset.
    pub value: u64,
}

/// A device that serves the rings of a guest by itself.
///
/// All methods are called on the vhost-user control thread, one at a time, and must not wait
/// for a peer. A device that is dropped stops first, and leaves no memory mapped.
pub trait VdpaDevice: Send {
    /// Its name, as the user gave it: a PCI address, `vhost-vdpa-0`.
    fn name(&self) -> &str;

    /// Number of queue pairs.
    fn queue_pairs(&self) -> u16;

    /// The virtio feature bits that it offers. Control queue features are not among them:
    /// the front-end (QEMU) serves the control queue itself.
    fn features(&self) -> u64;

    /// Starts the device, which is stopped: memory is mapped, rings are programmed, interrupts go
    /// to the call files, and the device runs. It looks into every ring at once, as if it had
    /// been kicked: the guest may have kicked while it was stopped.
    ///
    /// # Errors
    /// Where it does not start, for example with these features, or without a kick file; then
    /// nothing is mapped and it is as it was.
    fn start(&mut self, setup: Setup) -> Result<(), DeviceError>;

    /// Stops the device if it was started and not stopped since, also one that has failed. When this returns it touches no memory and interrupts nobody
    /// any more, and nothing is mapped. Returns each ring's index and base, in the form of
    /// [`vhost::RingSetup::base`], for those that were in the setup.
    fn stop(&mut self) -> Vec<(u16, u32)>;

    /// Whether the device runs. One that has failed or was unplugged does not.
    fn is_running(&self) -> bool;

    /// Enables or disables ring `index` of the running device.
    ///
    /// # Errors
    /// Where it cannot; the device is stopped and started with another setup then.
    fn set_ring_enabled(&mut self, index: u16, enabled: bool) -> Result<(), DeviceError>;

    /// Replaces the file by which the guest notifies ring `index` of the running device.
    ///
    /// # Errors
    /// When the system refuses it.
    fn set_ring_kick(&mut self, index: u16, kick: Option<PeerEvent>) -> Result<(), DeviceError>;

    /// Replaces the file by which ring `index` of the running device interrupts the guest. The
    /// guest may have missed interrupts by the old one, so the device signals the new one.
    ///
    /// # Errors
    /// When the system refuses it.
    fn set_ring_call(&mut self, index: u16, call: Option<PeerEvent>) -> Result<(), DeviceError>;

    /// Where the doorbell of ring `index` of the running device can be mapped.
    fn notify_area(&self, index: u16) -> Option<NotifyArea> {
        let _ = index;
        None
    }

    /// Reads the device's configuration space from `offset` on: `bytes.len()` bytes (virtio 1.3
    /// section 5.1.4).
    ///
    /// # Errors
    /// Where there is no such part, or the device is gone.
    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// Writes the device's configuration space.
    ///
    /// # Errors
    /// Where there is no such part, it is read only, or the device is gone.
    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), DeviceError>;

    /// A file that becomes readable when the configuration has changed, if the device tells.
    fn config_changed(&self) -> Option<&EventFd> {
        None
    }

    /// What the device has counted.
    fn statistics(&self) -> Vec<Statistic> {
        Vec::new()
    }

    /// Sets all counters to zero.
    fn reset_statistics(&mut self) {}

    /// Whether it can [log](Self::set_dirty_log) what it writes.
    fn can_log(&self) -> bool {
        false
    }

    /// From now on, marks every page of the guest's memory that is written for the device, buffers
    /// and rings, in `log`, after it was written; or marks none any more. A device that runs goes on,
    /// one that is stopped does so from its next start on. No descriptor is lost.
    ///
    /// # Errors
    /// Where it cannot log. A device that runs may have stopped then.
    fn set_dirty_log(&mut self, log: Option<Arc<DirtyLog>>) -> Result<(), DeviceError> {
        match log {
            Some(_) => Err(DeviceError("it cannot log what it writes".to_owned())),
            None => Ok(()),
        }
    }

    /// The guest runs here now: its migration to this host has ended.
    fn migration_done(&mut self) {}
}

impl fmt::Debug for dyn VdpaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VdpaDevice(..)")
    }
}
