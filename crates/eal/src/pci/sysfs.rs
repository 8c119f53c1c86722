//! The kernel's view of the PCI bus: `/sys/bus/pci`.
//!
//! What its files hold comes from devices and other programs, so every file is read once, bounded,
//! and parsed with a check.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ordered::Order as _;

use super::error::PciError;
use super::info::{DeviceInfo, PciAddress};

/// No attribute that is read here is longer than a page.
const MAX_ATTRIBUTE: u64 = 4096;

/// Bit of a resource's flags: it is memory (linux/ioport.h).
const IORESOURCE_MEM: u64 = 0x200;
/// Bit of a resource's flags: it is a range of I/O ports.
const IORESOURCE_IO: u64 = 0x100;
/// Bit of a resource's flags: it may lie above 4 GiB.
const IORESOURCE_MEM_64: u64 = 0x0010_0000;
/// Bit of a resource's flags: reading it has no side effects.
const IORESOURCE_PREFETCH: u64 = 0x2000;

/// What a base address register describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Number of the register, 0 to 5.
    pub index: u8,
    /// Its bus address, as the host's processors see it; zero without privilege.
    pub start: u64,
    /// Size in bytes, never 0.
    pub len: u64,
    /// Memory, or otherwise I/O ports.
    pub is_memory: bool,
    /// It may lie above 4 GiB: the next register has the upper half.
    pub is_64bit: bool,
    /// Memory that may be prefetched.
    pub is_prefetchable: bool,
}

/// A sysfs tree: the kernel's, or one made up for a test.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    /// The kernel's, at `/sys`.
    fn default() -> Self {
        Self::at("/sys")
    }
}

impl Sysfs {
    /// The tree at `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A path below the root.
    pub(super) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    /// The directory of a device.
    pub(super) fn device_path(&self, address: PciAddress) -> PathBuf {
        self.path("bus/pci/devices").join(address.to_string())
    }

    /// The directory of a PCI driver; it is there when the driver is loaded.
    pub(super) fn driver_path(&self, driver: &str) -> PathBuf {
        self.path("bus/pci/drivers").join(driver)
    }

    /// All devices, by address. A device that goes away meanwhile is left out.
    ///
    /// # Errors
    /// When there is no PCI bus.
    pub fn devices(&self) -> io::Result<Vec<DeviceInfo>> {
        let mut devices = Vec::new();
        for entry in fs::read_dir(self.path("bus/pci/devices"))? {
            let name = entry?.file_name();
            let address = name.to_str().and_then(|name| name.parse().ok());
            devices.extend(address.and_then(|address| self.device(address).ok()));
        }
        devices.order_by_key(|device| device.address);
        Ok(devices)
    }

    /// The device at `address`.
    ///
    /// # Errors
    /// When there is none, or the kernel's files make no sense.
    pub fn device(&self, address: PciAddress) -> Result<DeviceInfo, PciError> {
        let dir = self.device_path(address);
        if !dir.is_dir() {
            let hint =
                "there is no such device; 'ringway devices list --all' shows those there are";
            return Err(PciError::new(address, hint));
        }
        let number = |name: &str| {
            let path = dir.join(name);
            let text = read_attribute(&path)
                .map_err(|cause| PciError::system(address, &read_what(&path), &cause))?;
            parse_hex(&text).ok_or_else(|| {
                let path = path.display();
                PciError::new(address, format!("{path} is {text:?}, expected a hexadecimal number"))
            })
        };
        let short = |name: &str| {
            let value = number(name)?;
            u16::try_from(value).map_err(|_| {
                PciError::new(address, format!("its {name} is {value:#x}, more than 16 bits"))
            })
        };
        Ok(DeviceInfo {
            address,
            vendor: short("vendor")?,
            device: short("device")?,
            subsystem_vendor: short("subsystem_vendor").unwrap_or(0),
            subsystem_device: short("subsystem_device").unwrap_or(0),
            class: u32::try_from(number("class")? & 0xff_ffff).unwrap_or(0),
            revision: number("revision").ok().and_then(|n| u8::try_from(n).ok()).unwrap_or(0),
            driver: link_name(&dir.join("driver")),
            numa_node: self.numa_node(address),
            iommu_group: link_name(&dir.join("iommu_group")).and_then(|name| name.parse().ok()),
            interfaces: interfaces(&dir),
        })
    }

    /// `None` also where the kernel says -1: it does not know.
    fn numa_node(&self, address: PciAddress) -> Option<u16> {
        read_attribute(&self.device_path(address).join("numa_node")).ok()?.parse().ok()
    }

    /// What the base address registers of a device describe, by number.
    ///
    /// # Errors
    /// When the device has no such file.
    pub fn resources(&self, address: PciAddress) -> Result<Vec<Resource>, PciError> {
        let path = self.device_path(address).join("resource");
        let text = read_attribute(&path)
            .map_err(|cause| PciError::system(address, &read_what(&path), &cause))?;
        Ok((0..6).zip(text.lines()).filter_map(|(index, line)| resource(index, line)).collect())
    }

    /// The devices of an IOMMU group, by address.
    pub(super) fn group_devices(&self, group: u32) -> Vec<DeviceInfo> {
        let dir = self.path(format!("kernel/iommu_groups/{group}/devices"));
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut devices: Vec<DeviceInfo> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|address| self.device(address).ok())
            .collect();
        devices.order_by_key(|device| device.address);
        devices
    }

    /// Whether VFIO made the group up for a device without an IOMMU.
    #[must_use]
    pub fn group_is_without_iommu(&self, group: u32) -> bool {
        read_attribute(&self.path(format!("kernel/iommu_groups/{group}/name")))
            .is_ok_and(|name| name == "vfio-noiommu")
    }

    /// How the IOMMU treats a group where the kernel is in charge: `identity` lets physical
    /// addresses through, anything else translates. `None` where it cannot be told.
    pub(super) fn group_type(&self, group: u32) -> Option<String> {
        read_attribute(&self.path(format!("kernel/iommu_groups/{group}/type"))).ok()
    }
}

