//! Which tunnels there are.

use packet::headers::IpProtocol;

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
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Vxlan, Self::Geneve, Self::Gre];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
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
            Self::Gre => 0,
        }
    }

    /// The protocol that it is over.
    #[must_use]
    pub const fn protocol(self) -> IpProtocol {
        match self {
            Self::Vxlan | Self::Geneve => IpProtocol::UDP,
            Self::Gre => GRE,
        }
    }

    /// The largest key that there is room for.
    #[must_use]
    pub const fn max_key(self) -> u64 {
        match self {
            Self::Vxlan | Self::Geneve => 0xFF_FFFF,
            Self::Gre => 0xFFFF_FFFF,
        }
    }
}
