//! What comes out of a vhost-user socket: cut into messages, and taken for one of either side.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use arrayvec::ArrayVec;
use eal::PeerFd;
use vhost::Connection;
use vhost::protocol::{BackendMessage, FrontendMessage, HEADER_SIZE, MAX_FDS};

use crate::input::Input;

/// Plays one input.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(3) {
        0 => decode(&mut input, frontend),
        1 => decode(&mut input, backend),
        _ => stream(&mut input),
    }
}

/// A file that can be duplicated for all that are sent.
fn file() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

/// A message with files, decoded.
fn decode(input: &mut Input<'_>, decode: fn(u32, &[u8], ArrayVec<PeerFd, MAX_FDS>)) {
    let number = input.likely(&[5, 6, 24, 31, 32, 37]);
    let fds = (0..input.below(9)).map(|_| file().into()).collect();
    decode(u32::try_from(number).unwrap_or(u32::MAX), input.rest(), fds);
}

/// A message that is accepted is the same again when it is sent.
fn frontend(number: u32, payload: &[u8], fds: ArrayVec<PeerFd, MAX_FDS>) {
    let Ok(message) = FrontendMessage::decode(number, payload, fds) else { return };
    assert_eq!(message.request().number(), number);
    let again = message.fds().iter().map(|fd| fd.try_clone_to_owned().unwrap().into()).collect();
    let sent = message.payload();
    let message = FrontendMessage::decode(number, &sent, again).expect("it was accepted before");
    assert_eq!(message.payload(), sent);
}

/// As [`frontend`].
fn backend(number: u32, payload: &[u8], fds: ArrayVec<PeerFd, MAX_FDS>) {
    let Ok(message) = BackendMessage::decode(number, payload, fds) else { return };
    let again = message.fds().iter().map(|fd| fd.try_clone_to_owned().unwrap().into()).collect();
    let sent = message.payload();
    let message = BackendMessage::decode(number, &sent, again).expect("it was accepted before");
    assert_eq!(message.payload(), sent);
}

/// Bytes in pieces, some with files; what is received are the same bytes.
fn stream(input: &mut Input<'_>) {
    let (mut peer, ours) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(ours.into()).unwrap();
    let (mut sent, mut received) = (Vec::new(), 0);
    while !input.is_empty() {
        let files = input.below(16).saturating_sub(8);
        let piece = input.bytes();
        if files > 0 && !piece.is_empty() {
            send_with(&peer, piece, files.into());
        } else {
            peer.write_all(piece).unwrap();
        }
        sent.extend_from_slice(piece);
        loop {
            match connection.receive() {
                Ok(Some(message)) => {
                    let payload = message.payload;
                    let header = message.header.to_bytes();
                    assert_eq!(sent[received..][..HEADER_SIZE], header);
                    received += HEADER_SIZE;
                    assert_eq!(&sent[received..][..payload.len()], payload);
                    received += payload.len();
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    drop(peer);
    connection.receive().expect_err("nobody is there any more");
}

fn send_with(peer: &UnixStream, bytes: &[u8], count: usize) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let file = file();
    let fds = vec![file.as_fd(); count];
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let parts = [std::io::IoSlice::new(bytes)];
    rustix::net::sendmsg(peer, &parts, &mut control, SendFlags::empty()).unwrap();
}