/// An attribute's text without white space around it.
pub(super) fn read_attribute(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_ATTRIBUTE).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Writes an attribute in one go, as the kernel wants it. The file must exist.
pub(super) fn write_attribute(path: &Path, text: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

/// For errors: what was tried.
pub(super) fn read_what(path: &Path) -> String {
    format!("read {}", path.display())
}

/// The last part of where a link leads to.
pub(super) fn link_name(path: &Path) -> Option<String> {
    fs::read_link(path).ok()?.file_name()?.to_str().map(str::to_owned)
}

/// Names in a directory; none when it is not there.
pub(super) fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.order();
    names
}

/// Network interfaces that a device's driver makes: its own, or those of the virtio device in it.
fn interfaces(dir: &Path) -> Vec<String> {
    let virtio = names_in(dir).into_iter().filter(|name| name.starts_with("virtio"));
    let below = virtio.flat_map(|name| names_in(&dir.join(name).join("net")));
    names_in(&dir.join("net")).into_iter().chain(below).collect()
}

fn parse_hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// One line of `resource`: first and last address and flags. All zeroes where there is nothing.
fn resource(index: u8, line: &str) -> Option<Resource> {
    let mut numbers = line.split_whitespace().map(parse_hex);
    let (start, end, flags) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let is_memory = flags & IORESOURCE_MEM != 0;
    if !is_memory && flags & IORESOURCE_IO == 0 {
        return None;
    }
    let len = end.checked_sub(start)?.checked_add(1)?;
    Some(Resource {
        index,
        start,
        len,
        is_memory,
        is_64bit: is_memory && flags & IORESOURCE_MEM_64 != 0,
        is_prefetchable: is_memory && flags & IORESOURCE_PREFETCH != 0,
    })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::pci::fake::FakeSysfs;

    #[test]
    fn devices_are_found_with_what_the_kernel_knows() {
        let fake = FakeSysfs::new(&["igb"]);
        fake.device("0000:02:00.0", None, None);
        fake.device("0000:01:00.1", Some("igb"), Some(7));
        fake.interface("0000:01:00.1", "eth3", "0x1002");
        fake.write("bus/pci/devices/0000:01:00.1/virtio5/net/eth4/flags", "");
        fake.write("bus/pci/devices/0000:01:00.1/numa_node", "1\n");
        fake.write("bus/pci/devices/no-address/vendor", "0x1\n");
        let devices = fake.sysfs().devices().unwrap();
        let [first, second] = devices.as_slice() else { panic!("{devices:?}") };
        assert_eq!(first.address.to_string(), "0000:01:00.1");
        assert_eq!((first.vendor, first.device, first.class), (0x8086, 0x10c9, 0x02_00_00));
        assert_eq!((first.driver.as_deref(), first.iommu_group), (Some("igb"), Some(7)));
        assert_eq!((first.numa_node, first.revision), (Some(1), 1));
        assert_eq!(first.interfaces, ["eth3", "eth4"]);
        assert_eq!((&second.driver, second.iommu_group, second.numa_node), (&None, None, None));
        assert_eq!(fake.sysfs().group_devices(7).len(), 1);
        assert!(fake.sysfs().group_devices(8).is_empty());
    }

    #[test]
    fn files_that_make_no_sense_are_named() {
        let fake = FakeSysfs::new(&[]);
        let address = "0000:02:00.0".parse().unwrap();
        let error = fake.sysfs().device(address).unwrap_err().to_string();
        assert!(error.contains("no such device"), "{error}");
        for bad in ["", "8086", "0x", "0xlong", "0x10000"] {
            fake.device("0000:02:00.0", None, None);
            fake.write("bus/pci/devices/0000:02:00.0/vendor", bad);
            let error = fake.sysfs().device(address).unwrap_err().to_string();
            assert!(error.contains("vendor"), "{bad}: {error}");
        }
        assert!(fake.sysfs().devices().unwrap().is_empty());
        assert!(Sysfs::at("/no/such/sysfs").devices().is_err());
    }

    #[test]
    fn resources_are_parsed_and_nonsense_left_out() {
        let fake = FakeSysfs::new(&[]);
        fake.device("0000:02:00.0", None, None);
        fake.write(
            "bus/pci/devices/0000:02:00.0/resource",
            "0x00000000fe800000 0x00000000fe81ffff 0x0000000000040200\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x000000000000c000 0x000000000000c01f 0x0000000000040101\n\
             0x0000380000000000 0x0000380000003fff 0x000000000014220c\n\
             0x0000000000000009 0x0000000000000003 0x0000000000040200\n\
             nonsense\n\
             0x00000000fe900000 0x00000000fe9fffff 0x0000000000046200\n",
        );
        let address = "0000:02:00.0".parse().unwrap();
        let found = fake.sysfs().resources(address).unwrap();
        let found: Vec<(u8, u64, bool, bool, bool)> = found
            .iter()
            .map(|bar| (bar.index, bar.len, bar.is_memory, bar.is_64bit, bar.is_prefetchable))
            .collect();
        let expected = [
            (0, 0x2_0000, true, false, false),
            (2, 32, false, false, false),
            (3, 0x4000, true, true, true),
        ];
        assert_eq!(found, expected);
    }
}
