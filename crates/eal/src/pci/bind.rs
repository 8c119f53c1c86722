//! Taking devices from the kernel's drivers, and giving them back.
//!
//! A driver is named for one device alone (`driver_override`), so that no other device of its
//! kind changes hands. Which driver a device had before is kept in a file, to give it back later,
//! after a restart too; it is lost when the machine starts again, as the binding itself is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ordered::Order as _;

use super::error::PciError;
use super::info::{DeviceInfo, PciAddress};
use super::spaces::{UIO_PCI_GENERIC, VFIO_PCI, no_iommu};
use super::sysfs::{Sysfs, read_attribute, write_attribute};
use super::usage::{Network, has_process, interface};

/// Where is remembered which drivers devices had.
pub const STATE: &str = "/run/ringway/pci";

/// Stands in the file of a device that had no driver.
const NO_DRIVER: &str = "-";

/// What was done to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The driver before.
    pub from: Option<String>,
    /// The driver now.
    pub to: Option<String>,
}

/// Binds devices to drivers.
#[derive(Clone, Debug)]
pub struct Binder {
    sysfs: Sysfs,
    state: PathBuf,
    network: Network,
    /// The program that loads modules; none in tests.
    modprobe: Option<PathBuf>,
}

impl Default for Binder {
    /// For this machine.
    fn default() -> Self {
        Self {
            sysfs: Sysfs::default(),
            state: STATE.into(),
            network: Network::now(),
            modprobe: Some("modprobe".into()),
        }
    }
}

impl Binder {
    /// Binds the device at `address` to `driver`, and remembers the one that it had.
    ///
    /// `force`: also when the host uses its network interface, or it is no network device.
    ///
    /// # Errors
    /// When the device is in use, the driver does not take it, or this process may not; the device
    /// then has its former driver again, where that takes it.
    pub fn bind(&self, address: PciAddress, driver: &str, force: bool) -> Result<Change, PciError> {
        let info = self.sysfs.device(address)?;
        let from = info.driver.clone();
        if from.as_deref() == Some(driver) {
            return Ok(Change { to: from.clone(), from });
        }
        if driver.is_empty() || driver.contains(['/', '\n', '\0']) {
            return Err(PciError::new(address, format!("'{driver}' is no name of a driver")));
        }
        self.check_unused(&info, force)?;
        self.need_driver(&info, driver)?;
        self.remember(&info)?;
        if let Err(error) = self.rebind(&info, Some(driver), driver) {
            // The former driver is the one that the kernel would choose.
            let _ = self.rebind(&info, from.as_deref(), "\n");
            self.forget_if_restored(&info);
            return Err(error);
        }
        Ok(Change { from, to: Some(driver.to_owned()) })
    }

