//! The key of a packet: all that rules can match on, in words of fixed places.
//!
//! A [`Slot`] is the place of one field. Matching and changing a field are the same few operations
//! on words, whatever field it is; nothing but the tables of fields knows what a word means.

use crate::pipeline::VlanLimit;

/// Words of a key.
pub const WORDS: usize = 53;

/// The first so many words are made of the packet itself, and are what a path depends on; the
/// others are empty when a packet comes in.
pub const PACKET_WORDS: usize = 32;

/// The first so many words are what the path of a packet that was tracked depends on, with what it goes
/// on with: those of the packet itself, and of its connection.
pub const TRACKED_WORDS: usize = 41;

/// The first so many words are what the path of a packet depends on that has come with a mark.
pub(crate) const MARKED_WORDS: usize = TRACKED_WORDS + 1;

/// Set in the control information of a tag that is there, as OVS does (the place of the CFI bit).
pub const TAG_PRESENT: u16 = 0x1000;

/// Words with what is in the headers of the packet.
const OF_HEADERS: usize = TUNNEL.start - slot::ETH_DST.word();

/// The words that say which tunnel a packet has come by, or is to go into.
const TUNNEL: std::ops::Range<usize> = 20..PACKET_WORDS;

/// EtherType of frames that have none (IEEE 802.3 with LLC, but no SNAP header of Ethernet).
pub const NO_ETHER_TYPE: u16 = 0x05FF;

/// What is behind labels of MPLS: what is not known, IPv4, IPv6, or ARP. Only a rule that takes labels off
/// can see it.
pub const INSIDE: [u16; 4] = [0, 0x0800, 0x86DD, 0x0806];

/// The packet is a fragment.
pub const FRAG_ANY: u8 = 1;

/// It is one, and not the first.
pub const FRAG_LATER: u8 = 2;

/// Where a field is in a [`Key`]: bits of one word, or two whole words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Number of the word; of the more significant one, where there are two.
    word: u8,
    /// Number of its lowest bit.
    shift: u8,
    /// How many bits it has, 128 at most.
    width: u8,
}

impl Slot {
    const fn new(word: u8, shift: u8, width: u8) -> Self {
        Self { word, shift, width }
    }

    /// Number of the word it begins in.
    #[must_use]
    pub const fn word(self) -> usize {
        self.word as usize
    }

    /// How many bits it has.
    #[must_use]
    pub const fn width(self) -> u8 {
        self.width
    }

    /// The words that it is in, each with the bits of `value` there.
    #[inline]
    pub fn spread(self, value: u128) -> impl Iterator<Item = (usize, u64)> {
        let word = self.word();
        let [first, second] = match self.width {
            65.. => [Some((word, low(value >> 64))), Some((word + 1, low(value)))],
            _ => [Some((word, low(value & self.ones()) << self.shift)), None],
        };
        first.into_iter().chain(second)
    }

    /// A value of which all bits are set.
    #[must_use]
    #[inline]
    pub const fn ones(self) -> u128 {
        match self.width {
            128.. => u128::MAX,
            width => (1 << width) - 1,
        }
    }
}

/// The lower half.
#[inline]
fn low(value: u128) -> u64 {
    u64::try_from(value & u128::from(u64::MAX)).unwrap_or_default()
}

/// The places of fields. Those with prerequisites that exclude each other share one, as in OVS.
pub mod slot {
    use super::Slot;

