//! Where a port's interface is: in the switch's network namespace, where it is asked for by its
//! name of the moment, or in another one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use packet::MacAddr;

use super::link::carries;
use eal::netlink::{FLAG_ACK, FLAG_REQUEST, HEADER, Socket, attribute, message, text, u32_at};

/// Where an interface is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the switch's network namespace, under this name.
    Here(String),
    /// In another one.
    Elsewhere(Remote),
    /// It is gone, or the port has lost it.
    Gone,
}

/// What is known of an interface in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    /// Its name there.
    pub(crate) name: String,
    /// What identifies the namespace, as in `/proc/PID/ns/net`, if we may know.
    pub(crate) namespace: Option<u64>,
    pub(crate) up: bool,
    pub(crate) mtu: Option<u16>,
    pub(crate) mac: Option<MacAddr>,
}

/// From `linux/rtnetlink.h` and `linux/net_namespace.h`.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TARGET_NETNSID: u16 = 46;

/// Bytes of `struct rtgenmsg`, filled up, and of `struct ifinfomsg`, and where the flags are there.
const RTGENMSG: usize = 4;
const IFINFOMSG: usize = 16;
const IFINFOMSG_FLAGS: usize = 8;

/// Of a namespace that has no number in ours.
const NOT_ASSIGNED: u32 = u32::MAX;

/// Whether interface `name` of another network namespace carries frames, and its MTU.
///
/// # Errors
/// Without `CAP_NET_ADMIN` over that namespace; where there is no such interface there.
pub(crate) fn facts_elsewhere(namespace: BorrowedFd<'_>, name: &str) -> io::Result<(bool, u16)> {
    let socket = Socket::open(None)?;
    let number = number_of(&socket, namespace)?;
    let name = text(name);
    let wanted = [(IFLA_IFNAME, name.as_slice()), (IFLA_TARGET_NETNSID, &number.to_ne_bytes())];
    let request = message(RTM_GETLINK, FLAG_REQUEST, &[0; IFINFOMSG], &wanted);
    link_facts(&socket.exchange(&request)?)
}

/// The number by which our network namespace knows another one; it gets one if it has none.
fn number_of(socket: &Socket, namespace: BorrowedFd<'_>) -> io::Result<u32> {
    let fd = namespace.as_fd().as_raw_fd().to_ne_bytes();
    let ask = message(RTM_GETNSID, FLAG_REQUEST, &[0; RTGENMSG], &[(NETNSA_FD, &fd)]);
    let known = namespace_number(&socket.exchange(&ask)?)?;
    if known != NOT_ASSIGNED {
        return Ok(known);
    }
    let any = NOT_ASSIGNED.to_ne_bytes();
    let give = [(NETNSA_NSID, any.as_slice()), (NETNSA_FD, &fd)];
    let give = message(RTM_NEWNSID, FLAG_REQUEST | FLAG_ACK, &[0; RTGENMSG], &give);
    eal::netlink::refusal(&socket.exchange(&give)?)?.map_or(Ok(()), Err)?;
    namespace_number(&socket.exchange(&ask)?)
}

fn namespace_number(answer: &[u8]) -> io::Result<u32> {
    let value = attribute(answer, RTGENMSG, NETNSA_NSID)?;
    u32_at(value, 0).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What the answer about an interface says.
fn link_facts(answer: &[u8]) -> io::Result<(bool, u16)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mtu = u32_at(attribute(answer, IFINFOMSG, IFLA_MTU)?, 0).ok_or_else(invalid)?;
    let flags = u32_at(answer, HEADER + IFINFOMSG_FLAGS).ok_or_else(invalid)?;
    if eal::netlink::u16_at(answer, 4) != Some(RTM_NEWLINK) {
        return Err(invalid());
    }
    Ok((carries(flags.cast_signed()), u16::try_from(mtu).unwrap_or(u16::MAX)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Elsewhere, in_namespace, ip};

    #[test]
    fn an_interface_of_another_namespace_is_asked_for_by_its_name_there() {
        in_namespace(|| {
            let other = Elsewhere::new();
            ip("link add rw0 mtu 1400 type veth peer name rw1");
            other.ip("link add rw0 mtu 9000 type veth peer name rw1");
            other.ip("link set rw1 up");
            let namespace = File::open(other.path()).unwrap();
            // The second time it has a number.
            for up in [false, true] {
                let facts = facts_elsewhere(namespace.as_fd(), "rw0").unwrap();
                assert_eq!(facts, (up, 9000));
                other.ip("link set rw0 up");
            }
            let error = facts_elsewhere(namespace.as_fd(), "rw9").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
            let no_namespace = File::open("/dev/null").unwrap();
            assert!(facts_elsewhere(no_namespace.as_fd(), "rw0").is_err());
        });
    }

    proptest! {
        #[test]
        fn any_answer_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (namespace_number(&bytes), link_facts(&bytes));
        }
    }
}
