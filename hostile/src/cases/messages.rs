use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::net::Shutdown;

use super::{Case, Heard, May};
use crate::attack::Attack;
use crate::memory::memfd;
use crate::message::{feature, flags, header, number, request, state};
use crate::random::Random;
use crate::wire::{MOST_FDS, Wire};

/// Sends `send` on connections of all kinds, one after the other: a fresh one, one that has
/// negotiated, and one whose rings run.
fn on_every_kind(attack: &Attack, mut send: impl FnMut(&Wire)) -> Result<Heard> {
    let fresh = attack.fresh()?;
    send(&fresh);
    fresh.settle();
    drop(fresh);
    let negotiated = attack.negotiated()?;
    send(&negotiated);
    negotiated.settle();
    drop(negotiated);
    let running = attack.running()?;
    send(&running.wire);
    Ok(Heard::on(&running.wire))
}

/// Sends every request that there is with this payload, each on a connection of its own, since
/// the first refusal may end it.
fn every_request(attack: &Attack, payload: impl Fn(u32) -> Vec<u8>) -> Result<Heard> {
    let mut last = attack.negotiated()?;
    for request in 0..=request::LAST + 2 {
        last.send_flagged(request, flags::VERSION | flags::NEED_REPLY, &payload(request), &[]);
        if !last.settle() {
            drop(last);
            last = attack.negotiated()?;
        }
    }
    Ok(Heard::on(&last))
}

fn files(count: usize) -> Result<Vec<std::fs::File>> {
    (0..count).map(|_| memfd(4096)).collect()
}

fn borrow(files: &[std::fs::File]) -> Vec<BorrowedFd<'_>> {
    files.iter().map(AsFd::as_fd).collect()
}

