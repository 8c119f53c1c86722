//! How a device notifies its driver of used buffers.

use std::io;

use eal::EventFd;

use crate::vduse::Interrupt;

/// By which a device notifies its driver. Workers use it themselves, once per burst at most.
#[derive(Debug)]
pub enum Call {
    /// An eventfd that the front-end sent.
    Event(EventFd),
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

    /// The eventfd, for a device that signals another handle of it without us.
    #[must_use]
    pub fn event(&self) -> Option<&EventFd> {
        match self {
            Self::Event(event) => Some(event),
            Self::Interrupt(_) => None,
        }
    }
}

impl From<EventFd> for Call {
    fn from(event: EventFd) -> Self {
        Self::Event(event)
    }
}
