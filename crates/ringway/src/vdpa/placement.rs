//! Where a vDPA device goes: `vdpa:DEVICE,socket=PATH[,client=on][,group=GROUP][,mode=0660]`.
//!
//! DEVICE is a device string of its own, options included; what the socket needs is among them.

use std::path::PathBuf;

use eal::Access;
use ethdev::access::take_access;
use ethdev::{DeviceSpec, Error};

/// What such a string begins with.
const PREFIX: &str = "vdpa:";

/// The form of the string, for help and errors.
pub const SYNTAX: &str = "vdpa:DEVICE,socket=PATH[,client=on][,group=GROUP][,mode=0660]";

/// A device and its socket.
#[derive(Debug)]
pub struct Placement {
    /// The device, without what belongs to the socket.
    pub device: DeviceSpec,
    /// The same as a string.
    pub text: String,
    /// The path of the socket.
    pub socket: PathBuf,
    /// Whether to connect there instead of listening.
    pub client: bool,
    /// Who may connect to a listening socket.
    pub access: Access,
}

/// Whether a device string of the switch means a vDPA device.
pub fn is_vdpa(device: &str) -> bool {
    device.starts_with(PREFIX)
}

impl Placement {
    /// Reads a string.
    ///
    /// # Errors
    /// When it does not make sense; the error says what was expected.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Spec { device: text.to_owned(), reason };
        let rest = text.strip_prefix(PREFIX).unwrap_or(text);
        let mut device: DeviceSpec =
            rest.parse().map_err(|_| wrong(format!("expected {SYNTAX}")))?;
        let socket = device.take("socket").filter(|path| !path.is_empty());
        let socket =
            socket.ok_or_else(|| wrong(format!("expected socket=PATH, as in {SYNTAX}")))?;
        let client = device.take_switch("client", false)?;
        let access = take_access(&mut device).map_err(wrong)?;
        let text = without_socket(rest);
        Ok(Self { device, text, socket: socket.into(), client, access })
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
        let mut placement = Placement::parse(text).unwrap();
        assert!(is_vdpa(text) && !is_vdpa("null:"));
        assert_eq!(placement.socket, PathBuf::from("/run/a,b.sock"));
        assert_eq!(placement.access, Access { group: Some(7), mode: Some(0o660) });
        assert_eq!(placement.text, "virtio-pci:0000:03:00.0,colour=red");
        let device = &mut placement.device;
        assert_eq!((device.driver(), device.target()), ("virtio-pci", "0000:03:00.0"));
        assert_eq!(device.take("colour").as_deref(), Some("red"));
        device.clone().finish("none").unwrap();
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
            let error = Placement::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
