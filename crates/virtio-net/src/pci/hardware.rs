//! A device that is open: its registers, and how to bring it to a halt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eal::pci::{DeviceInfo, PciDevice, PciError};
use virtio::Features;

use super::capability::{self, Layout};
use super::modern::ModernRegisters;
use super::registers::{ACKNOWLEDGE, DRIVER, FAILED, FEATURES_OK, Registers};
use super::window::Windows;

/// Vendor of all virtio devices, and the numbers of network devices: transitional (virtio 1.3
/// section 4.1.2.1) and modern.
const VENDOR: u16 = 0x1AF4;
const TRANSITIONAL_NET: u16 = 0x1000;
const MODERN_NET: u16 = 0x1041;

/// How long a device may take to reset itself.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait between two looks whether it has.
const RESET_PAUSE: Duration = Duration::from_micros(500);

/// Why a device does not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It was taken away and will not come back.
    #[error("the device is gone")]
    Gone,
    /// Something that may be better the next time, or not.
    #[error("{0}")]
    Failed(String),
}

impl From<PciError> for Trouble {
    fn from(error: PciError) -> Self {
        Self::Failed(error.reason)
    }
}

/// Whether this is a network device of virtio.
pub(crate) fn is_network_device(vendor: u16, device: u16) -> bool {
    vendor == VENDOR && [TRANSITIONAL_NET, MODERN_NET].contains(&device)
}

/// Checks that it is a network device of virtio.
///
/// # Errors
/// When it is something else.
pub fn check_kind(info: &DeviceInfo) -> Result<(), PciError> {
    if is_network_device(info.vendor, info.device) {
        return Ok(());
    }
    let (vendor, device) = (info.vendor, info.device);
    let reason = format!(
        "it is {vendor:04x}:{device:04x}, expected {VENDOR:04x}:{MODERN_NET:04x} or \
         {VENDOR:04x}:{TRANSITIONAL_NET:04x}, the network devices of virtio"
    );
    Err(PciError::new(info.address, reason))
}

/// A device with its registers.
#[derive(Debug)]
pub struct Hardware {
    /// The device on its bus.
    pub pci: Arc<dyn PciDevice>,
    /// Its registers.
    pub registers: Box<dyn Registers>,
}

impl Hardware {
    /// Finds the registers of a modern network device (virtio 1.0 or later), and where they are.
    ///
    /// # Errors
    /// When it is no such device, or its registers are not where it says.
    pub fn open(
        pci: Arc<dyn PciDevice>,
        windows: Box<dyn Windows>,
    ) -> Result<(Self, Layout), PciError> {
        check_kind(pci.info())?;
        let legacy = "it is a device of before virtio 1.0, expected a modern one; start QEMU with \
                      disable-legacy=on for it";
        let layout =
            capability::find(&*pci)?.ok_or_else(|| PciError::new(pci.info().address, legacy))?;
        let registers = Box::new(ModernRegisters::open(&*pci, layout, windows)?);
        Ok((Self { pci, registers }, layout))
    }

    /// Whether the device was taken away: then all of its configuration space reads as ones.
    pub fn is_gone(&self) -> bool {
        let mut vendor = [0; 2];
        self.pci.read_config(0, &mut vendor).is_err() || vendor == [u8::MAX; 2]
    }

    /// Resets the device (section 4.1.4.3.2: it is done when the status reads 0).
    ///
    /// # Errors
    /// When the device does not do it in time, or is gone.
    pub fn reset(&self) -> Result<(), Trouble> {
        self.registers.set_status(0);
        let deadline = Instant::now() + RESET_TIMEOUT;
        loop {
            match self.registers.status() {
                0 => return Ok(()),
                u8::MAX if self.is_gone() => return Err(Trouble::Gone),
                status if Instant::now() >= deadline => {
                    return Err(Trouble::Failed(format!(
                        "it has not reset itself within {RESET_TIMEOUT:?}: its status is \
                         {status:#x}"
                    )));
                }
                _ => std::thread::sleep(RESET_PAUSE),
            }
        }
    }

    /// Adds `bits` to the status.
    pub fn add_status(&self, bits: u8) {
        self.registers.set_status(self.registers.status() | bits);
    }

    /// Resets the device and says that there is a driver for it (section 3.1.1, steps 1 to 3).
    ///
    /// # Errors
    /// As [`reset`](Self::reset).
    pub fn greet(&self) -> Result<(), Trouble> {
        if self.is_gone() {
            return Err(Trouble::Gone);
        }
        // The reset first: who had the device before may have been killed, and it may know of
        // memory that is somebody else's by now.
        self.reset()?;
        self.pci.set_bus_master(true)?;
        self.registers.set_status(ACKNOWLEDGE);
        self.add_status(DRIVER);
        Ok(())
    }

    /// Tells the device the features to use, and asks whether it goes along (section 3.1.1, steps
    /// 4 to 6). Legacy devices are not asked.
    ///
    /// # Errors
    /// When it does not.
    pub fn agree(&self, features: Features) -> Result<(), Trouble> {
        self.registers.accept(features);
        if self.registers.is_legacy() {
            return Ok(());
        }
        self.add_status(FEATURES_OK);
        if self.registers.status() & FEATURES_OK != 0 {
            return Ok(());
        }
        self.add_status(FAILED);
        let names = crate::features::names(features);
        Err(Trouble::Failed(format!("it refuses to work with these features: {names}")))
    }

    /// Makes sure that the device reaches no memory any more, and returns whether it could.
    pub fn halt(&self) -> bool {
        match self.reset() {
            Ok(()) | Err(Trouble::Gone) => true,
            Err(Trouble::Failed(_)) => self.pci.set_bus_master(false).is_ok(),
        }
    }
}
