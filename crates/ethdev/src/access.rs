//! The options of device strings that say who may connect to a socket.

use crate::driver::OptionInfo;
use crate::spec::DeviceSpec;
use std::path::Path;

use eal::Access;
use eal::access::{parse_group, parse_mode};
use eal::sandbox::{CapabilitySet, Needs};

/// As help pages show it.
pub const GROUP: OptionInfo = OptionInfo {
    name: "group",
    value: "GROUP",
    help: "group whose processes may connect to the socket, such as kvm",
};

/// As help pages show it.
pub const MODE: OptionInfo = OptionInfo {
    name: "mode",
    value: "OCTAL",
    help: "permissions of the socket's file (default: 0660 with a group, else as umask says)",
};

/// Takes the options `group` and `mode`.
///
/// # Errors
/// When there is no such group, or the mode is none; says what was expected.
pub fn take_access(spec: &mut DeviceSpec) -> Result<Access, String> {
    let group = spec.take("group").map(|text| parse_group(&text)).transpose()?;
    let mode = spec.take("mode").map(|text| parse_mode(&text)).transpose()?;
    Ok(Access { group, mode })
}

/// What the socket that is the target of `spec` needs of the system: to be made and removed, or,
/// with `connects`, to be connected to.
#[must_use]
pub fn needs(spec: &mut DeviceSpec, connects: bool) -> Needs {
    let needs = match spec.target() {
        "" => Needs::new(),
        path => Needs::of_socket(Path::new(path), connects),
    };
    if spec.take("group").is_some() { needs.wish(CapabilitySet::CHOWN) } else { needs }
}
