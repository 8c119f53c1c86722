//! From a device string to an open vDPA device, and what there is on this machine.

use eal::sandbox::Needs;
use ethdev::{DeviceSpec, DriverInfo, Error};

use crate::device::VdpaDevice;
use crate::{kernel, virtio_pci};

/// A device of this machine that a driver could open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The string that opens it.
    pub device: String,
    /// What it is, in a few words.
    pub description: String,
    /// Number of queue pairs, where that can be told without opening it.
    pub queue_pairs: Option<u16>,
    /// The virtio feature bits that it offers, where they can be told without opening it.
    pub features: Option<u64>,
    /// Why it cannot be opened now, and what to do about it; `None` when nothing is known to be
    /// in the way.
    pub obstacle: Option<String>,
}

/// A driver, as this crate sees it. A driver's module has all three under these names.
struct Driver {
    info: &'static DriverInfo,
    /// Opens the device of a string that begins with the driver's name.
    open: fn(spec: DeviceSpec) -> Result<Box<dyn VdpaDevice>, Error>,
    /// The devices that it could open. What cannot be read is left out.
    find: fn() -> Vec<Found>,
    /// What it needs of the system for such a device.
    needs: fn(&DeviceSpec) -> Needs,
}

/// All drivers, in the order of help: one entry for each module.
const DRIVERS: &[Driver] = &[
    Driver {
        info: &virtio_pci::INFO,
        open: virtio_pci::open,
        find: virtio_pci::find,
        needs: |spec| eal::pci::needs(spec.target()),
    },
    Driver {
        info: &kernel::INFO,
        open: kernel::open,
        find: kernel::find,
        needs: |_| kernel::needs(),
    },
];

/// The drivers that [`open`] knows.
pub fn list() -> impl Iterator<Item = &'static DriverInfo> {
    DRIVERS.iter().map(|driver| driver.info)
}

/// The devices of this machine that there is a driver for, whether they can be opened or not.
#[must_use]
pub fn find() -> Vec<Found> {
    DRIVERS.iter().flat_map(|driver| (driver.find)()).collect()
}

/// What device `spec` needs of the system.
///
/// # Errors
/// When there is no such driver.
pub fn needs(spec: &DeviceSpec) -> Result<Needs, Error> {
    driver_of(DRIVERS, spec).map(|driver| (driver.needs)(spec))
}

/// Opens a device, given by a string such as `vhost-vdpa:vhost-vdpa-0`; [`list`] tells what
/// there is. The device is stopped.
///
/// # Errors
/// A device string that makes no sense, or a device that cannot be opened; the error says what
/// to do about it.
pub fn open(device: &str) -> Result<Box<dyn VdpaDevice>, Error> {
    open_spec(device.parse()?)
}

/// The same with a string that is taken apart already.
///
/// # Errors
/// As [`open`].
pub fn open_spec(spec: DeviceSpec) -> Result<Box<dyn VdpaDevice>, Error> {
    open_with(DRIVERS, spec)
}

fn open_with(drivers: &[Driver], spec: DeviceSpec) -> Result<Box<dyn VdpaDevice>, Error> {
    (driver_of(drivers, &spec)?.open)(spec)
}

fn driver_of<'a>(drivers: &'a [Driver], spec: &DeviceSpec) -> Result<&'a Driver, Error> {
    let found = drivers.iter().find(|driver| driver.info.name == spec.driver());
    found.ok_or_else(|| {
        let known: Vec<&str> = drivers.iter().map(|driver| driver.info.name).collect();
        let (driver, known) = (spec.driver(), known.join(", "));
        spec.error(format!("there is no vDPA driver '{driver}', only {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Model, Recorder};

    const MODEL: Driver = Driver {
        info: &DriverInfo {
            name: "model",
            syntax: "model:NAME",
            summary: "a device for tests",
            options: &[],
        },
        open: |spec| {
            let name = spec.require_target("a name")?.to_owned();
            spec.finish("no options")?;
            Ok(Box::new(Model::new(&name, 1, Recorder::default())))
        },
        find: Vec::new,
        needs: |_| Needs::new(),
    };

    #[test]
    fn the_name_before_the_colon_chooses_the_driver() {
        let open = |device: &str| open_with(&[MODEL], device.parse()?);
        assert_eq!(open("model:x").unwrap().name(), "x");
        let refusal = |device| open(device).unwrap_err().to_string();
        assert!(refusal("modle:x").contains("no vDPA driver 'modle', only model"));
        assert!(refusal("model:").contains("expected a name"));
        assert!(refusal("model:x,colour=red").contains("unknown option 'colour'"));
        assert!(refusal("x").contains("expected DRIVER:TARGET"));
    }

    #[test]
    fn every_driver_explains_itself_and_refuses_unknown_options() {
        for info in list() {
            assert!(info.syntax.starts_with(&format!("{}:", info.name)));
            assert!(!info.summary.is_empty());
            let target = if info.name.contains("pci") { "0000:01:00.0" } else { "x" };
            let error = open(&format!("{}:{target},colour=red", info.name)).unwrap_err();
            assert!(error.to_string().contains("unknown option 'colour'"), "{error}");
        }
    }
}
