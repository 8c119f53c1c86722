//! What is checked of IPv4, IPv6 and ARP: the sender's addresses, wherever a receiver would believe
//! them, and what only servers and routers say.

use ethdev::DropReason;
use packet::MacAddr;
use packet::headers::{Arp, IpProtocol, Ipv4, Ipv6, Udp};

use super::rules::{Denied, Rules};

/// Where DHCP servers listen, and clients (RFC 2131, section 4.1; RFC 8415, section 7.2).
pub(super) const DHCP: [u16; 2] = [67, 68];
const DHCP6: [u16; 2] = [547, 546];

/// What a DHCP message is: from a client or from a server (RFC 2131, section 2).
const BOOTREQUEST: u8 = 1;
const BOOTREPLY: u8 = 2;

/// The kinds of DHCPv6 messages that servers send: advertise, reply, reconfigure, relay-reply (RFC
/// 8415, section 7.3).
const FROM_SERVERS: [u8; 4] = [2, 7, 10, 13];

/// ICMPv6: listener reports (RFC 2710, RFC 3810), and neighbour discovery (RFC 4861, section 4).
const LISTENER_REPORT: u8 = 131;
const LISTENER_DONE: u8 = 132;
const LISTENER_REPORT_V2: u8 = 143;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Options of neighbour discovery: the sender's link-layer address, and the target's.
const LINK_ADDRESSES: [u8; 2] = [1, 2];

/// The operations of ARP and RARP by which one that has no address yet asks for it, or whether
/// somebody else has it (RFC 5227, section 2.1; RFC 903).
const ASKING: [u16; 2] = [1, 3];

type Checked = Result<(), Denied>;

/// Refuses for a reason, unless it is all right.
#[inline]
const fn allow(is_allowed: bool, reason: DropReason) -> Checked {
    if is_allowed { Ok(()) } else { Err(Denied::For(reason)) }
}

impl Rules {
    /// Whether an IPv4 packet from MAC address `source` may come in.
    #[inline]
    pub(super) fn check_ipv4(&self, packet: &[u8], source: u64) -> Checked {
        let ip = Ipv4::parse(packet).ok_or(Denied::Short)?;
        let from = u32::from(ip.source());
        let is_known = !self.limits_ips || self.v4.contain(from);
        // What follows a first fragment has no ports, and does not come through without it.
        if ip.protocol() == IpProtocol::UDP && ip.fragment_offset() == 0 {
            return self.check_udp(&ip, is_known, source);
        }
        allow(is_known, DropReason::IpSpoofed)
    }

    #[inline(never)]
    fn check_udp(&self, ip: &Ipv4<'_>, is_known: bool, source: u64) -> Checked {
        let udp = Udp::parse(ip.payload()).ok_or(Denied::Short)?;
        let [server, client] = DHCP;
        let is_new = ip.source().is_unspecified() && ip.destination().is_broadcast();
        let is_for_server = udp.destination_port() == server;
        allow(is_known || (is_new && is_for_server), DropReason::IpSpoofed)?;
        if udp.destination_port() == client {
            return allow(!self.guards_dhcp, DropReason::DhcpServer);
        }
        if is_for_server { self.check_dhcp(ip.payload(), source) } else { Ok(()) }
    }

    /// Checks a message to a DHCP server, in a UDP datagram; offsets are from RFC 2131, figure 1.
    fn check_dhcp(&self, datagram: &[u8], source: u64) -> Checked {
        let message = datagram.get(8..).and_then(|message| message.first_chunk::<34>());
        let message = message.ok_or(Denied::Short)?;
        let [operation, hardware, hardware_len, ..] = *message;
        if operation == BOOTREPLY {
            return allow(!self.guards_dhcp, DropReason::DhcpServer);
        }
        allow(operation == BOOTREQUEST, DropReason::Malformed)?;
        if self.trusts_dhcp || !self.limits_addresses() {
            return Ok(());
        }
        let [.., a, b, c, d, e, f] = *message;
        let is_own = self.may_claim(MacAddr([a, b, c, d, e, f]), source);
        let has = u32::from_be_bytes([message[12], message[13], message[14], message[15]]);
        // An address that it says it has, so that nobody gives up another's.
        let has_it = has == 0 || !self.limits_ips || self.v4.contain(has);
        let is_ethernet = (hardware, hardware_len) == (1, 6);
        allow(is_own && has_it && is_ethernet, DropReason::DhcpSpoofed)
    }

    /// Whether an ARP or RARP packet may come in.
    pub(super) fn check_arp(&self, packet: &[u8], source: u64) -> Checked {
        if !self.limits_addresses() {
            return Ok(());
        }
        let arp = Arp::parse(packet).ok_or(Denied::Short)?;
        let ip = arp.sender_ip();
        let asks = ip.is_unspecified() && ASKING.contains(&arp.operation().0);
        let has_it = !self.limits_ips || asks || self.v4.contain(u32::from(ip));
        allow(has_it && self.may_claim(arp.sender_mac(), source), DropReason::ArpSpoofed)
    }

