//! Messages of the protocol on the wire (IEEE 802.1D-2004 clause 9): configuration and topology change
//! notification of the old Spanning Tree Protocol, and those of the rapid one.

use packet::MacAddr;

use super::vector::{BridgeName, Times, Vector};

/// Where they go: the bridge group address (IEEE 802.1D-2004 table 7-10).
pub const GROUP: MacAddr = MacAddr([0x01, 0x80, 0xC2, 0, 0, 0]);

/// Bytes of a frame that count: Ethernet and LLC header, and the longest message.
pub const FRAME_LEN: usize = 64;

/// How often a designated port speaks, in seconds (table 17-1, where it cannot be changed).
pub const HELLO_TIME: u8 = 2;

/// Bytes before the message: addresses, length, and the LLC header of the protocol.
const HEADER: usize = 17;

/// The LLC header: the spanning tree protocol at both ends, unnumbered information (clause 9.2).
const LLC: [u8; 3] = [0x42, 0x42, 0x03];

/// The shortest frame.
const MIN_LEN: usize = 60;

/// Types of messages.
const CONFIG: u8 = 0;
const TCN: u8 = 0x80;
const RST: u8 = 2;

/// The version of the rapid protocol.
const RAPID: u8 = 2;

/// Bits of the flags.
const TOPOLOGY_CHANGE: u8 = 0x01;
const PROPOSAL: u8 = 0x02;
const LEARNING: u8 = 0x10;
const FORWARDING: u8 = 0x20;
const AGREEMENT: u8 = 0x40;
const ACKNOWLEDGEMENT: u8 = 0x80;

/// The role of a port, as its bits.
const ROLE_SHIFT: u8 = 2;

/// The role of the port that a message comes from, as far as messages tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// An alternate or backup port.
    Blocked = 1,
    /// The way to the root.
    Root = 2,
    /// The way from the root, for all behind it.
    Designated = 3,
}

/// What a message says of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The priority vector.
    pub priority: Vector,
    /// The times of the tree.
    pub times: Times,
    /// The topology has changed.
    pub topology_change: bool,
    /// A change that was told was heard.
    pub acknowledgement: bool,
}

/// What a message of the rapid protocol says besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rapid {
    /// The role of the port that it comes from.
    pub teller: Teller,
    /// The port wants to forward at once.
    pub proposal: bool,
    /// The other end may.
    pub agreement: bool,
    /// The port learns.
    pub learning: bool,
    /// The port forwards.
    pub forwarding: bool,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bpdu {
    /// A configuration message of the old protocol.
    Config(Config),
    /// The topology has changed somewhere below.
    Tcn,
    /// A message of the rapid protocol.
    Rst(Config, Rapid),
}

impl Bpdu {
    /// The frame, from a port with this address.
    pub fn frame(&self, from: MacAddr) -> Vec<u8> {
        let mut body = LLC.to_vec();
        match self {
            // Protocol 0, version, type.
            Self::Config(config) => {
                body.extend([0, 0, 0, CONFIG]);
                config.write(config.flags(), &mut body);
            }
            Self::Tcn => body.extend([0, 0, 0, TCN]),
            Self::Rst(config, rapid) => {
                body.extend([0, 0, RAPID, RST]);
                config.write(config.flags() | rapid.flags(), &mut body);
                // There is nothing of version 1.
                body.push(0);
            }
        }
        let mut frame = [GROUP.0, from.0].concat();
        frame.extend(u16::try_from(body.len()).unwrap_or_default().to_be_bytes());
        frame.extend(body);
        frame.resize(MIN_LEN, 0);
        frame
    }
}

impl Rapid {
    fn flags(self) -> u8 {
        let Self { teller, proposal, agreement, learning, forwarding } = self;
        let bits = [
            (PROPOSAL, proposal),
            (LEARNING, learning),
            (FORWARDING, forwarding),
            (AGREEMENT, agreement),
        ];
        flags(&bits) | (teller as u8) << ROLE_SHIFT
    }

    /// What the flags say; `None` where they tell no role.
    fn parse(flags: u8) -> Option<Self> {
        let teller = match flags >> ROLE_SHIFT & 3 {
            1 => Teller::Blocked,
            2 => Teller::Root,
            3 => Teller::Designated,
            _ => return None,
        };
        Some(Self {
            teller,
            proposal: flags & PROPOSAL != 0,
            agreement: flags & AGREEMENT != 0,
            learning: flags & LEARNING != 0,
            forwarding: flags & FORWARDING != 0,
        })
    }
}

fn flags(bits: &[(u8, bool)]) -> u8 {
    bits.iter().filter(|(_, is_set)| *is_set).fold(0, |all, (bit, _)| all | bit)
}

impl Config {
    fn flags(&self) -> u8 {
        let bits =
            [(TOPOLOGY_CHANGE, self.topology_change), (ACKNOWLEDGEMENT, self.acknowledgement)];
        flags(&bits)
    }

    fn write(&self, flags: u8, to: &mut Vec<u8>) {
        let Self { priority, times, .. } = self;
        to.push(flags);
        to.extend(priority.root.0.to_be_bytes());
        to.extend(priority.cost.to_be_bytes());
        to.extend(priority.bridge.0.to_be_bytes());
        to.extend(priority.port.to_be_bytes());
        for seconds in [times.message_age, times.max_age, times.hello, times.forward_delay] {
            // In units of 1/256 s.
            to.extend([seconds, 0]);
        }
    }

