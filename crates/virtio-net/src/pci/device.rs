//! A device of a port: its registers and its interrupts.

use std::ops::Deref;
use std::sync::Arc;

use eal::pci::{PciDevice, PciError};

use super::capability;
use super::hardware::{Hardware, check_kind};
use super::interrupts::Interrupts;
use super::legacy::LegacyRegisters;
use super::modern::ModernRegisters;
use super::registers::Registers;
use super::window::Windows;
use virtio_queues::lane::Lanes;

/// A device with its registers and interrupts.
#[derive(Debug)]
pub(super) struct Device {
    hardware: Hardware,
    pub(super) interrupts: Interrupts,
}

impl Deref for Device {
    type Target = Hardware;

    fn deref(&self) -> &Hardware {
        &self.hardware
    }
}

impl Device {
    /// Finds the registers and switches interrupts on. `lanes` have the events of the rings.
    ///
    /// # Errors
    /// When it is no network device of virtio, or its registers are not where it says.
    pub(super) fn open(
        pci: Arc<dyn PciDevice>,
        windows: Box<dyn Windows>,
        lanes: &Lanes,
    ) -> Result<Self, PciError> {
        check_kind(pci.info())?;
        let layout = capability::find(&*pci)?;
        let interrupts = Interrupts::new(&*pci, lanes)?;
        let registers: Box<dyn Registers> = match layout {
            Some(layout) => Box::new(ModernRegisters::open(&*pci, layout, windows)?),
            None => {
                let msix = interrupts.are_vectors();
                Box::new(LegacyRegisters::new(Arc::clone(&pci), msix))
            }
        };
        Ok(Self { hardware: Hardware { pci, registers }, interrupts })
    }
}
