//! Options of an AF_XDP port.

use std::str::FromStr;

use ethdev::{DeviceSpec, Error};

use super::INFO;
use super::bpf::Hook;
use super::socket::Transfer;
use crate::interfaces::name_problem;
use crate::kernel::options::{Settings, take_queue_size};

/// Largest number of queues.
pub(super) const MAX_QUEUES: u32 = 64;

/// Option `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Native with or without copy, or generic.
    Auto,
    ZeroCopy,
    /// Native with copy.
    Copy,
    Generic,
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "zero-copy" => Ok(Self::ZeroCopy),
            "copy" => Ok(Self::Copy),
            "generic" => Ok(Self::Generic),
            _ => Err(()),
        }
    }
}

impl Mode {
    pub(super) const fn transfer(self, hook: Hook) -> Transfer {
        match (self, hook) {
            (Self::ZeroCopy, _) => Transfer::ZeroCopy,
            (Self::Auto, Hook::Native) => Transfer::Any,
            _ => Transfer::Copy,
        }
    }
}

/// Option `checksums`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksums {
    Auto,
    Complete,
    Begun,
}

impl FromStr for Checksums {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "complete" => Ok(Self::Complete),
            "begun" => Ok(Self::Begun),
            _ => Err(()),
        }
    }
}

/// Options of a port, parsed.
pub(crate) struct Config {
    pub(super) interface: String,
    /// All that the interface has, unless given.
    pub(super) queues: Option<u32>,
    pub(super) mode: Mode,
    pub(super) busy_poll: bool,
    pub(super) queue_size: u32,
    pub(super) checksums: Checksums,
    pub(super) settings: Settings,
}

impl Config {
    pub(crate) fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        let interface = spec.require_target("the name of an interface")?.to_owned();
        if let Some(problem) = name_problem(&interface) {
            return Err(spec.error(problem));
        }
        let config = Self {
            queues: spec.take_optional_number("queues", &(1..=MAX_QUEUES))?,
            mode: spec.take_parsed("mode", Mode::Auto, "auto, zero-copy, copy or generic")?,
            busy_poll: spec.take_switch("busy_poll", false)?,
            queue_size: take_queue_size(&mut spec)?,
            checksums: spec.take_parsed("checksums", Checksums::Auto, "auto, complete or begun")?,
            settings: Settings::take(&mut spec)?,
            interface,
        };
        spec.finish(&INFO.option_names())?;
        Ok(config)
    }
}