    /// The port where the packet came in, by its OpenFlow number.
    pub const IN_PORT: Slot = Slot::new(0, 0, 32);
    /// How often it has come round: 0 for what comes from a port.
    pub const RECIRC_ID: Slot = Slot::new(0, 32, 32);
    /// Where the frame goes.
    pub const ETH_DST: Slot = Slot::new(1, 0, 48);
    /// What it carries, behind tags.
    pub const ETH_TYPE: Slot = Slot::new(1, 48, 16);
    /// Where it is from.
    pub const ETH_SRC: Slot = Slot::new(2, 0, 48);
    /// [`FRAG_ANY`](super::FRAG_ANY) and [`FRAG_LATER`](super::FRAG_LATER).
    pub const IP_FRAG: Slot = Slot::new(2, 48, 8);
    /// Control information of the outer tag, with [`TAG_PRESENT`](super::TAG_PRESENT).
    pub const VLAN_TCI: Slot = Slot::new(3, 0, 16);
    /// Its VLAN.
    pub const VLAN_VID: Slot = Slot::new(3, 0, 12);
    /// Its VLAN, and whether there is a tag.
    pub const VLAN_VID_PRESENT: Slot = Slot::new(3, 0, 13);
    /// Its priority.
    pub const VLAN_PCP: Slot = Slot::new(3, 13, 3);
    /// What kind of tag it is.
    pub const VLAN_TPID: Slot = Slot::new(3, 16, 16);
    /// Control information of the tag behind.
    pub const INNER_TCI: Slot = Slot::new(3, 32, 16);
    /// What kind of tag that is.
    pub const INNER_TPID: Slot = Slot::new(3, 48, 16);
    /// Source of IPv4, or what ARP says of its sender.
    pub const IPV4_SRC: Slot = Slot::new(4, 32, 32);
    /// Destination of IPv4, or whom ARP asks for.
    pub const IPV4_DST: Slot = Slot::new(4, 0, 32);
    /// Source port of TCP, UDP or SCTP, or the type of ICMP.
    pub const TP_SRC: Slot = Slot::new(5, 0, 16);
    /// Destination port, or the code of ICMP.
    pub const TP_DST: Slot = Slot::new(5, 16, 16);
    /// Flags of TCP.
    pub const TCP_FLAGS: Slot = Slot::new(5, 32, 12);
    /// Protocol of IP, or the operation of ARP.
    pub const IP_PROTO: Slot = Slot::new(5, 48, 8);
    /// Type of service, ECN included.
    pub const IP_TOS: Slot = Slot::new(5, 56, 8);
    /// Its lowest two bits.
    pub const IP_ECN: Slot = Slot::new(5, 56, 2);
    /// Its highest six.
    pub const IP_DSCP: Slot = Slot::new(5, 58, 6);
    /// Time to live, or hop limit.
    pub const IP_TTL: Slot = Slot::new(6, 0, 8);
    /// Flow label of IPv6.
    pub const IPV6_LABEL: Slot = Slot::new(6, 8, 20);
    /// What is reserved in a message of neighbour discovery.
    pub const ND_RESERVED: Slot = Slot::new(6, 32, 32);
    /// Source of IPv6.
    pub const IPV6_SRC: Slot = Slot::new(7, 0, 128);
    /// Destination of IPv6.
    pub const IPV6_DST: Slot = Slot::new(9, 0, 128);
    /// Whom neighbour discovery asks for.
    pub const ND_TARGET: Slot = Slot::new(11, 0, 128);
    /// Sender's address in ARP, or source link layer address of neighbour discovery.
    pub const ARP_SHA: Slot = Slot::new(13, 0, 48);
    /// Type of the option of neighbour discovery.
    pub const ND_OPTIONS_TYPE: Slot = Slot::new(13, 48, 8);
    /// Target's address in ARP, or target link layer address of neighbour discovery.
    pub const ARP_THA: Slot = Slot::new(14, 0, 48);
    /// How long the frame is, or another length of which the same is true as of that (`lengths`).
    pub const FRAME_LEN: Slot = Slot::new(14, 48, 16);
    /// The outermost label of MPLS, with class, end of stack and time to live.
    pub const MPLS_LSE: Slot = Slot::new(15, 32, 32);
    /// The label behind that, with all that belongs to it.
    pub const MPLS_LSE1: Slot = Slot::new(15, 0, 32);
    /// The third one; what is behind it is not looked at.
    pub const MPLS_LSE2: Slot = Slot::new(16, 32, 32);
    /// What is behind the labels, whose fields are in the key, too: see [`INSIDE`](super::INSIDE).
    pub const INSIDE: Slot = Slot::new(13, 56, 2);
    /// Its label.
    pub const MPLS_LABEL: Slot = Slot::new(15, 44, 20);
    /// Its traffic class.
    pub const MPLS_TC: Slot = Slot::new(15, 41, 3);
    /// Whether it is the last one.
    pub const MPLS_BOS: Slot = Slot::new(15, 40, 1);
    /// Its time to live.
    pub const MPLS_TTL: Slot = Slot::new(15, 32, 8);
    /// Kind of the outermost header: 0 is Ethernet.
    pub const PACKET_TYPE: Slot = Slot::new(16, 0, 32);
    /// All of a network service header but its metadata.
    pub const NSH_FIRST: Slot = Slot::new(17, 0, 64);
    /// The place on a service path that a network service header says.
    pub const NSH_SI: Slot = Slot::new(17, 0, 8);
    /// The same, and the path: all of the service path header.
    pub const NSH_PATH: Slot = Slot::new(17, 0, 32);
    /// The service path.
    pub const NSH_SPI: Slot = Slot::new(17, 8, 24);
    /// What is behind that header.
    pub const NSH_NP: Slot = Slot::new(17, 32, 8);
    /// Kind of its metadata.
    pub const NSH_MDTYPE: Slot = Slot::new(17, 40, 8);
    /// Its time to live.
    pub const NSH_TTL: Slot = Slot::new(17, 48, 8);
    /// Its flags.
    pub const NSH_FLAGS: Slot = Slot::new(17, 56, 8);
    /// Its metadata of the first type, the first two of four words.
    pub const NSH_C1_C2: Slot = Slot::new(18, 0, 64);
    /// The other two.
    pub const NSH_C3_C4: Slot = Slot::new(19, 0, 64);
    /// The first of these words.
    pub const NSH_C1: Slot = Slot::new(18, 32, 32);
    /// The second.
    pub const NSH_C2: Slot = Slot::new(18, 0, 32);
    /// The third.
    pub const NSH_C3: Slot = Slot::new(19, 32, 32);
    /// The fourth.
    pub const NSH_C4: Slot = Slot::new(19, 0, 32);
    /// The tunnel's key.
    pub const TUN_ID: Slot = Slot::new(20, 0, 64);
    /// The tunnel's source, of IPv4.
    pub const TUN_SRC: Slot = Slot::new(21, 32, 32);
    /// Its destination.
    pub const TUN_DST: Slot = Slot::new(21, 0, 32);
    /// The tunnel's source, of IPv6.
    pub const TUN_IPV6_SRC: Slot = Slot::new(22, 0, 128);
    /// Its destination.
    pub const TUN_IPV6_DST: Slot = Slot::new(24, 0, 128);
    /// The flag of the tunnel's header that rules can see: the packet is for the end of the tunnel itself.
    pub const TUN_FLAGS: Slot = Slot::new(26, 0, 1);
    /// Flags beside it: the outer packet must not be fragmented, has a checksum, has a key.
    pub const TUN_HEADER: Slot = Slot::new(26, 1, 3);
    /// See [`TUN_HEADER`].
    pub const TUN_DONT_FRAGMENT: Slot = Slot::new(26, 1, 1);
    /// See [`TUN_HEADER`].
    pub const TUN_CHECKSUM: Slot = Slot::new(26, 2, 1);
    /// See [`TUN_HEADER`].
    pub const TUN_HAS_KEY: Slot = Slot::new(26, 3, 1);
    /// Type of service of the tunnel's header.
    pub const TUN_TOS: Slot = Slot::new(26, 8, 8);
    /// Its time to live.
    pub const TUN_TTL: Slot = Slot::new(26, 16, 8);
    /// Group of VXLAN's extension for policies.
    pub const TUN_GBP_ID: Slot = Slot::new(26, 24, 16);
    /// Its flags.
    pub const TUN_GBP_FLAGS: Slot = Slot::new(26, 40, 8);
    /// Which options its header has: a bit for each field that can stand for one.
    pub const TUN_PRESENT: Slot = Slot::new(26, 48, OPTIONS);
    /// Version of ERSPAN.
    pub const TUN_ERSPAN_VER: Slot = Slot::new(27, 0, 4);
    /// Direction in which ERSPAN has mirrored a frame.
    pub const TUN_ERSPAN_DIR: Slot = Slot::new(27, 4, 1);
    /// What hardware has done that.
    pub const TUN_ERSPAN_HWID: Slot = Slot::new(27, 8, 6);
    /// Where ERSPAN has done that.
    pub const TUN_ERSPAN_IDX: Slot = Slot::new(27, 16, 20);
    /// Flags of GTP-U.
    pub const TUN_GTPU_FLAGS: Slot = Slot::new(27, 40, 8);
    /// Kind of its message.
    pub const TUN_GTPU_MSGTYPE: Slot = Slot::new(27, 48, 8);
    /// What is known of the packet's connection.
    pub const CT_STATE: Slot = Slot::new(32, 32, 32);
    /// The connection's mark.
    pub const CT_MARK: Slot = Slot::new(32, 0, 32);
    /// Its zone.
    pub const CT_ZONE: Slot = Slot::new(33, 0, 16);
    /// Its protocol.
    pub const CT_NW_PROTO: Slot = Slot::new(33, 16, 8);
    /// Source port of its first packet.
    pub const CT_TP_SRC: Slot = Slot::new(33, 32, 16);
    /// Destination port of its first packet.
    pub const CT_TP_DST: Slot = Slot::new(33, 48, 16);
    /// Its label.
    pub const CT_LABEL: Slot = Slot::new(34, 0, 128);
    /// Source of its first packet, of IPv4.
    pub const CT_NW_SRC: Slot = Slot::new(36, 32, 32);
    /// Destination of that.
    pub const CT_NW_DST: Slot = Slot::new(36, 0, 32);
    /// Source of its first packet, of IPv6.
    pub const CT_IPV6_SRC: Slot = Slot::new(37, 0, 128);
    /// Destination of that.
    pub const CT_IPV6_DST: Slot = Slot::new(39, 0, 128);
    /// The packet's mark.
    pub const PKT_MARK: Slot = Slot::new(41, 32, 32);
    /// Its priority in queues.
    pub const SKB_PRIORITY: Slot = Slot::new(41, 0, 32);
    /// What rules note for later tables.
    pub const METADATA: Slot = Slot::new(42, 0, 64);
    /// Where the action set sends the packet.
    pub const ACTSET_OUTPUT: Slot = Slot::new(51, 32, 32);
    /// What groups choose by.
    pub const DP_HASH: Slot = Slot::new(51, 0, 32);
    /// The conjunction that has been found.
    pub const CONJ_ID: Slot = Slot::new(52, 0, 32);

