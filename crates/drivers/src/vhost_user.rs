//! A virtual machine as a port: the vhost-user back-end of its virtio-net device.
//!
//! What the guest sends is received here, borrowed from the guest's own buffers, and what is sent
//! here is copied once, into the buffers that the guest offers. The socket's messages are handled
//! on the process's one vhost-user control thread.

use std::sync::Arc;

use eal::Access;
use eal::sandbox::Needs;
use ethdev::{
    DeviceSpec, DriverInfo, Error, Link, OpenPort, OptionInfo, Peer, PortControl, PortEvents,
    PortInfo, mtu,
};
use packet::MacAddr;
use vhost::MemoryKinds;
use vhost::control::{SocketHandle, SocketOptions};
use vhost_net::RingSlot;
use vhost_net::device::{GuestState, MAX_QUEUE_PAIRS, NetDevice};

use crate::backend::{LinkState, queues, random_mac, ring_stats, taken};
use crate::shared::Drivers;
use ethdev::access::{self, take_access};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "vhost-user",
    syntax: "vhost-user:PATH[,queues=1][,client=off][,mtu=1500][,offloads=on][,inband=off][,group=GROUP][,mode=MODE][,memory=ram][,postcopy=off][,iommu=off][,mac=MAC]",
    summary: "a virtual machine: the back-end of its vhost-user socket",
    options: &[
        OptionInfo {
            name: "queues",
            value: "N",
            help: "most queue pairs the guest may use, 1 to 127 (default 1)",
        },
        OptionInfo {
            name: "client",
            value: "on|off",
            help: "connect to the VMM's socket, and again when it is lost (default: listen)",
        },
        OptionInfo {
            name: "mtu",
            value: "BYTES",
            help: "longest payload sent to the guest, 68 to 65521 (default 1500, or what the VMM says)",
        },
        OptionInfo {
            name: "offloads",
            value: "on|off",
            help: "offer checksum and segmentation offloads to the guest (default on)",
        },
        OptionInfo {
            name: "inband",
            value: "on|off",
            help: "offer notifications as messages on the socket, for simulations (default off)",
        },
        access::GROUP,
        access::MODE,
        OptionInfo {
            name: "memory",
            value: "ram|any",
            help: "any: take guests' memory in files on disks, too, whose server can then stop the \
                   switch (default: memfd, tmpfs, hugetlbfs)",
        },
        OptionInfo {
            name: "postcopy",
            value: "on|off",
            help: "let guests be migrated to or from this port by post-copy (default off)",
        },
        OptionInfo {
            name: "iommu",
            value: "on|off",
            help: "serve a device behind the guest's IOMMU, as with QEMU's iommu_platform=on (default \
                   off)",
        },
        OptionInfo { name: "mac", value: "MAC", help: "this end's own address (default: random)" },
    ],
};

/// The control side of a port.
#[derive(Debug)]
struct VhostControl {
    /// First, so that the socket goes before the rest.
    socket: SocketHandle,
    link: Arc<LinkState>,
    guest: Arc<GuestState>,
    slots: Vec<Arc<RingSlot>>,
    client: bool,
    mac: MacAddr,
    /// `None`: what the guest was told, or the default.
    mtu: Option<u16>,
}

impl PortControl for VhostControl {
    fn info(&self) -> PortInfo {
        let queues = self.slots.len() / 2;
        PortInfo { driver: INFO.name, rx_queues: queues, tx_queues: queues, max_mtu: mtu::MAX }
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
        self.mtu.or_else(|| self.guest.mtu()).unwrap_or(mtu::DEFAULT)
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        mtu::check(mtu, &mtu::VALID, || self.socket.path().display().to_string())?;
        self.mtu = Some(mtu);
        Ok(())
    }

    fn extended_stats(&self) -> Vec<(String, u64)> {
        ring_stats(&self.slots)
    }

    fn events(&self) -> Option<&PortEvents> {
        Some(&self.link.events)
    }

    fn peer(&self) -> Option<Peer> {
        self.link.is_connected().then(|| Peer { process: self.socket.front_end() })
    }

    fn details(&self) -> Vec<(String, String)> {
        let peer = if self.link.is_connected() { "connected" } else { "none" };
        let ready = self.slots.iter().filter(|slot| slot.is_ready()).count();
        let takes = taken(&self.slots);
        let process = self.socket.front_end().map(|pid| ("front-end_pid".into(), pid.to_string()));
        let mut facts = vec![
            ("socket".into(), self.socket.path().display().to_string()),
            ("role".into(), if self.client { "client" } else { "server" }.into()),
            ("front-end".into(), peer.into()),
            ("rings".into(), format!("{ready} of {} running", self.slots.len())),
            ("guest_queue_pairs".into(), self.guest.queue_pairs().to_string()),
            ("guest_takes".into(), takes),
        ];
        facts.extend(process);
        facts
    }
}

