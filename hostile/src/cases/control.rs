use super::{Case, May};
use crate::attack::Scene;
use crate::frontend::{BYTES, CONTROL, SPARE, Setup};
use crate::ring::{Desc, desc};

fn control(setup: Setup) -> Setup {
    setup.with_control()
}

/// Where the answer goes.
const ANSWER: Desc = Desc::new((SPARE + 0x8000) as u64, 1, desc::WRITE);

/// Offers a chain on the control ring.
fn offer(scene: &mut Scene, chain: &[Desc]) {
    let ring = &mut scene.frontend.rings[CONTROL];
    ring.offer_chain(chain);
    ring.kick();
}

/// Sends a command as a driver does; what it says may be anything.
fn command(scene: &mut Scene, bytes: &[u8]) {
    // Each in a place of its own: the device may look at it later.
    let place = SPARE + 0x100 * usize::from(scene.frontend.rings[CONTROL].place().0 % 64);
    scene.frontend.memory.write(place, &bytes[..bytes.len().min(0x100)]);
    let len = u32::try_from(bytes.len()).unwrap_or(0);
    let head = Desc::new(place as u64, len.min(2), 0);
    let rest = Desc::new(place as u64 + 2, len.saturating_sub(2), 0);
    offer(scene, &[head, rest, ANSWER]);
}

pub const CASES: &[Case] = &[
    Case::rings(
        "control/every-command",
        May::Refuse,
        "every class and command, data too short",
        control,
        |s| {
            for class in 0..8 {
                for number in 0..8 {
                    command(s, &[class, number]);
                    command(s, &[class, number, 0xff]);
                }
            }
        },
    ),
    Case::rings(
        "control/table-counts",
        May::Refuse,
        "address tables that claim 4 billion entries",
        control,
        |s| {
            for count in [1_u32, 100, 0x2aaa_aaab, 0x8000_0000, u32::MAX] {
                command(s, &[&[1, 0][..], &count.to_le_bytes(), &[2; 12]].concat());
                command(s, &[&[1, 0, 0, 0, 0, 0][..], &count.to_le_bytes()].concat());
            }
        },
    ),
    Case::rings("control/queue-pairs", May::Refuse, "0, 2 and 65,535 queue pairs", control, |s| {
        for pairs in [0_u16, 2, 128, 0x8000, 0xffff] {
            command(s, &[&[4, 0][..], &pairs.to_le_bytes()].concat());
        }
    }),
    Case::rings("control/vlans", May::Refuse, "VLANs from 0 to 65,535", control, |s| {
        for vlan in [0_u16, 1, 4095, 4096, 0xffff] {
            command(s, &[&[2, 0][..], &vlan.to_le_bytes()].concat());
            command(s, &[&[2, 1][..], &vlan.to_le_bytes()].concat());
        }
    }),
    Case::rings(
        "control/mac-group",
        May::Refuse,
        "an address of its own that is a group",
        control,
        |s| {
            command(s, &[1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
            command(s, &[1, 1, 0, 0, 0, 0, 0, 0]);
        },
    ),
    Case::rings("control/long", May::Refuse, "a command of megabytes", control, |s| {
        let part = Desc::new(0, 0x40_0000, 0);
        offer(s, &[part, part, part, ANSWER]);
        offer(s, &[Desc::new(SPARE as u64, u32::MAX, 0), ANSWER]);
    }),
    Case::rings(
        "control/no-answer",
        May::Refuse,
        "no room for the answer, or not to be written",
        control,
        |s| {
            let head = Desc::new(SPARE as u64, 2, 0);
            offer(s, &[head]);
            offer(s, &[head, Desc { len: 0, ..ANSWER }]);
            offer(s, &[head, Desc { flags: 0, ..ANSWER }]);
            offer(s, &[ANSWER, head]);
            offer(s, &[ANSWER]);
            offer(s, &[head, Desc { addr: BYTES as u64, ..ANSWER }]);
            offer(s, &[head, Desc { addr: u64::MAX, len: 4, ..ANSWER }]);
        },
    ),
    Case::rings(
        "control/byte-by-byte",
        May::Serve,
        "a command in buffers of one byte",
        control,
        |s| {
            s.frontend.memory.write(SPARE, &[1, 1, 2, 0, 0, 0, 0, 0x58]);
            let mut chain: Vec<_> = (0..8).map(|i| Desc::new((SPARE + i) as u64, 1, 0)).collect();
            chain.push(ANSWER);
            offer(s, &chain);
        },
    ),
    Case::rings("control/empty", May::Refuse, "commands of no bytes", control, |s| {
        let empty = Desc::new(SPARE as u64, 0, 0);
        offer(s, &[empty, ANSWER]);
        offer(s, &[empty, empty, empty]);
        offer(s, &[Desc { len: 1, ..empty }, ANSWER]);
    }),
    Case::rings(
        "control/loop",
        May::Stop,
        "a control ring that is an endless chain",
        control,
        |s| {
            let link = Desc::new(SPARE as u64, 16, desc::NEXT);
            let chain = vec![link; usize::from(s.frontend.rings[CONTROL].size)];
            offer(s, &chain);
            offer(s, &chain);
        },
    ),
    Case::rings(
        "control/flood",
        May::Serve,
        "thousands of commands without a pause",
        control,
        |s| {
            for round in 0..4000_u16 {
                command(s, &[2, 0, round.to_le_bytes()[0], 0]);
            }
        },
    ),
];
