//! What the descriptors of a TAP interface tell of it, wherever it is and whatever it is called.
//!
//! An interface may be moved into another network namespace while it is in use, as for a
//! container, and gets another name there, often one that another interface has here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use packet::Capabilities;
use rustix::fs::fstat;

use super::sys;
use crate::interfaces::Interfaces;
use crate::kernel::place::{Place, Remote, facts_elsewhere};
use crate::kernel::session::Device;

/// The control side's own part.
#[derive(Debug)]
pub(super) struct TapDevice {
    first: Arc<OwnedFd>,
    offloads: Capabilities,
    /// The number of the interface when it was last seen in the switch's network namespace.
    index: AtomicU32,
    /// What identifies that namespace, if we may know.
    home: Option<u64>,
}

impl TapDevice {
    /// Of an interface that is in the switch's network namespace; the error is the reason.
    pub(super) fn new(
        fds: Vec<Arc<OwnedFd>>,
        offloads: Capabilities,
        index: u32,
    ) -> Result<Self, String> {
        let first = fds.into_iter().next().ok_or("it has no queue")?;
        let home = namespace(first.as_fd()).map(|(_, number)| number);
        Ok(Self { first, offloads, index: AtomicU32::new(index), home })
    }

    /// Whether the interface, whose name is `name`, is in the switch's network namespace, where
    /// `number` is that of the one that it is in.
    fn is_here(&self, asker: &Interfaces, name: &str, number: Option<u64>) -> bool {
        let Ok(index) = asker.index(name) else { return false };
        let is_here = match (number, self.home) {
            (Some(number), Some(home)) => number == home,
            // Without the right to know, one of the same name, number and address is the same.
            _ => {
                let mac = sys::mac_of(self.first.as_fd()).ok();
                index == self.index.load(Relaxed) && mac.is_some() && mac == asker.mac(name).ok()
            }
        };
        if is_here {
            self.index.store(index, Relaxed);
        }
        is_here
    }
}

/// The network namespace of a queue's interface, and what identifies it, if we may know.
fn namespace(fd: BorrowedFd<'_>) -> Option<(OwnedFd, u64)> {
    let namespace = sys::namespace_of(fd).ok()?;
    let number = fstat(&namespace).ok()?.st_ino;
    Some((namespace, number))
}

impl Device for TapDevice {
    fn is_attached(&self, _index: u32) -> bool {
        sys::attached_to(self.first.as_fd()).is_ok()
    }

    fn place(&self, asker: &Interfaces, _index: u32) -> Place {
        let fd = self.first.as_fd();
        let Ok((name, _)) = sys::attached_to(fd) else { return Place::Gone };
        let namespace = namespace(fd);
        let number = namespace.as_ref().map(|(_, number)| *number);
        if self.is_here(asker, &name, number) {
            return Place::Here(name);
        }
        let facts = namespace.and_then(|(fd, _)| facts_elsewhere(fd.as_fd(), &name).ok());
        Place::Elsewhere(Remote {
            up: facts.map_or_else(|| sys::is_on(fd), |(up, _)| up),
            mtu: facts.map(|(_, mtu)| mtu),
            mac: sys::mac_of(fd).ok(),
            namespace: number,
            name,
        })
    }

    /// An interface that outlives the port was made for it, and stays as it is.
    fn leaves_changes(&self) -> bool {
        true
    }

    fn max_mtu(&self) -> u16 {
        ethdev::mtu::MAX
    }

    fn extended_stats(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    fn details(&self) -> Vec<(String, String)> {
        let offloads = self.offloads.iter_names().map(|(name, _)| name).collect::<Vec<_>>();
        let offloads = if offloads.is_empty() { "none".to_owned() } else { offloads.join(" ") };
        vec![("offloads".to_owned(), offloads)]
    }
}
