//! What a front-end has yet to be told: that the configuration has changed, and where the doorbells
//! of rings are.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use vhost::protocol::{BackendMessage, VringArea};

use crate::device::VdpaDevice;

/// Messages that wait for the front-end to take them. There is one of a kind at most.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    config_changed: bool,
    /// Rings of whose doorbell there is news.
    news: BTreeSet<u8>,
    /// Rings whose doorbell the front-end was offered.
    offered: BTreeSet<u8>,
    /// Those of which it said that it uses them.
    used: BTreeSet<u8>,
}

impl Outbox {
    pub(crate) const fn config_changed(&mut self) {
        self.config_changed = true;
    }

    /// The device was started with these rings.
    pub(crate) fn started(&mut self, rings: impl Iterator<Item = u16>) {
        self.news.extend(rings.filter_map(|index| u8::try_from(index).ok()));
        self.news.extend(self.offered.iter().copied());
    }

    /// A ring was stopped: with that, a front-end lets go of its doorbell.
    pub(crate) fn stopped(&mut self, index: u16) {
        if let Ok(index) = u8::try_from(index) {
            for set in [&mut self.news, &mut self.offered, &mut self.used] {
                set.remove(&index);
            }
        }
    }

    /// The front-end has said whether it uses a doorbell.
    pub(crate) fn answered(&mut self, index: u8, used: bool) {
        if used && self.offered.contains(&index) {
            self.used.insert(index);
        } else {
            self.used.remove(&index);
        }
    }

    /// Rings whose doorbell the front-end uses, as far as it tells.
    pub(crate) fn used(&self) -> Vec<u16> {
        self.used.iter().copied().map(u16::from).collect()
    }

    /// The next message.
    pub(crate) fn next(&mut self, device: &dyn VdpaDevice) -> Option<BackendMessage<OwnedFd>> {
        if std::mem::take(&mut self.config_changed) {
            return Some(BackendMessage::ConfigChange);
        }
        while let Some(index) = self.news.pop_first() {
            let area = device.notify_area(index.into());
            let known = self.offered.contains(&index);
            // A doorbell that the front-end has is where it was.
            if area.is_some() == known {
                continue;
            }
            if area.is_some() {
                self.offered.insert(index);
            } else {
                self.offered.remove(&index);
                self.used.remove(&index);
            }
            let area = area.map(|area| (area.file, area.len, area.offset));
            return Some(BackendMessage::HostNotifier(VringArea { index, area }));
        }
        None
    }
}
