//! A front-end that sends anything: the session neither panics nor leaks, and keeps its promises
//! to the device (which `Recording` checks). One test, so that the process's files and mappings
//! are its own.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use eal::{Closer, PeerFd};
use proptest::prelude::*;
use testkit::wait_for;
use vhost::connection::{Connection, Message};
use vhost::protocol::{FrontendRequest, Header, MAX_FDS};
use vhost::session::{Device, Session};

use vhost::testing::{FEATURES, LOG_ALL, MEMORY, Recording, TRANSLATED, event, log, memory, null};

const SPLIT: u64 = FEATURES & !LOG_ALL & !(1 << 34);

/// A message, as bytes and files.
#[derive(Clone, Debug)]
struct Sent {
    request: u32,
    flags: u32,
    payload: Vec<u8>,
    files: Vec<u8>,
}

/// Numbers that mean something somewhere, and others.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0_u64..6,
        1 => prop::sample::select(vec![
            256, 0x1_0000, 0x100, 0x101, MEMORY, 2 * MEMORY, 0x7000_0000, 0x7000_0000 + MEMORY,
            FEATURES, SPLIT | TRANSLATED, FEATURES & !(1 << 34), FEATURES & !(1 << 30), SPLIT, SPLIT | LOG_ALL,
            0x1_a01b, 0x1_ae3f, 0x1_2f3f, u64::MAX,
        ]),
        1 => any::<u64>(),
    ]
}

fn words(values: &[(u64, bool)]) -> Vec<u8> {
    let word = |&(value, wide): &(u64, bool)| {
        let len = if wide { 8 } else { 4 };
        value.to_ne_bytes()[..len].to_vec()
    };
    values.iter().flat_map(word).collect()
}

/// Payloads of the right shape with few different values, so that a good part is accepted.
fn shaped(request: FrontendRequest) -> BoxedStrategy<(Vec<u8>, Vec<u8>)> {
    use FrontendRequest as R;
    let region = || {
        (0_u64..4, prop::bool::weighted(0.9)).prop_map(|(number, good)| {
            let size = if good { MEMORY } else { MEMORY + 1 };
            vec![
                (number * MEMORY, true),
                (size, true),
                (0x7000_0000 + number * MEMORY, true),
                (0, true),
            ]
        })
    };
    match request {
        R::SetMemTable => prop::collection::vec(region(), 0..4)
            .prop_map(|regions| {
                let count = (regions.len() as u64, true);
                let payload = std::iter::once(count).chain(regions.concat()).collect::<Vec<_>>();
                (words(&payload), vec![1; regions.len()])
            })
            .boxed(),
        R::AddMemReg => region()
            .prop_map(|region| (words(&[vec![(0, true)], region].concat()), vec![1]))
            .boxed(),
        R::RemMemReg => {
            region().prop_map(|region| (words(&[vec![(0, true)], region].concat()), vec![])).boxed()
        }
        R::SetVringKick | R::SetVringCall | R::SetVringErr => (0_u64..6, any::<bool>())
            .prop_map(|(index, file)| {
                let value = index | if file { 0 } else { 0x100 };
                (words(&[(value, true)]), if file { vec![0] } else { vec![] })
            })
            .boxed(),
        R::SetVringNum => (0_u64..6, prop::sample::select(vec![256_u64, 128, 100, 0, 65_536]))
            .prop_map(|(index, size)| (words(&[(index, false), (size, false)]), vec![]))
            .boxed(),
        R::SetVringBase | R::GetVringBase | R::SetVringEnable | R::VringKick => {
            (0_u64..6, 0_u64..3)
                .prop_map(|(index, num)| (words(&[(index, false), (num, false)]), vec![]))
                .boxed()
        }
        R::SetVringAddr => (0_u64..6, 0_u64..2, any::<[u64; 4]>())
            .prop_map(|(index, flags, addrs)| {
                let head = words(&[(index, false), (flags, false)]);
                ([head, words(&addrs.map(|addr| (addr, true)))].concat(), vec![])
            })
            .boxed(),
        R::GetConfig | R::SetConfig => {
            let len = prop::sample::select(vec![0_u64, 1, 4, 8, 9, 256, 257]);
            (0_u64..9, len, 0_u64..3)
                .prop_map(|(offset, len, flags)| {
                    let head = words(&[(offset, false), (len, false), (flags, false)]);
                    ([head, vec![7; usize::try_from(len).unwrap()]].concat(), vec![])
                })
                .boxed()
        }
        // One byte of log is too little for one region, and eight are enough for four.
        R::SetLogBase => (prop::sample::select(vec![8_u64, 8, 9, 1, 0, 1 << 20]), 0_u64..2)
            .prop_map(|(size, offset)| (words(&[(size, true), (offset, true)]), vec![3]))
            .boxed(),
        R::SetLogFd => (0_u8..4).prop_map(|kind| (vec![], vec![kind])).boxed(),
        R::SetBackendReqFd => (0_u8..5).prop_map(|kind| (vec![], vec![kind])).boxed(),
        R::IotlbMsg => (number(), number(), number(), 0_u64..5, 0_u64..6)
            .prop_map(|(iova, size, user_addr, access, kind)| {
                let numbers = [iova, size, user_addr, access | kind << 8];
                (words(&numbers.map(|number| (number, true))), vec![])
            })
            .boxed(),
        R::SetFeatures | R::SetProtocolFeatures | R::SendRarp | R::NetSetMtu | R::SetStatus => {
            number().prop_map(|value| (words(&[(value, true)]), vec![])).boxed()
        }
        _ => Just((vec![], vec![])).boxed(),
    }
}

