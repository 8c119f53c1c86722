//! How the kernel shapes what goes out on an interface: tc-htb(8), by rtnetlink(7).

use std::io;

use crate::netlink::{FLAG_ACK, FLAG_REQUEST, Socket, message, refusal, text};

/// What goes out as a class, in bytes a second and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// What it always has.
    pub rate: u64,
    /// What it has at most.
    pub ceil: u64,
    /// How much may go out at once.
    pub burst: u64,
    /// Which classes are served first with what others leave: the lower, the sooner.
    pub priority: u32,
}

/// A tree of classes: one for all, and those within it by number. What belongs to none is of number 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Htb {
    /// All that goes out.
    pub all: Class,
    /// Classes within it, the first one that of number 0.
    pub classes: Vec<(u16, Class)>,
}

/// Kinds of messages, and what else they have (linux/rtnetlink.h, linux/pkt_sched.h).
const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const NEW_CLASS: u16 = 40;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const PARAMETERS: u16 = 1;
const INIT: u16 = 2;
const RATE64: u16 = 6;
const CEIL64: u16 = 7;
const ROOT: u32 = u32::MAX;

/// The handle of the tree, the class of all, and that of number 0.
const TREE: u32 = 0x1_0000;
const ALL: u32 = TREE | 0xFFFE;
const FIRST: u32 = 1;

/// The version of the kernel's HTB that is spoken to.
const VERSION: u32 = 3;
/// How rates become quanta where nobody says it, as tc(8) has it.
const RATE_TO_QUANTUM: u32 = 10;
/// Frames are those of Ethernet, so that the kernel needs no table of a rate (`TC_LINKLAYER_ETHERNET`).
const ETHERNET: u8 = 1;
/// Nanoseconds in a tick of the kernel's packet schedulers (`PSCHED_SHIFT`).
const TICK: u128 = 64;

impl Htb {
    /// The largest number of a class.
    pub const MAX_CLASS: u16 = 0xFFFC;

    /// Has an interface's traffic be shaped by this, and by nothing else.
    ///
    /// # Errors
    /// What the kernel says, as when it has no HTB.
    pub fn set(&self, interface: u32) -> io::Result<()> {
        let socket = Socket::open(None)?;
        // It may have one, which does not change as a whole; that it has none is as well.
        let _ = ask(&socket, &delete(interface));
        self.requests(interface).iter().try_for_each(|request| ask(&socket, request))
    }

    fn requests(&self, interface: u32) -> Vec<Vec<u8>> {
        let parameters = [VERSION, RATE_TO_QUANTUM, FIRST, 0, 0].map(u32::to_ne_bytes).concat();
        let flags = FLAG_REQUEST | FLAG_ACK | REPLACE | CREATE;
        let make = |kind, place: (u32, u32), options: &[u8]| {
            let fixed = fixed(interface, place);
            message(kind, flags, &fixed, &[(KIND, &text("htb")), (OPTIONS, options)])
        };
        let tree = make(NEW_QDISC, (TREE, ROOT), &attributes(&[(INIT, &parameters)]));
        let class = |place, class: &Class| make(NEW_CLASS, place, &class.options());
        let numbered = |(number, own): &(u16, Class)| {
            class((TREE | u32::from(number.saturating_add(1)), ALL), own)
        };
        let all = class((ALL, TREE), &self.all);
        [tree, all].into_iter().chain(self.classes.iter().map(numbered)).collect()
    }
}

/// Has an interface's traffic not be shaped any more.
///
/// # Errors
/// What the kernel says.
pub fn clear(interface: u32) -> io::Result<()> {
    ask(&Socket::open(None)?, &delete(interface))
}

