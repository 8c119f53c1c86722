//! Interrupts: which cause has which vector, or that all share the line (82576 datasheet, 7.3).
//!
//! With MSI-X, vector 0 tells of the link and receive queue n has vector n + 1, for as many as
//! there are: the others can only be polled. Without, as with UIO, there is the line, or nothing.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use eal::EventFd;
use eal::pci::PciDevice;

use super::hardware::Hardware;
use super::lane::{Notify, Source};
use super::registers::{
    EIAC, EIMS, GPIE, IMS, IVAR_MISC, IVAR_VALID, Registers, cause, eitr, gpie, ivar,
};

/// The vector of the link.
const LINK_VECTOR: u32 = 0;

/// Bits that EIMS has for vectors.
const MAX_VECTORS: u16 = 25;

/// What tells the port's thread that something happened.
#[derive(Debug)]
pub(super) enum LinkSource {
    /// Vector 0 signals this.
    Vector(EventFd),
    /// The line.
    Line,
    /// Nothing: the thread looks by itself.
    Nothing,
}

/// Who is told of what.
#[derive(Debug)]
pub(super) struct Interrupts {
    pub(super) link: LinkSource,
    /// Per receive queue; `None` for those that can only be polled.
    pub(super) receive: Vec<Option<Notify>>,
}

impl Interrupts {
    /// Prepares what there is, after a reset. Nothing is enabled yet.
    ///
    /// # Errors
    /// When the kernel refuses; the error is the reason.
    pub(super) fn set_up<R: Registers>(
        hardware: &Hardware<R>,
        pci: &Arc<dyn PciDevice>,
        queues: u16,
    ) -> Result<Self, String> {
        let no_event = |error: io::Error| format!("cannot make an eventfd: {error}");
        let vectors = pci.msix_vectors().min(MAX_VECTORS);
        if vectors > 0 {
            let link = EventFd::new().map_err(no_event)?;
            let receive: Result<Vec<_>, _> = (0..queues)
                .map(|queue| {
                    let has_vector = queue + 1 < vectors;
                    has_vector.then(|| Notify::for_vector(queue + 1)).transpose()
                })
                .collect();
            let this = Self { link: LinkSource::Vector(link), receive: receive.map_err(no_event)? };
            this.set_vectors(hardware, pci)?;
            return Ok(this);
        }
        if pci.line_interrupt().is_none() {
            return Ok(Self { link: LinkSource::Nothing, receive: no_notify(queues) });
        }
        let receive =
            (0..queues).map(|_| Ok(Some(Notify { event: EventFd::new()?, source: Source::Line })));
        let receive = receive.collect::<io::Result<_>>().map_err(no_event)?;
        Ok(Self { link: LinkSource::Line, receive })
    }

    fn set_vectors<R: Registers>(
        &self,
        hardware: &Hardware<R>,
        pci: &Arc<dyn PciDevice>,
    ) -> Result<(), String> {
        let link = match &self.link {
            LinkSource::Vector(event) => Some(event.as_fd()),
            LinkSource::Line | LinkSource::Nothing => None,
        };
        let used = self.receive.iter().map_while(Option::as_ref);
        let events: Vec<_> =
            std::iter::once(link).chain(used.map(|notify| Some(notify.event.as_fd()))).collect();
        pci.set_msix(&events).map_err(|error| error.to_string())?;
        // The order matters to QEMU, which takes EIAC only in this mode.
        let mode = gpie::MULTIPLE_MSIX | gpie::NSICR | gpie::EIAME | gpie::PBA_SUPPORT;
        hardware.write(GPIE, mode);
        hardware.write(IVAR_MISC, (LINK_VECTOR | IVAR_VALID) << 8);
        hardware.write(eitr(0), 0);
        let mut bits = 1 << LINK_VECTOR;
        for (queue, vector) in (0..).zip(1..events.len()) {
            let (index, shift) = hardware.model.vector_place(queue);
            let entry = u32::try_from(vector).unwrap_or(0) | IVAR_VALID;
            hardware.change(ivar(index), entry << shift, 0xFF << shift);
            // An interrupt comes when a worker sleeps, which wants it at once.
            hardware.write(eitr(vector), 0);
            bits |= 1 << vector;
        }
        hardware.write(EIAC, bits);
        Ok(())
    }

    /// In words, for people.
    pub(super) fn describe(&self) -> String {
        let queues = self.receive.iter().flatten().count();
        match self.link {
            LinkSource::Vector(_) => format!("MSI-X, {} vectors", queues + 1),
            LinkSource::Line => "line, shared by all queues".to_owned(),
            LinkSource::Nothing => "none, polled".to_owned(),
        }
    }
}

impl LinkSource {
    /// Has changes of the link announced.
    ///
    /// # Errors
    /// When the kernel refuses the line; the error is the reason.
    pub(super) fn enable<R: Registers>(
        &self,
        hardware: &Hardware<R>,
        pci: &Arc<dyn PciDevice>,
    ) -> Result<(), String> {
        match self {
            Self::Nothing => return Ok(()),
            Self::Vector(_) => hardware.write(EIMS, 1 << LINK_VECTOR),
            Self::Line => {
                pci.unmask_line_interrupt().map_err(|error| error.to_string())?;
            }
        }
        hardware.write(IMS, cause::LSC);
        Ok(())
    }
}

impl Notify {
    fn for_vector(vector: u16) -> io::Result<Self> {
        let source = Source::Vector(1_u32.wrapping_shl(vector.into()));
        Ok(Self { event: EventFd::new()?, source })
    }
}

fn no_notify(queues: u16) -> Vec<Option<Notify>> {
    (0..queues).map(|_| None).collect()
}