fn well_formed() -> impl Strategy<Value = Sent> {
    prop::sample::select(FrontendRequest::ALL).prop_flat_map(|request| {
        (shaped(request), any::<bool>()).prop_map(move |((payload, files), ack)| Sent {
            request: request.number(),
            flags: if ack { 9 } else { 1 },
            payload,
            files,
        })
    })
}

fn anything() -> impl Strategy<Value = Sent> {
    let request = prop_oneof![4 => 0_u32..46, 1 => any::<u32>()];
    let flags = prop_oneof![4 => Just(9_u32), 1 => any::<u32>()];
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    let files = prop::collection::vec(0_u8..4, 0..=MAX_FDS);
    (request, flags, payload, files).prop_map(|(request, flags, payload, files)| Sent {
        request,
        flags,
        payload,
        files,
    })
}

fn open(kind: u8) -> OwnedFd {
    match kind {
        0 => event(),
        1 => memory(),
        3 => log(9),
        4 => UnixStream::pair().unwrap().0.into(),
        _ => null(),
    }
}

/// Open files, and mappings of guest memory, when all that was let go of is closed.
fn held(closer: &Closer) -> (usize, usize) {
    wait_for("all is closed", || closer.is_done());
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (files, maps.lines().filter(|line| line.contains("memfd:guest")).count())
}

/// What a device offers beside the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Usual,
    Postcopy,
    Translated,
}

fn device(kind: Kind) -> Recording {
    let (mut backend, _) = Recording::new();
    backend.postcopy = kind == Kind::Postcopy;
    backend.translated = kind == Kind::Translated;
    backend.inband = true;
    backend
}

/// Plays `messages` to one session; returns how many it accepted.
fn play(messages: &[Sent], kind: Kind, closer: &Closer) -> usize {
    let backend = device(kind);
    let mut device = Device { backend: Box::new(backend), events: Box::new(|_| ()) };
    let mut session = Session::open(&mut device);
    let mut accepted = 0;
    for sent in messages {
        let header = Header {
            request: sent.request,
            flags: sent.flags,
            size: u32::try_from(sent.payload.len()).unwrap(),
        };
        let fds = sent.files.iter().map(|&kind| PeerFd::new(open(kind), closer.clone())).collect();
        let message = Message { header, payload: &sent.payload, fds };
        // A refusal would end a real connection; here the next message comes nevertheless.
        accepted += usize::from(
            session.handle(&mut device, message).is_ok_and(|answer| answer.refused.is_none()),
        );
    }
    session.close(&mut device);
    accepted
}

/// The same over a socket, up to the first message that ends the connection.
fn play_over_socket(messages: &[Sent], kind: Kind, closer: &Closer) {
    let backend = device(kind);
    let mut device = Device { backend: Box::new(backend), events: Box::new(|_| ()) };
    let mut session = Session::open(&mut device);
    let (peer, ours) = UnixStream::pair().unwrap();
    let over = |end: UnixStream| Connection::over(PeerFd::new(end.into(), closer.clone())).unwrap();
    let (mut peer, mut ours) = (over(peer), over(ours));
    for sent in messages {
        let size = u32::try_from(sent.payload.len()).unwrap();
        let header = Header { request: sent.request, flags: sent.flags, size };
        let fds: Vec<_> = sent.files.iter().map(|&kind| open(kind)).collect();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        peer.send(header, &sent.payload, &fds).unwrap();
        let Ok(message) = ours.receive() else { break };
        let message = message.unwrap();
        if session.handle(&mut device, message).is_err() {
            break;
        }
    }
    session.close(&mut device);
}

