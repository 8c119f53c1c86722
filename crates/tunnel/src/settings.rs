//! What a port of a tunnel is set to.

use std::net::{IpAddr, Ipv4Addr};

use crate::erspan::{Erspan, ErspanSettings};
use crate::kind::Kind;
use crate::meta::{Inner, Meta, Policy};

/// An address of a tunnel's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Address {
    /// Any that comes; of what goes, that by which the route leads.
    #[default]
    Any,
    /// This one.
    Is(IpAddr),
    /// Whatever rules say.
    Flow,
}

/// A tunnel's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelKey {
    /// None at all.
    #[default]
    None,
    /// This one.
    Is(u64),
    /// Whatever rules say.
    Flow,
}

/// A byte of the outer header that may be that of the inner one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inherited {
    /// This one.
    Is(u8),
    /// As the frame inside has it.
    Inner,
}

/// What a port of a tunnel gives, and what becomes of what it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Frames of Ethernet; others do not go out there.
    #[default]
    Frames,
    /// Packets that come without a header of Ethernet, with one that is empty; of what goes out, it is taken off.
    Packets,
    /// All as they are.
    Any,
}

impl Mode {
    /// How good a port is for what has come; `None` if it is not.
    const fn rank(self, inner: Inner) -> Option<u8> {
        match (self, inner.is_bare()) {
            (Self::Any, _) => Some(0),
            // With a header of Ethernet in front, it would be a frame of whatever VLAN the sender says.
            (Self::Packets, true) if inner.is_tag() => None,
            (Self::Frames, false) | (Self::Packets, true) => Some(1),
            (Self::Frames, true) | (Self::Packets, false) => None,
        }
    }
}

/// What a port of a tunnel is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What kind of tunnel it is.
    pub kind: Kind,
    /// The other end.
    pub remote: Address,
    /// This end.
    pub local: Address,
    /// The key of what comes in.
    pub in_key: TunnelKey,
    /// The key of what goes out.
    pub out_key: TunnelKey,
    /// The port of UDP.
    pub port: u16,
    /// Type of service, ECN aside, which is always that of the frame inside.
    pub tos: Inherited,
    /// Time to live.
    pub ttl: Inherited,
    /// Whether outer headers have a checksum over all of the packet.
    pub checksum: bool,
    /// Whether routers must not fragment outer packets.
    pub dont_fragment: bool,
    /// The mark of outer packets, by which they have routes of their own.
    pub mark: u32,
    /// What it gives and gets.
    pub mode: Mode,
    /// Whether VXLAN's header says what is inside.
    pub says_inner: bool,
    /// Whether headers of GRE or GTP-U have a number.
    pub is_numbered: bool,
    /// Whether VXLAN's header says whose policy a packet is under.
    pub has_policy: bool,
    /// What ERSPAN says of frames.
    pub erspan: ErspanSettings,
}

/// What rules, or what a frame came with, say of the tunnel that it goes into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The key.
    pub key: u64,
    /// This end.
    pub source: Option<IpAddr>,
    /// The other end.
    pub destination: Option<IpAddr>,
    /// Whose policy it is under.
    pub policy: Policy,
    /// What ERSPAN is to say of it.
    pub erspan: Erspan,
}

impl Settings {
    /// A tunnel of this kind to this end, with what is usual beside.
    #[must_use]
    pub const fn new(kind: Kind, remote: Address) -> Self {
        Self {
            kind,
            remote,
            local: Address::Any,
            in_key: TunnelKey::None,
            out_key: TunnelKey::None,
            port: kind.port(),
            tos: Inherited::Is(0),
            ttl: Inherited::Is(64),
            checksum: false,
            dont_fragment: true,
            mark: 0,
            mode: if matches!(kind, Kind::Gtpu) { Mode::Packets } else { Mode::Frames },
            says_inner: false,
            is_numbered: false,
            has_policy: false,
            erspan: ErspanSettings::USUAL,
        }
    }

