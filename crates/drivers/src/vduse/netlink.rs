//! Attaching devices to the vDPA bus: what `vdpa dev add` and `vdpa dev del` of iproute2 do, two
//! messages of the generic netlink family `vdpa` (`linux/vdpa.h`, `linux/genetlink.h`).

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

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

const FLAG_REQUEST: u16 = 1;
const FLAG_ACK: u16 = 4;
const MESSAGE_ERROR: u16 = 2;
/// Bytes of a message's header, and of the generic header behind it.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

/// Attaches VDUSE device `name` to the vDPA bus, and to the bus driver that takes it first. The
/// driver asks for things meanwhile that the device's file has to be served for.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, `EEXIST` where it is attached, `EINVAL` where there is no
/// such device; `ENOENT` where the kernel has no vDPA bus.
pub(super) fn attach(name: &str) -> io::Result<()> {
    Socket::open()?.request(DEV_NEW, &[(ATTR_MGMTDEV_NAME, PARENT), (ATTR_DEV_NAME, name)])
}

/// Takes device `name` from its driver and from the vDPA bus. This waits until nobody uses it.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, `ENODEV` where it is not attached.
pub(super) fn detach(name: &str) -> io::Result<()> {
    Socket::open()?.request(DEV_DEL, &[(ATTR_DEV_NAME, name)])
}

struct Socket(OwnedFd);

impl Socket {
    fn open() -> io::Result<Self> {
        let protocol = Some(netlink::GENERIC);
        let flags = SocketFlags::CLOEXEC;
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?))
    }

    /// Makes a request of the vDPA family and waits until it is done.
    fn request(&self, command: u8, attributes: &[(u16, &str)]) -> io::Result<()> {
        let name = &[(ATTR_FAMILY_NAME, VDPA_FAMILY)];
        let answer = self.exchange(&message(CONTROL_FAMILY, GET_FAMILY, FLAG_REQUEST, name))?;
        let family = family_id(&answer)?;
        let flags = FLAG_REQUEST | FLAG_ACK;
        let answer = self.exchange(&message(family, command, flags, attributes))?;
        refusal(&answer)?.map_or(Ok(()), Err)
    }

    fn exchange(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        sendto(&self.0, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = vec![0; 16 << 10];
        let len = loop {
            match recv(&self.0, &mut answer, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                done => break done?.0,
            }
        };
        answer.truncate(len);
        Ok(answer)
    }
}

/// A request of a generic family with strings for attributes.
fn message(family: u16, command: u8, flags: u16, attributes: &[(u16, &str)]) -> Vec<u8> {
    let mut body = vec![command, 1, 0, 0];
    for (kind, text) in attributes {
        // With the NUL behind it; names are short.
        let len = u16::try_from(4 + text.len() + 1).unwrap_or(u16::MAX);
        body.extend(len.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(text.bytes());
        body.push(0);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let len = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number and sender: there is one message at a time on a socket of its own.
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The error that an acknowledgement carries; fails when it is none.
fn refusal(answer: &[u8]) -> io::Result<Option<io::Error>> {
    let code = answer.get(HEADER..HEADER + 4).and_then(|code| code.try_into().ok());
    match (u16_at(answer, 4), code.map(i32::from_ne_bytes)) {
        (Some(MESSAGE_ERROR), Some(0)) => Ok(None),
        (Some(MESSAGE_ERROR), Some(code)) => {
            Ok(Some(io::Error::from_raw_os_error(code.saturating_neg())))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The number in the answer to the request for a family's number.
fn family_id(answer: &[u8]) -> io::Result<u16> {
    if let Ok(Some(error)) = refusal(answer) {
        return Err(error);
    }
    let mut at = HEADER + GENERIC_HEADER;
    while let (Some(len), Some(kind)) = (u16_at(answer, at), u16_at(answer, at + 2)) {
        if kind == ATTR_FAMILY_ID {
            return u16_at(answer, at + 4).ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
        // An attribute is no shorter than its header.
        at += usize::from(len.max(4)).next_multiple_of(4);
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_have_the_kernels_form() {
        let bytes = message(0x1c, DEV_NEW, 5, &[(2, "vduse"), (4, "abc")]);
        let mut expected = vec![40, 0, 0, 0, 0x1c, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0];
        expected.extend([10, 0, 2, 0]);
        expected.extend(*b"vduse\0\0\0");
        expected.extend([8, 0, 4, 0]);
        expected.extend(*b"abc\0");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn the_kernel_knows_its_own_family_and_none_that_does_not_exist() {
        let socket = Socket::open().unwrap();
        let ask = |name| {
            let asked = message(CONTROL_FAMILY, GET_FAMILY, 1, &[(ATTR_FAMILY_NAME, name)]);
            socket.exchange(&asked).unwrap()
        };
        assert_eq!(family_id(&ask("nlctrl")).unwrap(), CONTROL_FAMILY);
        let error = family_id(&ask("ringway")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn acknowledgements_are_told_from_errors() {
        let ack = |code: i32| {
            let mut bytes = message(MESSAGE_ERROR, 0, 0, &[]);
            bytes[HEADER..].copy_from_slice(&code.to_ne_bytes());
            bytes
        };
        assert!(refusal(&ack(0)).unwrap().is_none());
        assert_eq!(refusal(&ack(-17)).unwrap().unwrap().raw_os_error(), Some(libc::EEXIST));
        assert!(refusal(&[]).is_err());
    }

    proptest! {
        #[test]
        fn any_answer_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (refusal(&bytes), family_id(&bytes));
        }
    }
}
