//! A made-up sysfs tree, for tests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::sysfs::Sysfs;

/// A tree with a few devices, which ends with this value.
pub struct FakeSysfs {
    dir: TempDir,
}

impl FakeSysfs {
    /// A PCI bus without devices, and with the drivers named.
    pub fn new(drivers: &[&str]) -> Self {
        let this = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(this.root().join("bus/pci/devices")).unwrap();
        this.write("bus/pci/drivers_probe", "");
        for driver in drivers {
            this.write(&format!("bus/pci/drivers/{driver}/unbind"), "");
        }
        this
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn sysfs(&self) -> Sysfs {
        Sysfs::at(self.root())
    }

    /// Writes a file, with the directories that lead there.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    /// An igb device at `address`, in a group of its own if any.
    pub fn device(&self, address: &str, driver: Option<&str>, group: Option<u32>) {
        let device = format!("bus/pci/devices/{address}");
        for (name, text) in [
            ("vendor", "0x8086\n"),
            ("device", "0x10c9\n"),
            ("subsystem_vendor", "0x8086\n"),
            ("subsystem_device", "0xa03c\n"),
            ("class", "0x020000\n"),
            ("revision", "0x01\n"),
            ("numa_node", "-1\n"),
            ("driver_override", "(null)\n"),
        ] {
            self.write(&format!("{device}/{name}"), text);
        }
        let link =
            |to: &str, name: &str| symlink(to, self.root().join(&device).join(name)).unwrap();
        if let Some(driver) = driver {
            link(&format!("../../../../bus/pci/drivers/{driver}"), "driver");
        }
        if let Some(group) = group {
            link(&format!("../../../../kernel/iommu_groups/{group}"), "iommu_group");
            let devices = self.root().join(format!("kernel/iommu_groups/{group}/devices"));
            fs::create_dir_all(&devices).unwrap();
            symlink(self.root().join(&device), devices.join(address)).unwrap();
        }
    }

    /// A network interface of the device at `address`.
    pub fn interface(&self, address: &str, name: &str, flags: &str) {
        let dir = format!("bus/pci/devices/{address}/net/{name}");
        fs::create_dir_all(self.root().join(&dir)).unwrap();
        self.write(&format!("class/net/{name}/flags"), flags);
    }
}