    /// What goes around a frame with this type of service and time to live, if it is an IP packet; `None`
    /// where nobody has said where it goes. The source is not specified where the route says it.
    #[must_use]
    pub fn meta(&self, wish: &Wish, inner: Option<(u8, u8)>) -> Option<Meta> {
        let destination = match self.remote {
            Address::Is(address) => address,
            Address::Flow => wish.destination?,
            Address::Any => return None,
        };
        let source = match self.local {
            Address::Is(address) => Some(address),
            Address::Flow => wish.source,
            Address::Any => None,
        };
        let key = match self.out_key {
            TunnelKey::None => None,
            TunnelKey::Is(key) => Some(key),
            TunnelKey::Flow => Some(wish.key),
        };
        // VXLAN and Geneve have a place for it in any case.
        let key = if self.kind == Kind::Gre { key } else { Some(key.unwrap_or(0)) };
        // A session that there cannot be is not another one.
        if self.kind == Kind::Erspan && key > Some(self.kind.max_key()) {
            return None;
        }
        let own = |setting: Inherited, of: fn((u8, u8)) -> u8, usual: u8| match setting {
            Inherited::Is(byte) => byte,
            Inherited::Inner => inner.map_or(usual, of),
        };
        let tos =
            own(self.tos, |(tos, _)| tos, 0) & !ECN | inner.map_or(0, |(tos, _)| outer_ecn(tos));
        Some(Meta {
            key: key.map(|key| key & self.kind.max_key()),
            tos,
            ttl: own(self.ttl, |(_, ttl)| ttl, 64),
            dont_fragment: self.dont_fragment,
            checksum: self.checksum,
            says_inner: self.says_inner,
            is_numbered: self.is_numbered,
            policy: self.has_policy.then_some(wish.policy),
            erspan: (self.kind == Kind::Erspan).then(|| self.erspan.of(wish.erspan)),
            ..Meta::new(source.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), destination)
        })
    }

    /// Whether it has a way to say of a packet that it has no header of Ethernet.
    #[must_use]
    pub fn carries_packets(&self) -> bool {
        matches!(self.kind, Kind::Gre | Kind::Gtpu) || self.says_inner
    }

    /// Whether packets have numbers.
    #[must_use]
    pub const fn has_numbers(&self) -> bool {
        self.is_numbered || matches!(self.kind, Kind::Erspan)
    }

    /// Whether large segments are cut before they go in: each frame has a number or a length of its own.
    #[must_use]
    pub const fn cuts_segments(&self) -> bool {
        self.has_numbers() || matches!(self.kind, Kind::Gtpu)
    }

    /// What of a frame's type of service and time to live matters for what goes around it: frames for which
    /// that is the same have the same outer header.
    #[must_use]
    pub const fn inherits(&self, (tos, ttl): (u8, u8)) -> (u8, u8) {
        let tos = match self.tos {
            Inherited::Inner => tos & !ECN | outer_ecn(tos),
            Inherited::Is(_) => outer_ecn(tos),
        };
        let ttl = match self.ttl {
            Inherited::Inner => ttl,
            Inherited::Is(_) => 0,
        };
        (tos, ttl)
    }

    /// How well what has come in with this header is for this port; `None` if it is not. A key that is
    /// set counts most, then an address of this end, then that of the other, then that it is for nothing else than what
    /// is inside.
    fn rank(&self, kind: Kind, port: u16, meta: &Meta) -> Option<u8> {
        if (self.kind, self.port) != (kind, port) {
            return None;
        }
        let key = match self.in_key {
            TunnelKey::Flow => 0,
            TunnelKey::Is(key) if meta.key == Some(key) => 4,
            TunnelKey::None if meta.key.unwrap_or(0) == 0 => 4,
            _ => return None,
        };
        let local = end(self.local, meta.destination)?;
        let remote = end(self.remote, meta.source)?;
        let mode = self.mode.rank(meta.inner)?;
        Some((key | local << 1 | remote) << 1 | mode)
    }
}

