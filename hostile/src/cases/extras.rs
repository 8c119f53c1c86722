use std::os::fd::AsFd;

use anyhow::Result;
use rustix::fs::ftruncate;

use super::{Case, Heard, May};
use crate::attack::{Attack, SIZE};
use crate::frontend::{Frontend, RX, Setup, TX, USER};
use crate::memory::memfd;
use crate::message::{
    addresses, config, feature, inflight, iotlb, number, numbers, protocol, request, state,
};
use crate::ring::{Format, Ring};
use crate::wire::{Answer, PATIENCE, Wire};

/// A front-end whose rings run and that could log.
fn logging(attack: &Attack) -> Result<Frontend> {
    let setup = Setup::new(Format::Split, SIZE).needing(feature::LOG_ALL);
    attack.with(&setup)
}

/// Hands over a log of `bytes` and says so much about it, then has the rings log.
fn log(attack: &Attack, bytes: u64, size: u64, offset: u64) -> Result<Heard> {
    let mut frontend = logging(attack)?;
    let file = memfd(bytes)?;
    frontend.wire.tell(request::SET_LOG_BASE, &numbers(&[size, offset]), &[file.as_fd()]);
    let features = number(frontend.features | feature::LOG_ALL);
    frontend.wire.tell(request::SET_FEATURES, &features, &[]);
    let parts = [USER, USER + 0xc000, USER + 0x8000, 0xffff_f000];
    frontend.wire.tell(request::SET_VRING_ADDR, &addresses(0, 1, parts), &[]);
    frontend.rings.iter().for_each(Ring::kick);
    std::thread::sleep(attack.dwell / 4);
    Ok(Heard::on(&frontend.wire))
}

/// Sends each of these messages to a front-end whose rings run; a new one for each.
fn each(attack: &Attack, request: u32, payloads: &[Vec<u8>]) -> Result<Heard> {
    let mut heard = Heard("nothing was sent".into());
    for payload in payloads {
        let mut frontend = attack.running()?;
        frontend.wire.tell(request, payload, &[]);
        heard = Heard::on(&frontend.wire);
    }
    Ok(heard)
}

/// Offers records of chains in flight in a file of `bytes`, and starts the rings with them.
fn records(attack: &Attack, bytes: u64, payload: &[u8], content: u8) -> Result<Heard> {
    let mut heard = None;
    for format in [Format::Split, Format::Packed] {
        let setup = Setup::new(format, SIZE);
        let mut frontend = Frontend::prepare(&attack.socket, &setup)?;
        let file = memfd(bytes)?;
        if content != 0 {
            use std::os::unix::fs::FileExt;
            file.write_all_at(&vec![content; usize::try_from(bytes.min(1 << 20))?], 0)?;
        }
        frontend.wire.tell(request::SET_INFLIGHT_FD, payload, &[file.as_fd()]);
        frontend.share(&setup);
        (0..2).for_each(|index| frontend.start_ring(index, &setup));
        frontend.rings[TX].kick();
        std::thread::sleep(attack.dwell / 8);
        heard = Some(Heard::on(&frontend.wire));
    }
    Ok(heard.unwrap_or(Heard(String::new())))
}

/// A channel for the back-end's own messages; gives our end.
fn channel(wire: &mut Wire) -> Result<std::os::unix::net::UnixStream> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    wire.tell(request::SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()]);
    Ok(ours)
}

