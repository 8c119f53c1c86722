//! How a device notifies its driver of used buffers.

use std::io;

use eal::PeerEvent;

use crate::vduse::Interrupt;

/// By which a device notifies its driver. Workers use it themselves, once per burst at most, so
/// none of it can make them wait. Clones are the same descriptor.
#[derive(Clone, Debug)]
pub enum Call {
    /// An eventfd that the front-end sent.
    Event(PeerEvent),
    /// The interrupt of a VDUSE device's ring.
    Interrupt(Interrupt),
}

impl Call {
    /// Notifies the driver.
    ///
    /// # Errors
    /// When the file behind it cannot be used for that.
    #[inline]
    pub fn signal(&self) -> io::Result<()> {
        match self {
            Self::Event(event) => event.signal(),
            Self::Interrupt(interrupt) => interrupt.signal(),
        }
    }

    /// The eventfd, for a device that signals it without us.
    #[must_use]
    pub const fn event(&self) -> Option<&PeerEvent> {
        match self {
            Self::Event(event) => Some(event),
            Self::Interrupt(_) => None,
        }
    }
}

impl From<PeerEvent> for Call {
    fn from(event: PeerEvent) -> Self {
        Self::Event(event)
    }
}