/// Whether an end is that of a port, and named there.
fn end(wanted: Address, address: IpAddr) -> Option<u8> {
    match wanted {
        Address::Is(own) => (own == address).then_some(1),
        Address::Any | Address::Flow => Some(0),
    }
}

/// The bits of ECN in the type of service (RFC 3168, section 5), and two of their values.
const ECN: u8 = 3;
const CONGESTED: u8 = 3;
const CAPABLE: u8 = 2;

/// That of a frame outside (RFC 6040, section 4.1, as Open vSwitch does it: what is congested is only
/// capable outside).
const fn outer_ecn(tos: u8) -> u8 {
    match tos & ECN {
        CONGESTED => CAPABLE,
        other => other,
    }
}

/// What becomes of the frame inside for the ECN outside (RFC 6040, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// Nothing.
    Keep,
    /// It is marked as congested, too.
    Mark,
    /// It is dropped: it cannot say that.
    Drop,
}

impl Congestion {
    /// Of a frame with this type of service inside, if it is an IP packet, and outside.
    #[must_use]
    pub const fn of(outer: u8, inner: Option<u8>) -> Self {
        match inner {
            Some(inner) if outer & ECN == CONGESTED => match inner & ECN {
                0 => Self::Drop,
                CONGESTED => Self::Keep,
                _ => Self::Mark,
            },
            _ => Self::Keep,
        }
    }
}

