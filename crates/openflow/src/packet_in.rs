//! Packets that go to controllers.

/// Why a packet goes to a controller. There are more numbers than names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason(pub u8);

impl Reason {
    /// No flow was for it.
    pub const NO_MATCH: Self = Self(0);
    /// An action has sent it.
    pub const ACTION: Self = Self(1);
    /// Its time to live was over.
    pub const INVALID_TTL: Self = Self(2);
    /// The action set has sent it (OpenFlow 1.4).
    pub const ACTION_SET: Self = Self(3);
    /// A group has sent it (OpenFlow 1.4).
    pub const GROUP: Self = Self(4);
    /// A packet that a controller had sent out went to it (OpenFlow 1.4).
    pub const PACKET_OUT: Self = Self(5);
    /// Within a switch: a rule that is for what no other rule is for has sent it. Messages say
    /// [`NO_MATCH`](Self::NO_MATCH).
    pub const EXPLICIT_MISS: Self = Self(6);
    /// Within a switch: no rule was for it, and none has sent it. Messages say the same.
    pub const IMPLICIT_MISS: Self = Self(7);

    /// Those with a name, as ovs-ofctl shows it.
    const NAMES: [(Self, &str); 6] = [
        (Self::NO_MATCH, "no_match"),
        (Self::ACTION, "action"),
        (Self::INVALID_TTL, "invalid_ttl"),
        (Self::ACTION_SET, "action_set"),
        (Self::GROUP, "group"),
        (Self::PACKET_OUT, "packet_out"),
    ];

    /// Whether no rule was for it, or it is said so.
    #[must_use]
    pub const fn is_miss(self) -> bool {
        matches!(self, Self::NO_MATCH | Self::EXPLICIT_MISS | Self::IMPLICIT_MISS)
    }

    /// The one of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let named = Self::NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
        named.map(|(reason, _)| *reason)
    }
}

/// Its name, or its number.
impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Self::NAMES.iter().find(|(reason, _)| reason == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}
