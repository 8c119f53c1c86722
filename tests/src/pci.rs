use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::image::{GuestImage, ImageSpec};
use crate::netns::Netns;
use crate::part::Part;
use crate::peers::find_program;
use crate::qemu::Vm;
use crate::ringway;
use crate::wait;
use crate::wire::Wire;

/// Where Debian has the drivers that DPDK loads when it starts.
const DPDK_DRIVERS: &str = "/usr/lib/x86_64-linux-gnu/dpdk";

/// Modules that take a network device from its driver and give it back, and those that others need
/// who boot the same image.
const MODULES: [&str; 11] = [
    "igb",
    "virtio_net",
    "vfio_pci",
    "vfio_iommu_type1",
    "uio_pci_generic",
    "vfio",
    "tun",
    "8021q",
    "vduse",
    "virtio_vdpa",
    "vhost_vdpa",
];

/// What a network device of a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Intel 82576.
    Igb,
    /// A virtio network device, modern and behind the IOMMU.
    Virtio,
}

/// A network device of a guest on the PCI bus, with its cable in the test's hands, to be driven
/// by programs in the guest. It is behind a root port of its own, as on a real machine, so it can
/// be reset and unplugged.
#[derive(Debug, Clone)]
pub struct PciNic {
    model: Model,
    bus: u8,
    function: u8,
    mac: String,
    netdev: Value,
    options: String,
}

impl PciNic {
    /// The device on bus `bus`: at PCI address `0000:BUS:00.0`. A guest's buses are numbered 1, 2
    /// and so on without a gap, up to 9.
    #[must_use]
    pub fn new(model: Model, bus: u8, mac: &str, wire: &Wire) -> Self {
        Self::with_netdev(model, bus, mac, wire.netdev(&format!("wire{bus}x0")))
    }

    /// As [`new`](Self::new), plugged into a hub of QEMU's: what one device sends, all others get.
    #[must_use]
    pub fn on_hub(model: Model, bus: u8, mac: &str, hub: u8) -> Self {
        let netdev = json!({ "type": "hubport", "id": format!("wire{bus}x0"), "hubid": hub });
        Self::with_netdev(model, bus, mac, netdev)
    }

    /// As [`new`](Self::new), with an interface `name` of the host, which QEMU makes, and `queues` of
    /// it, for the cable.
    #[must_use]
    pub fn on_tap(model: Model, bus: u8, mac: &str, name: &str, queues: u16) -> Self {
        let netdev = json!({
            "type": "tap",
            "id": format!("wire{bus}x0"),
            "ifname": name,
            "queues": queues,
            "script": "no",
            "downscript": "no",
            "vhost": false,
        });
        Self::with_netdev(model, bus, mac, netdev)
    }

    fn with_netdev(model: Model, bus: u8, mac: &str, netdev: Value) -> Self {
        Self { model, bus, function: 0, mac: mac.to_owned(), netdev, options: String::new() }
    }

    /// Another function of the device on its bus: in one IOMMU group with function 0, which comes
    /// first and needs `multifunction=on` among its options.
    #[must_use]
    pub fn function(mut self, function: u8) -> Self {
        self.netdev["id"] = format!("wire{}x{function}", self.bus).into();
        self.function = function;
        self
    }

    /// Further properties of the device, such as `mq=on,vectors=10`.
    #[must_use]
    pub fn options(mut self, options: &str) -> Self {
        options.clone_into(&mut self.options);
        self
    }

    /// Its PCI address in the guest.
    #[must_use]
    pub fn address(&self) -> String {
        format!("0000:{:02x}:00.{}", self.bus, self.function)
    }

    /// The id of the device in QEMU, for QMP commands.
    #[must_use]
    pub fn id(&self) -> String {
        format!("nic{}x{}", self.bus, self.function)
    }

    /// Its MAC address.
    pub(crate) fn mac(&self) -> &str {
        &self.mac
    }

    /// The number of its bus, and of its root port.
    pub(crate) const fn bus(&self) -> u8 {
        self.bus
    }