#[test]
fn no_sequence_of_messages_does_harm() {
    let closer = Closer::default();
    // So that later ones are possible: everything negotiated, memory shared, ring 0 running.
    let negotiated = |request: FrontendRequest, payload: &[(u64, bool)], files: &[u8]| Sent {
        request: request.number(),
        flags: 1,
        payload: words(payload),
        files: files.to_vec(),
    };
    let prologue = [
        negotiated(FrontendRequest::SetProtocolFeatures, &[(0x1_ae3f, true)], &[]),
        negotiated(FrontendRequest::SetFeatures, &[(SPLIT, true)], &[]),
        negotiated(
            FrontendRequest::AddMemReg,
            &[(0, true), (0, true), (MEMORY, true), (0x7000_0000, true), (0, true)],
            &[1],
        ),
        negotiated(FrontendRequest::SetVringNum, &[(0, false), (256, false)], &[]),
        negotiated(
            FrontendRequest::SetVringAddr,
            &[(0, false), (0, false), (0, true), (0, true), (0, true), (0, true)],
            &[],
        ),
        negotiated(FrontendRequest::SetVringKick, &[(0, true)], &[0]),
        negotiated(FrontendRequest::SetLogBase, &[(8, true), (0, true)], &[3]),
        negotiated(FrontendRequest::SetFeatures, &[(SPLIT | LOG_ALL, true)], &[]),
    ];
    assert_eq!(play(&prologue, Kind::Usual, &closer), prologue.len());
    // And a guest that runs while its memory is still on the way.
    let late = [
        negotiated(FrontendRequest::SetProtocolFeatures, &[(0x1_6f3f, true)], &[]),
        negotiated(FrontendRequest::SetFeatures, &[(SPLIT, true)], &[]),
        negotiated(FrontendRequest::PostcopyAdvise, &[], &[]),
        negotiated(FrontendRequest::PostcopyListen, &[], &[]),
        negotiated(
            FrontendRequest::SetMemTable,
            &[(1, true), (0, true), (MEMORY, true), (0x7000_0000, true), (0, true)],
            &[1],
        ),
        negotiated(FrontendRequest::SetMemTable, &[(0, true)], &[]),
    ];
    let late = [&late, &prologue[3..6]].concat();
    assert_eq!(play(&late, Kind::Postcopy, &closer), late.len());
    // And one behind an IOMMU.
    let mut behind = prologue.to_vec();
    behind[1].payload = words(&[(SPLIT | TRANSLATED, true)]);
    behind.truncate(7);
    let update = [(0, true), (MEMORY, true), (0x7000_0000, true), (0x203, true)];
    behind.push(negotiated(FrontendRequest::IotlbMsg, &update, &[]));
    assert_eq!(play(&behind, Kind::Translated, &closer), behind.len());

    let least = Cell::new(held(&closer));
    let message = prop_oneof![3 => well_formed(), 1 => anything()];
    let kinds = prop::sample::select(vec![Kind::Usual, Kind::Postcopy, Kind::Translated]);
    let messages = (any::<bool>(), kinds, prop::collection::vec(message, 0..60));
    // An eventfd may be at a thread that signals it, for a moment, also when the least was found.
    let nothing_is_left = || {
        wait_for("nothing is left", || {
            let ((files, maps), before) = (held(&closer), least.get());
            least.set((files.min(before.0), maps.min(before.1)));
            files <= before.0 && maps <= before.1
        });
    };
    // What is left for as long as one waits is not waited for again and again.
    let max_shrink_time = 120_000;
    let config = ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        max_shrink_time,
        ..Default::default()
    };
    proptest!(config, |((prepared, kind, messages) in messages)| {
        let prologue = match (prepared, kind) {
            (false, _) => vec![],
            (true, Kind::Usual) => prologue.to_vec(),
            (true, Kind::Postcopy) => late.clone(),
            (true, Kind::Translated) => behind.clone(),
        };
        let all = [prologue, messages].concat();
        play(&all, kind, &closer);
        nothing_is_left();
        play_over_socket(&all, kind, &closer);
        nothing_is_left();
    });
}