    /// Number of registers of 32 bits.
    pub const REGS: u8 = 16;
    const FIRST_REG: u8 = 43;
    const FIRST_TUN_METADATA: u8 = 28;

    /// Register `index` of 32 bits, modulo their number. `xreg0` is `reg0` and `reg1`, and so on.
    #[must_use]
    pub const fn reg(index: u8) -> Slot {
        let index = index % REGS;
        Slot::new(FIRST_REG + index / 2, if index.is_multiple_of(2) { 32 } else { 0 }, 32)
    }

    /// Register `index` of 64 bits, modulo their number.
    #[must_use]
    pub const fn xreg(index: u8) -> Slot {
        Slot::new(FIRST_REG + index % (REGS / 2), 0, 64)
    }

    /// Register `index` of 128 bits, modulo their number.
    #[must_use]
    pub const fn xxreg(index: u8) -> Slot {
        Slot::new(FIRST_REG + index % (REGS / 4) * 2, 0, 128)
    }

    /// Fields that can stand for options of a tunnel's header: the first so many. Each word of a key costs every first
    /// packet, so there is no room for all 64.
    pub const OPTIONS: u8 = 16;

    /// Places for values of these options.
    pub const OPTION_VALUES: u8 = 4;

    /// The place of the option that field `index` stands for: that of those too whose number has the same remainder.
    #[must_use]
    pub const fn tun_metadata(index: u8) -> Slot {
        Slot::new(FIRST_TUN_METADATA + index % OPTION_VALUES, 0, 64)
    }
}

