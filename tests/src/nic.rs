use std::path::{Path, PathBuf};

use serde_json::json;

use crate::part::Part;

/// A network device of a guest, backed by a vhost-user socket.
#[derive(Debug, Clone)]
pub struct Nic {
    socket: PathBuf,
    mac: String,
    queues: u16,
    mtu: Option<u16>,
    server: bool,
    options: String,
}

impl Nic {
    /// A device with one queue pair; QEMU connects to `socket`, and connects again when it is lost.
    #[must_use]
    pub fn new(socket: &Path, mac: &str) -> Self {
        Self {
            socket: socket.to_owned(),
            mac: mac.to_owned(),
            queues: 1,
            mtu: None,
            server: false,
            options: String::new(),
        }
    }

    /// The number of queue pairs. Linux uses as many as the guest has CPUs.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    /// The MTU that the device offers the guest (`VIRTIO_NET_F_MTU`).
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// QEMU listens on the socket and the back-end connects.
    #[must_use]
    pub fn server(mut self) -> Self {
        self.server = true;
        self
    }

    /// Further properties of `virtio-net-pci`, such as `packed=on,mrg_rxbuf=off`.
    #[must_use]
    pub fn options(mut self, options: &str) -> Self {
        self.options = options.to_owned();
        self
    }

    /// Its MAC address.
    pub(crate) fn mac(&self) -> &str {
        &self.mac
    }

    /// What it consists of in QEMU, as number `n` of its guest, behind the root port of bus `bus`.
    pub(crate) fn parts(&self, n: usize, bus: u8) -> [Part; 3] {
        let Self { socket, mac, queues, .. } = self;
        // Connections of its own accord and again after a loss, or those of others.
        let mode = if self.server { "server=on,wait=off" } else { "reconnect-ms=200" };
        // A vector for each ring, one for the control queue and one for configuration changes.
        let vectors = 2 * queues + 2;
        let mut device = format!(
            "virtio-net-pci,netdev=net{n},mac={mac},bus=port{bus},mq=on,vectors={vectors},romfile="
        );
        if let Some(mtu) = self.mtu {
            device += &format!(",host_mtu={mtu}");
        }
        if !self.options.is_empty() {
            device += &format!(",{}", self.options);
        }
        [
            Part::Chardev(format!("socket,id=char{n},path={},{mode}", socket.display())),
            Part::Netdev(json!({
                "type": "vhost-user",
                "id": format!("net{n}"),
                "chardev": format!("char{n}"),
                "queues": queues,
            })),
            Part::Device(device),
        ]
    }
}
