//! What the ports of one process share.

use eal::Access;
use eal::pci::Spaces;
use eal::time::Time;
use packet::pool::{Pool, PoolError};

use crate::backend::SharedControl;
use crate::dummy::Dummies;

/// What the ports of one process share. Keep it as long as any port.
#[derive(Debug, Default)]
pub struct Drivers {
    pub(crate) vhost_control: SharedControl,
    pub(crate) sockets: Access,
    pub(crate) spaces: Spaces,
    pub(crate) time: Time,
    pub(crate) dummies: Dummies,
}

impl Drivers {
    /// Nothing is started before a port needs it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has the sockets of ports that do not say it themselves let in those whom `access` names.
    #[must_use]
    pub fn with_sockets(self, access: Access) -> Self {
        Self { sockets: access, ..self }
    }

    /// Has the ports look at their devices, and try again what has failed, by this clock.
    #[must_use]
    pub fn with_time(self, time: Time) -> Self {
        Self { vhost_control: SharedControl::new(time.clone()), time, ..self }
    }

    /// The ports of the driver `dummy`.
    #[must_use]
    pub const fn dummies(&self) -> &Dummies {
        &self.dummies
    }

    /// The address spaces of the PCI devices among the ports.
    #[must_use]
    pub const fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    /// A pool of `buffers` buffers with room for `room` bytes each, where the ports' devices reach
    /// it: they send its packets without a copy. Without such devices, a plain pool. So open the
    /// ports first.
    ///
    /// # Errors
    /// When a number is out of range, or there is not enough memory.
    pub fn pool(&self, name: &str, buffers: u32, room: usize) -> Result<Pool, PoolError> {
        match self.spaces.in_use() {
            Some(space) => Pool::for_devices(name, buffers, room, &space),
            None => Pool::new(name, buffers, room),
        }
    }
}
