//! Requests to the kernel by netlink(7): one message there, one answer back.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
    socket_with,
};

/// The message is a request (`NLM_F_REQUEST`).
pub const FLAG_REQUEST: u16 = 1;
/// It wants an acknowledgement (`NLM_F_ACK`).
pub const FLAG_ACK: u16 = 4;
/// An answer that is an error or, with code 0, an acknowledgement (`NLMSG_ERROR`).
pub const MESSAGE_ERROR: u16 = 2;

/// Bytes of a message's header.
pub const HEADER: usize = 16;

/// Bytes of an attribute's header.
const ATTRIBUTE_HEADER: usize = 4;

/// A socket for requests, in the network namespace of the thread that made it.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// One that talks to rtnetlink, or to the generic families.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?))
    }

    /// Sends a request and waits for the kernel's answer to it.
    ///
    /// # Errors
    /// What sendto(2) and recv(2) say.
    pub fn exchange(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        sendto(&self.0, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        self.receive()
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
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

/// All of a table is wanted (`NLM_F_DUMP`).
pub const FLAG_DUMP: u16 = 0x300;
/// The last message of a table (`NLMSG_DONE`).
const MESSAGE_DONE: u16 = 3;

/// The most messages of one table that are taken.
const MAX_MESSAGES: usize = 1 << 16;

impl Socket {
    /// Sends a request for a table and waits for all of it: a message for each row.
    ///
    /// # Errors
    /// What sendto(2), recv(2) and the kernel say.
    pub fn dump(&self, request: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut rows = Vec::new();
        let mut answer = self.exchange(request)?;
        while rows.len() < MAX_MESSAGES {
            for message in split(&answer) {
                match u16_at(message, 4) {
                    Some(MESSAGE_DONE) => return Ok(rows),
                    Some(MESSAGE_ERROR) => return refusal(message)?.map_or(Ok(rows), Err),
                    _ => rows.push(message.to_vec()),
                }
            }
            answer = self.receive()?;
        }
        Ok(rows)
    }
}

/// The messages that came in one piece; what is behind the last whole one is left out.
fn split(mut answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(answer, 0)?).ok().filter(|len| *len >= HEADER)?;
        let message = answer.get(..len)?;
        answer = answer.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// A request of a kind: the fixed part behind its header, then attributes.
#[must_use]
pub fn message(kind: u16, flags: u16, fixed: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = fixed.to_vec();
    for (kind, value) in attributes {
        // Values are short.
        let len = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        body.extend(len.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let len = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number and sender: there is one message at a time on a socket.
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// A text as attributes have it, with the NUL behind it.
#[must_use]
pub fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), &[0]].concat()
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The number at a place of a message, in the machine's byte order; `None` behind its end.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}

/// As [`u16_at`], of four bytes.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}

/// The error that an acknowledgement carries, if any.
///
/// # Errors
/// When the answer is none.
pub fn refusal(answer: &[u8]) -> io::Result<Option<io::Error>> {
    let code = bytes_at(answer, HEADER).map(i32::from_ne_bytes);
    match (u16_at(answer, 4), code) {
        (Some(MESSAGE_ERROR), Some(0)) => Ok(None),
        (Some(MESSAGE_ERROR), Some(code)) => {
            Ok(Some(io::Error::from_raw_os_error(code.saturating_neg())))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The value of an attribute of an answer, the fixed part of which is so long.
///
/// # Errors
/// What the kernel says; an answer without this attribute.
pub fn attribute(answer: &[u8], fixed: usize, wanted: u16) -> io::Result<&[u8]> {
    if let Ok(Some(error)) = refusal(answer) {
        return Err(error);
    }
    let missing = || io::Error::from(io::ErrorKind::InvalidData);
    let mut at = HEADER.saturating_add(fixed);
    while let (Some(len), Some(kind)) = (u16_at(answer, at), u16_at(answer, at + 2)) {
        // An attribute is no shorter than its header.
        let len = usize::from(len).max(ATTRIBUTE_HEADER);
        if kind == wanted {
            return answer.get(at + ATTRIBUTE_HEADER..at + len).ok_or_else(missing);
        }
        at += len.next_multiple_of(4);
    }
    Err(missing())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_have_the_kernels_form() {
        let bytes =
            message(0x1c, 5, &[3, 1, 0, 0], &[(2, text("vduse").as_slice()), (4, b"abc\0")]);
        let mut expected = vec![40, 0, 0, 0, 0x1c, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0];
        expected.extend([10, 0, 2, 0]);
        expected.extend(*b"vduse\0\0\0");
        expected.extend([8, 0, 4, 0]);
        expected.extend(*b"abc\0");
        assert_eq!(bytes, expected);
        assert_eq!(attribute(&bytes, 4, 4).unwrap(), b"abc\0");
        assert_eq!(attribute(&bytes, 4, 2).unwrap(), b"vduse\0");
        assert!(attribute(&bytes, 4, 3).is_err());
        assert!(attribute(&bytes[..38], 4, 4).is_err(), "cut short");
    }

    #[test]
    fn acknowledgements_are_told_from_errors() {
        let ack = |code: i32| message(MESSAGE_ERROR, 0, &code.to_ne_bytes(), &[]);
        assert!(refusal(&ack(0)).unwrap().is_none());
        assert_eq!(refusal(&ack(-17)).unwrap().unwrap().raw_os_error(), Some(libc::EEXIST));
        assert_eq!(attribute(&ack(-17), 4, 1).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        assert!(refusal(&[]).is_err());
    }

    proptest! {
        #[test]
        fn any_answer_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200), fixed in 0..20_usize) {
            let _ = (refusal(&bytes), attribute(&bytes, fixed, 1));
        }
    }
}
