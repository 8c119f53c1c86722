use super::{Case, May};
use crate::attack::{SIZE, Scene};
use crate::frontend::Setup;
use crate::message::feature;
use crate::ring::{Desc, Format, Ring, desc};

fn plain(setup: Setup) -> Setup {
    setup
}

fn event_idx(setup: Setup) -> Setup {
    setup.needing(feature::EVENT_IDX)
}

fn in_order(setup: Setup) -> Setup {
    setup.needing(feature::IN_ORDER)
}

/// Writes good frames into all slots of the transmit ring without making them available.
fn fill(scene: &mut Scene) {
    for slot in 0..SIZE {
        let frame = scene.frame();
        scene.tx().put(slot, Desc { next: slot, ..frame });
    }
}

/// Makes what is in the next `count` slots available as it is; split rings by a jump of the
/// index, packed ones by flags.
fn jump(scene: &mut Scene, count: u16) {
    let frame = scene.frame();
    let ring = scene.tx();
    match ring.format {
        Format::Split => ring.publish_idx(ring.idx().wrapping_add(count)),
        Format::Packed => {
            for _ in 0..count.min(2 * SIZE) {
                let (slot, wrap) = ring.place();
                let flags = Ring::available(wrap);
                ring.put(slot, Desc { flags, next: slot, ..frame });
                ring.skip(1);
            }
        }
    }
    ring.kick();
}

