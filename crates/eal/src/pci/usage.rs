//! Whether somebody needs a device: the host through its network interface, or another process.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::{self, File};
use std::path::Path;

use ordered::Gather as _;

use super::info::DeviceInfo;
use super::spaces::{UIO_PCI_GENERIC, VFIO_PCI};
use super::sysfs::{Sysfs, link_name, names_in, read_attribute};
use super::uio;
use super::vfio::container::group_path;

/// Interface flag: it is up (linux/if.h).
const IFF_UP: u64 = 1;

/// What is known of the host's network beside sysfs.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    /// Interfaces with an IP address.
    pub with_address: BTreeSet<String>,
    /// Interfaces that a default route goes through.
    pub default_routes: BTreeSet<String>,
}

impl Network {
    /// As it is now. What cannot be read is taken to be empty: that an interface is up is the
    /// ordinary sign of its use, and comes from elsewhere.
    pub fn now() -> Self {
        let routes = |path, parse: fn(&str) -> Option<String>| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().filter_map(parse).collect::<Vec<_>>()
        };
        let four = routes("/proc/net/route", default_route_4);
        let six = routes("/proc/net/ipv6_route", default_route_6);
        Self {
            with_address: interfaces_with_address(),
            default_routes: four.into_iter().chain(six).gather(),
        }
    }
}

/// The interface of a line of `/proc/net/route`, where it is a default route.
fn default_route_4(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (name, destination, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
    (*destination == "00000000" && *mask == "00000000").then(|| (*name).to_owned())
}

/// As above, of `/proc/net/ipv6_route`. The kernel's own entry that refuses is on `lo`.
fn default_route_6(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (destination, prefix, name) = (fields.first()?, fields.get(1)?, fields.last()?);
    let all = destination.bytes().all(|byte| byte == b'0') && *prefix == "00";
    (all && *name != "lo").then(|| (*name).to_owned())
}

/// Names of interfaces with an IPv4 or IPv6 address.
fn interfaces_with_address() -> BTreeSet<String> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the function fills the pointer when it reports success.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return BTreeSet::new();
    }
    let mut names = BTreeSet::new();
    let mut next = list;
    // SAFETY: the list that the C library made ends with a null pointer, its names are strings, and
    // an address that is there begins with its family. It is freed once, after its last use.
    unsafe {
        while let Some(entry) = next.as_ref() {
            let family = entry.ifa_addr.as_ref().map(|address| i32::from(address.sa_family));
            if matches!(family, Some(libc::AF_INET | libc::AF_INET6)) {
                names.insert(CStr::from_ptr(entry.ifa_name).to_string_lossy().into_owned());
            }
            next = entry.ifa_next;
        }
        libc::freeifaddrs(list);
    }
    names
}

/// Why the host needs an interface, in words that complete "interface eth0"; empty if it does not.
pub(super) fn interface(sysfs: &Sysfs, name: &str, network: &Network) -> Vec<String> {
    let dir = sysfs.path("class/net").join(name);
    let mut reasons = Vec::new();
    if network.default_routes.contains(name) {
        reasons.push("carries the default route".to_owned());
    }
    if let Some(master) = link_name(&dir.join("master")) {
        reasons.push(format!("belongs to {master}"));
    }
    for upper in names_in(&dir) {
        if let Some(upper) = upper.strip_prefix("upper_")
            && link_name(&dir.join("master")).is_none_or(|master| master != upper)
        {
            reasons.push(format!("has {upper} on it"));
        }
    }
    if network.with_address.contains(name) {
        reasons.push("has an address".to_owned());
    }
    let flags = read_attribute(&dir.join("flags")).unwrap_or_default();
    let flags = flags.strip_prefix("0x").and_then(|flags| u64::from_str_radix(flags, 16).ok());
    if flags.unwrap_or(0) & IFF_UP != 0 {
        reasons.push("is up".to_owned());
    }
    reasons
}

/// Whether a process drives the device: taking it away would wait until that ends (VFIO), or pull
/// it out from under that (UIO).
pub(super) fn has_process(info: &DeviceInfo, sysfs: &Sysfs) -> bool {
    match (info.driver.as_deref(), info.iommu_group) {
        (Some(VFIO_PCI), Some(group)) => {
            let path = group_path(group, !sysfs.group_is_without_iommu(group));
            is_busy(&path)
        }
        (Some(UIO_PCI_GENERIC), _) => uio::node(&sysfs.device_path(info.address))
            .and_then(|node| uio::open_node(&node).ok())
            .is_some_and(|file| uio::lock(&file).is_err()),
        _ => false,
    }
}

/// A group can be opened once.
fn is_busy(path: &Path) -> bool {
    let opened = File::options().read(true).write(true).open(path);
    opened.is_err_and(|cause| cause.raw_os_error() == Some(libc::EBUSY))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found() {
        let text = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                    eth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\n\
                    eth1 0001A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
        let found: Vec<String> = text.lines().filter_map(default_route_4).collect();
        assert_eq!(found, ["eth0"]);
        let zeroes = "0".repeat(32);
        let text = format!(
            "{zeroes} 00 {zeroes} 00 fe800000 00000400 1 0 00000003 eth2\n\
             {zeroes} 00 {zeroes} 00 {zeroes} ffffffff 1 0 00200200 lo\n\
             fe80{rest} 40 {zeroes} 00 {zeroes} 00000100 1 0 00000001 eth3\n",
            rest = "0".repeat(28)
        );
        let found: Vec<String> = text.lines().filter_map(default_route_6).collect();
        assert_eq!(found, ["eth2"]);
    }

    #[test]
    fn the_uses_of_an_interface_are_all_told() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("class/net/eth0");
        fs::create_dir_all(&net).unwrap();
        fs::write(net.join("flags"), "0x1002\n").unwrap();
        let sysfs = Sysfs::at(dir.path());
        let mut network = Network::default();
        assert_eq!(interface(&sysfs, "eth0", &network), [""; 0]);
        fs::write(net.join("flags"), "0x1003\n").unwrap();
        std::os::unix::fs::symlink("../br0", net.join("master")).unwrap();
        std::os::unix::fs::symlink("../br0", net.join("upper_br0")).unwrap();
        std::os::unix::fs::symlink("../vlan5", net.join("upper_vlan5")).unwrap();
        network.with_address.insert("eth0".into());
        network.default_routes.insert("eth0".into());
        assert_eq!(
            interface(&sysfs, "eth0", &network),
            [
                "carries the default route",
                "belongs to br0",
                "has vlan5 on it",
                "has an address",
                "is up"
            ]
        );
        assert_eq!(interface(&sysfs, "eth9", &network), [""; 0]);
        // This machine's own: at least the loopback interface has an address, if it is up.
        let _ = Network::now();
    }
}
