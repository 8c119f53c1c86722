//! The vDPA devices that the kernel has (Linux `Documentation/ABI/testing/sysfs-bus-vdpa`).

use std::io;
use std::path::{Path, PathBuf};

use ordered::Order as _;

use crate::device::DeviceError;

const DEVICES: &str = "/sys/bus/vdpa/devices";
/// How device files, and the folders of sysfs that stand for them, are called.
const NODE: &str = "vhost-vdpa-";

/// A vDPA device of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelVdpa {
    /// Its name on the vDPA bus, as `vdpa dev show` has it.
    pub name: String,
    /// The driver it is bound to: `vhost_vdpa` for programs, `virtio_vdpa` for the kernel itself.
    pub driver: Option<String>,
    /// The file by which programs use it, when it is bound to `vhost_vdpa`.
    pub node: Option<PathBuf>,
}

impl KernelVdpa {
    /// Why it cannot be opened, and what to do; `None` where it can.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        if self.node.is_some() {
            return None;
        }
        let name = &self.name;
        let bound = self.driver.as_deref().map_or_else(
            || "is bound to no driver".to_owned(),
            |driver| format!("is bound to the driver {driver}"),
        );
        Some(format!(
            "it {bound}, expected vhost_vdpa; 'modprobe vhost_vdpa', write vhost_vdpa to \
             {DEVICES}/{name}/driver_override and {name} to {DEVICES}/{name}/driver/unbind, if that \
             is there, and to /sys/bus/vdpa/drivers_probe"
        ))
    }
}

/// All vDPA devices of the kernel, by name.
///
/// # Errors
/// When sysfs cannot be read. A kernel without vDPA has no devices.
pub fn list() -> io::Result<Vec<KernelVdpa>> {
    list_in(Path::new(DEVICES))
}

fn list_in(devices: &Path) -> io::Result<Vec<KernelVdpa>> {
    let entries = match std::fs::read_dir(devices) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A device that has just gone has neither.
        let driver = std::fs::read_link(entry.path().join("driver")).ok();
        let driver = driver.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
        found.push(KernelVdpa { name, driver, node: node_in(&entry.path()) });
    }
    found.order_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// The device file of the device at `device` in sysfs.
fn node_in(device: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(device).ok()?;
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Some(Path::new("/dev").join(names.find(|name| is_node(name))?))
}

fn is_node(name: &str) -> bool {
    let number = name.strip_prefix(NODE);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The device file of the device that a user calls `name`.
pub(super) fn node(name: &str) -> Result<PathBuf, DeviceError> {
    if name.starts_with('/') {
        return Ok(name.into());
    }
    if is_node(name) {
        return Ok(Path::new("/dev").join(name));
    }
    let devices = list().map_err(|error| DeviceError(format!("{DEVICES}: {error}")))?;
    node_of(name, &devices)
}

fn node_of(name: &str, devices: &[KernelVdpa]) -> Result<PathBuf, DeviceError> {
    let Some(device) = devices.iter().find(|device| device.name == name) else {
        let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(DeviceError(format!(
            "the kernel has no vDPA device of this name; it has {known}"
        )));
    };
    device.node.clone().ok_or_else(|| DeviceError(device.obstacle().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn devices_are_found_with_their_drivers_and_files() {
        let sys = tempfile::tempdir().unwrap();
        let devices = sys.path().join("devices");
        assert_eq!(list_in(&devices).unwrap(), []);
        for name in ["vdpa1/vhost-vdpa-12", "vdpa1/vhost-vdpa-x", "vdpa0/virtio3", "loose"] {
            create_dir_all(devices.join(name)).unwrap();
        }
        symlink("../../drivers/vhost_vdpa", devices.join("vdpa1/driver")).unwrap();
        symlink("../../drivers/virtio_vdpa", devices.join("vdpa0/driver")).unwrap();
        let found = list_in(&devices).unwrap();
        let device = |name: &str, driver: Option<&str>, node: Option<&str>| KernelVdpa {
            name: name.to_owned(),
            driver: driver.map(str::to_owned),
            node: node.map(PathBuf::from),
        };
        let expected = [
            device("loose", None, None),
            device("vdpa0", Some("virtio_vdpa"), None),
            device("vdpa1", Some("vhost_vdpa"), Some("/dev/vhost-vdpa-12")),
        ];
        assert_eq!(found, expected);
        assert_eq!(node_of("vdpa1", &found).unwrap(), Path::new("/dev/vhost-vdpa-12"));
        let reason = |name| node_of(name, &found).unwrap_err().0;
        assert!(reason("vdpa0").contains("virtio_vdpa") && reason("vdpa0").contains("unbind"));
        assert!(reason("loose").contains("no driver"));
        assert!(reason("vdpa2").contains("loose, vdpa0, vdpa1"));
    }

    #[test]
    fn names_of_files_are_taken_as_they_are() {
        assert_eq!(node("vhost-vdpa-3").unwrap(), Path::new("/dev/vhost-vdpa-3"));
        assert_eq!(node("/tmp/x").unwrap(), Path::new("/tmp/x"));
        assert!(!is_node("vhost-vdpa-") && !is_node("vhost-vdpa-1a"));
    }
}