    /// Takes the device at `address` from its driver, and remembers that.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn unbind(&self, address: PciAddress, force: bool) -> Result<Change, PciError> {
        let info = self.sysfs.device(address)?;
        if info.driver.is_some() {
            self.check_unused(&info, force)?;
            self.remember(&info)?;
            self.rebind(&info, None, "\n")?;
        }
        Ok(Change { from: info.driver, to: None })
    }

    /// Gives the device at `address` back to the driver that it had.
    ///
    /// # Errors
    /// When nothing is remembered, a process uses the device, or the driver does not take it.
    pub fn restore(&self, address: PciAddress) -> Result<Change, PciError> {
        let info = self.sysfs.device(address).inspect_err(|_| {
            // One that was pulled out will never come back as what it was.
            if !self.sysfs.device_path(address).exists() {
                let _ = self.forget(address);
            }
        })?;
        let Some(former) = self.remembered(address)? else {
            return Err(PciError::new(
                address,
                format!(
                    "no former driver is remembered in {}; name one: ringway devices bind \
                     {address} --driver NAME",
                    self.state.display()
                ),
            ));
        };
        let from = info.driver.clone();
        let to = (former != NO_DRIVER).then_some(former);
        if from != to {
            self.check_unused(&info, true)?;
            if let Some(driver) = &to {
                self.load(driver, &self.sysfs.driver_path(driver));
            }
            self.rebind(&info, to.as_deref(), "\n")?;
        }
        self.forget(address)?;
        Ok(Change { from, to })
    }

    /// The devices whose former driver is remembered.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn changed(&self) -> io::Result<Vec<PciAddress>> {
        let entries = match fs::read_dir(&self.state) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            found.extend(name.to_str().and_then(|name| name.parse::<PciAddress>().ok()));
        }
        found.order();
        Ok(found)
    }

    /// Whether nobody needs the device.
    fn check_unused(&self, info: &DeviceInfo, force: bool) -> Result<(), PciError> {
        if has_process(info, &self.sysfs) {
            return Err(PciError::new(
                info.address,
                "a process is using it (or its IOMMU group): end that first",
            ));
        }
        if force {
            return Ok(());
        }
        // Whether the host needs a disk or a display cannot be told here.
        if !info.is_network() {
            return Err(PciError::new(
                info.address,
                format!(
                    "it is no network device (class {:06x}); if the host can do without it, \
                     repeat this with --force",
                    info.class
                ),
            ));
        }
        for name in &info.interfaces {
            let reasons = interface(&self.sysfs, name, &self.network);
            if !reasons.is_empty() {
                return Err(PciError::new(
                    info.address,
                    format!(
                        "the host uses it: interface {name} {}; if it can do without, repeat this \
                         with --force",
                        reasons.join(", ")
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Loads a driver where it is not there, and checks that it can do anything here.
    fn need_driver(&self, info: &DeviceInfo, driver: &str) -> Result<(), PciError> {
        let path = self.sysfs.driver_path(driver);
        self.load(driver, &path);
        if driver == VFIO_PCI {
            // Ordinarily it comes with the driver.
            self.load("vfio_iommu_type1", &self.sysfs.path("module/vfio_iommu_type1"));
            let without = self.sysfs.path("module/vfio/parameters/enable_unsafe_noiommu_mode");
            let allowed = read_attribute(&without).is_ok_and(|value| value == "Y");
            if info.iommu_group.is_none() && !allowed {
                return Err(PciError::new(info.address, no_iommu(info.address)));
            }
        }
        if path.is_dir() {
            return Ok(());
        }
        let instead = match driver {
            VFIO_PCI | UIO_PCI_GENERIC => "the kernel's package of further modules may have it",
            _ => "expected vfio-pci, uio_pci_generic or a driver of the kernel's for this device",
        };
        Err(PciError::new(
            info.address,
            format!("there is no driver '{driver}', and 'modprobe {driver}' gives none: {instead}"),
        ))
    }

    /// Loads a module unless `sign`, which it makes, is there. Whether it worked is seen by that.
    fn load(&self, module: &str, sign: &Path) {
        let Some(modprobe) = self.modprobe.as_ref().filter(|_| !sign.is_dir()) else { return };
        let mut command = Command::new(modprobe);
        command.args(["--", module]).stdin(Stdio::null()).stdout(Stdio::null());
        match command.stderr(Stdio::null()).status() {
            Ok(status) => tracing::debug!("modprobe {module}: {status}"),
            Err(cause) => tracing::debug!("modprobe {module}: {cause}"),
        }
    }

    /// Takes the device from its driver, offers it to the drivers that `choice` allows, and checks
    /// that `driver` has it.
    fn rebind(
        &self,
        info: &DeviceInfo,
        driver: Option<&str>,
        choice: &str,
    ) -> Result<(), PciError> {
        let address = info.address;
        self.write_override(info, choice)?;
        // Not what `info` says: this may be the way back.
        let now = self.sysfs.device(address)?;
        self.take_away(&now)?;
        let refused = match driver {
            None => None,
            Some(_) => {
                let probe = self.sysfs.path("bus/pci/drivers_probe");
                write_attribute(&probe, &address.to_string()).err()
            }
        };
        let now = self.sysfs.device(address)?.driver;
        if now.as_deref() == driver {
            return Ok(());
        }
        let Some(driver) = driver else {
            let now = now.unwrap_or_default();
            return Err(PciError::new(address, format!("driver '{now}' does not let go of it")));
        };
        let why = match (refused, now) {
            (Some(cause), _) => format!(": {cause}"),
            (None, Some(other)) => format!(", '{other}' has it instead"),
            (None, None) => String::new(),
        };
        Err(PciError::new(
            address,
            format!("driver '{driver}' does not take it{why}; 'dmesg' may have the reason"),
        ))
    }

    fn write_override(&self, info: &DeviceInfo, choice: &str) -> Result<(), PciError> {
        let path = self.sysfs.device_path(info.address).join("driver_override");
        write_attribute(&path, choice).map_err(|cause| cannot_write(info.address, &path, &cause))
    }

    fn take_away(&self, info: &DeviceInfo) -> Result<(), PciError> {
        let Some(driver) = &info.driver else { return Ok(()) };
        let path = self.sysfs.driver_path(driver).join("unbind");
        write_attribute(&path, &info.address.to_string())
            .map_err(|cause| cannot_write(info.address, &path, &cause))
    }

    fn state_path(&self, address: PciAddress) -> PathBuf {
        self.state.join(address.to_string())
    }

    /// The first driver is the one to give the device back to: later ones were chosen here.
    fn remember(&self, info: &DeviceInfo) -> Result<(), PciError> {
        if self.remembered(info.address)?.is_some() {
            return Ok(());
        }
        let driver = info.driver.as_deref().unwrap_or(NO_DRIVER);
        let path = self.state_path(info.address);
        fs::create_dir_all(&self.state)
            .and_then(|()| fs::write(&path, format!("{driver}\n")))
            .map_err(|cause| cannot_write(info.address, &path, &cause))
    }

    fn remembered(&self, address: PciAddress) -> Result<Option<String>, PciError> {
        let path = self.state_path(address);
        match read_attribute(&path) {
            Ok(driver) if driver.is_empty() || driver.contains('/') => Err(PciError::new(
                address,
                format!("{} holds {driver:?}, expected a driver's name", path.display()),
            )),
            Ok(driver) => Ok(Some(driver)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => {
                Err(PciError::system(address, &format!("read {}", path.display()), &cause))
            }
        }
    }

    fn forget(&self, address: PciAddress) -> Result<(), PciError> {
        let path = self.state_path(address);
        fs::remove_file(&path).map_err(|cause| cannot_write(address, &path, &cause))
    }

    /// After a failure: there is nothing to restore where the former driver has the device again.
    fn forget_if_restored(&self, info: &DeviceInfo) {
        let now = self.sysfs.device(info.address).ok().and_then(|now| now.driver);
        let former = self.remembered(info.address).ok().flatten();
        if former.as_deref() == Some(now.as_deref().unwrap_or(NO_DRIVER)) {
            let _ = self.forget(info.address);
        }
    }
}

fn cannot_write(address: PciAddress, path: &Path, cause: &io::Error) -> PciError {
    let hint = match cause.kind() {
        io::ErrorKind::PermissionDenied => "; run this as root",
        _ => "",
    };
    PciError::new(address, format!("cannot write {}: {cause}{hint}", path.display()))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::pci::fake::FakeSysfs;

    const ADDRESS: &str = "0000:01:00.0";

    fn binder(fake: &FakeSysfs) -> Binder {
        Binder {
            sysfs: fake.sysfs(),
            state: fake.root().join("state"),
            network: Network::default(),
            modprobe: None,
        }
    }

    fn address() -> PciAddress {
        ADDRESS.parse().unwrap()
    }

    fn refusal(binder: &Binder, driver: &str, force: bool) -> String {
        binder.bind(address(), driver, force).unwrap_err().to_string()
    }

    #[test]
    fn a_device_that_the_host_uses_is_refused_unless_forced() {
        let fake = FakeSysfs::new(&["igb", VFIO_PCI]);
        fake.device(ADDRESS, Some("igb"), Some(3));
        fake.interface(ADDRESS, "eth0", "0x1003");
        let binder = binder(&fake);
        let error = refusal(&binder, VFIO_PCI, false);
        assert!(error.contains("eth0 is up") && error.contains("--force"), "{error}");
        let error = binder.unbind(address(), false).unwrap_err().to_string();
        assert!(error.contains("eth0 is up"), "{error}");
        assert_eq!(fake.read(&format!("bus/pci/devices/{ADDRESS}/driver_override")), "(null)\n");
        // With force it is tried, and this kernel does nothing: the device is where it was, and
        // there is nothing to give back.
        let error = refusal(&binder, VFIO_PCI, true);
        assert!(error.contains("'igb' has it instead"), "{error}");
        assert_eq!(fake.read("bus/pci/drivers/igb/unbind"), ADDRESS);
        assert_eq!(fake.read("bus/pci/drivers_probe"), ADDRESS);
        assert_eq!(binder.changed().unwrap(), []);
        let error = binder.unbind(address(), true).unwrap_err().to_string();
        assert!(error.contains("does not let go"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_changed() {
        let fake = FakeSysfs::new(&["igb", VFIO_PCI]);
        let binder = binder(&fake);
        assert!(refusal(&binder, VFIO_PCI, false).contains("no such device"));
        fake.device("0000:01:00.5", Some("igb"), Some(3));
        fake.write("bus/pci/devices/0000:01:00.5/class", "0x010802\n");
        let disk = binder.bind("01:00.5".parse().unwrap(), VFIO_PCI, false).unwrap_err();
        assert!(disk.to_string().contains("no network device (class 010802)"), "{disk}");
        fake.device(ADDRESS, Some("igb"), None);
        let error = refusal(&binder, VFIO_PCI, false);
        assert!(error.contains("IOMMU") && error.contains(UIO_PCI_GENERIC), "{error}");
        let error = refusal(&binder, UIO_PCI_GENERIC, false);
        assert!(error.contains("modprobe uio_pci_generic"), "{error}");
        for bad in ["", "../igb", "a\nb"] {
            assert!(refusal(&binder, bad, false).contains("no name of a driver"), "{bad:?}");
        }
        assert_eq!(fake.read("bus/pci/drivers/igb/unbind"), "");
        let same = binder.bind(address(), "igb", false).unwrap();
        assert_eq!(same.from, same.to);
    }

    #[test]
    fn the_first_driver_is_remembered() {
        let fake = FakeSysfs::new(&["igb", VFIO_PCI]);
        fake.device(ADDRESS, Some("igb"), Some(3));
        let binder = binder(&fake);
        let error = binder.restore(address()).unwrap_err().to_string();
        assert!(error.contains("no former driver") && error.contains("--driver"), "{error}");
        let mut info = binder.sysfs.device(address()).unwrap();
        binder.remember(&info).unwrap();
        info.driver = Some(VFIO_PCI.into());
        binder.remember(&info).unwrap();
        assert_eq!(binder.remembered(address()).unwrap().as_deref(), Some("igb"));
        fake.write("state/no-address", "");
        assert_eq!(binder.changed().unwrap(), [address()]);
        // It has it already: nothing to do but to forget.
        let done = binder.restore(address()).unwrap();
        assert_eq!((done.from.as_deref(), done.to.as_deref()), (Some("igb"), Some("igb")));
        assert_eq!(binder.changed().unwrap(), []);
        fake.write(&format!("state/{ADDRESS}"), "../evil\n");
        assert!(binder.restore(address()).unwrap_err().to_string().contains("evil"));
        // One that is not there any more is told once.
        fake.write("state/0000:09:00.0", "igb\n");
        let gone = "0000:09:00.0".parse().unwrap();
        assert!(binder.restore(gone).unwrap_err().to_string().contains("no such device"));
        assert_eq!(binder.changed().unwrap(), [address()]);
    }
}