    /// What it consists of in QEMU.
    pub(crate) fn parts(&self) -> [Part; 2] {
        let Self { bus, function, mac, options, netdev, .. } = self;
        let device = match self.model {
            Model::Igb => "igb",
            Model::Virtio => "virtio-net-pci,disable-legacy=on,iommu_platform=on,ats=on",
        };
        let comma = if options.is_empty() { "" } else { "," };
        let device = format!(
            "{device},id={},netdev=wire{bus}x{function},mac={mac},bus=port{bus},addr=0.{function},\
             romfile={comma}{options}",
            self.id()
        );
        [Part::Netdev(netdev.clone()), Part::Device(device)]
    }
}

/// The image for guests whose network devices are driven by programs: with the `ringway` binary,
/// and all modules for that, which `modprobe` loads when asked to.
///
/// # Errors
/// When the binary does not build, or something that the image needs is missing.
pub fn image() -> Result<GuestImage> {
    spec()?.build()
}

/// As [`image`], to be added to.
///
/// # Errors
/// As there.
pub fn spec() -> Result<ImageSpec> {
    Ok(ImageSpec::new("pci").on_demand(&MODULES).program_named(&ringway::binary()?, "ringway"))
}

/// As [`spec`], with `dpdk-testpmd` and all of DPDK's drivers.
///
/// # Errors
/// As there, or when DPDK is not installed.
pub fn spec_with_testpmd() -> Result<ImageSpec> {
    let testpmd = find_program("dpdk-testpmd").context("dpdk-testpmd is not installed")?;
    let mut spec = spec()?.named("pci-dpdk").program(&testpmd);
    for drivers in std::fs::read_dir(DPDK_DRIVERS).context(DPDK_DRIVERS)? {
        let drivers = drivers?.path();
        for library in std::fs::read_dir(&drivers).with_context(|| drivers.display().to_string())? {
            let library = library?.path();
            // Those that this guest can have; all of them, with what they need, would be 200 MB.
            let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let wanted = [
                "_bus_",
                "_mempool_",
                "net_e1000",
                "net_virtio",
                "net_vhost",
                "net_null",
                "net_af_packet",
            ];
            if !library.is_symlink() && wanted.iter().any(|part| name.contains(part)) {
                spec = spec.library(&library);
            }
        }
    }
    Ok(spec)
}

/// Makes room for DPDK in a guest's memory: `pages` huge pages of 2 MiB, and their file system.
#[must_use]
pub fn huge_pages(pages: u32) -> String {
    format!(
        "echo {pages} >/proc/sys/vm/nr_hugepages && mkdir -p /dev/hugepages && \
         (mountpoint -q /dev/hugepages || mount -t hugetlbfs nodev /dev/hugepages) && \
         [ $(cat /proc/sys/vm/nr_hugepages) = {pages} ]"
    )
}

/// Binds a device that has no driver to `vfio-pci`, without Ringway.
#[must_use]
pub fn give_to_vfio(address: &str) -> String {
    format!(
        "cd /sys/bus/pci/devices/{address} && echo vfio-pci >driver_override && \
         {{ [ ! -e driver ] || echo {address} >driver/unbind; }} && \
         echo {address} >/sys/bus/pci/drivers_probe && [ -e driver/module ]"
    )
}

/// Sends 64 flows of UDP from each of two hosts, 10.9.0.1 and 10.9.0.2, to the other, and waits
/// until both receive queues of the first port of the switch in the guest, which has its control
/// socket at `/tmp/ctl`, have got some.
///
/// # Errors
/// When one gets none within `limit`.
pub fn fill_two_queues(vm: &mut Vm, hosts: &[Netns; 2], limit: Duration) -> Result<()> {
    for (host, other) in hosts.iter().zip([2, 1]) {
        let to = format!("/dev/udp/10.9.0.{other}/$port");
        let line = format!("for port in $(seq 5000 5063); do echo $port >{to}; done");
        host.sh(&format!("bash -c '{line}'"))?;
    }
    // They are still under way when the host has sent them.
    let mut stats = Value::Null;
    let both = wait::until("frames", limit, Duration::from_millis(100), || {
        stats = serde_json::from_str(&vm.sh("ringway show stats --json --control /tmp/ctl")?)?;
        let queues = [0, 1].map(|queue: usize| &stats["ports"][0]["rx_queues"][queue]);
        Ok(queues.iter().all(|queue| queue["packets"].as_u64() > Some(0)).then_some(()))
    });
    both.with_context(|| format!("{stats:#}"))
}
