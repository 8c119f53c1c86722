use super::{Case, May};
use crate::attack::{SIZE, Scene};
use crate::frontend::{BYTES, NET_HEADER, SPARE, Setup};
use crate::message::feature;
use crate::ring::{Desc, Format, Ring, desc};

const NEXT: u16 = desc::NEXT;
const WRITE: u16 = desc::WRITE;
const INDIRECT: u16 = desc::INDIRECT;
const END: u64 = BYTES as u64;

/// With nothing special.
fn plain(setup: Setup) -> Setup {
    setup
}

/// With indirect descriptors.
fn indirect(setup: Setup) -> Setup {
    setup.needing(feature::INDIRECT_DESC)
}

/// With buffers that are not merged.
fn unmerged(mut setup: Setup) -> Setup {
    setup.features &= !feature::MRG_RXBUF;
    setup
}

/// Sends each of these chains, and a good frame after each.
fn send_each(scene: &mut Scene, chains: &[Vec<Desc>]) {
    for chain in chains {
        scene.tx().offer_chain(chain);
        let good = scene.frame();
        scene.tx().offer_chain(&[good]);
        scene.tx().kick();
    }
}

/// Gives the device each of these chains to receive into, and a good buffer after each.
fn receive_each(scene: &mut Scene, chains: &[Vec<Desc>]) {
    for (chain, id) in chains.iter().zip(8..) {
        scene.rx().offer_chain(chain);
        let good = scene.receive_buffer(id);
        scene.rx().offer_chain(&[good]);
    }
    scene.rx().kick();
    scene.witness_sends(32);
}

/// Fills the whole ring with a descriptor that goes on.
fn endless(ring: &mut Ring, link: Desc) {
    let size = ring.size;
    match ring.format {
        Format::Split => {
            for slot in 0..size {
                ring.put(slot, Desc { next: (slot + 1) % size, ..link });
            }
            ring.publish_head(0);
        }
        Format::Packed => {
            // The head last.
            let mut places = Vec::new();
            for _ in 0..size {
                places.push(ring.place());
                ring.skip(1);
            }
            for (slot, wrap) in places.iter().rev() {
                let flags = link.flags | Ring::available(*wrap);
                ring.put(*slot, Desc { flags, next: *slot, ..link });
            }
        }
    }
    ring.kick();
}

/// A table of descriptors in memory, `at` bytes into the spare room; gives its descriptor.
fn indirect_table(scene: &Scene, at: usize, entries: &[Desc]) -> Desc {
    let at = SPARE + at;
    for (i, entry) in entries.iter().enumerate() {
        // In packed tables NEXT means nothing, and the id is no index.
        let mut bytes = [entry.addr.to_le_bytes(), [0; 8]].concat();
        bytes[8..12].copy_from_slice(&entry.len.to_le_bytes());
        let (flags, next) = match scene.format {
            Format::Split => (12, 14),
            Format::Packed => (14, 12),
        };
        bytes[flags..flags + 2].copy_from_slice(&entry.flags.to_le_bytes());
        bytes[next..next + 2].copy_from_slice(&entry.next.to_le_bytes());
        scene.frontend.memory.write(at + 16 * i, &bytes);
    }
    Desc::new(at as u64, u32::try_from(16 * entries.len()).unwrap_or(0), INDIRECT)
}

/// Entries that are linked in order.
fn linked(count: u16, entry: Desc) -> Vec<Desc> {
    let link = |i: u16| {
        let more = if i + 1 < count { NEXT } else { 0 };
        Desc { flags: entry.flags | more, next: i + 1, ..entry }
    };
    (0..count).map(link).collect()
}

