//! Packets that go to controllers.

/// Why a packet goes to a controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No flow was for it.
    NoMatch = 0,
    /// An action has sent it.
    #[default]
    Action = 1,
    /// Its time to live was over.
    InvalidTtl = 2,
    /// The action set has sent it (OpenFlow 1.4).
    ActionSet = 3,
    /// A group has sent it (OpenFlow 1.4).
    Group = 4,
    /// A packet that a controller had sent out went to it (OpenFlow 1.4).
    PacketOut = 5,
}
