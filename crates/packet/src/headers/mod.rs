//! Views of protocol headers: fixed offsets over private bytes, checked once.
//!
//! Each view's `parse` checks that its whole header is there; after that no accessor can fail.
//! It takes what a frame's private head holds, which may end in the middle of the payload, so
//! `payload` is as much of the payload as there is, without the padding that short Ethernet
//! frames carry.
//!
//! - [`arp`]: ARP for IPv4
//! - [`ethernet`]: Ethernet II and VLAN tags
//! - [`icmp`]: ICMP and ICMPv6
//! - [`ipv4`]: the IPv4 header
//! - [`ipv6`]: IPv6 and its extension headers
//! - [`nsh`]: the network service header
//! - [`tcp`]: the TCP header
//! - [`udp`]: the UDP header

pub mod arp;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod nsh;
pub mod tcp;
pub mod udp;

pub use arp::{Arp, ArpOperation};
pub use ethernet::{EtherType, Ethernet, EthernetMut, VlanTag};
pub use icmp::Icmp;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use nsh::Nsh;
pub use tcp::{Tcp, TcpFlags};
pub use udp::Udp;

/// The protocol above IP (IANA "Assigned Internet Protocol Numbers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// IPv6: nothing follows.
    pub const NONE: Self = Self(59);
}
