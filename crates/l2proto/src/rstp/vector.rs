//! What messages say of a tree: who is its root, how far that is, and who says so (IEEE 802.1D-2004
//! clause 17.6).

use std::fmt;

use packet::MacAddr;

/// A bridge: its priority, and its address. Lower is better (clause 9.2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BridgeName(pub u64);

impl BridgeName {
    /// The bridge with this priority and address.
    pub fn new(priority: u16, address: MacAddr) -> Self {
        let [a, b, c, d, e, f] = address.0;
        let [high, low] = priority.to_be_bytes();
        Self(u64::from_be_bytes([high, low, a, b, c, d, e, f]))
    }

    /// Its priority.
    pub fn priority(self) -> u16 {
        let [high, low, ..] = self.0.to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// Its address.
    pub fn address(self) -> MacAddr {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        MacAddr([a, b, c, d, e, f])
    }
}

impl fmt::Display for BridgeName {
    /// As Open vSwitch and Linux write it: the priority in four hexadecimal digits, and the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.address().0;
        write!(f, "{:04x}.{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{g:02x}", self.priority())
    }
}

/// A priority vector, but for the port that receives it. Lower is better, from the first component to
/// the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vector {
    /// The root.
    pub root: BridgeName,
    /// The cost of the path to the root.
    pub cost: u32,
    /// The designated bridge, and its port.
    pub bridge: BridgeName,
    /// The port's identifier: its priority and number.
    pub port: u16,
}

/// Bits of a port's identifier that are its number (clause 9.2.7).
const NUMBER: u16 = 0xFFF;

impl Vector {
    /// Whether a message with this takes the place of what is known: it is better, or from the same port
    /// of the same bridge (clause 17.6).
    pub fn replaces(&self, known: &Self) -> bool {
        let is_from_same = self.bridge.address() == known.bridge.address()
            && self.port & NUMBER == known.port & NUMBER;
        self < known || is_from_same
    }

    /// The same at the other end of a port with this cost.
    pub const fn behind(&self, cost: u32) -> Self {
        Self { cost: self.cost.saturating_add(cost), ..*self }
    }
}

/// The times of a tree, in seconds, which its root decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How many bridges the message has passed.
    pub message_age: u8,
    /// How many bridges it may pass.
    pub max_age: u8,
    /// How often the root speaks.
    pub hello: u8,
    /// How long a port waits before it learns, and again before it forwards.
    pub forward_delay: u8,
}

impl Times {
    /// The same within the bounds of table 17-1, so that no neighbour can have a port wait for ever, or
    /// forward at once.
    pub fn within_bounds(self) -> Self {
        Self {
            message_age: self.message_age,
            max_age: self.max_age.clamp(6, 40),
            hello: self.hello.clamp(1, 10),
            forward_delay: self.forward_delay.clamp(4, 30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_one_is_better_and_the_same_port_is_believed() {
        let name = |priority, last| BridgeName::new(priority, MacAddr([2, 0, 0, 0, 0, last]));
        assert!(name(4096, 9) < name(8192, 1) && name(4096, 1) < name(4096, 9));
        assert_eq!(name(0x8000, 0xAB).to_string(), "8000.0200000000ab");
        assert_eq!((name(4096, 9).priority(), name(4096, 9).address().0[5]), (4096, 9));
        let vector = |cost, port| Vector { root: name(0, 1), cost, bridge: name(0, 2), port };
        assert!(vector(10, 0x8001).replaces(&vector(20, 0x8002)));
        assert!(!vector(20, 0x8002).replaces(&vector(10, 0x8001)));
        assert!(vector(20, 0x8001).replaces(&vector(10, 0x7001)), "it has changed its mind");
        assert_eq!(vector(u32::MAX, 1).behind(7).cost, u32::MAX);
    }
}
