//! What a back-end tells by itself: where the doorbells of its device are, and that the device's
//! configuration has changed.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use eal::foreign::{file_name, is_device_memory};
use eal::pci::Bar;
use eal::{PeerEvent, PeerFd};
use litemap::LiteMap;
use vhost::frontend::channel::Listener;
use vhost::protocol::{BackendMessage, VringArea};

/// What was told and not yet acted on.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) config_changed: bool,
    /// By ring: its doorbell, or that it has none any more.
    pub(super) doorbells: LiteMap<u8, Option<Arc<Bar>>>,
    /// A ring that the back-end calls broken.
    pub(super) broken: Option<u8>,
}

/// Where messages of the back-end go until the port's thread has the time.
#[derive(Clone, Debug, Default)]
pub(super) struct News(Arc<Mutex<Pending>>);

impl News {
    /// What listens to a back-end that may have doorbells for rings below `rings`. Where it notifies
    /// by messages, `calls` are signalled, by ring.
    pub(super) fn listener(&self, rings: u16, calls: Vec<PeerEvent>) -> Listener {
        let news = self.clone();
        Box::new(move |message| {
            let mut pending = news.0.lock().unwrap_or_else(PoisonError::into_inner);
            match message {
                BackendMessage::ConfigChange => pending.config_changed = true,
                BackendMessage::HostNotifier(VringArea { index, .. })
                    if u16::from(index) >= rings =>
                {
                    return false;
                }
                BackendMessage::HostNotifier(VringArea { index, area: None }) => {
                    pending.doorbells.insert(index, None);
                }
                BackendMessage::HostNotifier(VringArea { index, area: Some(area) }) => {
                    let Some(doorbell) = map(&area) else { return false };
                    pending.doorbells.insert(index, Some(Arc::new(doorbell)));
                }
                BackendMessage::VringCall(index) => {
                    let call = calls.get(usize::from(index));
                    return call.is_some_and(|call| call.signal().is_ok());
                }
                BackendMessage::VringErr(index) => pending.broken = Some(index),
                // What it asks for is told elsewhere; it may complain of what it does not get.
                BackendMessage::Iotlb(message) => {
                    tracing::debug!(?message, "the back-end was refused an access");
                }
            }
            true
        })
    }

    /// Whether anything waits to be acted on.
    pub(super) fn is_empty(&self) -> bool {
        let pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !pending.config_changed && pending.doorbells.is_empty() && pending.broken.is_none()
    }

    /// Takes what was told since the last time.
    pub(super) fn take(&self) -> Pending {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Maps a doorbell: the first page of what the back-end gives.
fn map((file, size, offset): &(PeerFd, u64, u64)) -> Option<Bar> {
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    if *size < page || !size.is_multiple_of(page) {
        tracing::debug!(size, "a doorbell that is no page is not used");
        return None;
    }
    // A worker writes to it.
    if !is_device_memory(file.as_fd()) {
        let found = file_name(file.as_fd());
        tracing::debug!(
            found,
            "a doorbell in a file that is neither a device nor memory is not used"
        );
        return None;
    }
    let mapped = Bar::map_page(file.as_fd(), *offset);
    mapped.inspect_err(|error| tracing::debug!(%error, "a doorbell cannot be mapped")).ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn file(len: u64) -> PeerFd {
        let fd = rustix::fs::memfd_create("bell", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, len).unwrap();
        fd.into()
    }

    fn bell(index: u8, size: u64, offset: u64) -> BackendMessage<PeerFd> {
        let area = Some((file(1 << 16), size, offset));
        BackendMessage::HostNotifier(VringArea { index, area })
    }

    #[test]
    fn doorbells_are_mapped_at_their_offset() {
        let news = News::default();
        let mut listener = news.listener(2, Vec::new());
        let fd = file(1 << 16);
        let area = Some((fd.as_fd().try_clone_to_owned().unwrap().into(), 4096, 8192));
        assert!(listener(BackendMessage::HostNotifier(VringArea { index: 1, area })));
        let bar = news.take().doorbells.remove(&1).unwrap().unwrap();
        bar.write16(0, 0x0102);
        let mut seen = [0; 2];
        rustix::io::pread(fd.as_fd(), &mut seen, 8192).unwrap();
        assert_eq!(seen, [2, 1]);
        // The last word counts, and what it replaces is not kept.
        assert!(listener(bell(0, 4096, 0)));
        assert!(listener(BackendMessage::HostNotifier(VringArea { index: 0, area: None })));
        assert!(listener(BackendMessage::ConfigChange));
        assert!(!news.is_empty());
        let pending = news.take();
        assert!(pending.config_changed && pending.doorbells[&0].is_none());
        assert!(news.is_empty() && !news.take().config_changed);
    }

    #[test]
    fn notifications_reach_the_ring_that_they_are_for() {
        let news = News::default();
        let calls = vec![PeerEvent::new().unwrap(), PeerEvent::new().unwrap()];
        let mut listener = news.listener(2, calls.clone());
        assert!(listener(BackendMessage::VringCall(1)));
        let signalled = calls.iter().map(|call| call.drain().unwrap());
        assert_eq!(signalled.collect::<Vec<_>>(), [false, true]);
        assert!(!listener(BackendMessage::VringCall(2)), "there is no such ring");
        assert!(listener(BackendMessage::VringErr(1)));
        assert!(!news.is_empty());
        assert_eq!((news.take().broken, news.take().broken), (Some(1), None));
    }

    #[test]
    fn a_doorbell_that_is_none_is_refused() {
        let news = News::default();
        let mut listener = news.listener(2, Vec::new());
        for (index, size, offset) in [
            (2, 4096, 0),
            (0, 0, 0),
            (0, 4095, 0),
            (0, 6000, 0),
            (0, 4096, 1),
            (0, 4096, u64::MAX - 4095),
        ] {
            assert!(!listener(bell(index, size, offset)), "{index} {size} {offset}");
        }
        // What a write may wait for.
        let disk = OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
        let area = Some((disk.into(), 4096, 0));
        assert!(!listener(BackendMessage::HostNotifier(VringArea { index: 0, area })));
        assert!(news.take().doorbells.is_empty());
    }

    #[test]
    fn a_doorbell_whose_file_is_truncated_is_written_in_vain() {
        let news = News::default();
        let fd = file(1 << 16);
        let area = Some((fd.as_fd().try_clone_to_owned().unwrap().into(), 4096, 0));
        assert!(news.listener(1, Vec::new())(BackendMessage::HostNotifier(VringArea {
            index: 0,
            area
        })));
        let bar = news.take().doorbells.remove(&0).unwrap().unwrap();
        rustix::fs::ftruncate(&fd, 0).unwrap();
        bar.write16(0, 7);
        assert!(bar.is_gone());
    }
}