pub const CASES: &[Case] = &[
    Case::wire(
        "message/header-cut",
        May::Refuse,
        "header cut after each byte, then the end",
        |a| {
            let bytes = header(request::GET_FEATURES, flags::VERSION, 0);
            for count in 0..bytes.len() {
                a.fresh()?.raw(&bytes[..count], &[]);
            }
            Ok(Heard::on(&a.fresh()?))
        },
    ),
    Case::wire("message/payload-cut", May::Refuse, "memory table cut after each byte", |a| {
        let payload = crate::message::table(1, &[crate::frontend::whole()]);
        let head = header(request::SET_MEM_TABLE, flags::VERSION, 40);
        let file = memfd(1 << 20)?;
        for count in 0..payload.len() {
            let wire = a.negotiated()?;
            wire.raw(&[&head[..], &payload[..count]].concat(), &[file.as_fd()]);
        }
        Ok(Heard::on(&a.fresh()?))
    }),
    Case::wire("message/byte-by-byte", May::Serve, "requests sent byte by byte", |a| {
        on_every_kind(a, |wire| {
            for byte in header(request::GET_QUEUE_NUM, flags::VERSION, 0) {
                wire.raw(&[byte], &[]);
            }
        })
    }),
    Case::wire(
        "message/half-and-wait",
        May::Serve,
        "half a header, and the connection kept",
        |a| {
            let wire = a.fresh()?;
            wire.raw(&header(request::SET_FEATURES, flags::VERSION, 8)[..7], &[]);
            std::thread::sleep(a.dwell);
            Ok(Heard("kept open".into()))
        },
    ),
    Case::wire(
        "message/payload-never-comes",
        May::Serve,
        "a payload announced and not sent",
        |a| {
            let wire = a.running()?;
            wire.wire.raw(&header(request::SET_FEATURES, flags::VERSION, 8), &[]);
            std::thread::sleep(a.dwell);
            Ok(Heard("kept open".into()))
        },
    ),
    Case::wire("message/version-0", May::Refuse, "versions 0, 2 and 3 in the flags", |a| {
        for version in [0, 2, 3] {
            on_every_kind(a, |wire| {
                wire.send_flagged(request::GET_FEATURES, version, &[], &[]);
            })?;
        }
        Ok(Heard::on(&a.fresh()?))
    }),
    Case::wire("message/reply-flag", May::Refuse, "requests that say that they are replies", |a| {
        on_every_kind(a, |wire| {
            wire.send_flagged(request::GET_FEATURES, flags::VERSION | flags::REPLY, &[], &[]);
        })
    }),
    Case::wire("message/flags-all", May::Refuse, "all bits of the flags", |a| {
        on_every_kind(a, |wire| {
            wire.send_flagged(request::GET_FEATURES, !0, &[], &[]);
            wire.send_flagged(request::SET_FEATURES, !2, &number(0), &[]);
        })
    }),
    Case::wire("message/size-4GiB", May::Refuse, "a payload of 4 GiB announced", |a| {
        on_every_kind(a, |wire| {
            wire.raw(&header(request::SET_FEATURES, flags::VERSION, u32::MAX), &[]);
            wire.raw(&[0xff; 4096], &[]);
        })
    }),
    Case::wire("message/size-64KiB", May::Refuse, "a payload of 64 KiB, sent in full", |a| {
        on_every_kind(a, |wire| {
            wire.send(request::SET_MEM_TABLE, &vec![0x41; 1 << 16], &[]);
        })
    }),
    Case::wire("message/size-just-over", May::Refuse, "every size from 0 to 600 in turn", |a| {
        let mut wire = a.negotiated()?;
        for size in 0..600 {
            wire.send(request::SET_VRING_ADDR, &vec![0; size], &[]);
            if !wire.settle() {
                drop(wire);
                wire = a.negotiated()?;
            }
        }
        Ok(Heard::on(&wire))
    }),
    Case::wire("message/every-request-empty", May::Refuse, "every request without payload", |a| {
        every_request(a, |_| Vec::new())
    }),
    Case::wire("message/every-request-zeros", May::Refuse, "every request full of zeros", |a| {
        every_request(a, |request| vec![0; usize::try_from(request % 5 * 8).unwrap_or(0)])
    }),
    Case::wire("message/every-request-ones", May::Refuse, "every request full of ones", |a| {
        every_request(a, |request| vec![0xff; usize::try_from(request % 6 * 8).unwrap_or(0)])
    }),
    Case::wire(
        "message/every-request-random",
        May::Refuse,
        "every request with chance bytes",
        |a| {
            let random = std::cell::RefCell::new(Random::named("every-request-random"));
            every_request(a, |_| {
                let len = [4, 8, 20, 24, 32, 40, 72, 264][random.borrow_mut().below(8)];
                random.borrow_mut().bytes(len)
            })
        },
    ),
    Case::wire(
        "message/every-request-at-once",
        May::Refuse,
        "each first, before negotiation",
        |a| {
            for request in 0..=request::LAST {
                let wire = a.fresh()?;
                wire.send_flagged(request, flags::VERSION | flags::NEED_REPLY, &number(0), &[]);
                wire.settle();
            }
            Ok(Heard::on(&a.fresh()?))
        },
    ),
    Case::wire("message/unknown-requests", May::Refuse, "numbers that nobody has given out", |a| {
        for request in [0, 23, 46, 99, 0x8000_0000, u32::MAX] {
            on_every_kind(a, |wire| {
                wire.send(request, &number(0), &[]);
            })?;
        }
        Ok(Heard::on(&a.fresh()?))
    }),
    Case::wire("message/noise", May::Refuse, "64 KiB of chance bytes", |a| {
        let mut random = Random::named("noise");
        on_every_kind(a, |wire| {
            wire.raw(&random.bytes(1 << 16), &[]);
        })
    }),
    Case::wire(
        "message/noise-behind-header",
        May::Refuse,
        "headers of version 1, then noise",
        |a| {
            let mut random = Random::named("noise-behind-header");
            let mut wire = a.negotiated()?;
            for _ in 0..200 {
                let (request, size) = (random.below(46), random.below(300));
                let payload = random.bytes(size);
                wire.send(u32::try_from(request).unwrap_or(0), &payload, &[]);
                if !wire.settle() {
                    drop(wire);
                    wire = a.negotiated()?;
                }
            }
            Ok(Heard::on(&wire))
        },
    ),
    Case::wire("message/answers-not-read", May::Refuse, "100,000 questions, no answer read", |a| {
        let wire = a.negotiated()?;
        let question = header(request::GET_FEATURES, flags::VERSION, 0).repeat(1000);
        let end = Instant::now() + a.dwell + Duration::from_millis(200);
        let taken = (0..100).take_while(|_| wire.raw(&question, &[]) && Instant::now() < end);
        Ok(Heard(format!("{},000 taken", taken.count())))
    }),
    Case::wire("message/flood", May::Serve, "SET_VRING_NUM 100,000 times", |a| {
        let wire = a.negotiated()?;
        let payload = [&header(request::SET_VRING_NUM, 1, 8)[..], &state(0, 256)].concat();
        let many = payload.repeat(1000);
        let end = Instant::now() + a.dwell + Duration::from_millis(200);
        let _ = (0..100).take_while(|_| wire.raw(&many, &[]) && Instant::now() < end).count();
        Ok(Heard::on(&wire))
    }),
    Case::wire("message/one-way-down", May::Serve, "the front-end says that no more comes", |a| {
        on_every_kind(a, |wire| wire.shut(Shutdown::Write))
    }),
    Case::wire(
        "message/answers-refused",
        May::Refuse,
        "the front-end takes no more answers",
        |a| {
            on_every_kind(a, |wire| {
                wire.shut(Shutdown::Read);
                wire.send(request::GET_FEATURES, &[], &[]);
            })
        },
    ),
    Case::wire("connection/storm", May::Serve, "300 connections made and dropped", |a| {
        for _ in 0..300 {
            drop(a.fresh()?);
        }
        Ok(Heard::on(&a.fresh()?))
    }),
    Case::wire("connection/storm-running", May::Serve, "20 front-ends in turn, with rings", |a| {
        for _ in 0..20 {
            drop(a.running()?);
        }
        Ok(Heard::on(&a.running()?.wire))
    }),
    Case::wire("connection/many-kept", May::Refuse, "100 connections at once on one socket", |a| {
        let mut kept = Vec::new();
        while kept.len() < 100 {
            // Connecting waits where the queue of the listener is full.
            let path = a.socket.clone();
            let one = std::thread::spawn(move || Wire::connect(&path));
            let end = Instant::now() + Duration::from_millis(50);
            while !one.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_micros(100));
            }
            if !one.is_finished() {
                break;
            }
            kept.extend(one.join().ok().and_then(Result::ok));
        }
        std::thread::sleep(a.dwell);
        Ok(Heard(format!("{} taken", kept.len())))
    }),
    Case::wire("connection/second-while-running", May::Refuse, "a second front-end at once", |a| {
        let first = a.running()?;
        let second = Wire::connect(&a.socket);
        std::thread::sleep(a.dwell);
        drop(second);
        Ok(Heard::on(&first.wire))
    }),
    Case::wire(
        "connection/owner-twice",
        May::Serve,
        "SET_OWNER and RESET_OWNER while running",
        |a| {
            on_every_kind(a, |wire| {
                for request in [request::SET_OWNER, request::RESET_OWNER, request::SET_OWNER] {
                    wire.send(request, &[], &[]);
                }
            })
        },
    ),
    Case::wire("connection/reset-device", May::Serve, "RESET_DEVICE again and again", |a| {
        on_every_kind(a, |wire| {
            for _ in 0..50 {
                wire.send(request::RESET_DEVICE, &[], &[]);
            }
        })
    }),
    Case::wire("descriptor-passing/253", May::Refuse, "253 descriptors with one message", |a| {
        let files = files(MOST_FDS)?;
        on_every_kind(a, |wire| {
            wire.send(request::GET_FEATURES, &[], &borrow(&files));
        })
    }),
    Case::wire(
        "descriptor-passing/unasked",
        May::Refuse,
        "one with requests that have none",
        |a| {
            let files = files(1)?;
            let mut wire = a.negotiated()?;
            for request in 1..=request::LAST {
                wire.send(request, &number(0), &borrow(&files));
                if !wire.settle() {
                    drop(wire);
                    wire = a.negotiated()?;
                }
            }
            Ok(Heard::on(&wire))
        },
    ),
    Case::wire("descriptor-passing/leak", May::Refuse, "8 unasked, 500 times", |a| {
        let files = files(8)?;
        let mut wire = a.negotiated()?;
        for _ in 0..500 {
            wire.send(request::GET_FEATURES, &[], &borrow(&files));
            if !wire.settle() {
                drop(wire);
                wire = a.negotiated()?;
            }
        }
        Ok(Heard::on(&wire))
    }),
    Case::wire("descriptor-passing/per-byte", May::Refuse, "8 with every byte of a message", |a| {
        let files = files(8)?;
        on_every_kind(a, |wire| {
            for byte in header(request::GET_FEATURES, flags::VERSION, 0) {
                wire.raw(&[byte], &borrow(&files));
            }
        })
    }),
    Case::wire("descriptor-passing/missing", May::Refuse, "none where one is needed", |a| {
        let mut wire = a.negotiated()?;
        for (request, payload) in [
            (request::SET_VRING_KICK, number(0)),
            (request::SET_VRING_CALL, number(0)),
            (request::SET_VRING_ERR, number(0)),
            (request::SET_LOG_FD, vec![]),
            (request::SET_LOG_BASE, crate::message::numbers(&[4096, 0])),
            (request::SET_BACKEND_REQ_FD, vec![]),
            (request::SET_INFLIGHT_FD, crate::message::inflight(4096, 0, 2, 256)),
            (request::ADD_MEM_REG, crate::message::slot(&crate::frontend::whole())),
            (request::SET_MEM_TABLE, crate::message::table(1, &[crate::frontend::whole()])),
            (request::SET_DEVICE_STATE_FD, number(0)),
        ] {
            wire.send(request, &payload, &[]);
            if !wire.settle() {
                drop(wire);
                wire = a.negotiated()?;
            }
        }
        Ok(Heard::on(&wire))
    }),
    Case::wire("descriptor-passing/own-socket", May::Serve, "the connection's own two ends", |a| {
        // A back-end that keeps our end open never sees it close, unless it looks further.
        let frontend = a.running()?;
        let own = frontend.wire.socket();
        for request in [request::SET_VRING_CALL, request::SET_VRING_ERR, request::SET_VRING_KICK] {
            frontend.wire.send(request, &number(0), &[own]);
        }
        frontend.wire.send(request::SET_BACKEND_REQ_FD, &[], &[own]);
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("feature/unknown", May::Refuse, "feature bits that were not offered", |a| {
        let mut wire = a.fresh()?;
        wire.tell(request::SET_FEATURES, &number(u64::MAX), &[]);
        wire.settle();
        let mut wire = a.running()?.wire;
        wire.tell(request::SET_FEATURES, &number(u64::MAX), &[]);
        Ok(Heard::on(&wire))
    }),
    Case::wire("feature/each-bit", May::Refuse, "every feature bit alone, on running rings", |a| {
        let mut frontend = a.running()?;
        for bit in 0..64 {
            frontend.wire.send(request::SET_FEATURES, &number(1 << bit), &[]);
            if !frontend.wire.settle() {
                drop(frontend);
                frontend = a.running()?;
            }
        }
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire(
        "feature/packed-under-split",
        May::Refuse,
        "the ring format changed while running",
        |a| {
            let mut frontend = a.running()?;
            let packed = frontend.features | feature::RING_PACKED;
            frontend.wire.tell(request::SET_FEATURES, &number(packed), &[]);
            std::thread::sleep(a.dwell / 2);
            frontend.rings[crate::frontend::TX].kick();
            Ok(Heard::on(&frontend.wire))
        },
    ),
    Case::wire("feature/protocol-all", May::Refuse, "all protocol features, known or not", |a| {
        let mut wire = a.fresh()?;
        wire.tell(request::SET_PROTOCOL_FEATURES, &number(u64::MAX), &[]);
        wire.settle();
        let mut wire = a.running()?.wire;
        wire.tell(request::SET_PROTOCOL_FEATURES, &number(u64::MAX), &[]);
        Ok(Heard::on(&wire))
    }),
    Case::wire("feature/none", May::Serve, "no feature at all, and rings all the same", |a| {
        let mut setup = crate::frontend::Setup::new(crate::ring::Format::Split, 256);
        (setup.features, setup.needed) = (0, 0);
        Ok(Heard::on(&a.with(&setup)?.wire))
    }),
    Case::wire(
        "feature/multi-queue-dropped",
        May::Serve,
        "MQ set and taken back while running",
        |a| {
            let setup = crate::frontend::Setup::new(crate::ring::Format::Split, 256);
            let mut frontend = a.with(&setup.with(feature::MQ))?;
            for _ in 0..20 {
                for features in [frontend.features & !feature::MQ, frontend.features] {
                    frontend.wire.tell(request::SET_FEATURES, &number(features), &[]);
                }
            }
            Ok(Heard::on(&frontend.wire))
        },
    ),
];
