use std::os::fd::AsFd;

use anyhow::Result;

use super::{Case, Heard, May};
use crate::attack::{Attack, SIZE};
use crate::frontend::{BYTES, Frontend, RX, Setup, TX, USER};
use crate::message::{addresses, number, request, state};
use crate::ring::{Format, Ring};
use crate::wire::Answer;

/// Numbers of rings that there are not, or that are there only when cut to 8 or 16 bits.
const WRONG_RINGS: [u32; 9] = [3, 127, 254, 255, 256, 0x1_0000, 0x1_0001, 0x8000_0000, u32::MAX];

/// Starts front-ends whose rings are `lies`, one by one, in both formats, and kicks their rings.
fn with_rings(attack: &Attack, count: usize, lie: impl Fn(&mut Setup, usize)) -> Result<Heard> {
    let mut last = None;
    for format in [Format::Split, Format::Packed] {
        for number in 0..count {
            let mut setup = Setup::new(format, SIZE);
            lie(&mut setup, number);
            let frontend = attack.with(&setup)?;
            frontend.rings.iter().for_each(Ring::kick);
            // Every one is looked at, and the last for as long as a lie lasts.
            last = Some(Heard::on(&frontend.wire));
        }
    }
    std::thread::sleep(attack.dwell / 2);
    Ok(last.unwrap_or(Heard("nothing was played".into())))
}

/// Sends a message about every ring that there is not, each on a connection whose rings run.
fn wrong_rings(attack: &Attack, send: impl Fn(&mut Frontend, u32) -> Answer) -> Result<Heard> {
    let mut frontend = attack.running()?;
    let mut heard = Heard::on(&frontend.wire);
    for ring in WRONG_RINGS {
        send(&mut frontend, ring);
        heard = Heard::on(&frontend.wire);
        if heard.0 != "went on" {
            drop(frontend);
            frontend = attack.running()?;
        }
    }
    Ok(heard)
}

/// Addresses that no part of a ring can have.
fn odd_addresses() -> Vec<u64> {
    let end = USER + BYTES as u64;
    vec![
        0,
        1,
        USER - 1,
        USER + 1,
        USER + 3,
        USER + 7,
        USER - 16,
        end - 1,
        end - 2,
        end - 16,
        end - 4096,
        end,
        end + 4096,
        u64::MAX,
        u64::MAX - 15,
        !0xfff,
        0x8000_0000_0000_0000,
    ]
}

