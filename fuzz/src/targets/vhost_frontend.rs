//! A back-end that answers what it likes, for the front-end of a `virtio-user` port.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::Connection;
use vhost::frontend::{Frontend, Ring};
use vhost::protocol::{FrontendRequest, Header, MemoryRegion};
use virtio::Features;
use virtio::iotlb::{Access, Translation};

use crate::guest::file;
use crate::input::Input;

/// Calls of one input.
const STEPS: usize = 40;

/// Answers of one input.
const ANSWERS: u8 = 48;

/// What answers are to, in the order of an ordinary session.
const ORDER: [FrontendRequest; 8] = [
    FrontendRequest::GetFeatures,
    FrontendRequest::GetProtocolFeatures,
    FrontendRequest::GetQueueNum,
    FrontendRequest::SetBackendReqFd,
    FrontendRequest::SetFeatures,
    FrontendRequest::SetStatus,
    FrontendRequest::GetStatus,
    FrontendRequest::GetInflightFd,
];

/// Plays one input.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (peer, ours) = UnixStream::pair().unwrap();
    let mut peer = Connection::new(peer.into()).unwrap();
    // All answers are there before they are asked for, so that nobody ever waits.
    for index in 0..input.below(ANSWERS) {
        answer(&mut peer, usize::from(index), &mut input);
    }
    rustix::net::shutdown(&peer, rustix::net::Shutdown::Write).unwrap();
    let mut frontend = Frontend::new(ours.into(), "fuzz", Duration::ZERO, None).unwrap();
    if input.yes() {
        frontend.listen(Box::new(|_| true));
    }
    let Ok(offer) = frontend.handshake() else { return };
    assert!(offer.features.bits() & !Features::all().bits() == 0);
    let mut channel = channel(&mut peer);
    let files = [file(0x1000), event(), event()];
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        if let Some(channel) = &mut channel
            && input.byte() < 0x40
        {
            // It may have been closed by the front-end.
            let _ = channel.write_all(input.bytes());
        }
        call(&mut frontend, &files, &mut input);
    }
}

fn event() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
}

/// An answer that may be one to the next request, or to any, or a request itself.
fn answer(peer: &mut Connection, index: usize, input: &mut Input<'_>) {
    let choice = input.byte();
    let request = match choice {
        0..=0x9f => ORDER.get(index).copied().unwrap_or(FrontendRequest::SetVringCall).number(),
        0xa0..=0xef => u32::from(choice - 0xa0),
        _ => input.number(),
    };
    let flags = if input.byte() < 0xf0 { 5 } else { input.number() };
    let payload = match input.below(4) {
        0 => u64::MAX.to_le_bytes().to_vec(),
        1 => u64::from(input.byte()).to_le_bytes().to_vec(),
        2 => input.number::<u64>().to_le_bytes().to_vec(),
        _ => input.bytes().to_vec(),
    };
    let files: Vec<OwnedFd> = (0..input.byte().saturating_sub(0xfc)).map(|_| event()).collect();
    let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    let header = Header { request, flags, size: u32::try_from(payload.len()).unwrap() };
    peer.send(header, &payload, &files).unwrap();
}

/// The channel for messages of the back-end, if it was given one.
fn channel(peer: &mut Connection) -> Option<UnixStream> {
    while let Ok(Some(message)) = peer.receive() {
        if message.header.request == FrontendRequest::SetBackendReqFd.number() {
            let file = message.fds.into_iter().next()?;
            return Some(file.as_fd().try_clone_to_owned().ok()?.into());
        }
    }
    None
}

/// One of the things that a driver asks for. It would give up at the first error; here it goes on.
fn call(frontend: &mut Frontend, files: &[OwnedFd; 3], input: &mut Input<'_>) {
    let [memory, kick, call] = files;
    let index = input.below(4);
    let _ = match input.below(11) {
        0 => frontend.set_features(Features::from_bits_truncate(input.number())),
        1 => frontend.set_mtu(input.number()),
        2 => frontend.driver_ok(),
        3 => frontend.enable_ring(index, input.yes()),
        4 => frontend.check(),
        5 => frontend.stop_ring(index).map(drop),
        6 => {
            let region = MemoryRegion { guest_addr: 0, size: 0x1000, user_addr: 0, mmap_offset: 0 };
            frontend.share_memory(&vec![(region, memory.as_fd()); index.into()])
        }
        7 => {
            let (kick, call) = (Some(kick.as_fd()), Some(call.as_fd()));
            let addresses = (0, 0x400, 0x800);
            frontend.start_ring(&Ring { index, size: 64, base: 0, addresses, kick, call })
        }
        8 => {
            let len = usize::from(input.number::<u16>() % 300);
            frontend.read_config(input.byte().into(), len).map(|part| {
                let asked = len.clamp(1, 256);
                assert!(part.is_none_or(|part| part.bytes.len() == asked));
            })
        }
        9 => {
            let (iova, len) = (input.number(), input.number());
            let access = Access::from_bits_truncate(input.byte());
            frontend.map(Translation { iova, len, user_addr: 0, access })
        }
        _ => match frontend.get_inflight(index.into(), 64) {
            Ok(Some(file)) => frontend.set_inflight(&file),
            other => other.map(drop),
        },
    };
}