    /// Whether an IPv6 packet may come in.
    pub(super) fn check_ipv6(&self, packet: &[u8], source: u64) -> Checked {
        let ip = Ipv6::parse(packet).ok_or(Denied::Short)?;
        // The headers of a first fragment must be all there (RFC 7112, section 5).
        let upper = ip.upper().ok_or(Denied::Short)?;
        let is_known = self.knows(u128::from(ip.source()));
        if upper.fragment_offset.is_some_and(|offset| offset > 0) {
            return allow(is_known, DropReason::IpSpoofed);
        }
        if upper.protocol == IpProtocol::ICMPV6 {
            return self.check_icmp(&ip, upper.payload, upper.fragment_offset.is_some(), source);
        }
        allow(is_known, DropReason::IpSpoofed)?;
        if upper.protocol == IpProtocol::UDP { self.check_udp6(upper.payload) } else { Ok(()) }
    }

    fn knows(&self, address: u128) -> bool {
        !self.limits_ips || self.v6.contain(address)
    }

    fn check_udp6(&self, datagram: &[u8]) -> Checked {
        let udp = Udp::parse(datagram).ok_or(Denied::Short)?;
        let [server, client] = DHCP6;
        let is_from_server = match udp.destination_port() {
            port if port == client => true,
            port if port == server => {
                let kind = datagram.get(8).ok_or(Denied::Short)?;
                FROM_SERVERS.contains(kind)
            }
            _ => false,
        };
        allow(!self.guards_dhcp || !is_from_server, DropReason::DhcpServer)
    }

    fn check_icmp(&self, ip: &Ipv6<'_>, message: &[u8], is_fragment: bool, source: u64) -> Checked {
        let kind = *message.first().ok_or(Denied::Short)?;
        let is_known = self.knows(u128::from(ip.source()));
        let is_new = ip.source().is_unspecified();
        match kind {
            // A host that has no address yet may ask, and report which groups it listens to.
            ROUTER_SOLICITATION
            | NEIGHBOUR_SOLICITATION
            | LISTENER_REPORT
            | LISTENER_DONE
            | LISTENER_REPORT_V2 => allow(is_known || is_new, DropReason::IpSpoofed)?,
            _ => allow(is_known, DropReason::IpSpoofed)?,
        }
        if !(ROUTER_SOLICITATION..=REDIRECT).contains(&kind) {
            return Ok(());
        }
        // RFC 6980: nobody may fragment these, so that their checks need not put them together.
        allow(!is_fragment, DropReason::Malformed)?;
        if matches!(kind, ROUTER_ADVERTISEMENT | REDIRECT) {
            // One that may be a router may speak of others, with as many options as it likes.
            return allow(!self.guards_ra, DropReason::RouterAdvertisement);
        }
        if !self.limits_addresses() {
            return Ok(());
        }
        if !ip.is_complete() {
            // An option behind what is looked at might be the one.
            return Err(Denied::Short);
        }
        let options = match kind {
            ROUTER_SOLICITATION => message.get(8..),
            _ => message.get(24..),
        };
        let options = options.ok_or(Denied::Short)?;
        let target = message.get(8..).and_then(|target| target.first_chunk::<16>());
        let target = target.map_or(0, |target| u128::from_be_bytes(*target));
        let claims = match kind {
            // Who has no address asks whether somebody else has what it wants.
            NEIGHBOUR_SOLICITATION => is_new,
            kind => kind == NEIGHBOUR_ADVERTISEMENT,
        };
        allow(!claims || self.knows(target), DropReason::NdSpoofed)?;
        self.check_options(options, is_new, source)
    }

    /// Checks the link-layer addresses in options of neighbour discovery, of which one that has
    /// no address yet may have none (RFC 4861, section 4.3).
    fn check_options(&self, mut options: &[u8], is_new: bool, source: u64) -> Checked {
        while let [kind, units, ..] = *options {
            let len = usize::from(units) * 8;
            let (option, rest) = options.split_at_checked(len).ok_or(Denied::Short)?;
            // One without length would be there again and again.
            let [_, _, body @ ..] = option else { return Err(Denied::Short) };
            if LINK_ADDRESSES.contains(&kind) {
                let mac = body.first_chunk::<6>().ok_or(Denied::Short)?;
                let is_own = !is_new && self.may_claim(MacAddr(*mac), source);
                allow(is_own, DropReason::NdSpoofed)?;
            }
            options = rest;
        }
        allow(options.is_empty(), DropReason::Malformed)
    }
}