pub const CASES: &[Case] = &[
    Case::rings(
        "index/one-too-many",
        May::Stop,
        "the ring's size and one more available",
        plain,
        |s| {
            fill(s);
            jump(s, SIZE + 1);
        },
    ),
    Case::rings("index/jump-half", May::Stop, "an available index 32,768 ahead", plain, |s| {
        fill(s);
        jump(s, 0x8000);
    }),
    Case::rings(
        "index/backwards",
        May::Stop,
        "an available index that goes back by one",
        plain,
        |s| {
            fill(s);
            jump(s, 0xffff);
        },
    ),
    Case::rings(
        "index/everywhere",
        May::Stop,
        "an available index that jumps all the time",
        plain,
        |s| {
            fill(s);
            for step in (0..500_u16).map(|i| i.wrapping_mul(12_347)) {
                jump(s, step);
            }
        },
    ),
    Case::rings(
        "index/head-outside",
        May::Stop,
        "heads and ids that the ring does not have",
        plain,
        |s| {
            for id in [SIZE, SIZE + 1, 0x7fff, 0x8000, 0xffff] {
                let frame = s.frame();
                let ring = s.tx();
                match ring.format {
                    Format::Split => ring.publish_head(id),
                    Format::Packed => ring.offer(id, frame),
                }
                ring.kick();
            }
        },
    ),
    Case::rings("index/rx-head-outside", May::Stop, "the same in the receive ring", plain, |s| {
        for id in [SIZE, 0x7fff, 0xffff] {
            let buffer = s.receive_buffer(9);
            let ring = s.rx();
            match ring.format {
                Format::Split => ring.publish_head(id),
                Format::Packed => ring.offer(id, buffer),
            }
            ring.kick();
            s.witness_sends(8);
        }
    }),
    Case::rings("index/same-head", May::Serve, "one head or id in every entry", plain, |s| {
        let frame = s.frame();
        for _ in 0..SIZE - 1 {
            let ring = s.tx();
            match ring.format {
                Format::Split => {
                    ring.put(3, frame);
                    ring.put_head(3);
                }
                Format::Packed => ring.offer(3, frame),
            }
        }
        let ring = s.tx();
        if ring.format == Format::Split {
            ring.publish_idx(ring.idx());
        }
        ring.kick();
    }),
    Case::rings(
        "index/offered-again",
        May::Serve,
        "buffers offered again before they are used",
        plain,
        |s| {
            for _ in 0..8 {
                fill(s);
                jump(s, SIZE / 2);
                jump(s, SIZE / 2);
            }
        },
    ),
    Case::rings(
        "index/rx-one-too-many",
        May::Stop,
        "more receive buffers than the ring has",
        plain,
        |s| {
            let buffer = s.receive_buffer(9);
            for slot in 0..SIZE {
                let ring = s.rx();
                match ring.format {
                    Format::Split => ring.put(slot, buffer),
                    Format::Packed => ring.offer(slot, buffer),
                }
            }
            let ring = s.rx();
            if ring.format == Format::Split {
                ring.publish_idx(ring.idx().wrapping_add(SIZE + 1));
            }
            ring.kick();
            s.witness_sends(32);
        },
    ),
    Case::rings("index/wrap-wrong", May::Serve, "descriptors of the wrong round", plain, |s| {
        let frame = s.frame();
        let ring = s.tx();
        for slot in 0..SIZE {
            for flags in [desc::USED, desc::AVAIL | desc::USED, desc::AVAIL] {
                ring.put(slot, Desc { flags, next: slot, ..frame });
                ring.kick();
            }
        }
    }),
    Case::rings(
        "index/wrap-flickers",
        May::Stop,
        "the wrap bits of all descriptors change",
        plain,
        |s| {
            fill(s);
            for round in 0..40 {
                for slot in 0..SIZE {
                    let at = s.tx().at.desc + 16 * usize::from(slot) + 14;
                    let flags = [desc::AVAIL, desc::USED, 0, desc::AVAIL | desc::USED][round % 4];
                    s.frontend.memory.publish(at, flags);
                }
                s.tx().kick();
            }
        },
    ),
    Case::rings(
        "index/used-rewritten",
        May::Serve,
        "the used part written by the driver",
        plain,
        |s| {
            for round in 0..200_u16 {
                let at = s.tx().at;
                s.frontend.memory.publish(at.used + 2, round.wrapping_mul(999));
                s.frontend.memory.publish(at.used, 0xffff);
                let frame = s.frame();
                s.tx().offer_chain(&[frame]);
                s.tx().kick();
            }
        },
    ),
    Case::rings(
        "index/used-event",
        May::Serve,
        "notification thresholds that make no sense",
        event_idx,
        |s| {
            for round in 0..200_u16 {
                let at = s.tx().at;
                let event = round.wrapping_mul(12_345);
                // Split: used_event behind the available ring; packed: the driver's event area.
                s.frontend.memory.publish(at.avail + 4 + 2 * usize::from(SIZE), event);
                s.frontend.memory.publish(at.avail, event);
                s.frontend.memory.publish(at.avail + 2, 2);
                let frame = s.frame();
                if s.format == Format::Packed {
                    s.tx().offer_chain(&[frame]);
                }
                s.tx().kick();
            }
        },
    ),
    Case::rings(
        "index/in-order-broken",
        May::Stop,
        "IN_ORDER promised, and heads in disorder",
        in_order,
        |s| {
            for id in [7, 3, 200, 1, 1, 0, 255, 2] {
                let frame = s.frame();
                s.tx().offer(id, frame);
            }
            s.tx().kick();
        },
    ),
    Case::rings("index/kicks-without-frames", May::Serve, "20,000 kicks for nothing", plain, |s| {
        for _ in 0..10_000 {
            s.tx().kick();
            s.rx().kick();
        }
    }),
    Case::rings(
        "index/zeroed",
        May::Stop,
        "all of both rings set to zero while they run",
        plain,
        |s| {
            fill(s);
            jump(s, 8);
            s.frontend.memory.write(0, &vec![0; 0x2_0000]);
        },
    ),
    Case::rings(
        "index/noise",
        May::Stop,
        "all of both rings filled with chance bytes",
        plain,
        |s| {
            let mut random = crate::random::Random::named("index/noise");
            for _ in 0..4 {
                s.frontend.memory.write(0, &random.bytes(0x2_0000));
                s.tx().kick();
                s.rx().kick();
                s.witness_sends(8);
            }
        },
    ),
];
