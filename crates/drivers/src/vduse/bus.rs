//! The vDPA bus: which driver drives a device, what came of that, and how to choose another
//! (Linux `Documentation/ABI/testing/sysfs-bus-vdpa`).

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A driver of the vDPA bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BusDriver {
    /// Makes a network interface of the host.
    Virtio,
    /// Makes `/dev/vhost-vdpa-N`, for a VMM.
    Vhost,
}

impl BusDriver {
    /// The name of the driver, and of its module.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio_vdpa",
            Self::Vhost => "vhost_vdpa",
        }
    }

    /// The module of the driver that makes an interface of what this driver has made.
    const fn next_module(self) -> Option<&'static str> {
        match self {
            Self::Virtio => Some("virtio_net"),
            Self::Vhost => None,
        }
    }
}

/// The bus.
#[derive(Debug)]
pub(super) struct Bus {
    root: PathBuf,
    dev: PathBuf,
    /// The program that loads modules; none in tests.
    modprobe: Option<&'static str>,
}

impl Default for Bus {
    /// That of this machine.
    fn default() -> Self {
        let [root, dev] = ["/sys/bus/vdpa", "/dev"].map(PathBuf::from);
        Self { root, dev, modprobe: Some("modprobe") }
    }
}

impl Bus {
    fn device(&self, name: &str) -> PathBuf {
        self.root.join("devices").join(name)
    }

    fn driver(&self, driver: &str) -> PathBuf {
        self.root.join("drivers").join(driver)
    }

    /// Whether device `name` is attached.
    pub(super) fn has(&self, name: &str) -> bool {
        self.device(name).exists()
    }

    /// The driver of device `name`.
    pub(super) fn bound(&self, name: &str) -> Option<String> {
        let link = fs::read_link(self.device(name).join("driver")).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    }

    /// What the driver of device `name` has made of it: the name of an interface, or the path of
    /// a device file.
    pub(super) fn product(&self, name: &str) -> Option<String> {
        if let Some(file) = self.vhost_file(name) {
            return Some(file.display().to_string());
        }
        let virtio = child(&self.device(name), "virtio")?;
        let interface = child(&virtio.join("net"), "")?;
        Some(interface.file_name()?.to_string_lossy().into_owned())
    }

    fn vhost_file(&self, name: &str) -> Option<PathBuf> {
        let made = child(&self.device(name), "vhost-vdpa-")?;
        Some(self.dev.join(made.file_name()?))
    }

    /// Whether a VMM has device `name` open, as far as can be seen: removing it would wait for
    /// that VMM.
    pub(super) fn is_open(&self, name: &str) -> bool {
        // It can be opened once at a time.
        self.vhost_file(name)
            .is_some_and(|file| OpenOptions::new().read(true).write(true).open(file).is_err())
    }

    /// Gives device `name` to `driver`, unless it has it.
    pub(super) fn bind(&self, name: &str, driver: BusDriver) -> Result<(), String> {
        let wanted = driver.name();
        let bound = self.bound(name);
        self.load_for(driver);
        if bound.as_deref() == Some(wanted) {
            return Ok(());
        }
        if !self.driver(wanted).exists() {
            return Err(format!(
                "there is no driver '{wanted}', and 'modprobe {wanted}' gives none"
            ));
        }
        if self.is_open(name) {
            return Err(format!("'{name}' is in use by a virtual machine; end that first"));
        }
        write(&self.device(name).join("driver_override"), wanted)?;
        if let Some(bound) = bound {
            write(&self.driver(&bound).join("unbind"), name)?;
        }
        // It fails where the driver has taken the device by itself meanwhile.
        let probed = write(&self.root.join("drivers_probe"), name);
        if self.bound(name).as_deref() != Some(wanted) {
            probed?;
            return Err(format!(
                "the driver '{wanted}' does not take '{name}'; see the kernel's log"
            ));
        }
        Ok(())
    }

    /// Loads the modules that `driver` takes.
    pub(super) fn load_for(&self, driver: BusDriver) {
        // Udev does that where there is one.
        if let Some(module) = driver.next_module() {
            self.load(module);
        }
        self.load(driver.name());
    }

    /// Loads a module, if this process may. Whether it worked is seen by what it makes.
    pub(super) fn load(&self, module: &str) {
        let Some(modprobe) = self.modprobe else { return };
        if Path::new("/sys/module").join(module).exists() {
            return;
        }
        let mut command = Command::new(modprobe);
        command.args(["--", module]).stdin(Stdio::null()).stdout(Stdio::null());
        match command.stderr(Stdio::null()).status() {
            Ok(status) => tracing::debug!("modprobe {module}: {status}"),
            Err(cause) => tracing::debug!("modprobe {module}: {cause}"),
        }
    }
}

/// The entry of `dir` that begins with `prefix`.
fn child(dir: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(dir).ok()?.flatten();
    let found = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    found.map(|entry| entry.path())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot write '{text}' to {}: {error}", path.display());
    fs::write(path, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A bus with device `sw0` and the driver `virtio_vdpa`.
    fn bus() -> (tempfile::TempDir, Bus) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("bus");
        fs::create_dir_all(root.join("devices/sw0")).unwrap();
        fs::create_dir_all(root.join("drivers/virtio_vdpa")).unwrap();
        let bus = Bus { root, dev: dir.path().to_owned(), modprobe: None };
        (dir, bus)
    }

    #[test]
    fn what_became_of_a_device_is_found() {
        let (dir, bus) = bus();
        assert!(bus.has("sw0") && !bus.has("sw1"));
        assert_eq!((bus.bound("sw0"), bus.product("sw0")), (None, None));
        fs::create_dir_all(bus.device("sw0").join("virtio3/net/eth1")).unwrap();
        assert_eq!(bus.product("sw0").as_deref(), Some("eth1"));
        fs::create_dir(bus.device("sw0").join("vhost-vdpa-2")).unwrap();
        let file = dir.path().join("vhost-vdpa-2");
        assert_eq!(bus.product("sw0"), Some(file.display().to_string()));
        assert!(bus.is_open("sw0"), "a file that cannot be opened");
        fs::write(&file, "").unwrap();
        assert!(!bus.is_open("sw0"));
    }

    #[test]
    fn a_device_is_offered_to_the_driver_that_is_wanted() {
        let (_dir, bus) = bus();
        let error = bus.bind("sw0", BusDriver::Vhost).unwrap_err();
        assert!(error.contains("no driver 'vhost_vdpa'"), "{error}");
        let error = bus.bind("sw0", BusDriver::Virtio).unwrap_err();
        assert!(error.contains("does not take 'sw0'"), "{error}");
        let choice = fs::read_to_string(bus.device("sw0").join("driver_override")).unwrap();
        let probed = fs::read_to_string(bus.root.join("drivers_probe")).unwrap();
        assert_eq!((choice.as_str(), probed.as_str()), ("virtio_vdpa", "sw0"));
    }

    #[test]
    fn a_device_that_another_driver_has_is_taken_from_it() {
        let (_dir, bus) = bus();
        fs::create_dir_all(bus.driver("vhost_vdpa")).unwrap();
        symlink("../../drivers/vhost_vdpa", bus.device("sw0").join("driver")).unwrap();
        bus.bind("sw0", BusDriver::Vhost).unwrap();
        assert!(!bus.device("sw0").join("driver_override").exists(), "it has it already");
        assert!(bus.bind("sw0", BusDriver::Virtio).is_err());
        assert_eq!(fs::read_to_string(bus.driver("vhost_vdpa").join("unbind")).unwrap(), "sw0");
    }
}