/// Which tunnel a packet has come by, or is to go into: a part of its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TunnelWords([u64; TUNNEL.end - TUNNEL.start]);

impl TunnelWords {
    /// Whether nothing is known of a tunnel.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// A key that has nothing else.
    #[must_use]
    pub fn key(&self) -> Key {
        let mut key = Key::default();
        key.set_tunnel(self);
        key
    }
}

/// All that rules can match on, of one packet; also a mask of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub(crate) [u64; WORDS]);

impl Default for Key {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl std::fmt::Debug for Key {
    /// The words that are not zero, by number.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        f.debug_map().entries(words.map(|(at, word)| (at, format!("{word:#x}")))).finish()
    }
}

impl Key {
    /// Word `at`; 0 past the end.
    #[must_use]
    #[inline]
    pub fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or_default()
    }

    /// A key of these words.
    #[must_use]
    pub const fn from_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }

    /// All words.
    #[must_use]
    pub const fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    /// What is at `slot`.
    #[must_use]
    #[inline]
    pub fn get(&self, slot: Slot) -> u128 {
        let word = u128::from(self.word(slot.word()));
        match slot.width {
            65.. => word << 64 | u128::from(self.word(slot.word() + 1)),
            _ => word >> slot.shift & slot.ones(),
        }
    }

    /// The same, of a slot of 64 bits at most.
    #[must_use]
    #[inline]
    pub fn get_u64(&self, slot: Slot) -> u64 {
        let ones = u64::MAX >> (64 - slot.width.clamp(1, 64));
        self.word(slot.word()) >> slot.shift & ones
    }

    /// The same, of 32 bits.
    #[must_use]
    #[inline]
    pub fn get_u32(&self, slot: Slot) -> u32 {
        u32::try_from(self.get_u64(slot) & u64::from(u32::MAX)).unwrap_or_default()
    }

    /// The same, of 16 bits.
    #[must_use]
    #[inline]
    pub fn get_u16(&self, slot: Slot) -> u16 {
        u16::try_from(self.get_u64(slot) & u64::from(u16::MAX)).unwrap_or_default()
    }

    /// The same, of 8 bits.
    #[must_use]
    #[inline]
    pub fn get_u8(&self, slot: Slot) -> u8 {
        u8::try_from(self.get_u64(slot) & u64::from(u8::MAX)).unwrap_or_default()
    }

    /// Puts `value` at `slot`, without the bits for which there is no room.
    #[inline]
    pub fn set(&mut self, slot: Slot, value: u128) {
        self.set_masked(slot, value, slot.ones());
    }

    /// Puts those bits of `value` at `slot` that are in `mask`.
    #[inline]
    pub fn set_masked(&mut self, slot: Slot, value: u128, mask: u128) {
        if slot.width <= 64 {
            let in_word = |bits: u128| low(bits & slot.ones()) << slot.shift;
            let (value, mask) = (in_word(value), in_word(mask));
            if let Some(word) = self.0.get_mut(slot.word()) {
                *word = *word & !mask | value & mask;
            }
            return;
        }
        for ((at, value), (_, mask)) in slot.spread(value).zip(slot.spread(mask)) {
            if let Some(word) = self.0.get_mut(at) {
                *word = *word & !mask | value & mask;
            }
        }
    }

    /// What travels beside the packet, without the words that are of the packet itself.
    #[must_use]
    pub fn beside(&self) -> Self {
        let mut beside = *self;
        let packet = slot::ETH_DST.word()..slot::TUN_ID.word();
        beside
            .0
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| packet.contains(at))
            .for_each(|(_, word)| *word = 0);
        beside
    }

    /// The same where rules can match on so many tags: what is behind them is unknown, but for the type of
    /// the next one.
    #[must_use]
    pub fn with_tags(&self, limit: VlanLimit) -> Self {
        if limit == VlanLimit::MOST || self.get_u16(slot::INNER_TCI) & TAG_PRESENT == 0 {
            return *self;
        }
        let mut key = self.beside();
        for slot in [slot::ETH_DST, slot::ETH_SRC, slot::VLAN_TCI, slot::VLAN_TPID] {
            key.set(slot, self.get(slot));
        }
        key.set(slot::ETH_TYPE, self.get(slot::INNER_TPID));
        key
    }

    /// The words in which any bit is set, a bit for each.
    pub(crate) fn used(&self) -> u64 {
        let words = self.0.iter().rev();
        words.fold(0, |all, word| all << 1 | u64::from(*word != 0))
    }

    /// Whether the packet begins with a header of Ethernet.
    #[must_use]
    #[inline]
    pub fn is_ethernet(&self) -> bool {
        self.get_u32(slot::PACKET_TYPE) == 0
    }

    /// Says what the packet begins with. What is there in the place of a header of Ethernet, where it has
    /// none, is nothing of the packet.
    pub fn set_packet_type(&mut self, packet_type: u32) {
        self.set(slot::PACKET_TYPE, packet_type.into());
        if packet_type != 0 {
            self.set(slot::ETH_SRC, 0);
            self.set(slot::ETH_DST, 0);
        }
    }

    /// Puts `value` at `slot`, of 64 bits at most, where nothing was.
    #[inline(always)]
    pub(crate) fn fill(&mut self, slot: Slot, value: u64) {
        if let Some(word) = self.0.get_mut(slot.word as usize) {
            *word |= value << slot.shift;
        }
    }

    /// What it says of a tunnel.
    #[must_use]
    pub fn tunnel(&self) -> TunnelWords {
        let mut words = TunnelWords::default();
        words.0.iter_mut().zip(self.0.iter().skip(TUNNEL.start)).for_each(|(to, own)| *to = *own);
        words
    }

    /// Has it say this of a tunnel.
    pub fn set_tunnel(&mut self, words: &TunnelWords) {
        let own = self.0.iter_mut().skip(TUNNEL.start);
        own.zip(&words.0).for_each(|(own, from)| *own = *from);
    }

    /// A mask of all that is known of tunnels.
    #[must_use]
    pub(crate) fn of_tunnels() -> Self {
        TunnelWords([u64::MAX; TUNNEL.end - TUNNEL.start]).key()
    }

    /// Empties the words that are of the packet itself.
    #[inline]
    pub fn clear_packet(&mut self) {
        let (_, packet) = self.0.split_at_mut(slot::ETH_DST.word());
        if let Some((packet, _)) = packet.split_first_chunk_mut::<OF_HEADERS>() {
            *packet = [0; OF_HEADERS];
        }
    }

    /// Adds all bits of another mask to this one.
    pub fn union(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
    }
}

