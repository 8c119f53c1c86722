//! vDPA devices of a switch: where a device goes.
//!
//! As one string, on command lines:
//! `vdpa:DEVICE,socket=PATH[,client=on][,group=GROUP][,mode=0660]`. DEVICE is a device string of
//! its own, options included; what the socket needs is among them.

use std::path::PathBuf;

use eal::Access;
use eal::sandbox::{CapabilitySet, Needs};
use ethdev::access::take_access;
use ethdev::{DeviceSpec, Error};
use serde::{Deserialize, Serialize};

use crate::text;

/// What such a string begins with.
const PREFIX: &str = "vdpa:";

/// The form of the string, for help and errors.
pub const SYNTAX: &str = "vdpa:DEVICE,socket=PATH[,client=on][,group=GROUP][,mode=0660]";

/// A vDPA device and its socket: one section `[vdpa.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table [vdpa.NAME] with device = \"..\" and socket = \"..\""
)]
pub struct Vdpa {
    /// Device string, without what belongs to the socket.
    pub device: String,
    /// The path of the socket.
    pub socket: PathBuf,
    /// Whether to connect there instead of listening.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub client: bool,
    /// Group whose processes may connect to a listening socket.
    #[serde(default, with = "text::group", skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Permissions of a listening socket.
    #[serde(default, with = "text::mode", skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// Whether a device string of the switch means a vDPA device.
#[must_use]
pub fn is_vdpa(device: &str) -> bool {
    device.starts_with(PREFIX)
}

impl Vdpa {
    /// Reads a string.
    ///
    /// # Errors
    /// When it does not make sense; the error says what was expected.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Spec { device: text.to_owned(), reason };
        let rest = text.strip_prefix(PREFIX).unwrap_or(text);
        let mut spec: DeviceSpec = rest.parse().map_err(|_| wrong(format!("expected {SYNTAX}")))?;
        let socket = spec.take("socket").filter(|path| !path.is_empty());
        let socket =
            socket.ok_or_else(|| wrong(format!("expected socket=PATH, as in {SYNTAX}")))?;
        let client = spec.take_switch("client", false)?;
        let Access { group, mode } = take_access(&mut spec).map_err(wrong)?;
        Ok(Self { device: without_socket(rest), socket: socket.into(), client, group, mode })
    }

    /// The device string, taken apart.
    ///
    /// # Errors
    /// When it is none.
    pub fn spec(&self) -> Result<DeviceSpec, Error> {
        self.device.parse()
    }

    /// Who may connect to a listening socket.
    #[must_use]
    pub const fn access(&self) -> Access {
        Access { group: self.group, mode: self.mode }
    }

    /// What it needs of the system.
    ///
    /// # Errors
    /// A device string of no known driver.
    pub fn needs(&self) -> Result<Needs, Error> {
        let socket = Needs::of_socket(&self.socket, self.client);
        let needs = ::vdpa::needs(&self.spec()?)?.and(socket);
        Ok(if self.group.is_some() { needs.wish(CapabilitySet::CHOWN) } else { needs })
    }
}

/// The device string in `text`, which has the options of the socket among its own.
fn without_socket(text: &str) -> String {
    // A double comma stands for itself, and a device string has no NUL.
    let text = text.replace(",,", "\0");
    let sockets = |part: &&str| {
        !["socket=", "client=", "group=", "mode="].iter().any(|option| part.starts_with(option))
    };
    text.split(',').filter(sockets).collect::<Vec<_>>().join(",").replace('\0', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_keeps_what_is_not_the_sockets() {
        let text =
            "vdpa:virtio-pci:0000:03:00.0,socket=/run/a,,b.sock,colour=red,mode=0660,group=7";
        let vdpa = Vdpa::parse(text).unwrap();
        assert!(is_vdpa(text) && !is_vdpa("null:"));
        assert_eq!(vdpa.socket, PathBuf::from("/run/a,b.sock"));
        assert_eq!(vdpa.access(), Access { group: Some(7), mode: Some(0o660) });
        assert_eq!(vdpa.device, "virtio-pci:0000:03:00.0,colour=red");
        let mut device = vdpa.spec().unwrap();
        assert_eq!((device.driver(), device.target()), ("virtio-pci", "0000:03:00.0"));
        assert_eq!(device.take("colour").as_deref(), Some("red"));
        device.finish("none").unwrap();
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, expected) in [
            ("vdpa:", "expected vdpa:DEVICE"),
            ("vdpa:x", "expected vdpa:DEVICE"),
            ("vdpa:vhost-vdpa:x", "expected socket=PATH"),
            ("vdpa:vhost-vdpa:x,socket=", "expected socket=PATH"),
            ("vdpa:vhost-vdpa:x,socket=/s,client=maybe", "maybe"),
            (
                "vdpa:vhost-vdpa:x,socket=/s,mode=999",
                "mode=999: expected octal permissions, as in 0660",
            ),
            ("vdpa:vhost-vdpa:x,socket=/s,mode=1777", "mode=1777"),
            ("vdpa:vhost-vdpa:x,socket=/s,group=no-such-group", "there is no such group"),
        ] {
            let error = Vdpa::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
