//! A TAP interface of the host kernel as a port: what the host sends through the interface is
//! received here, and what is sent here arrives at the host.
//!
//! Each queue is a file descriptor, and each frame costs a system call (0.5 to 1 µs), so this is
//! a port for management, for an uplink that is not the bottleneck, and for tests.

//!
//! - `attach`: makes the interface and opens its queues
//! - `device`: what an open descriptor tells of its interface, wherever that is
//! - `queue`: the queues
//! - `sys`: system calls

mod attach;
mod device;
mod queue;
mod sys;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use eal::Epoll;
use eal::sandbox::{CapabilitySet, Needs, Reach};
use eal::time::Time;
use ethdev::{DeviceSpec, DriverInfo, Error, OpenPort, OptionInfo, mtu};
use packet::MacAddr;

use self::attach::Attached;
use self::device::TapDevice;
use self::queue::{TapRx, TapTx};
use crate::interfaces::{Interfaces, name_problem};
use crate::kernel::control::open_port;
use crate::kernel::driver::{Driver, Kind, Opened, slotted};
use crate::kernel::interface::{Interface, NotOpened};
use crate::kernel::link::LinkState;
use crate::kernel::options::Settings;

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "tap",
    syntax: "tap:NAME[,queues=1][,mtu=N][,mac=MAC][,up=on][,offloads=on]",
    summary: "a TAP interface of the host, made if it does not exist (CAP_NET_ADMIN)",
    options: &[
        OptionInfo { name: "queues", value: "N", help: "queue pairs, 1 to 64 (default 1)" },
        OptionInfo {
            name: "mtu",
            value: "BYTES",
            help: "the interface's MTU, 68 to 65521 (default: as it is)",
        },
        OptionInfo {
            name: "mac",
            value: "MAC",
            help: "the interface's own address (default: as it is, or random)",
        },
        OptionInfo { name: "up", value: "on|off", help: "switch the interface on (default on)" },
        OptionInfo {
            name: "offloads",
            value: "on|off",
            help: "exchange large segments and begun checksums with the host (default on)",
        },
    ],
};

/// Largest number of queues; the kernel would take 256.
const MAX_QUEUES: usize = 64;

/// Options of a TAP port, parsed.
pub(crate) struct Config {
    interface: String,
    queues: usize,
    settings: Settings,
    /// Whether to switch it on; `None` when not asked for, so that failing is no error.
    up: Option<bool>,
    offloads: bool,
}

impl Config {
    pub(crate) fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        let interface = spec.require_target("the name of an interface")?.to_owned();
        if let Some(problem) = name_problem(&interface) {
            return Err(spec.error(problem));
        }
        let config = Self {
            queues: spec.take_number("queues", 1, &(1..=MAX_QUEUES))?,
            settings: Settings {
                mtu: spec.take_optional_number("mtu", &(mtu::VALID))?,
                mac: spec.take_optional("mac", "an address such as 52:54:00:12:34:56")?,
                promiscuous: false,
            },
            up: spec.take_optional_switch("up")?,
            offloads: spec.take_switch("offloads", true)?,
            interface,
        };
        spec.finish(&INFO.option_names())?;
        Ok(config)
    }
}

/// Reads a device string and opens nothing.
///
/// # Errors
/// Options that make no sense.
pub fn check(spec: DeviceSpec) -> Result<(), Error> {
    Config::parse(spec).map(drop)
}

/// What such a port needs of the system.
#[must_use]
pub fn needs(_: &mut DeviceSpec) -> Needs {
    Needs::new().capabilities(CapabilitySet::NET_ADMIN).path("/dev/net/tun", Reach::DEVICE)
}

/// Opens a TAP port, whose interface is made if it is not there; `time` is the clock by which it
/// looks at that again.
///
/// # Errors
/// Options that make no sense; an interface that cannot be made, is in use, or is no TAP
/// interface; settings that the kernel refuses.
pub fn open(name: &str, spec: DeviceSpec, time: &Time) -> Result<OpenPort, Error> {
    let text = spec.text().to_owned();
    let config = Config::parse(spec)?;
    let (interface, settings) = (config.interface.clone(), config.settings);
    let driver = slotted(Tap { config, attached: None, was_made_for_us: false, mac: None });
    open_port(name, &text, driver, &interface, settings, time)
}

/// What it takes to open queues.
struct Tap {
    config: Config,
    /// Queues that are open already, since that is what finds the interface.
    attached: Option<Attached>,
    /// The interface existed, or would without us, when we last had it.
    was_made_for_us: bool,
    /// The address of the first one: others may remember it.
    mac: Option<MacAddr>,
}

impl Driver for Tap {
    const KIND: Kind = Kind {
        max_mtu: mtu::MAX,
        always_promiscuous: true,
        makes_interfaces: true,
        ..Kind::new(INFO.name, "TAP")
    };
    type Rx = TapRx;
    type Tx = TapTx;

    fn queues(&self, _name: &str, _asker: &Interfaces) -> usize {
        self.config.queues
    }

    fn check_rights(&self) -> Result<(), String> {
        Ok(())
    }

    /// Makes the interface, but not in place of one that somebody else had made.
    fn find<'a>(&mut self, name: &str, asker: &'a Interfaces) -> Result<Interface<'a>, NotOpened> {
        self.attached = None;
        if self.was_made_for_us && !asker.exists(name) {
            return Err(NotOpened::Gone);
        }
        let attached = Attached::open(&self.config, asker)?;
        let interface = Interface::find(name, asker)?;
        self.was_made_for_us = attached.is_persistent;
        self.attached = Some(attached);
        Ok(interface)
    }

    fn open(
        &mut self,
        interface: &Interface<'_>,
        _wanted: &Settings,
        waits: Vec<Arc<Epoll>>,
        state: &Arc<LinkState>,
    ) -> Result<Opened<TapRx, TapTx>, NotOpened> {
        let Some(Attached { fds, offloads, is_persistent }) = self.attached.take() else {
            return Err(NotOpened::Gone);
        };
        if let Some(mac) = self.mac.filter(|_| !is_persistent) {
            // It is as good with another one.
            let asker = interface.asker;
            let _ = asker.by_name(interface.index, |name| asker.set_mac(name, mac));
        }
        self.mac = interface.asker.mac(&interface.name).ok();
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        for (fd, wait) in fds.iter().zip(waits) {
            rx.push(TapRx::new(Arc::clone(fd), Arc::clone(state), offloads, wait));
            tx.push(TapTx::new(Arc::clone(fd), Arc::clone(state), offloads));
        }
        let device = Box::new(TapDevice::new(fds, offloads, interface.index)?);
        Ok(Opened { rx, tx, device, was_off: false })
    }

    /// Switches the interface on.
    fn finish(&self, interface: &Interface<'_>) -> Result<(), String> {
        let Err(reason) = (match self.config.up {
            Some(false) => return Ok(()),
            Some(true) | None => interface.switch_on(),
        }) else {
            return Ok(());
        };
        if self.config.up.is_some() {
            return Err(reason);
        }
        tracing::warn!("TAP interface '{}' is down and stays so: {reason}", interface.name);
        Ok(())
    }
}