#[cfg(test)]
mod tests {
    use super::slot::{
        CT_LABEL, IPV6_SRC, TUN_GBP_FLAGS, TUN_ID, TUN_IPV6_DST, VLAN_PCP, VLAN_TCI, VLAN_VID, reg,
        tun_metadata, xreg, xxreg,
    };
    use super::*;

    #[test]
    fn fields_are_put_and_got_where_they_are() {
        let mut key = Key::default();
        key.set(VLAN_TCI, 0xFFFF);
        key.set(VLAN_VID, 5);
        key.set(VLAN_PCP, 0b1010);
        assert_eq!(key.get_u16(VLAN_TCI), 0b0101_0000_0000_0101);
        key.set_masked(IPV6_SRC, u128::MAX, 0xFF00_0000_0000_0000_00FF);
        assert_eq!(key.get(IPV6_SRC), 0xFF00_0000_0000_0000_00FF);
        assert_eq!(key.get(CT_LABEL), 0);
    }

    #[test]
    fn what_is_known_of_tunnels_is_a_part() {
        let mut key = Key::default();
        let slots = [TUN_ID, TUN_IPV6_DST, TUN_GBP_FLAGS, tun_metadata(0), tun_metadata(3)];
        slots.into_iter().for_each(|slot| key.set(slot, 7));
        let words = key.tunnel();
        assert_eq!((words.key(), words.is_none()), (key, false));
        key.set(CT_LABEL, 1);
        key.set(slot::PACKET_TYPE, 1);
        assert_eq!(key.tunnel(), words);
        key.set_tunnel(&TunnelWords::default());
        assert!(slots.into_iter().all(|slot| key.get(slot) == 0));
        assert_eq!((key.get(CT_LABEL), key.get(slot::PACKET_TYPE)), (1, 1));
    }

    #[test]
    fn registers_overlap_as_they_should() {
        let mut key = Key::default();
        for index in 0..slot::REGS {
            key.set(reg(index), u128::from(index) + 1);
        }
        assert_eq!(key.get(xreg(1)), 3 << 32 | 4);
        assert_eq!(key.get(xxreg(3)), 13 << 96 | 14 << 64 | 15 << 32 | 16);
    }
}
