use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Result;
use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};

use super::{Case, Heard, May};
use crate::attack::{Attack, SIZE};
use crate::frontend::{BYTES, Frontend, RX, Setup, TX, USER, whole};
use crate::memory::memfd;
use crate::message::{Region, protocol, request, slot, table};
use crate::ring::{Format, Ring};
use crate::wire::{Answer, Wire};

const MIB: u64 = 1 << 20;

/// Sends a table that says it has `count` regions, with a file of `bytes` for each of `fds`, to a
/// connection without memory and to one whose rings run.
fn tell_table(
    attack: &Attack,
    count: u32,
    regions: &[Region],
    fds: usize,
    bytes: u64,
) -> Result<Heard> {
    let files = (0..fds).map(|_| memfd(bytes)).collect::<Result<Vec<_>>>()?;
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let mut wire = attack.negotiated()?;
    wire.tell(request::SET_MEM_TABLE, &table(count, regions), &files);
    wire.settle();
    drop(wire);
    let mut frontend = attack.running()?;
    frontend.wire.tell(request::SET_MEM_TABLE, &table(count, regions), &files);
    kick_for(&frontend, attack.dwell / 2);
    Ok(Heard::on(&frontend.wire))
}

/// One region, in both tables.
fn tell_region(attack: &Attack, region: Region, bytes: u64) -> Result<Heard> {
    let heard = tell_table(attack, 1, &[region], 1, bytes)?;
    let file = memfd(bytes)?;
    let mut frontend = attack.running()?;
    if frontend.wire.protocol & protocol::CONFIGURE_MEM_SLOTS != 0 {
        frontend.wire.tell(request::ADD_MEM_REG, &slot(&region), &[file.as_fd()]);
        frontend.wire.settle();
        frontend.wire.tell(request::REM_MEM_REG, &slot(&region), &[]);
        frontend.wire.settle();
    }
    Ok(heard)
}

/// Kicks the rings of a front-end for a while.
fn kick_for(frontend: &Frontend, time: Duration) {
    for _ in 0..8 {
        frontend.rings.iter().for_each(Ring::kick);
        std::thread::sleep(time / 8);
    }
}

/// Regions of a MiB in a row, `gap` apart.
fn row(count: u64, gap: u64) -> Vec<Region> {
    let region = |i: u64| Region { guest: i * gap, size: MIB, user: USER + i * gap, offset: 0 };
    (0..count).map(region).collect()
}

/// Adds regions until one is refused.
fn add(wire: &mut Wire, regions: impl Iterator<Item = Region>, bytes: u64) -> Result<usize> {
    let file = memfd(bytes)?;
    let taken = regions.take_while(|region| {
        let answer = wire.tell(request::ADD_MEM_REG, &slot(region), &[file.as_fd()]);
        matches!(answer, Answer::Reply(0))
    });
    Ok(taken.count())
}

/// Plays `spoil` on the memory of a front-end whose rings have frames to carry.
fn spoil(attack: &Attack, spoil: impl Fn(&Frontend) -> Result<()>) -> Result<Heard> {
    let mut last = None;
    for format in [Format::Split, Format::Packed] {
        let mut scene = attack.scene(&Setup::new(format, SIZE))?;
        for _ in 0..SIZE / 2 {
            let frame = scene.frame();
            scene.tx().offer_chain(&[frame]);
        }
        spoil(&scene.frontend)?;
        for _ in 0..10 {
            scene.witness_sends(4);
            scene.frontend.rings[TX].kick();
            scene.frontend.rings[RX].kick();
            std::thread::sleep(attack.dwell / 20);
        }
        last = Some(Heard::on(&scene.frontend.wire));
    }
    Ok(last.unwrap_or(Heard(String::new())))
}

