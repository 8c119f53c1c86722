//! What is known of a packet once it was tracked.

use std::ops::BitOr;

use crate::helper::Helper;
use crate::nat::Nat;
use crate::tuple::Tuple;

/// What a packet is to its connection; the bits of OpenFlow's `ct_state` (`ovs-fields(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State(pub u8);

impl State {
    /// It begins one, or would.
    pub const NEW: Self = Self(0x01);
    /// It is of one that has been seen in both directions.
    pub const ESTABLISHED: Self = Self(0x02);
    /// It came of another connection: an error that somebody reports, or one of a connection that the other
    /// one has announced.
    pub const RELATED: Self = Self(0x04);
    /// It goes the way that the first packet did not go.
    pub const REPLY: Self = Self(0x08);
    /// It cannot be of any.
    pub const INVALID: Self = Self(0x10);
    /// It was tracked; all others are set only with this.
    pub const TRACKED: Self = Self(0x20);
    /// Its source was translated.
    pub const SOURCE_NAT: Self = Self(0x40);
    /// Its destination was translated.
    pub const DESTINATION_NAT: Self = Self(0x80);

    /// Whether all bits of another one are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for State {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What is known of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// What it is to its connection.
    pub state: State,
    /// In which zone.
    pub zone: u16,
    /// The connection's mark.
    pub mark: u32,
    /// The connection's label.
    pub label: u128,
    /// The connection's first packet, or that of one that would begin with this packet; `None` where it
    /// cannot be of any. Where another connection has announced this one: the first packet of that.
    pub original: Option<Tuple>,
    /// Who has to look at what it carries, before it goes on ([`Lane::overhear`](crate::Lane::overhear)).
    pub helper: Option<Helper>,
}

impl Tracked {
    /// A packet that cannot be of any connection.
    pub(crate) const fn invalid(zone: u16) -> Self {
        let state = State(State::INVALID.0 | State::TRACKED.0);
        Self { state, zone, mark: 0, label: 0, original: None, helper: None }
    }
}

/// What is to be done with a packet's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Request {
    /// In which zone it is looked for.
    pub zone: u16,
    /// Whether one that there is not yet is kept.
    pub commit: bool,
    /// Whether one that began in the other direction ends, so that one in this direction can begin.
    pub force: bool,
    /// What is written to its mark, and to which bits.
    pub mark: Option<(u32, u32)>,
    /// What is written to its label, and to which bits.
    pub label: Option<(u128, u128)>,
    /// How its addresses are translated.
    pub nat: Option<Nat>,
    /// Who looks at what packets of one carry that begins.
    pub helper: Option<Helper>,
    /// The packet was translated in this zone before, and is not again.
    pub is_translated: bool,
    /// What the packet was to its connection where it was tracked in this zone before; it stays that, and has the
    /// connection come no further.
    pub before: Option<State>,
}

/// How a packet of a connection is translated: its ends, as they came, and what they are then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// As they came; where the packet is an error: the other way round as in the packet that it is about.
    pub before: Tuple,
    /// What they are then, in the same direction.
    pub after: Tuple,
    /// Whether it is an error about a packet of the connection, which is in it.
    pub is_error: bool,
}
