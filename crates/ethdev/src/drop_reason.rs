//! Why frames are dropped, which every queue counts reason by reason.

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// The destination's ring had no free buffer.
    RingFull,
    /// The destination is not there: no peer, link down, or queue disabled.
    LinkDown,
    /// The frame is longer than the destination's MTU allows.
    TooLong,
    /// The frame does not fit into the buffers that the receiver offered for it.
    BufferTooSmall,
    /// The frame is shorter than an Ethernet header.
    TooShort,
    /// A descriptor is invalid: outside the shared memory, of the wrong direction, a chain
    /// without end.
    BadDescriptor,
    /// The virtio-net header asks for something that the frame does not allow.
    BadHeader,
    /// The queue is started but disabled: what it sends is discarded.
    QueueDisabled,
    /// The switch has no port for the frame: its destination is the port it came from.
    Hairpin,
    /// A reserved multicast address, which a bridge does not forward (IEEE 802.1Q table 8-1).
    ReservedMulticast,
    /// The source address is a group address or zero.
    BadSource,
    /// The frame is in a VLAN that the port does not carry, where it came in or where it should go
    /// out.
    WrongVlan,
    /// The frame has passed more patch ports in a row than there can be in earnest: they make a loop.
    PatchLoop,
    /// More than the port's rate limit lets through: in, where the frame came from, or out, where it
    /// should go.
    RateLimited,
    /// It came in on the output port of a mirror, which is for copies alone.
    MirrorPort,
    /// It came in on a member of a bond that is not in use.
    InactiveMember,
    /// It came back by a bond that its bridge has sent it to.
    CameBack,
    /// It goes to a group that no port has members of, and of a bridge that keeps it from all others.
    NoListener,
    /// What only multicast routers say, from a port that is set to have none.
    MulticastQuery,
    /// It comes from a MAC address that its port may not use.
    MacSpoofed,
    /// It comes from an IP address that its port may not use.
    IpSpoofed,
    /// It says of itself in ARP what its port may not say: another's MAC or IPv4 address.
    ArpSpoofed,
    /// The same in IPv6 neighbour discovery.
    NdSpoofed,
    /// The same in a DHCP client's message.
    DhcpSpoofed,
    /// A DHCP server's message, from a port that may have no server.
    DhcpServer,
    /// A router's message of IPv6 neighbour discovery, from a port that may have no router.
    RouterAdvertisement,
    /// A protocol by which a port whose addresses are limited could get round that.
    OtherProtocol,
    /// It would have gone to isolated ports alone, and comes from one.
    Isolated,
    /// More than the port's storm limit for broadcasts lets through.
    BroadcastLimited,
    /// The same for other groups.
    MulticastLimited,
    /// The same for addresses that nobody has been heard from.
    UnknownLimited,
    /// Its source is one more address than the port may have.
    AddressLimit,
    /// A bridge's message of spanning tree, from a port that may have no bridge; and all that comes
    /// from a port that was shut for one.
    Bpdu,
    /// It came in on a port, or would have gone out on one, that does not forward by spanning tree.
    SpanningTree,
    /// No rule of its bridge's flow tables is for it.
    NoFlow,
    /// Rules of its bridge's flow tables send it nowhere.
    FlowDrop,
    /// Its way through its bridge's flow tables has no end.
    FlowTooDeep,
    /// It came to too many flow tables.
    FlowTooLong,
    /// Rules of its bridge's flow tables put too much on its stack.
    FlowStack,
    /// Rules of its bridge's flow tables would give it more labels of MPLS than are looked at.
    FlowLabels,
    /// Rules of its bridge's flow tables would put a header on, or take one off, that packets of its kind
    /// cannot have, or have not.
    FlowPacketType,
    /// More than a meter of its bridge's rules lets through.
    FlowMeter,
    /// It is a fragment that is too short, or such as nobody makes.
    FragmentBad,
    /// It is a fragment that is over others of its packet, or there already.
    FragmentOverlap,
    /// It is a fragment for which there was no room until all of its packet would have been there.
    FragmentNoRoom,
    /// It was to go into a tunnel, and nobody has said where to, or no route leads there.
    NoRoute,
    /// The same, and the next hop has not said yet where it is: it is asked.
    NoNeighbour,
    /// It has come by a tunnel that there is no port of.
    NoTunnel,
    /// It has come by a tunnel, and the outer checksum is wrong.
    BadChecksum,
    /// It has come by a tunnel, met congestion there, and cannot say so.
    Congested,
    /// Its headers cannot be read as the protocol that it claims to be, and its port's are checked.
    Malformed,
    /// The port's receive filter refuses the frame.
    Filtered,
    /// No packet buffer was free.
    NoBuffer,
    /// The device refused the frame with an error, which the driver has logged.
    DeviceError,
}