pub const CASES: &[Case] = &[
    Case::wire("memory/no-region", May::Refuse, "a table of 0 regions", |a| {
        tell_table(a, 0, &[], 0, 0)
    }),
    Case::wire("memory/count-9", May::Refuse, "9 regions, one more than there is room for", |a| {
        tell_table(a, 9, &row(9, 2 * MIB), 9, MIB)
    }),
    Case::wire("memory/count-huge", May::Refuse, "255 and 4 billion regions in the count", |a| {
        tell_table(a, 255, &row(8, 2 * MIB), 8, MIB)?;
        tell_table(a, u32::MAX, &row(8, 2 * MIB), 8, MIB)
    }),
    Case::wire("memory/fewer-files", May::Refuse, "8 regions and 1 file", |a| {
        tell_table(a, 8, &row(8, 2 * MIB), 1, MIB)
    }),
    Case::wire("memory/more-files", May::Refuse, "1 region and 8 files", |a| {
        tell_table(a, 1, &row(1, MIB), 8, MIB)
    }),
    Case::wire("memory/size-0", May::Refuse, "a region of no bytes", |a| {
        tell_region(a, Region { size: 0, ..whole() }, MIB)
    }),
    Case::wire("memory/size-1", May::Refuse, "a region of one byte", |a| {
        tell_region(a, Region { size: 1, ..whole() }, MIB)
    }),
    Case::wire("memory/size-all", May::Refuse, "a region of 2^64 - 1 bytes", |a| {
        tell_region(a, Region { size: u64::MAX, ..whole() }, MIB)
    }),
    Case::wire("memory/size-2^63", May::Refuse, "a region of 2^63 bytes", |a| {
        tell_region(a, Region { size: 1 << 63, ..whole() }, MIB)
    }),
    Case::wire("memory/longer-than-file", May::Refuse, "a region of 8 MiB in a file of 1", |a| {
        tell_region(a, whole(), MIB)
    }),
    Case::wire("memory/empty-file", May::Refuse, "a region of a file without a byte", |a| {
        tell_region(a, whole(), 0)
    }),
    Case::wire("memory/offset-outside", May::Refuse, "an offset behind the end of the file", |a| {
        tell_region(a, Region { size: MIB, offset: 1 << 40, ..whole() }, MIB)
    }),
    Case::wire("memory/offset-wraps", May::Refuse, "offset and size beyond 2^64", |a| {
        tell_region(a, Region { offset: u64::MAX - 4095, size: 8192, ..whole() }, MIB)?;
        tell_region(a, Region { offset: 4096, size: u64::MAX - 4095, ..whole() }, MIB)
    }),
    Case::wire("memory/offset-odd", May::Refuse, "an offset that is no page", |a| {
        tell_region(a, Region { offset: 1, size: 4096, ..whole() }, MIB)?;
        tell_region(a, Region { offset: 4095, size: MIB - 4095, ..whole() }, MIB)
    }),
    Case::wire("memory/guest-wraps", May::Refuse, "guest addresses beyond 2^64", |a| {
        tell_region(a, Region { guest: u64::MAX - 4095, size: MIB, ..whole() }, MIB)
    }),
    Case::wire("memory/user-wraps", May::Refuse, "front-end addresses beyond 2^64", |a| {
        tell_region(a, Region { user: u64::MAX - 4095, size: MIB, ..whole() }, MIB)
    }),
    Case::wire(
        "memory/guest-overlap",
        May::Refuse,
        "two regions at the same guest addresses",
        |a| {
            let mut regions = row(2, 2 * MIB);
            regions[1].guest = regions[0].guest + 4096;
            tell_table(a, 2, &regions, 2, MIB)
        },
    ),
    Case::wire("memory/user-overlap", May::Refuse, "the same of the front-end's addresses", |a| {
        let mut regions = row(2, 2 * MIB);
        regions[1].user = regions[0].user + 4096;
        tell_table(a, 2, &regions, 2, MIB)
    }),
    Case::wire("memory/same-twice", May::Refuse, "one region twice, and eight times", |a| {
        tell_table(a, 2, &[whole(); 2], 2, BYTES as u64)?;
        tell_table(a, 8, &[whole(); 8], 8, BYTES as u64)
    }),
    Case::wire("memory/without-the-rings", May::Refuse, "a table without the running rings", |a| {
        let elsewhere = Region { guest: 1 << 40, user: 1 << 40, size: MIB, offset: 0 };
        tell_table(a, 1, &[elsewhere], 1, MIB)
    }),
    Case::wire("memory/replaced", May::Serve, "new tables under running rings 200 times", |a| {
        let setup = Setup::new(Format::Split, SIZE);
        let mut frontend = a.with(&setup)?;
        for _ in 0..200 {
            if frontend.share(&setup) == Answer::Closed {
                break;
            }
            frontend.rings.iter().for_each(Ring::kick);
        }
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("memory/slots-all", May::Refuse, "regions added until none is taken", |a| {
        let mut wire = a.negotiated()?;
        let regions =
            (0..).map(|i| Region { guest: i * 8192, user: USER + i * 8192, size: 4096, offset: 0 });
        let taken = add(&mut wire, regions.take(70_000), MIB)?;
        Ok(Heard(format!("{taken} taken")))
    }),
    Case::wire("memory/slot-twice", May::Refuse, "the same region added twice", |a| {
        let mut frontend = a.running()?;
        let taken = add(&mut frontend.wire, [whole(), whole()].into_iter(), BYTES as u64)?;
        Ok(Heard(format!("{taken} taken")))
    }),
    Case::wire("memory/slot-in-and-out", May::Serve, "a region added and removed 300 times", |a| {
        let mut frontend = a.running()?;
        let file = memfd(MIB)?;
        let extra = Region { guest: 1 << 32, user: 1 << 32, size: MIB, offset: 0 };
        for _ in 0..300 {
            frontend.wire.tell(request::ADD_MEM_REG, &slot(&extra), &[file.as_fd()]);
            if frontend.wire.tell(request::REM_MEM_REG, &slot(&extra), &[]) == Answer::Closed {
                break;
            }
        }
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("memory/slot-unknown", May::Refuse, "a region removed that there is not", |a| {
        let mut frontend = a.running()?;
        let other = Region { guest: 12_345, ..whole() };
        frontend.wire.tell(request::REM_MEM_REG, &slot(&other), &[]);
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire(
        "memory/removed-under-ring",
        May::Refuse,
        "the region of the running rings removed",
        |a| {
            spoil(a, |frontend| {
                frontend.wire.send(request::REM_MEM_REG, &slot(&whole()), &[]);
                Ok(())
            })
        },
    ),
    Case::wire("memory/address-space", May::Refuse, "mappings of 128 TiB in all", |a| {
        let mut wire = a.negotiated()?;
        let size = 1_u64 << 42;
        let regions = (0..32).map(|i| Region {
            guest: i * size,
            user: (1 << 20) + i * size,
            size,
            offset: 0,
        });
        let taken = add(&mut wire, regions, size)?;
        std::thread::sleep(a.dwell / 2);
        Ok(Heard(format!("{taken} of 4 TiB taken")))
    }),
    Case::wire("memory/truncated", May::Stop, "the file cut to nothing under running rings", |a| {
        spoil(a, |frontend| Ok(ftruncate(&frontend.memory, 0)?))
    }),
    Case::wire("memory/truncated-buffers", May::Stop, "only the buffers cut away", |a| {
        spoil(a, |frontend| Ok(ftruncate(&frontend.memory, MIB)?))
    }),
    Case::wire("memory/truncated-and-back", May::Stop, "cut and grown again 500 times", |a| {
        spoil(a, |frontend| {
            for _ in 0..500 {
                ftruncate(&frontend.memory, 0)?;
                ftruncate(&frontend.memory, BYTES as u64)?;
            }
            Ok(())
        })
    }),
    Case::wire(
        "memory/hole-punched",
        May::Drop,
        "holes in rings and buffers while they run",
        |a| {
            spoil(a, |frontend| {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                for _ in 0..200 {
                    fallocate(&frontend.memory, flags, 0, BYTES as u64)?;
                }
                Ok(())
            })
        },
    ),
    Case::wire("memory/sealed", May::Refuse, "memory that nobody may write to any more", |a| {
        let file = memfd(BYTES as u64)?;
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW)?;
        let setup = Setup::new(Format::Split, SIZE);
        let mut frontend = Frontend::prepare(&a.socket, &setup)?;
        let payload = table(1, &setup.regions);
        frontend.wire.tell(request::SET_MEM_TABLE, &payload, &[file.as_fd()]);
        (0..2).for_each(|index| frontend.start_ring(index, &setup));
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("memory/read-only", May::Refuse, "memory opened for reading only", |a| {
        let file = memfd(BYTES as u64)?;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let reader = std::fs::File::open(path)?;
        let setup = Setup::new(Format::Split, SIZE);
        let mut frontend = Frontend::prepare(&a.socket, &setup)?;
        let payload = table(1, &setup.regions);
        frontend.wire.tell(request::SET_MEM_TABLE, &payload, &[reader.as_fd()]);
        (0..2).for_each(|index| frontend.start_ring(index, &setup));
        frontend.rings[TX].kick();
        Ok(Heard::on(&frontend.wire))
    }),
];
