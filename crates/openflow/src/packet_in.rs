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

    /// Those with a name, as ovs-ofctl shows it.
    const NAMES: [(Self, &str); 6] = [
        (Self::NO_MATCH, "no_match"),
        (Self::ACTION, "action"),
        (Self::INVALID_TTL, "invalid_ttl"),
        (Self::ACTION_SET, "action_set"),
        (Self::GROUP, "group"),
        (Self::PACKET_OUT, "packet_out"),
    ];

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
