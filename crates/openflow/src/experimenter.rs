//! Whose extensions are known: the numbers of experimenters, called vendors in OpenFlow 1.0.

/// Nicira, whose extensions are those of Open vSwitch.
pub const NICIRA: u32 = 0x0000_2320;

/// The Open Networking Foundation, whose extensions of OpenFlow 1.3 are parts of OpenFlow 1.4.
pub const ONF: u32 = 0x4f4e_4600;