pub const CASES: &[Case] = &[
    Case::rings("tx/loop-on-itself", May::Stop, "a descriptor that is its own next", plain, |s| {
        let frame = s.frame();
        let (slot, _) = s.tx().place();
        let ring = s.tx();
        match ring.format {
            Format::Split => {
                ring.put(slot, Desc { flags: NEXT, next: slot, ..frame });
                ring.publish_head(slot);
            }
            Format::Packed => endless(ring, Desc { flags: NEXT, ..frame }),
        }
        s.tx().kick();
    }),
    Case::rings(
        "tx/loop-of-all",
        May::Stop,
        "a chain through the whole ring without end",
        plain,
        |s| {
            let frame = s.frame();
            endless(s.tx(), Desc { flags: NEXT, ..frame });
        },
    ),
    Case::rings(
        "tx/loop-of-empty",
        May::Stop,
        "the same of descriptors of no length",
        plain,
        |s| {
            endless(s.tx(), Desc::new(SPARE as u64, 0, NEXT));
        },
    ),
    Case::rings("tx/loop-of-4GiB", May::Stop, "the same of descriptors of 4 GiB - 1", plain, |s| {
        endless(s.tx(), Desc::new(0, u32::MAX, NEXT));
    }),
    Case::rings("tx/next-outside", May::Stop, "next behind the end of the table", plain, |s| {
        for next in [SIZE, SIZE + 1, 0x7fff, 0xffff] {
            let frame = s.frame();
            let (slot, _) = s.tx().place();
            let ring = s.tx();
            match ring.format {
                Format::Split => {
                    ring.put(slot, Desc { flags: NEXT, next, ..frame });
                    ring.publish_head(slot);
                }
                Format::Packed => {
                    let flags = Ring::available(true) | frame.flags;
                    ring.put(slot, Desc { flags, next, ..frame });
                }
            }
            ring.skip(1);
            ring.kick();
        }
    }),
    Case::rings("tx/chain-of-all", May::Drop, "a chain as long as the ring", plain, |s| {
        let part = s.frame();
        let chain = vec![Desc { len: 16, ..part }; usize::from(SIZE)];
        s.tx().offer_chain(&chain);
        s.tx().kick();
    }),
    Case::rings(
        "tx/length-0",
        May::Drop,
        "buffers of no length, alone and in chains",
        plain,
        |s| {
            let frame = s.frame();
            let empty = Desc { len: 0, ..frame };
            send_each(
                s,
                &[vec![empty], vec![empty, empty, empty], vec![frame, empty], vec![empty, frame]],
            );
        },
    ),
    Case::rings("tx/length-4GiB", May::Drop, "buffers of 4 GiB - 1", plain, |s| {
        let frame = s.frame();
        let huge = Desc { len: u32::MAX, ..frame };
        send_each(s, &[vec![huge], vec![frame, huge], vec![huge, huge]]);
    }),
    Case::rings(
        "tx/length-sums-wrap",
        May::Drop,
        "lengths whose sum wraps to a small one",
        plain,
        |s| {
            let frame = s.frame();
            let half = Desc::new(0, 0x8000_0000, 0);
            send_each(s, &[vec![half, half, frame], vec![Desc { len: u32::MAX, ..half }, frame]]);
        },
    ),
    Case::rings("tx/length-below-header", May::Drop, "1 to 12 bytes in all", plain, |s| {
        let frame = s.frame();
        for len in 1..=12 {
            send_each(s, &[vec![Desc { len, ..frame }]]);
        }
    }),
    Case::rings(
        "tx/length-1-each",
        May::Serve,
        "a frame in buffers of one byte each",
        plain,
        |s| {
            let frame = s.frame();
            let byte = |i| Desc::new(frame.addr + i, 1, 0);
            let chain: Vec<_> = (0..u64::from(frame.len)).map(byte).collect();
            send_each(s, &[chain]);
        },
    ),
    Case::rings(
        "tx/header-split",
        May::Serve,
        "the net header over 2, 3 and 12 buffers",
        plain,
        |s| {
            let frame = s.frame();
            let part = |from: u32, len: u32| Desc::new(frame.addr + u64::from(from), len, 0);
            let two = vec![part(0, 10), part(10, frame.len - 10)];
            let three = vec![part(0, 4), part(4, 4), part(8, frame.len - 8)];
            let mut twelve: Vec<_> = (0..12).map(|i| part(i, 1)).collect();
            twelve.push(part(12, frame.len - 12));
            send_each(s, &[two, three, twelve]);
        },
    ),
    Case::rings("tx/unmapped", May::Drop, "addresses where no memory is", plain, |s| {
        let frame = s.frame();
        let at = |addr| Desc { addr, ..frame };
        send_each(
            s,
            &[
                vec![at(END)],
                vec![at(1 << 40)],
                vec![at(u64::MAX)],
                vec![at(u64::MAX - 50)],
                vec![frame, at(END)],
            ],
        );
    }),
    Case::rings("tx/unmapped-empty", May::Drop, "the same with length 0", plain, |s| {
        let at = |addr| Desc::new(addr, 0, 0);
        let frame = s.frame();
        send_each(s, &[vec![at(END)], vec![at(1 << 40)], vec![at(u64::MAX)], vec![frame, at(END)]]);
    }),
    Case::rings(
        "tx/over-the-end",
        May::Drop,
        "buffers that run past the region's end",
        plain,
        |s| {
            let frame = s.frame();
            let at = |addr, len| Desc { addr, len, ..frame };
            send_each(
                s,
                &[
                    vec![at(END - 1, 2)],
                    vec![at(END - 100, 112)],
                    vec![at(END - 12, 4096)],
                    vec![frame, at(END - 16, 17)],
                    vec![at(0, u32::try_from(END).unwrap_or(0) + 1)],
                ],
            );
        },
    ),
    Case::rings(
        "tx/at-the-end",
        May::Serve,
        "a frame in the last bytes of the region",
        plain,
        |s| {
            let at = BYTES - 114;
            let frame =
                crate::port::frame(crate::attack::WITNESS_MAC, crate::attack::OWN_MAC, &[0; 88]);
            s.frontend.memory.write(at + NET_HEADER, &frame);
            send_each(s, &[vec![Desc::new(at as u64, 114, 0)]]);
        },
    ),
    Case::rings("tx/in-the-ring", May::Serve, "frames that lie in the ring itself", plain, |s| {
        let at = s.tx().at;
        let lie = |at: usize| vec![Desc::new(at as u64, 200, 0)];
        send_each(s, &[lie(at.desc), lie(at.avail), lie(at.used)]);
    }),
    Case::rings("tx/write-only", May::Drop, "buffers to be written, to send from", plain, |s| {
        let frame = s.frame();
        let write = Desc { flags: WRITE, ..frame };
        send_each(s, &[vec![write], vec![frame, write], vec![write, frame], vec![write, write]]);
    }),
    Case::rings("tx/all-flags", May::Stop, "all flags at once, and unknown ones", plain, |s| {
        let frame = s.frame();
        for bit in 0..16 {
            send_each(s, &[vec![Desc { flags: 1 << bit, ..frame }]]);
        }
        send_each(s, &[vec![Desc { flags: !NEXT, ..frame }], vec![Desc { flags: !0, ..frame }]]);
    }),
    Case::rings("tx/same-buffer", May::Serve, "one buffer 200 times", plain, |s| {
        let frame = s.frame();
        for _ in 0..200 {
            s.tx().offer_chain(&[frame]);
        }
        s.tx().kick();
    }),
    Case::rings("tx/long-frame", May::Drop, "frames of 64 KiB and more", plain, |s| {
        let part = Desc::new(SPARE as u64, 0x8000, 0);
        send_each(s, &[vec![part, part], vec![part; 3], vec![part; 64], vec![part; 200]]);
    }),
    Case::rings("tx/indirect", May::Serve, "indirect tables as they should be", indirect, |s| {
        let frame = s.frame();
        let table = indirect_table(s, 0, &linked(1, frame));
        let split = [
            Desc { len: 12, flags: NEXT, next: 1, ..frame },
            Desc { addr: frame.addr + 12, len: frame.len - 12, flags: 0, next: 0 },
        ];
        let two = indirect_table(s, 0x1000, &split);
        send_each(s, &[vec![table], vec![two]]);
    }),
    Case::rings(
        "tx/indirect-length",
        May::Drop,
        "tables of lengths that are no multiple of 16",
        indirect,
        |s| {
            let frame = s.frame();
            let table = indirect_table(s, 0, &linked(4, frame));
            for len in [0, 1, 15, 17, 31, 33, u32::MAX, 0xffff_fff0] {
                send_each(s, &[vec![Desc { len, ..table }]]);
            }
        },
    ),
    Case::rings(
        "tx/indirect-in-indirect",
        May::Drop,
        "a table in a table, and one in itself",
        indirect,
        |s| {
            let frame = s.frame();
            let inner = indirect_table(s, 0, &linked(1, frame));
            let outer = indirect_table(s, 0x1000, &[inner]);
            let own = Desc { flags: INDIRECT, ..Desc::new((SPARE + 0x2000) as u64, 16, 0) };
            let circle = indirect_table(s, 0x2000, &[own]);
            send_each(s, &[vec![outer], vec![circle]]);
        },
    ),
    Case::rings(
        "tx/indirect-with-next",
        May::Drop,
        "a table in a chain with others",
        indirect,
        |s| {
            let frame = s.frame();
            let table = indirect_table(s, 0, &linked(2, frame));
            send_each(s, &[vec![table, frame], vec![frame, table], vec![table, table, table]]);
        },
    ),
    Case::rings("tx/indirect-loop", May::Stop, "a loop inside a table", indirect, |s| {
        let frame = s.frame();
        let circle = indirect_table(s, 0, &[Desc { flags: NEXT, next: 0, ..frame }; 4]);
        let outside = indirect_table(s, 0x1000, &[Desc { flags: NEXT, next: 0xffff, ..frame }; 4]);
        send_each(s, &[vec![circle], vec![outside]]);
    }),
    Case::rings(
        "tx/indirect-long",
        May::Drop,
        "tables of 4,096 and of more entries",
        indirect,
        |s| {
            let part = Desc { len: 16, ..s.frame() };
            let entries = linked(4000, part);
            let table = indirect_table(s, 0, &entries);
            send_each(s, &[vec![table], vec![Desc { len: 16 * 65_536, ..table }]]);
        },
    ),
    Case::rings(
        "tx/indirect-unmapped",
        May::Drop,
        "tables where no memory is or that end it",
        indirect,
        |s| {
            let at = |addr, len| vec![Desc::new(addr, len, INDIRECT)];
            send_each(
                s,
                &[
                    at(END, 16),
                    at(END - 8, 16),
                    at(END - 16, 32),
                    at(u64::MAX - 8, 16),
                    at(1 << 50, 4096),
                    at(1, 16),
                ],
            );
        },
    ),
    Case::rings(
        "tx/indirect-not-negotiated",
        May::Drop,
        "a table that was not agreed on",
        plain,
        |s| {
            let frame = s.frame();
            let table = indirect_table(s, 0, &linked(1, frame));
            send_each(s, &[vec![table]]);
        },
    ),
    Case::rings(
        "tx/indirect-is-the-ring",
        May::Drop,
        "the ring's own table as a table",
        indirect,
        |s| {
            let at = s.tx().at.desc as u64;
            send_each(s, &[vec![Desc::new(at, 16 * u32::from(SIZE), INDIRECT)]]);
        },
    ),
    Case::rings(
        "rx/read-only",
        May::Drop,
        "buffers to receive into that are not to be written",
        plain,
        |s| {
            let good = s.receive_buffer(5);
            let bad = Desc { flags: 0, ..good };
            receive_each(s, &[vec![bad], vec![good, bad], vec![bad, good]]);
        },
    ),
    Case::rings("rx/length-0", May::Stop, "receive buffers of no length", plain, |s| {
        let empty = Desc { len: 0, ..s.receive_buffer(5) };
        receive_each(s, &[vec![empty], vec![empty; 4], vec![empty; 40]]);
    }),
    Case::rings("rx/length-1-to-11", May::Drop, "shorter than the net header", plain, |s| {
        let good = s.receive_buffer(5);
        for len in 1..12 {
            receive_each(s, &[vec![Desc { len, ..good }; 1]]);
        }
    }),
    Case::rings(
        "rx/length-1-to-11-unmerged",
        May::Drop,
        "the same without merged buffers",
        unmerged,
        |s| {
            let good = s.receive_buffer(5);
            for len in 1..12 {
                receive_each(s, &[vec![Desc { len, ..good }], vec![Desc { len, ..good }; 2]]);
            }
        },
    ),
    Case::rings(
        "rx/tiny-at-the-end",
        May::Drop,
        "short ones in the last bytes of the region",
        plain,
        |s| {
            for len in [1_u32, 4, 11, 12, 13] {
                let last = Desc::new(END - u64::from(len), len, WRITE);
                receive_each(s, &[vec![last], vec![last; 4]]);
            }
        },
    ),
    Case::rings(
        "rx/four-tiny-in-a-row",
        May::Drop,
        "four of 1 to 11 bytes in one cache line",
        plain,
        |s| {
            let good = s.receive_buffer(5);
            // Packed rings are read four at a time where they are aligned so.
            while !s.rx().place().0.is_multiple_of(4) {
                s.rx().offer_chain(&[good]);
            }
            for len in [1, 4, 8, 11] {
                for _ in 0..4 {
                    s.rx().offer_chain(&[Desc {
                        len,
                        addr: END - u64::from(len),
                        flags: WRITE,
                        next: 0,
                    }]);
                }
            }
            s.rx().kick();
            s.witness_sends(64);
        },
    ),
    Case::rings("rx/header-split", May::Serve, "the net header over many buffers", plain, |s| {
        let good = s.receive_buffer(5);
        let byte = |i| Desc::new(good.addr + i, 1, WRITE);
        let mut chain: Vec<_> = (0..12).map(byte).collect();
        chain.push(Desc { addr: good.addr + 12, len: 2000, ..good });
        receive_each(s, &[chain, vec![byte(0), Desc { len: 2000, ..good }]]);
    }),
    Case::rings("rx/length-4GiB", May::Drop, "receive buffers of 4 GiB - 1", plain, |s| {
        let good = s.receive_buffer(5);
        let huge = Desc { len: u32::MAX, ..good };
        receive_each(s, &[vec![huge], vec![Desc { len: 12, ..good }, huge], vec![huge, huge]]);
    }),
    Case::rings("rx/unmapped", May::Drop, "receive buffers where no memory is", plain, |s| {
        let good = s.receive_buffer(5);
        let at = |addr| Desc { addr, ..good };
        receive_each(
            s,
            &[
                vec![at(END)],
                vec![at(1 << 40)],
                vec![at(u64::MAX - 100)],
                vec![Desc { len: 12, ..good }, at(END)],
            ],
        );
    }),
    Case::rings(
        "rx/over-the-end",
        May::Drop,
        "receive buffers that run past the region",
        plain,
        |s| {
            let at = |addr, len| Desc::new(addr, len, WRITE);
            let good = s.receive_buffer(5);
            receive_each(
                s,
                &[
                    vec![at(END - 1, 2048)],
                    vec![at(END - 12, 2048)],
                    vec![Desc { len: 12, ..good }, at(END - 600, 2048)],
                ],
            );
        },
    ),
    Case::rings(
        "rx/in-the-rings",
        May::Stop,
        "frames received over the rings themselves",
        plain,
        |s| {
            let (rx, tx) = (s.rx().at, s.tx().at);
            let at = |at: usize| vec![Desc::new(at as u64, 2048, WRITE)];
            receive_each(s, &[at(rx.used), at(rx.avail), at(rx.desc), at(tx.desc), at(tx.avail)]);
        },
    ),
    Case::rings("rx/loop", May::Stop, "an endless chain to receive into", plain, |s| {
        let good = s.receive_buffer(5);
        endless(s.rx(), Desc { len: 16, flags: NEXT | WRITE, ..good });
        s.witness_sends(32);
    }),
    Case::rings("rx/loop-of-empty", May::Stop, "the same of buffers of no length", plain, |s| {
        endless(s.rx(), Desc::new(SPARE as u64, 0, NEXT | WRITE));
        s.witness_sends(32);
    }),
    Case::rings(
        "rx/indirect",
        May::Drop,
        "indirect tables to receive into, good and bad",
        indirect,
        |s| {
            let good = s.receive_buffer(5);
            let table = indirect_table(s, 0, &linked(2, Desc { len: 1000, ..good }));
            let circle =
                indirect_table(s, 0x1000, &[Desc { flags: NEXT | WRITE, next: 0, ..good }; 2]);
            let inner = indirect_table(s, 0x2000, &[table]);
            receive_each(
                s,
                &[
                    vec![table],
                    vec![circle],
                    vec![inner],
                    vec![Desc { len: 17, ..table }],
                    vec![Desc { len: 0, ..table }],
                    vec![table, good],
                ],
            );
        },
    ),
    Case::rings(
        "rx/merge-without-end",
        May::Drop,
        "a frame over hundreds of tiny buffers",
        plain,
        |s| {
            let tiny = Desc { len: 13, ..s.receive_buffer(5) };
            for _ in 0..200 {
                s.rx().offer_chain(&[tiny]);
            }
            s.rx().kick();
            s.witness_sends(32);
        },
    ),
];
