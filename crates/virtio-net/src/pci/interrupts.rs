//! How the device tells the port's thread and sleeping workers that something happened.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use eal::EventFd;
use eal::pci::{PciDevice, PciError};

use super::registers::{ISR_CONFIG, ISR_QUEUE, NO_VECTOR, Registers};
use virtio_queues::lane::Lanes;

/// The interrupts of a device.
#[derive(Debug)]
pub(super) enum Interrupts {
    /// MSI-X: vector 0 for changes of the configuration, the following ones for receive rings,
    /// if there are enough.
    Vectors { config: EventFd, per_queue: bool },
    /// One line for all (INTx): the interrupt status tells what it was.
    Line,
    /// None: everything is polled, seldom.
    None,
}

impl Interrupts {
    /// Switches on what the device has. Its rings' events are those of `lanes`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn new(pci: &dyn PciDevice, lanes: &Lanes) -> Result<Self, PciError> {
        let vectors = usize::from(pci.msix_vectors());
        if vectors == 0 {
            let has_line = pci.line_interrupt().is_some() && pci.unmask_line_interrupt().is_ok();
            return Ok(if has_line { Self::Line } else { Self::None });
        }
        let config = EventFd::new()
            .map_err(|error| PciError::system(pci.info().address, "make an event", &error))?;
        let per_queue = vectors > lanes.rx.len();
        let queues = lanes.rx.iter().map(|lane| Some(lane.call.as_fd()));
        let mut events = vec![Some(config.as_fd())];
        events.extend(queues.filter(|_| per_queue));
        pci.set_msix(&events)?;
        Ok(Self::Vectors { config, per_queue })
    }

    /// Whether the device's registers know vectors.
    pub(super) const fn are_vectors(&self) -> bool {
        matches!(self, Self::Vectors { .. })
    }

    /// The vector for changes of the configuration.
    pub(super) const fn config_vector(&self) -> u16 {
        if self.are_vectors() { 0 } else { NO_VECTOR }
    }

    /// The vector of receive ring `queue`.
    pub(super) const fn rx_vector(&self, queue: u16) -> u16 {
        match self {
            Self::Vectors { per_queue: true, .. } => queue.saturating_add(1),
            _ => NO_VECTOR,
        }
    }

    /// Whether a worker that sleeps is woken.
    pub(super) const fn wake_workers(&self) -> bool {
        matches!(self, Self::Vectors { per_queue: true, .. } | Self::Line)
    }

    /// What the port's thread waits for.
    pub(super) fn wait_fd<'a>(&'a self, pci: &'a Arc<dyn PciDevice>) -> Option<BorrowedFd<'a>> {
        match self {
            Self::Vectors { config, .. } => Some(config.as_fd()),
            Self::Line => pci.line_interrupt(),
            Self::None => None,
        }
    }

    /// Deals with what made [`wait_fd`](Self::wait_fd) readable: wakes workers that share the
    /// line, and returns whether the configuration may have changed.
    pub(super) fn handle(
        &self,
        pci: &Arc<dyn PciDevice>,
        registers: &dyn Registers,
        lanes: &Lanes,
    ) -> bool {
        match self {
            Self::Vectors { config, .. } => {
                let _ = config.drain();
                true
            }
            Self::Line => {
                let status = registers.interrupt_status();
                if status & ISR_QUEUE != 0 {
                    for lane in &lanes.rx {
                        let _ = lane.call.signal();
                    }
                }
                // A device that is gone is found out by its status.
                let _ = pci.unmask_line_interrupt();
                status & ISR_CONFIG != 0
            }
            Self::None => true,
        }
    }
}

impl fmt::Display for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vectors { per_queue: true, .. } => "MSI-X, one per receive queue",
            Self::Vectors { per_queue: false, .. } => "MSI-X, for the link only",
            Self::Line => "one line",
            Self::None => "none",
        })
    }
}