pub const CASES: &[Case] = &[
    Case::wire("log/size-0", May::Refuse, "a log of no bytes", |a| log(a, 4096, 0, 0)),
    Case::wire("log/wraps", May::Refuse, "size and offset beyond 2^64", |a| {
        log(a, 4096, u64::MAX, 4096)?;
        log(a, 4096, 4096, u64::MAX - 4095)
    }),
    Case::wire("log/longer-than-file", May::Refuse, "a log of 16 MiB in a file of a page", |a| {
        log(a, 4096, 16 << 20, 0)
    }),
    Case::wire("log/too-short", May::Refuse, "a log of one byte for all of the memory", |a| {
        log(a, 4096, 1, 0)
    }),
    Case::wire("log/offset", May::Serve, "a log in the middle of a file", |a| {
        log(a, 1 << 20, 4096, 4096)?;
        log(a, 1 << 20, 4096, 4097)
    }),
    Case::wire("log/truncated", May::Stop, "a log cut away while rings log", |a| {
        let mut scene = a.scene(&Setup::new(Format::Split, SIZE).needing(feature::LOG_ALL))?;
        let file = memfd(1 << 20)?;
        let wire = &mut scene.frontend.wire;
        wire.tell(request::SET_LOG_BASE, &numbers(&[1 << 20, 0]), &[file.as_fd()]);
        let features = number(scene.frontend.features | feature::LOG_ALL);
        scene.frontend.wire.tell(request::SET_FEATURES, &features, &[]);
        for id in 8..72 {
            let buffer = scene.receive_buffer(id);
            scene.rx().offer_chain(&[buffer]);
        }
        scene.dwell(a.dwell / 4);
        ftruncate(&file, 0)?;
        scene.dwell(a.dwell / 2);
        Ok(Heard::on(&scene.frontend.wire))
    }),
    Case::wire("log/replaced", May::Serve, "200 logs in turn while rings run", |a| {
        let mut frontend = logging(a)?;
        for _ in 0..200 {
            let file = memfd(1 << 20)?;
            let payload = numbers(&[1 << 20, 0]);
            let answer = frontend.wire.tell(request::SET_LOG_BASE, &payload, &[file.as_fd()]);
            if answer == Answer::Closed {
                break;
            }
        }
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("inflight/get-lies", May::Refuse, "records asked for too many or no queues", |a| {
        let sizes = [(0, 0), (0, 256), (2, 0), (0xffff, 0xffff), (1, 0xffff), (256, 32_768)];
        let ask = |(queues, size): &(u16, u16)| inflight(0, 0, *queues, *size);
        each(a, request::GET_INFLIGHT_FD, &sizes.iter().map(ask).collect::<Vec<_>>())
    }),
    Case::wire("inflight/get-again", May::Refuse, "records asked for 500 times", |a| {
        let wire = a.negotiated()?;
        let mut kept = Vec::new();
        for _ in 0..500 {
            if !wire.send(request::GET_INFLIGHT_FD, &inflight(0, 0, 2, 256), &[]) {
                break;
            }
            let Ok((_, _, fds)) = wire.receive(PATIENCE) else { break };
            kept.extend(fds);
            kept.truncate(64);
        }
        Ok(Heard::on(&wire))
    }),
    Case::wire("inflight/queues-lie", May::Refuse, "records for 65,535 queues and for none", |a| {
        records(a, 1 << 20, &inflight(1 << 20, 0, 0xffff, 256), 0)?;
        records(a, 1 << 20, &inflight(1 << 20, 0, 0, 256), 0)
    }),
    Case::wire(
        "inflight/size-lies",
        May::Refuse,
        "records of too few bytes, none, and 2^64 - 1",
        |a| {
            for size in [0, 1, 64, 4096, 1 << 40, u64::MAX] {
                records(a, 1 << 20, &inflight(size, 0, 2, 256), 0)?;
            }
            records(a, 1 << 20, &inflight(1 << 20, 0, 2, 0xffff), 0)
        },
    ),
    Case::wire("inflight/offset-lies", May::Refuse, "offsets that are odd, outside or wrap", |a| {
        for offset in [1, 4097, 1 << 20, 1 << 50, u64::MAX - 4095] {
            records(a, 1 << 20, &inflight(1 << 18, offset, 2, 256), 0)?;
        }
        records(a, 1 << 20, &inflight(u64::MAX, 4096, 2, 256), 0)
    }),
    Case::wire("inflight/empty-file", May::Refuse, "records in a file without a byte", |a| {
        records(a, 0, &inflight(1 << 20, 0, 2, 256), 0)
    }),
    Case::wire("inflight/ones", May::Refuse, "records full of ones", |a| {
        records(a, 1 << 20, &inflight(1 << 20, 0, 2, 256), 0xff)
    }),
    Case::wire("inflight/noise", May::Refuse, "records with chance numbers", |a| {
        for content in [1, 2, 0x7f, 0x80] {
            records(a, 1 << 20, &inflight(1 << 20, 0, 2, 256), content)?;
        }
        records(a, 1 << 20, &inflight(1 << 20, 0, 2, 128), 1)
    }),
    Case::wire("inflight/truncated", May::Stop, "records cut away while rings run", |a| {
        let setup = Setup::new(Format::Split, SIZE);
        let mut frontend = Frontend::prepare(&a.socket, &setup)?;
        let file = memfd(1 << 20)?;
        let payload = inflight(1 << 20, 0, 2, SIZE);
        frontend.wire.tell(request::SET_INFLIGHT_FD, &payload, &[file.as_fd()]);
        frontend.share(&setup);
        (0..2).for_each(|index| frontend.start_ring(index, &setup));
        ftruncate(&file, 0)?;
        for slot in 0..SIZE / 2 {
            let at = crate::frontend::TX_BUFFERS + 2048 * usize::from(slot);
            frontend.rings[TX].offer_chain(&[crate::ring::Desc::new(at as u64, 100, 0)]);
            frontend.rings[TX].kick();
        }
        std::thread::sleep(a.dwell / 2);
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("config/lies", May::Refuse, "configuration outside, too long, and wrapping", |a| {
        let parts = [(0, 256), (255, 2), (256, 1), (u32::MAX, 1), (1, u32::MAX), (0, 0), (0, 257)];
        for request in [request::GET_CONFIG, request::SET_CONFIG] {
            let payload = |(offset, size): &(u32, u32)| {
                let bytes = usize::try_from(*size).unwrap_or(0).min(300);
                config(*offset, *size, 0, &vec![0x55; bytes])
            };
            each(a, request, &parts.iter().map(payload).collect::<Vec<_>>())?;
        }
        Ok(Heard::on(&a.fresh()?))
    }),
    Case::wire(
        "config/size-unlike-payload",
        May::Refuse,
        "a size that is not the payload's",
        |a| {
            let payloads =
                [config(0, 256, 0, &[1; 4]), config(0, 4, 0, &[1; 200]), config(0, 4, !0, &[])];
            each(a, request::SET_CONFIG, &payloads)?;
            each(a, request::GET_CONFIG, &payloads)
        },
    ),
    Case::wire("extra/mtu", May::Refuse, "MTUs from 0 to 2^64 - 1", |a| {
        let mtus = [0, 1, 67, 65_536, 1 << 32, u64::MAX].map(number);
        each(a, request::NET_SET_MTU, &mtus)
    }),
    Case::wire(
        "extra/mtu-smallest",
        May::Serve,
        "an MTU of 68, then frames that are longer",
        |a| {
            let mut scene = a.scene(&Setup::new(Format::Split, SIZE))?;
            scene.frontend.wire.tell(request::NET_SET_MTU, &number(68), &[]);
            scene.dwell(a.dwell / 2);
            Ok(Heard::on(&scene.frontend.wire))
        },
    ),
    Case::wire("extra/announcements", May::Serve, "1,000 SEND_RARP with odd addresses", |a| {
        let mut wire = a.running()?.wire;
        for round in 0..1000_u64 {
            let answer = wire.tell(request::SEND_RARP, &number(round.wrapping_mul(!0 / 999)), &[]);
            if answer == Answer::Closed {
                break;
            }
        }
        Ok(Heard::on(&wire))
    }),
    Case::wire("extra/status", May::Refuse, "all status bits, and the status taken back", |a| {
        let mut setup = Setup::new(Format::Split, SIZE);
        setup.protocol |= protocol::STATUS;
        let mut frontend = a.with(&setup)?;
        for status in [0xff, 0x80, 0x40, 4, 0, 0x100, u64::MAX, 0, 0xf] {
            frontend.wire.tell(request::SET_STATUS, &number(status), &[]);
            frontend.wire.ask(request::GET_STATUS, &[]);
            frontend.rings[TX].kick();
        }
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("extra/postcopy-disorder", May::Refuse, "post-copy messages in any order", |a| {
        let orders = [
            [request::POSTCOPY_END, request::POSTCOPY_LISTEN, request::POSTCOPY_ADVISE],
            [request::POSTCOPY_ADVISE, request::POSTCOPY_ADVISE, request::POSTCOPY_END],
            [request::POSTCOPY_LISTEN, request::POSTCOPY_LISTEN, request::POSTCOPY_LISTEN],
        ];
        let mut setup = Setup::new(Format::Split, SIZE);
        setup.protocol = 0xffff_ffff;
        for order in orders {
            let frontend = a.with(&setup)?;
            for request in order {
                frontend.wire.send(request, &[], &[]);
                frontend.wire.settle();
            }
        }
        Ok(Heard::on(&a.running()?.wire))
    }),
    Case::wire(
        "extra/iotlb-lies",
        May::Refuse,
        "translations nobody asked for, and impossible",
        |a| {
            let mut setup = Setup::new(Format::Split, SIZE);
            setup.features |= feature::ACCESS_PLATFORM;
            for (iova, size, user, permission, kind) in [
                (0, 0, USER, 3, 2),
                (u64::MAX, 2, USER, 3, 2),
                (0, u64::MAX, USER, 3, 2),
                (0, 4096, 0, 3, 2),
                (0, 4096, u64::MAX, 3, 2),
                (0, 4096, USER, 0xff, 2),
                (0, 4096, USER, 3, 0),
                (0, 4096, USER, 3, 0xff),
                (0, u64::MAX, 0, 0, 3),
            ] {
                let mut frontend = a.with(&setup)?;
                let payload = iotlb(iova, size, user, permission, kind);
                frontend.wire.tell(request::IOTLB_MSG, &payload, &[]);
                frontend.rings[RX].kick();
                frontend.wire.settle();
            }
            Ok(Heard::on(&a.running()?.wire))
        },
    ),
    Case::wire("extra/iotlb-many", May::Serve, "20,000 translations, none of them used", |a| {
        let mut setup = Setup::new(Format::Split, SIZE);
        setup.features |= feature::ACCESS_PLATFORM;
        let frontend = a.with(&setup)?;
        for page in 0..20_000_u64 {
            let payload = iotlb(page << 13, 4096, USER, 3, 2);
            if !frontend.wire.send(request::IOTLB_MSG, &payload, &[]) {
                break;
            }
        }
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("extra/crypto", May::Refuse, "a crypto session of a network device", |a| {
        each(a, request::CREATE_CRYPTO_SESSION, &[vec![0xff; 24], vec![0x41; 1000]])
    }),
    Case::wire(
        "extra/device-state",
        May::Refuse,
        "device state to odd files and in odd ways",
        |a| {
            let file = memfd(4096)?;
            for (direction, phase) in [(0, 0), (1, 0), (2, 0), (0, 1), (u32::MAX, u32::MAX)] {
                let mut frontend = a.running()?;
                let payload = state(direction, phase);
                frontend.wire.tell(request::SET_DEVICE_STATE_FD, &payload, &[file.as_fd()]);
                frontend.wire.ask(request::CHECK_DEVICE_STATE, &[]);
            }
            Ok(Heard::on(&a.fresh()?))
        },
    ),
    Case::wire(
        "channel/closed",
        May::Serve,
        "a back-end's channel whose other end is closed",
        |a| {
            let mut frontend = a.running()?;
            for _ in 0..50 {
                drop(channel(&mut frontend.wire)?);
            }
            Ok(Heard::on(&frontend.wire))
        },
    ),
    Case::wire("channel/noise", May::Refuse, "noise on the back-end's channel", |a| {
        use std::io::Write;
        let mut frontend = a.running()?;
        let mut ours = channel(&mut frontend.wire)?;
        let mut random = crate::random::Random::named("channel/noise");
        ours.set_nonblocking(true)?;
        for _ in 0..16 {
            // It may be closed or full.
            let _ = ours.write(&random.bytes(4096));
        }
        std::thread::sleep(a.dwell / 4);
        Ok(Heard::on(&frontend.wire))
    }),
];