/// The best of some ports for what has come in with this header to this port of UDP.
pub fn best<'p, T>(
    ports: impl Iterator<Item = (T, &'p Settings)>,
    (kind, port): (Kind, u16),
    meta: &Meta,
) -> Option<T> {
    let ranked = ports.filter_map(|(own, settings)| Some((settings.rank(kind, port, meta)?, own)));
    // The first of those that are as good.
    let best = ranked.fold(None, |best, (rank, own)| match best {
        Some((least, _)) if least >= rank => best,
        _ => Some((rank, own)),
    });
    best.map(|(_, own)| own)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn port(remote: Address, in_key: TunnelKey) -> Settings {
        Settings { in_key, ..Settings::new(Kind::Vxlan, remote) }
    }

    #[test]
    fn the_port_that_says_most_is_taken() {
        let flow = port(Address::Flow, TunnelKey::Flow);
        let keyed = port(Address::Flow, TunnelKey::Is(5));
        let peer = port(Address::Is(address(2)), TunnelKey::Is(5));
        let local = Settings { local: Address::Is(address(1)), ..keyed.clone() };
        let none = port(Address::Is(address(3)), TunnelKey::None);
        let all = [&flow, &keyed, &peer, &local, &none];
        let taken = |remote: u8, key: u64, kind: (Kind, u16)| {
            let meta = Meta::new(address(remote), address(1)).with_key(key);
            best(all.iter().enumerate().map(|(at, port)| (at, *port)), kind, &meta)
        };
        let vxlan = (Kind::Vxlan, 4_789);
        assert_eq!(taken(2, 5, vxlan), Some(3), "an end of our own is better than the other");
        assert_eq!(taken(2, 6, vxlan), Some(0));
        assert_eq!(taken(3, 0, vxlan), Some(4));
        assert_eq!(taken(3, 0, (Kind::Vxlan, 4_790)), None);
        assert_eq!(taken(3, 0, (Kind::Geneve, 4_789)), None);
    }

    #[test]
    fn packets_come_in_where_they_are_taken() {
        let gre = |mode| Settings { mode, ..Settings::new(Kind::Gre, Address::Is(address(2))) };
        let all = [gre(Mode::Any), gre(Mode::Frames), gre(Mode::Packets)];
        let taken = |ports: &[Settings], inner| {
            let meta = Meta { inner, ..Meta::new(address(2), address(1)) };
            best(ports.iter().enumerate(), (Kind::Gre, 0), &meta)
        };
        let bare = Inner::Bare(packet::headers::EtherType::IPV4);
        assert_eq!((taken(&all, Inner::Ethernet), taken(&all, bare)), (Some(1), Some(2)));
        assert_eq!((taken(&all[..2], bare), taken(&all[1..2], bare)), (Some(0), None));
        assert_eq!(taken(&all[2..], Inner::Ethernet), None);
        for tag in [packet::headers::EtherType::VLAN, packet::headers::EtherType::QINQ] {
            let tag = Inner::Bare(tag);
            assert_eq!((taken(&all, tag), taken(&all[2..], tag)), (Some(0), None));
        }
        // An end that is named counts more.
        let named = Settings { local: Address::Is(address(1)), ..all[0].clone() };
        assert_eq!(taken(&[all[2].clone(), named], bare), Some(1));
    }

    #[test]
    fn what_goes_around_a_frame_is_set_or_wished_or_that_of_the_frame() {
        let settings = Settings {
            out_key: TunnelKey::Flow,
            tos: Inherited::Inner,
            ttl: Inherited::Inner,
            ..Settings::new(Kind::Geneve, Address::Flow)
        };
        let policy = Policy { group: 7, flags: 8 };
        let destination = Some(address(2));
        let erspan = Erspan::default();
        let wish = Wish { key: 0x0100_0007, source: None, destination, policy, erspan };
        let meta = settings.meta(&wish, Some((0xB9, 3))).unwrap();
        assert_eq!((meta.key, meta.tos, meta.ttl), (Some(7), 0xB9, 3));
        let meta = settings.meta(&wish, Some((0xBB, 3))).unwrap();
        assert_eq!(meta.tos, 0xBA, "what is congested is only capable outside");
        let meta = settings.meta(&wish, None).unwrap();
        assert_eq!((meta.tos, meta.ttl, meta.destination), (0, 64, address(2)));
        assert_eq!((meta.policy, meta.is_numbered), (None, false));
        let vxlan = Settings { has_policy: true, ..Settings::new(Kind::Vxlan, Address::Flow) };
        assert_eq!(vxlan.meta(&wish, None).unwrap().policy, Some(policy));
        assert_eq!(settings.meta(&Wish::default(), None), None);
        let fixed = Settings::new(Kind::Gre, Address::Is(address(3)));
        let meta = fixed.meta(&wish, Some((0xBA, 3))).unwrap();
        assert_eq!((meta.key, meta.tos, meta.ttl), (None, 2, 64));
        assert_eq!(fixed.inherits((0xBA, 3)), (2, 0), "only the bits of ECN");
    }

    proptest! {
        #[test]
        fn frames_of_which_the_same_matters_have_the_same_around_them(
            frames: [(u8, u8); 2],
            (tos, ttl) in any::<(Option<u8>, Option<u8>)>(),
        ) {
            let own = |fixed: Option<u8>| fixed.map_or(Inherited::Inner, |own| Inherited::Is(own & !ECN));
            let settings = Settings::new(Kind::Vxlan, Address::Is(address(2)));
            let settings = Settings { tos: own(tos), ttl: own(ttl), ..settings };
            let [a, b] = frames.map(|frame| settings.meta(&Wish::default(), Some(frame)).unwrap());
            let [of_a, of_b] = frames.map(|frame| settings.inherits(frame));
            prop_assert_eq!(of_a == of_b, (a.tos, a.ttl) == (b.tos, b.ttl));
        }
    }

    #[test]
    fn congestion_outside_is_told_inside_or_the_frame_is_dropped() {
        assert_eq!(Congestion::of(3, Some(1)), Congestion::Mark);
        assert_eq!(Congestion::of(3, Some(3)), Congestion::Keep);
        assert_eq!(Congestion::of(3, Some(0)), Congestion::Drop);
        assert_eq!(Congestion::of(3, None), Congestion::Keep);
        assert_eq!(Congestion::of(2, Some(0)), Congestion::Keep);
    }
}
