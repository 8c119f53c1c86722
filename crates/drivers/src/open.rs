//! From a device string to an open port.

use eal::sandbox::Needs;
use ethdev::{DeviceSpec, DriverInfo, Error, OpenPort, hint};
use host::{af_packet, af_xdp, tap};
use virtio_net::{pci as virtio_pci, user as virtio_user};

use crate::shared::Drivers;
use crate::{dummy, null, pcap, vduse, vhost_user};

/// A driver, as this crate sees it.
struct Driver {
    info: &'static DriverInfo,
    /// Reads a device string and opens nothing.
    check: fn(spec: DeviceSpec) -> Result<(), Error>,
    open: fn(name: &str, spec: DeviceSpec, env: &Drivers) -> Result<OpenPort, Error>,
    /// What it needs of the system for such a port.
    needs: fn(&mut DeviceSpec) -> Needs,
}

/// A row of [`DRIVERS`]: what each driver's crate or module has, and how it is opened.
macro_rules! driver {
    ($driver:ident, $open:expr) => {
        Driver { info: &$driver::INFO, check: $driver::check, open: $open, needs: $driver::needs }
    };
}

/// All drivers, in the order of help.
const DRIVERS: &[Driver] = &[
    driver!(vhost_user, vhost_user::open),
    driver!(virtio_user, |name, spec, env| virtio_user::open(name, spec, &env.sockets, &env.time)),
    driver!(igb, |name, spec, env| igb::open(name, spec, &env.spaces, &env.time)),
    driver!(virtio_pci, |name, spec, env| virtio_pci::open(name, spec, &env.spaces, &env.time)),
    driver!(af_xdp, |name, spec, env| af_xdp::open(name, spec, &env.time)),
    driver!(af_packet, |name, spec, env| af_packet::open(name, spec, &env.time)),
    driver!(vduse, |name, spec, env| vduse::open(name, spec, &env.vhost_control)),
    driver!(tap, |name, spec, env| tap::open(name, spec, &env.time)),
    driver!(pcap, |name, spec, _| pcap::open(name, spec)),
    driver!(null, |name, spec, _| null::open(name, spec)),
    driver!(dummy, |name, spec, env| dummy::open(name, spec, &env.dummies)),
];

/// The kinds of ports that [`open`] knows.
pub fn list() -> impl Iterator<Item = &'static DriverInfo> {
    DRIVERS.iter().map(|driver| driver.info)
}

/// Opens port `name` on a device such as `tap:tap0,queues=2`; [`list`] tells what there is.
///
/// # Errors
/// A device string that makes no sense, or a device that cannot be opened; the error says what
/// to do about it.
pub fn open(name: &str, device: &str, env: &Drivers) -> Result<OpenPort, Error> {
    let spec: DeviceSpec = device.parse()?;
    (driver_of(&spec)?.open)(name, spec, env)
}

/// Checks that a device string makes sense; nothing is opened, so whether there is such a device
/// is not known.
///
/// # Errors
/// A device string that makes none.
pub fn check(device: &str) -> Result<(), Error> {
    let spec: DeviceSpec = device.parse()?;
    (driver_of(&spec)?.check)(spec)
}

/// What a port on `device` needs of the system. A device string without a target, such as `tap:`,
/// stands for all of its kind. Kernel modules that the port wants are loaded by this, since a process
/// that has given up what it does not need can start no program for that.
///
/// # Errors
/// A device string of no known driver.
pub fn needs(device: &str) -> Result<Needs, Error> {
    let mut spec: DeviceSpec = device.parse()?;
    let driver = driver_of(&spec)?;
    Ok((driver.needs)(&mut spec))
}

fn driver_of(spec: &DeviceSpec) -> Result<&'static Driver, Error> {
    let found = DRIVERS.iter().find(|driver| driver.info.name == spec.driver());
    found.ok_or_else(|| unknown_driver(spec))
}

fn unknown_driver(spec: &DeviceSpec) -> Error {
    let known: Vec<&str> = list().map(|info| info.name).collect();
    let hint = hint(spec.driver(), known.iter().copied());
    let known = known.join(", ");
    spec.error(format!("there is no driver '{}', only {known}{hint}", spec.driver()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(device: &str) -> String {
        open("p0", device, &Drivers::new()).unwrap_err().to_string()
    }

    #[test]
    fn without_pci_devices_pools_are_plain() {
        let drivers = Drivers::new();
        assert!(drivers.spaces().in_use().is_none());
        assert_eq!(drivers.pool("test", 16, 2048).unwrap().capacity(), 16);
    }

    #[test]
    fn an_unknown_driver_gets_a_hint() {
        let error = refusal("tpa:tap0");
        assert!(error.contains("no driver 'tpa'"), "{error}");
        assert!(error.contains("did you mean 'tap'"), "{error}");
        assert!(refusal("pcapng:x").contains("did you mean 'pcap'"));
        assert!(!refusal("infiniband:x").contains("did you mean"));
    }

    #[test]
    fn every_driver_explains_itself_and_refuses_unknown_options() {
        for info in list() {
            assert!(info.syntax.starts_with(&format!("{}:", info.name)));
            assert!(!info.summary.is_empty());
            for option in info.options {
                assert!(info.syntax.contains(option.name) || info.syntax.contains(".."));
                assert!(info.to_string().contains(option.help));
            }
            let target = match info.name {
                _ if info.syntax.contains(":[") => "",
                "virtio-pci" => "0000:01:00.0",
                _ => "x",
            };
            let error = refusal(&format!("{}:{target},colour=red", info.name));
            assert!(error.contains("unknown option 'colour'"), "{error}");
        }
    }
}