/// Whether a port on `device` has processes started for post-copy migration.
#[must_use]
pub fn wants_pagers(device: &str) -> bool {
    let spec = device.parse::<DeviceSpec>().ok().filter(|spec| spec.driver() == INFO.name);
    spec.is_some_and(|mut spec| spec.take_switch("postcopy", false).unwrap_or(false))
}

/// Reads a device string: the path of the socket, and the options.
pub(crate) fn parse(mut spec: DeviceSpec) -> Result<(String, Options), Error> {
    let (options, path) = (Options::take(&mut spec)?, spec.target().to_owned());
    if path.is_empty() {
        return Err(spec.error("expected the path of a socket, as in vhost-user:/run/vm1.sock"));
    }
    spec.finish(&INFO.option_names())?;
    Ok((path, options))
}

/// Reads a device string and opens nothing.
///
/// # Errors
/// Options that make no sense.
pub fn check(spec: DeviceSpec) -> Result<(), Error> {
    parse(spec).map(drop)
}

/// What such a port needs of the system.
#[must_use]
pub fn needs(spec: &mut DeviceSpec) -> Needs {
    let connects = spec.take_switch("client", false).unwrap_or(false);
    access::needs(spec, connects)
}

/// Opens a port.
///
/// # Errors
/// When an option is wrong, or the socket cannot be made.
pub(crate) fn open(name: &str, spec: DeviceSpec, env: &Drivers) -> Result<OpenPort, Error> {
    let device_text = spec.text().to_owned();
    let (path, options) = parse(spec)?;
    let failed = |reason: String| Error::Device { what: INFO.name.to_owned(), reason };
    let device = NetDevice::new(name, options.queues).map_err(|error| failed(error.to_string()))?;
    let device = if options.offloads { device } else { device.without_offloads() };
    let device = if options.inband { device.with_inband_notifications() } else { device };
    let device = device.with_memory_of(options.memory);
    let device = match options.postcopy {
        true => device.with_postcopy().map_err(|error| failed(error.to_string()))?,
        false => device,
    };
    let device = if options.iommu { device.with_iommu() } else { Ok(device) };
    let device = device.map_err(|error| failed(error.to_string()))?;
    let (rx, tx) = queues(&device);
    let link = Arc::new(LinkState::default());
    let (guest, slots) = (Arc::clone(device.state()), device.slots().to_vec());
    let socket_options = SocketOptions {
        access: options.access.or(env.sockets),
        events: Some(Box::new({
            let (name, link) = (name.to_owned(), Arc::clone(&link));
            move |event| link.take(&name, event)
        })),
    };
    let socket = env
        .vhost_control
        .with(|control| {
            if options.client {
                control.add_client(&path, socket_options, Box::new(device))
            } else {
                control.add_server(&path, socket_options, Box::new(device))
            }
        })
        .map_err(|error| failed(error.to_string()))?;
    let mac = options.mac.unwrap_or_else(random_mac);
    let control =
        VhostControl { socket, link, guest, slots, client: options.client, mac, mtu: options.mtu };
    Ok(OpenPort::new(name, &device_text, Box::new(control), rx, tx))
}

pub(crate) struct Options {
    queues: u16,
    client: bool,
    mtu: Option<u16>,
    offloads: bool,
    inband: bool,
    access: Access,
    memory: MemoryKinds,
    postcopy: bool,
    iommu: bool,
    mac: Option<MacAddr>,
}

impl Options {
    fn take(spec: &mut DeviceSpec) -> Result<Self, Error> {
        let queues = spec.take_parsed("queues", 1, "a number of queue pairs, 1 to 127")?;
        if !(1..=MAX_QUEUE_PAIRS).contains(&queues) {
            return Err(spec.error(format!("queues={queues}: expected 1 to {MAX_QUEUE_PAIRS}")));
        }
        let client = spec.take_switch("client", false)?;
        let mtu = match spec.take_parsed("mtu", 0, "bytes, 68 to 65521")? {
            0 => None,
            bytes if mtu::VALID.contains(&bytes) => Some(bytes),
            bytes => {
                let (least, most) = (mtu::MIN, mtu::MAX);
                return Err(spec.error(format!("mtu={bytes}: expected {least} to {most}")));
            }
        };
        let offloads = spec.take_switch("offloads", true)?;
        let inband = spec.take_switch("inband", false)?;
        let access = take_access(spec).map_err(|reason| spec.error(reason))?;
        let memory = match spec.take("memory").as_deref() {
            None | Some("ram") => MemoryKinds::Lasting,
            Some("any") => MemoryKinds::Any,
            Some(other) => {
                return Err(spec.error(format!("memory={other}: expected ram or any")));
            }
        };
        let iommu = spec.take_switch("iommu", false)?;
        let mac = spec.take_station("mac")?;
        let postcopy = spec.take_switch("postcopy", false)?;
        if postcopy && iommu {
            let reason = "postcopy=on and iommu=on do not go together: of a guest whose memory is \
                          still missing there is nothing to be translated to";
            return Err(spec.error(reason));
        }
        Ok(Self { queues, client, mtu, offloads, inband, access, memory, postcopy, iommu, mac })
    }
}
