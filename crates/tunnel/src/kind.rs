//! Which tunnels there are.

use packet::headers::IpProtocol;

use crate::erspan::{Erspan, MAX_SESSION};

/// The protocol of GRE (RFC 2784, section 4).
const GRE: IpProtocol = IpProtocol(47);

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
    /// RFC 2784, with the key of RFC 2890.
    Gre,
    /// Mirrored frames over GRE (draft-foschiano-erspan-03).
    Erspan,
    /// Packets of mobile networks (3GPP TS 29.281).
    Gtpu,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Vxlan, Self::Geneve, Self::Gre, Self::Erspan, Self::Gtpu];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::Erspan => "erspan",
            Self::Gtpu => "gtpu",
        }
    }

    /// That of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The port of UDP that it goes to where nothing else is said; 0 where it is not over UDP.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Vxlan => 4_789,
            Self::Geneve => 6_081,
            Self::Gtpu => 2_152,
            Self::Gre | Self::Erspan => 0,
        }
    }

    /// Whether it is over UDP.
    #[must_use]
    pub const fn is_over_udp(self) -> bool {
        !matches!(self, Self::Gre | Self::Erspan)
    }

    /// That over GRE which says that it is around this.
    #[must_use]
    pub fn over_gre(ether_type: u16) -> Self {
        if Erspan::announced(ether_type).is_some() { Self::Erspan } else { Self::Gre }
    }

    /// The protocol that it is over.
    #[must_use]
    pub const fn protocol(self) -> IpProtocol {
        match self {
            Self::Vxlan | Self::Geneve | Self::Gtpu => IpProtocol::UDP,
            Self::Gre | Self::Erspan => GRE,
        }
    }

    /// The largest key that there is room for.
    #[must_use]
    pub const fn max_key(self) -> u64 {
        match self {
            Self::Vxlan | Self::Geneve => 0xFF_FFFF,
            Self::Gre | Self::Gtpu => 0xFFFF_FFFF,
            Self::Erspan => MAX_SESSION,
        }
    }
}