impl DropReason {
    /// The number of reasons.
    pub const COUNT: usize = 54;

    /// All reasons, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [
        Self::RingFull,
        Self::LinkDown,
        Self::TooLong,
        Self::BufferTooSmall,
        Self::TooShort,
        Self::BadDescriptor,
        Self::BadHeader,
        Self::QueueDisabled,
        Self::Hairpin,
        Self::ReservedMulticast,
        Self::BadSource,
        Self::WrongVlan,
        Self::PatchLoop,
        Self::RateLimited,
        Self::MirrorPort,
        Self::InactiveMember,
        Self::CameBack,
        Self::NoListener,
        Self::MulticastQuery,
        Self::MacSpoofed,
        Self::IpSpoofed,
        Self::ArpSpoofed,
        Self::NdSpoofed,
        Self::DhcpSpoofed,
        Self::DhcpServer,
        Self::RouterAdvertisement,
        Self::OtherProtocol,
        Self::Isolated,
        Self::BroadcastLimited,
        Self::MulticastLimited,
        Self::UnknownLimited,
        Self::AddressLimit,
        Self::Bpdu,
        Self::SpanningTree,
        Self::NoFlow,
        Self::FlowDrop,
        Self::FlowTooDeep,
        Self::FlowTooLong,
        Self::FlowStack,
        Self::FlowLabels,
        Self::FlowPacketType,
        Self::FlowMeter,
        Self::FragmentBad,
        Self::FragmentOverlap,
        Self::FragmentNoRoom,
        Self::NoRoute,
        Self::NoNeighbour,
        Self::NoTunnel,
        Self::BadChecksum,
        Self::Congested,
        Self::Malformed,
        Self::Filtered,
        Self::NoBuffer,
        Self::DeviceError,
    ];

    /// The reason's name in statistics: lower case with underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::LinkDown => "link_down",
            Self::TooLong => "too_long",
            Self::BufferTooSmall => "buffer_too_small",
            Self::TooShort => "too_short",
            Self::BadDescriptor => "bad_descriptor",
            Self::BadHeader => "bad_header",
            Self::QueueDisabled => "queue_disabled",
            Self::Hairpin => "hairpin",
            Self::ReservedMulticast => "reserved_multicast",
            Self::BadSource => "bad_source",
            Self::WrongVlan => "wrong_vlan",
            Self::PatchLoop => "patch_loop",
            Self::RateLimited => "rate_limited",
            Self::MirrorPort => "mirror_port",
            Self::InactiveMember => "inactive_member",
            Self::CameBack => "came_back",
            Self::NoListener => "no_listener",
            Self::MulticastQuery => "multicast_query",
            Self::MacSpoofed => "mac_spoofed",
            Self::IpSpoofed => "ip_spoofed",
            Self::ArpSpoofed => "arp_spoofed",
            Self::NdSpoofed => "nd_spoofed",
            Self::DhcpSpoofed => "dhcp_spoofed",
            Self::DhcpServer => "dhcp_server",
            Self::RouterAdvertisement => "router_advertisement",
            Self::OtherProtocol => "other_protocol",
            Self::Isolated => "isolated",
            Self::BroadcastLimited => "broadcast_limited",
            Self::MulticastLimited => "multicast_limited",
            Self::UnknownLimited => "unknown_limited",
            Self::AddressLimit => "address_limit",
            Self::Bpdu => "bpdu",
            Self::SpanningTree => "spanning_tree",
            Self::NoFlow => "no_flow",
            Self::FlowDrop => "flow_drop",
            Self::FlowTooDeep => "flow_too_deep",
            Self::FlowTooLong => "flow_too_long",
            Self::FlowStack => "flow_stack",
            Self::FlowLabels => "flow_labels",
            Self::FlowPacketType => "flow_packet_type",
            Self::FlowMeter => "flow_meter",
            Self::FragmentBad => "fragment_bad",
            Self::FragmentOverlap => "fragment_overlap",
            Self::FragmentNoRoom => "fragment_no_room",
            Self::NoRoute => "no_route",
            Self::NoNeighbour => "no_neighbour",
            Self::NoTunnel => "no_tunnel",
            Self::BadChecksum => "bad_checksum",
            Self::Congested => "congested",
            Self::Malformed => "malformed",
            Self::Filtered => "filtered",
            Self::NoBuffer => "no_buffer",
            Self::DeviceError => "device_error",
        }
    }
}