pub const CASES: &[Case] = &[
    Case::wire("vring/num-zero", May::Refuse, "SET_VRING_NUM 0", |a| {
        with_rings(a, 1, |setup, _| setup.rings[TX].num = 0)
    }),
    Case::wire("vring/num-odd", May::Refuse, "sizes that are no power of two", |a| {
        with_rings(a, 6, |setup, i| setup.rings[TX].num = [3, 5, 255, 257, 1000, 32_767][i])
    }),
    Case::wire("vring/num-one", May::Serve, "sizes 1 and 2", |a| {
        with_rings(a, 2, |setup, i| setup.rings.iter_mut().for_each(|r| r.num = [1, 2][i]))
    }),
    Case::wire("vring/num-huge", May::Refuse, "sizes from 32,769 to 4,294,967,295", |a| {
        let sizes = [32_769, 65_535, 65_536, 0x1_0100, 0x8000_0000, u32::MAX];
        with_rings(a, sizes.len(), |setup, i| setup.rings[TX].num = sizes[i])
    }),
    Case::wire("vring/num-longer-than-memory", May::Refuse, "32,768 where 256 have room", |a| {
        with_rings(a, 1, |setup, _| {
            let end = USER + BYTES as u64;
            setup.rings[TX].num = 32_768;
            setup.rings[TX].addresses = [end - 0x4000, end - 0x2000, end - 0x1000, 0];
        })
    }),
    Case::wire("vring/num-while-running", May::Refuse, "another size while the ring runs", |a| {
        let mut frontend = a.running()?;
        for size in [512, 32_768, 2, 0] {
            frontend.wire.tell(request::SET_VRING_NUM, &state(1, size), &[]);
            frontend.rings[TX].kick();
        }
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("vring/num-again-and-again", May::Serve, "SET_VRING_NUM 5,000 times", |a| {
        let mut wire = a.negotiated()?;
        for round in 0..5000 {
            if wire.tell(request::SET_VRING_NUM, &state(0, 1 << (round % 16)), &[])
                == Answer::Closed
            {
                break;
            }
        }
        Ok(Heard::on(&wire))
    }),
    Case::wire("vring/index-num", May::Refuse, "SET_VRING_NUM of rings that there are not", |a| {
        wrong_rings(a, |f, ring| f.wire.tell(request::SET_VRING_NUM, &state(ring, 256), &[]))
    }),
    Case::wire("vring/index-base", May::Refuse, "SET_VRING_BASE likewise", |a| {
        wrong_rings(a, |f, ring| f.wire.tell(request::SET_VRING_BASE, &state(ring, 0), &[]))
    }),
    Case::wire("vring/index-get-base", May::Refuse, "GET_VRING_BASE likewise", |a| {
        wrong_rings(a, |f, ring| f.wire.ask(request::GET_VRING_BASE, &state(ring, 0)))
    }),
    Case::wire("vring/index-addr", May::Refuse, "SET_VRING_ADDR likewise", |a| {
        wrong_rings(a, |f, ring| {
            let parts = [USER, USER + 0xc000, USER + 0x8000, 0];
            f.wire.tell(request::SET_VRING_ADDR, &addresses(ring, 0, parts), &[])
        })
    }),
    Case::wire("vring/index-enable", May::Refuse, "SET_VRING_ENABLE likewise", |a| {
        wrong_rings(a, |f, ring| f.wire.tell(request::SET_VRING_ENABLE, &state(ring, 1), &[]))
    }),
    Case::wire("vring/index-files", May::Refuse, "kick, call and error files likewise", |a| {
        wrong_rings(a, |f, ring| {
            let file = f.rings[RX].kick.try_clone();
            let Ok(file) = file else { return Answer::Closed };
            for request in [request::SET_VRING_CALL, request::SET_VRING_ERR] {
                f.wire.tell(request, &number((ring & 0xff).into()), &[file.as_fd()]);
            }
            let kick = number(u64::from(ring) | 0xdead_0000_0000);
            f.wire.tell(request::SET_VRING_KICK, &kick, &[file.as_fd()])
        })
    }),
    Case::wire("vring/index-all", May::Refuse, "all 256 rings that a message can name", |a| {
        let mut wire = a.running()?.wire;
        for ring in 0..256 {
            wire.tell(request::SET_VRING_NUM, &state(ring, 256), &[]);
            if wire.tell(request::SET_VRING_ENABLE, &state(ring, 1), &[]) == Answer::Closed {
                drop(wire);
                wire = a.running()?.wire;
            }
        }
        Ok(Heard::on(&wire))
    }),
    Case::wire("vring/desc-address", May::Refuse, "descriptors in odd places", |a| {
        let odd = odd_addresses();
        with_rings(a, odd.len(), |setup, i| setup.rings[TX].addresses[0] = odd[i])
    }),
    Case::wire("vring/used-address", May::Refuse, "the used part in odd places", |a| {
        let odd = odd_addresses();
        with_rings(a, odd.len(), |setup, i| setup.rings[TX].addresses[1] = odd[i])
    }),
    Case::wire("vring/avail-address", May::Refuse, "the available part in odd places", |a| {
        let odd = odd_addresses();
        with_rings(a, odd.len(), |setup, i| setup.rings[TX].addresses[2] = odd[i])
    }),
    Case::wire("vring/all-parts-in-one-place", May::Serve, "all parts of all rings overlap", |a| {
        with_rings(a, 1, |setup, _| {
            setup.rings.iter_mut().for_each(|ring| ring.addresses = [USER; 4]);
        })
    }),
    Case::wire("vring/rings-share-parts", May::Serve, "two rings that are one", |a| {
        with_rings(a, 1, |setup, _| {
            setup.rings[RX].addresses = setup.rings[TX].addresses;
        })
    }),
    Case::wire("vring/addr-while-running", May::Refuse, "rings moved while they run", |a| {
        let mut frontend = a.running()?;
        for address in odd_addresses() {
            let parts = [USER, address, USER + 0x8000, 0];
            frontend.wire.tell(request::SET_VRING_ADDR, &addresses(1, 0, parts), &[]);
            frontend.rings[TX].kick();
            if !frontend.wire.settle() {
                drop(frontend);
                frontend = a.running()?;
            }
        }
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("vring/addr-flags", May::Refuse, "all flags of SET_VRING_ADDR, log anywhere", |a| {
        with_rings(a, 3, |setup, i| {
            setup.rings[TX].flags = [1, 2, u32::MAX][i];
            setup.rings[TX].addresses[3] = u64::MAX - 8;
        })
    }),
    Case::wire("vring/base-lies", May::Refuse, "positions that the ring cannot be at", |a| {
        let bases = [1, 255, 256, 0x7fff, 0x8000, 0xffff, 0x1_0000, 0x7fff_7fff, u32::MAX];
        with_rings(a, bases.len(), |setup, i| {
            setup.rings.iter_mut().for_each(|ring| ring.base = bases[i]);
        })
    }),
    Case::wire("vring/base-while-running", May::Refuse, "the position moved while running", |a| {
        let mut frontend = a.running()?;
        for base in [5, 0xffff, u32::MAX] {
            frontend.wire.tell(request::SET_VRING_BASE, &state(1, base), &[]);
            frontend.rings[TX].kick();
        }
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("vring/get-base-without-ring", May::Refuse, "a position of rings not set up", |a| {
        let mut wire = a.negotiated()?;
        for ring in [0, 1, 2] {
            wire.ask(request::GET_VRING_BASE, &state(ring, 0));
        }
        Ok(Heard::on(&wire))
    }),
    Case::wire("vring/stop-start", May::Serve, "GET_VRING_BASE and SET_VRING_KICK in turn", |a| {
        let mut frontend = a.running()?;
        for _ in 0..100 {
            let Answer::Reply(_) = frontend.wire.ask(request::GET_VRING_BASE, &state(1, 0)) else {
                break;
            };
            let kick = frontend.rings[TX].kick.as_fd();
            frontend.wire.tell(request::SET_VRING_KICK, &number(1), &[kick]);
        }
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("vring/enable-toggle", May::Serve, "enabled and disabled 2,000 times", |a| {
        let mut frontend = a.running()?;
        for round in 0..2000 {
            frontend.wire.send(request::SET_VRING_ENABLE, &state(round % 2, round / 2 % 2), &[]);
            if round % 50 == 0 && !frontend.wire.settle() {
                break;
            }
        }
        frontend.wire.refusal = None;
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("vring/enable-lies", May::Refuse, "enabled with 2, 0x100 and 4 GiB - 1", |a| {
        let mut wire = a.running()?.wire;
        for value in [2, 0x100, u32::MAX] {
            wire.tell(request::SET_VRING_ENABLE, &state(0, value), &[]);
        }
        Ok(Heard::on(&wire))
    }),
    Case::wire("vring/start-without-memory", May::Refuse, "rings before any memory", |a| {
        let setup = Setup::new(Format::Split, SIZE);
        let mut frontend = Frontend::prepare(&a.socket, &setup)?;
        (0..2).for_each(|index| frontend.start_ring(index, &setup));
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("vring/kick-first", May::Refuse, "a kick file before size and addresses", |a| {
        let mut wire = a.negotiated()?;
        let file = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        for ring in 0..3 {
            wire.tell(request::SET_VRING_KICK, &number(ring), &[file.as_fd()]);
        }
        Ok(Heard::on(&wire))
    }),
    Case::wire("vring/no-files", May::Serve, "kick, call and error without a file", |a| {
        let mut frontend = a.running()?;
        for request in [request::SET_VRING_KICK, request::SET_VRING_CALL, request::SET_VRING_ERR] {
            frontend.wire.tell(request, &number(0x100), &[]);
            frontend.wire.tell(request, &number(0x101), &[]);
        }
        std::thread::sleep(a.dwell / 2);
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("vring/files-replaced", May::Serve, "other call and kick files 1,000 times", |a| {
        let mut frontend = a.running()?;
        for round in 0..1000 {
            let file = rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC)?;
            let request = [request::SET_VRING_CALL, request::SET_VRING_KICK][round % 2];
            if frontend.wire.tell(request, &number(1), &[file.as_fd()]) == Answer::Closed {
                break;
            }
        }
        Ok(Heard::on(&frontend.wire))
    }),
];