    fn parse(body: &[u8; 31]) -> (u8, Self) {
        let [flags, rest @ ..] = *body;
        let [r0, r1, r2, r3, r4, r5, r6, r7, c0, c1, c2, c3, rest @ ..] = rest;
        let [b0, b1, b2, b3, b4, b5, b6, b7, p0, p1, rest @ ..] = rest;
        let [age, age_part, max_age, _, hello, _, delay, _] = rest;
        let priority = Vector {
            root: BridgeName(u64::from_be_bytes([r0, r1, r2, r3, r4, r5, r6, r7])),
            cost: u32::from_be_bytes([c0, c1, c2, c3]),
            bridge: BridgeName(u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7])),
            port: u16::from_be_bytes([p0, p1]),
        };
        // To the nearest second.
        let message_age = age.saturating_add(age_part >> 7);
        let times = Times { message_age, max_age, hello, forward_delay: delay };
        let topology_change = flags & TOPOLOGY_CHANGE != 0;
        let acknowledgement = flags & ACKNOWLEDGEMENT != 0;
        (flags, Self { priority, times, topology_change, acknowledgement })
    }
}

/// Reads a frame; `None` for what is none of the protocol, or is not valid (clause 9.3.4). Versions that
/// are not known yet are read as the rapid one.
pub fn parse(frame: &[u8]) -> Option<Bpdu> {
    let (header, rest) = frame.split_at_checked(HEADER)?;
    if header.get(..6)? != GROUP.0 || header.get(14..)? != LLC {
        return None;
    }
    let len = u16::from_be_bytes(*header.get(12..)?.first_chunk()?);
    let body = rest.get(..usize::from(len).checked_sub(LLC.len())?)?;
    let (&[p0, p1, version, kind], body) = body.split_first_chunk()?;
    if [p0, p1] != [0, 0] {
        return None;
    }
    if kind == TCN {
        return Some(Bpdu::Tcn);
    }
    let (flags, config) = Config::parse(body.first_chunk()?);
    let config = Config { times: config.times.within_bounds(), ..config };
    // It has been on its way for longer than it is of any use (clause 9.3.4).
    if config.times.message_age >= config.times.max_age {
        return None;
    }
    match (kind, version) {
        (CONFIG, _) => Some(Bpdu::Config(config)),
        (RST, RAPID..) if body.len() > 31 => {
            // Whoever tells no role is as one of the old protocol.
            let rapid = Rapid::parse(flags);
            Some(rapid.map_or(Bpdu::Config(config), |rapid| Bpdu::Rst(config, rapid)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn config() -> Config {
        Config {
            priority: Vector {
                root: BridgeName(0x1000_0200_0000_0009),
                cost: 20_000,
                bridge: BridgeName(0x8000_0200_0000_0001),
                port: 0x8003,
            },
            times: Times { message_age: 1, max_age: 20, hello: 2, forward_delay: 15 },
            topology_change: true,
            acknowledgement: false,
        }
    }

    fn rst() -> Bpdu {
        let rapid = Rapid {
            teller: Teller::Designated,
            proposal: true,
            agreement: false,
            learning: false,
            forwarding: false,
        };
        Bpdu::Rst(config(), rapid)
    }

    #[test]
    fn frames_are_as_the_standard_has_them() {
        let frame = rst().frame(OWN);
        assert_eq!(frame.len(), MIN_LEN);
        assert_eq!(frame[..17], [1, 0x80, 0xC2, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 39, 0x42, 0x42, 3]);
        assert_eq!(frame[17..22], [0, 0, 2, 2, 0x0F]);
        assert_eq!(frame[22..34], [0x10, 0, 2, 0, 0, 0, 0, 9, 0, 0, 0x4E, 0x20]);
        assert_eq!(frame[34..44], [0x80, 0, 2, 0, 0, 0, 0, 1, 0x80, 3]);
        assert_eq!(frame[44..53], [1, 0, 20, 0, 2, 0, 15, 0, 0]);
        assert_eq!(parse(&frame), Some(rst()));
        let old = Bpdu::Config(Config { acknowledgement: true, ..config() });
        let frame = old.frame(OWN);
        assert_eq!((&frame[12..14], &frame[17..22]), (&[0, 38][..], &[0, 0, 0, 0, 0x81][..]));
        assert_eq!(parse(&frame), Some(old));
        let frame = Bpdu::Tcn.frame(OWN);
        assert_eq!((&frame[12..14], &frame[17..21]), (&[0, 7][..], &[0, 0, 0, 0x80][..]));
        assert_eq!(parse(&frame), Some(Bpdu::Tcn));
    }

    #[test]
    fn what_is_not_valid_is_refused_and_what_is_new_is_read() {
        let changed = |at: usize, byte: u8| {
            let mut frame = rst().frame(OWN);
            frame[at] = byte;
            parse(&frame)
        };
        for (at, byte) in
            [(5, 2), (13, 2), (13, 38), (13, 50), (14, 0xAA), (18, 1), (20, 3), (44, 20)]
        {
            assert_eq!(changed(at, byte), None, "{at} {byte}");
        }
        assert_eq!(changed(19, 1), None, "an old version has no such message");
        assert_eq!(changed(19, 3), Some(rst()), "a newer one");
        assert_eq!(changed(21, 0x01), Some(Bpdu::Config(config())), "without a role");
        let Some(Bpdu::Rst(slow, _)) = changed(50, 200) else { unreachable!() };
        assert_eq!(slow.times.forward_delay, 30, "times are kept within bounds");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(
            mut body in proptest::collection::vec(any::<u8>(), 0..50), begin in 0_usize..36
        ) {
            let mut frame = rst().frame(OWN);
            frame.truncate(17 + begin);
            frame.append(&mut body);
            if let Some(bpdu) = parse(&frame) {
                prop_assert_eq!(parse(&bpdu.frame(OWN)), Some(bpdu));
            }
        }
    }
}
