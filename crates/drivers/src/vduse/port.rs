//! The control side of a VDUSE port.

use std::io;
use std::sync::Arc;

use ethdev::{Error, Link, PortControl, PortEvents, PortInfo};
use packet::MacAddr;
use vhost::SocketHandle;
use vhost::vduse::{ControlFile, device};
use vhost_net::RingSlot;
use vhost_net::device::GuestState;

use super::bus::{Bus, BusDriver};
use super::netlink;
use super::options::INFO;
use crate::backend::{LinkState, random_mac, ring_stats, taken};

/// A device in the kernel that is served here. Dropping this removes it, unless it is used and to
/// be kept: then it stays, for the next port of the same name.
#[derive(Debug)]
pub(super) struct Attachment {
    name: String,
    bus: Bus,
    files: ControlFile,
    link: Arc<LinkState>,
    served: Option<SocketHandle>,
    keep: bool,
}

impl Attachment {
    /// One that the control thread serves by `served`. It stays, if it is used, until
    /// [`keep`](Self::keep) says something else.
    pub(super) fn new(
        name: &str,
        bus: Bus,
        files: ControlFile,
        link: Arc<LinkState>,
        served: SocketHandle,
    ) -> Self {
        Self { name: name.to_owned(), bus, files, link, served: Some(served), keep: true }
    }

    /// Whether an interface stays at the end.
    pub(super) fn keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// Attaches the device to the vDPA bus, unless it is, and gives it to the driver that is
    /// wanted. A process that may not do that leaves it to somebody who may.
    pub(super) fn attach(&self, bind: Option<BusDriver>) -> Result<(), String> {
        let name = &self.name;
        if !self.bus.has(name) {
            match netlink::attach(name) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::warn!(
                        device = %name,
                        "the device is not on the vDPA bus, for want of CAP_NET_ADMIN; \
                         do it by `vdpa dev add name {name} mgmtdev vduse`"
                    );
                    return Ok(());
                }
                Err(error) => return Err(format!("cannot attach it to the vDPA bus: {error}")),
            }
        }
        if let Some(driver) = bind {
            self.bus.bind(name, driver)?;
        }
        let (driver, made) = (self.bus.bound(name), self.bus.product(name));
        match driver {
            Some(driver) => {
                let made = made.unwrap_or_default();
                tracing::info!(device = %name, driver, made, "the device is on the vDPA bus");
            }
            None => tracing::warn!(
                device = %name,
                "the device has no driver; load virtio_vdpa for an interface or vhost_vdpa for \
                 /dev/vhost-vdpa-N, or use the option 'bind'"
            ),
        }
        Ok(())
    }

    /// Whether it stays: removing what a VMM has open would wait for that VMM.
    fn stays(&self) -> bool {
        self.bus.has(&self.name)
            && (self.bus.is_open(&self.name) || (self.keep && self.link.is_connected()))
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let name = &self.name;
        let stays = self.stays();
        if !stays && self.bus.has(name)
            // The driver asks for things meanwhile, so the device is still served.
            && let Err(error) = netlink::detach(name)
        {
            tracing::warn!(device = %name, %error, "cannot take the device from the vDPA bus");
        }
        self.served = None;
        if stays || self.files.destroy(name).is_err() {
            tracing::info!(device = %name, "the device stays in the kernel, for the next start");
        }
    }
}

/// The control side.
#[derive(Debug)]
pub(super) struct VduseControl {
    attachment: Attachment,
    link: Arc<LinkState>,
    guest: Arc<GuestState>,
    slots: Vec<Arc<RingSlot>>,
    mac: MacAddr,
    mtu: u16,
}

impl VduseControl {
    pub(super) fn new(
        attachment: Attachment,
        link: Arc<LinkState>,
        guest: Arc<GuestState>,
        slots: Vec<Arc<RingSlot>>,
        mtu: Option<u16>,
    ) -> Self {
        let mtu = mtu.unwrap_or(ethdev::mtu::DEFAULT);
        Self { attachment, link, guest, slots, mac: random_mac(), mtu }
    }
}

impl PortControl for VduseControl {
    fn info(&self) -> PortInfo {
        let queues = self.slots.len() / 2;
        PortInfo {
            driver: INFO.name,
            rx_queues: queues,
            tx_queues: queues,
            max_mtu: ethdev::mtu::MAX,
        }
    }

    fn link(&self) -> Link {
        self.link.link()
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.mac = mac;
        Ok(())
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        ethdev::mtu::check(mtu, &ethdev::mtu::VALID, || {
            format!("VDUSE device '{}'", self.attachment.name)
        })?;
        self.mtu = mtu;
        Ok(())
    }

    fn extended_stats(&self) -> Vec<(String, u64)> {
        ring_stats(&self.slots)
    }

    fn events(&self) -> Option<&PortEvents> {
        Some(&self.link.events)
    }

    fn details(&self) -> Vec<(String, String)> {
        let Attachment { name, bus, .. } = &self.attachment;
        let ready = self.slots.iter().filter(|slot| slot.is_ready()).count();
        let mut details = vec![
            ("device_file".into(), device::path(name).display().to_string()),
            ("vdpa_driver".into(), bus.bound(name).unwrap_or_else(|| "none".into())),
        ];
        details.extend(bus.product(name).map(|made| ("made".into(), made)));
        details.extend([
            ("rings".into(), format!("{ready} of {} running", self.slots.len())),
            ("guest_queue_pairs".into(), self.guest.queue_pairs().to_string()),
            ("guest_takes".into(), taken(&self.slots)),
        ]);
        details
    }
}