impl Class {
    fn options(&self) -> Vec<u8> {
        let Self { rate, ceil, burst, priority } = *self;
        let narrow = |rate: u64| u32::try_from(rate).unwrap_or(u32::MAX);
        // The cell, its alignment and what frames are at least are of tables that there are not.
        let spec = |rate: u64| {
            [&[0, ETHERNET, 0, 0, 0, 0, 0, 0], &narrow(rate).to_ne_bytes()[..]].concat()
        };
        let rest = [ticks(burst, rate), ticks(burst, ceil), 0, 0, priority];
        let parameters = [spec(rate), spec(ceil), rest.map(u32::to_ne_bytes).concat()].concat();
        attributes(&[
            (PARAMETERS, &parameters),
            (RATE64, &rate.to_ne_bytes()),
            (CEIL64, &ceil.to_ne_bytes()),
        ])
    }
}

/// How long it takes to send so much at a rate.
fn ticks(bytes: u64, rate: u64) -> u32 {
    let nanoseconds = u128::from(bytes) * 1_000_000_000;
    let ticks = nanoseconds.checked_div(u128::from(rate)).unwrap_or_default() / TICK;
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

fn delete(interface: u32) -> Vec<u8> {
    message(DELETE_QDISC, FLAG_REQUEST | FLAG_ACK, &fixed(interface, (0, ROOT)), &[])
}

/// The fixed part of a request about an interface: its number, the handle, and that of the parent.
fn fixed(interface: u32, (handle, parent): (u32, u32)) -> Vec<u8> {
    [0, interface, handle, parent, 0].map(u32::to_ne_bytes).concat()
}

/// Attributes within one.
fn attributes(all: &[(u16, &[u8])]) -> Vec<u8> {
    message(0, 0, &[], all).split_off(crate::netlink::HEADER)
}

fn ask(socket: &Socket, request: &[u8]) -> io::Result<()> {
    refusal(&socket.exchange(request)?)?.map_or(Ok(()), Err)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::netlink::{attribute, u32_at};

    #[test]
    fn a_burst_is_the_time_that_it_takes() {
        // 375,000 bytes at 2 and at 3 Mbit/s: 1.5 s and 1 s.
        assert_eq!(ticks(375_000, 250_000), 23_437_500);
        assert_eq!(ticks(375_000, 375_000), 15_625_000);
        assert_eq!((ticks(1, 0), ticks(u64::MAX, 1)), (0, u32::MAX));
    }

    #[test]
    fn requests_are_for_the_tree_all_and_each_class() {
        let class = |rate| Class { rate, ceil: 375_000, burst: 375_000, priority: 7 };
        let htb =
            Htb { all: class(375_000), classes: vec![(0, class(250_000)), (9, class(1 << 40))] };
        let requests = htb.requests(5);
        let places: Vec<_> = requests
            .iter()
            .map(|request| [20, 24, 28].map(|at| u32_at(request, at).unwrap()))
            .collect();
        let expected = [[5, TREE, ROOT], [5, ALL, TREE], [5, TREE | 1, ALL], [5, TREE | 10, ALL]];
        assert_eq!(places, expected);
        for request in &requests {
            assert_eq!(attribute(request, 20, KIND).unwrap(), b"htb\0");
        }
        let options = |at: usize| attribute(&requests[at], 20, OPTIONS).unwrap().to_vec();
        let first = message(0, 0, &[], &[(OPTIONS, &options(2))]);
        let inner = attribute(&first, 0, OPTIONS).unwrap();
        // The rates, then the times of the bursts, and last the priority.
        assert_eq!(u32_at(inner, 4 + 8), Some(250_000));
        assert_eq!(u32_at(inner, 4 + 24), Some(23_437_500));
        assert_eq!(u32_at(inner, 4 + 40), Some(7));
        assert_eq!(inner.len(), 4 + 44 + 2 * 12);
        // What is more than 32 bits is in the longer field.
        let inner = options(3);
        assert_eq!(u32_at(&inner, 4 + 8), Some(u32::MAX));
        assert_eq!(inner[52..60], (1_u64 << 40).to_ne_bytes());
    }
}
