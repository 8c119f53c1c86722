//! Attaching devices to the vDPA bus: what `vdpa dev add` and `vdpa dev del` of iproute2 do, two
//! messages of the generic netlink family `vdpa` (`linux/vdpa.h`, `linux/genetlink.h`).

use std::io;

use rustix::net::netlink::GENERIC;

use eal::netlink::{self, FLAG_ACK, FLAG_REQUEST, Socket, attribute, text};

/// The family that knows the numbers of the others, and its request for one.
const CONTROL_FAMILY: u16 = 16;
const GET_FAMILY: u8 = 3;
const ATTR_FAMILY_ID: u16 = 1;
const ATTR_FAMILY_NAME: u16 = 2;

const VDPA_FAMILY: &str = "vdpa";
const DEV_NEW: u8 = 3;
const DEV_DEL: u8 = 4;
const ATTR_MGMTDEV_NAME: u16 = 2;
const ATTR_DEV_NAME: u16 = 4;

/// The parent of all VDUSE devices.
const PARENT: &str = "vduse";

/// Bytes of the generic header behind a message's own.
const GENERIC_HEADER: usize = 4;

/// Attaches VDUSE device `name` to the vDPA bus, and to the bus driver that takes it first. The
/// driver asks for things meanwhile that the device's file has to be served for.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, `EEXIST` where it is attached, `EINVAL` where there is no
/// such device; `ENOENT` where the kernel has no vDPA bus.
pub(super) fn attach(name: &str) -> io::Result<()> {
    request(DEV_NEW, &[(ATTR_MGMTDEV_NAME, PARENT), (ATTR_DEV_NAME, name)])
}

/// Takes device `name` from its driver and from the vDPA bus. This waits until nobody uses it.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, `ENODEV` where it is not attached.
pub(super) fn detach(name: &str) -> io::Result<()> {
    request(DEV_DEL, &[(ATTR_DEV_NAME, name)])
}

/// Makes a request of the vDPA family and waits until it is done.
fn request(command: u8, attributes: &[(u16, &str)]) -> io::Result<()> {
    let socket = Socket::open(Some(GENERIC))?;
    let name = &[(ATTR_FAMILY_NAME, VDPA_FAMILY)];
    let answer = socket.exchange(&message(CONTROL_FAMILY, GET_FAMILY, FLAG_REQUEST, name))?;
    let family = family_id(&answer)?;
    let flags = FLAG_REQUEST | FLAG_ACK;
    let answer = socket.exchange(&message(family, command, flags, attributes))?;
    netlink::refusal(&answer)?.map_or(Ok(()), Err)
}

/// A request of a generic family with strings for attributes.
fn message(family: u16, command: u8, flags: u16, attributes: &[(u16, &str)]) -> Vec<u8> {
    let texts: Vec<Vec<u8>> = attributes.iter().map(|(_, value)| text(value)).collect();
    let attributes: Vec<(u16, &[u8])> =
        attributes.iter().zip(&texts).map(|((kind, _), text)| (*kind, text.as_slice())).collect();
    netlink::message(family, flags, &[command, 1, 0, 0], &attributes)
}

/// The number in the answer to the request for a family's number.
fn family_id(answer: &[u8]) -> io::Result<u16> {
    let id = attribute(answer, GENERIC_HEADER, ATTR_FAMILY_ID)?;
    netlink::u16_at(id, 0).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_its_own_family_and_none_that_does_not_exist() {
        let socket = Socket::open(Some(GENERIC)).unwrap();
        let ask = |name| {
            let asked = message(CONTROL_FAMILY, GET_FAMILY, 1, &[(ATTR_FAMILY_NAME, name)]);
            socket.exchange(&asked).unwrap()
        };
        assert_eq!(family_id(&ask("nlctrl")).unwrap(), CONTROL_FAMILY);
        let error = family_id(&ask("ringway")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
