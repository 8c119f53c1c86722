//! Which bits a look-up in a table depends on, as Open vSwitch finds them.
//!
//! It looks at the rules of each mask in four stages (what is beside the packet, link layer, network
//! layer, above), and stops where none can be found any more; of IPv4 addresses it finds out how many
//! bits it takes to tell that no prefix of a mask is for a packet, and the same for ports. So it
//! depends on fewer bits than those of all masks. Nothing else than a trace needs to know; so here
//! all rules of a mask are looked at, as long as that does not take too long.

use std::sync::{Arc, LazyLock};

use flow::{Classifier, Key, Ranked as _, Rule, Slot, Tuple, slot};
use openflow::Field;

/// The most rules that are looked at for one trace; beyond that all bits of masks count.
pub(crate) const MAX_RULES: usize = 500_000;

/// Words of a key with what is beside the packet.
const BESIDE: [std::ops::Range<usize>; 4] = [
    0..slot::ETH_DST.word(),
    slot::PACKET_TYPE.word()..slot::NSH_FIRST.word(),
    slot::TUN_ID.word()..slot::CT_ZONE.word(),
    slot::PKT_MARK.word()..flow::WORDS,
];

/// Stages of a look-up.
const STAGES: usize = 4;

/// The bits of each stage.
static STAGE_BITS: LazyLock<[Key; STAGES]> = LazyLock::new(|| std::array::from_fn(stage_bits));

/// The bits of stage `stage`.
fn stage_bits(stage: usize) -> Key {
    let mut key = Key::default();
    let mut add = |slots: &[Slot]| slots.iter().for_each(|slot| key.set(*slot, slot.ones()));
    match stage {
        0 => {
            let mut words = [0; flow::WORDS];
            let beside = |at: &usize| BESIDE.iter().any(|words| words.contains(at));
            words
                .iter_mut()
                .enumerate()
                .filter(|(at, _)| beside(at))
                .for_each(|(_, word)| *word = !0);
            key = Key::from_words(words);
            for slot in [slot::CT_ZONE, slot::CT_NW_PROTO, slot::CT_LABEL] {
                key.set(slot, slot.ones());
            }
        }
        1 => add(&[
            slot::ETH_DST,
            slot::ETH_SRC,
            slot::ETH_TYPE,
            slot::VLAN_TCI,
            slot::VLAN_TPID,
            slot::INNER_TCI,
            slot::INNER_TPID,
            slot::MPLS_LSE,
        ]),
        2 => add(&[
            slot::IPV4_SRC,
            slot::IPV4_DST,
            slot::CT_NW_SRC,
            slot::CT_NW_DST,
            slot::IPV6_SRC,
            slot::IPV6_DST,
            slot::CT_IPV6_SRC,
            slot::CT_IPV6_DST,
            slot::IPV6_LABEL,
            slot::IP_FRAG,
            slot::IP_TOS,
            slot::IP_TTL,
            slot::IP_PROTO,
        ]),
        _ => add(&[
            slot::ND_TARGET,
            slot::ARP_SHA,
            slot::ARP_THA,
            slot::TCP_FLAGS,
            slot::NSH_FIRST,
            slot::NSH_C1_C2,
            slot::NSH_C3_C4,
            slot::ND_OPTIONS_TYPE,
            slot::TP_SRC,
            slot::TP_DST,
            slot::CT_TP_SRC,
            slot::CT_TP_DST,
            slot::ND_RESERVED,
        ]),
    }
    key
}

/// Both keys' common bits.
fn and(a: &Key, b: &Key) -> Key {
    let mut words = [0; flow::WORDS];
    let both = a.words().iter().zip(b.words());
    words.iter_mut().zip(both).for_each(|(word, (a, b))| *word = a & b);
    Key::from_words(words)
}

/// A value of `width` bits, with its first one where the first one of 128 is.
fn aligned(value: u128, width: u32) -> u128 {
    value.checked_shl(128_u32.saturating_sub(width)).unwrap_or_default()
}

/// How many bits a mask of `width` bits begins with; 0 if it has any others.
fn prefix_len(mask: u128, width: u32) -> u32 {
    let mask = aligned(mask, width);
    let len = mask.leading_ones();
    if mask.count_ones() == len { len } else { 0 }
}

/// The first `len` bits of `width`.
fn prefix(len: u32, width: u32) -> u128 {
    let rest = u128::MAX.checked_shr(len).unwrap_or_default();
    (!rest).checked_shr(128_u32.saturating_sub(width)).unwrap_or_default()
}

/// Prefixes, of which it is asked how many bits of a value it takes to tell which of them it has.
#[derive(Debug, Default)]
struct Prefixes {
    /// How many bits are the same as those of any prefix, at most.
    common: u32,
    /// Whether one of those that are so goes on.
    goes_on: bool,
    /// The lengths of those that the value has: the lowest bit is that of one bit.
    matching: u128,
}

impl Prefixes {
    /// Adds one of `len` bits of `width`.
    fn add(&mut self, prefix: u128, (len, width): (u32, u32), value: u128) {
        let common = aligned(prefix ^ value, width).leading_zeros().min(len);
        if common == len {
            self.matching |= bit_of(len);
        }
        let goes_on = common < len;
        if common > self.common {
            (self.common, self.goes_on) = (common, goes_on);
        } else if common == self.common {
            self.goes_on |= goes_on;
        }
    }

    /// How many bits of `width` it takes.
    fn bits(&self, width: u32) -> u32 {
        (self.common + u32::from(self.goes_on)).min(width)
    }
}

/// The bit that stands for a length, which is 1 at least.
fn bit_of(len: u32) -> u128 {
    1_u128.checked_shl(len.saturating_sub(1)).unwrap_or_default()
}

/// One look-up in a table.
struct Lookup<'l> {
    key: &'l Key,
    rules: &'l Classifier<Arc<Rule>>,
    seen: &'l mut Key,
    /// Rules that may be looked at.
    left: &'l mut usize,
    /// Of which addresses prefixes are asked for.
    told: [bool; ADDRESSES.len()],
    /// What is known of the prefixes of an address.
    prefixes: [Option<Prefixes>; ADDRESSES.len()],
}

/// The addresses of which prefixes can be known, and the kind of packet that has them.
const ADDRESSES: [(Slot, Field, u16); 4] = [
    (slot::IPV4_DST, Field::IpDst, 0x0800),
    (slot::IPV4_SRC, Field::IpSrc, 0x0800),
    (slot::IPV6_DST, Field::Ipv6Dst, 0x86DD),
    (slot::IPV6_SRC, Field::Ipv6Src, 0x86DD),
];

/// Adds to `seen` what a look-up depends on.
///
/// Of the addresses of IPv4, or those that are in `told`, it is found out how many bits decide.
pub(crate) fn look_up(
    key: &Key,
    (rules, told): (&Classifier<Arc<Rule>>, Option<&[Field]>),
    seen: &mut Key,
    left: &mut usize,
) {
    let told =
        ADDRESSES.map(|(_, field, kind)| told.map_or(kind == 0x0800, |told| told.contains(&field)));
    let none = || [const { None }; ADDRESSES.len()];
    let (hard, soft) = Lookup { key, rules, seen, left, told, prefixes: none() }.pass(true);
    if soft > hard
        && let Some(found) = rules.lookup(key)
    {
        // It was looked for once more, with the conjunction that was found.
        let mut key = *key;
        key.set(slot::CONJ_ID, found.pattern().to_key().get(slot::CONJ_ID));
        Lookup { key: &key, rules, seen, left, told, prefixes: none() }.pass(false);
    }
}

impl Lookup<'_> {
    /// Looks at mask after mask, until no better rule can follow; gives the highest priorities of those
    /// rules that are for the packet, and of those that are parts of conjunctions.
    fn pass(&mut self, heeds_parts: bool) -> (Option<u16>, Option<u16>) {
        let (mut hard, mut soft) = (None, None);
        for tuple in self.rules.tuples() {
            if hard.is_some_and(|hard| hard >= tuple.top()) {
                break;
            }
            *self.left = self.left.saturating_sub(tuple.len());
            if *self.left == 0 {
                self.seen.union(&tuple.mask().to_key());
                continue;
            }
            let Some(found) = self.tuple(tuple) else { continue };
            let is_part = !found.clauses().is_empty();
            let best = if is_part { &mut soft } else { &mut hard };
            if (!is_part || heeds_parts) && best.is_none_or(|best| best < found.priority) {
                *best = Some(found.priority);
            }
        }
        (hard, soft)
    }

    /// The rule of one mask that is for the packet.
    fn tuple<'r>(&mut self, tuple: &'r Tuple<Arc<Rule>>) -> Option<&'r Arc<Rule>> {
        let whole = tuple.mask().to_key();
        let stages = STAGE_BITS.iter().map(|stage| and(&whole, stage)).enumerate();
        // What packets begin with is asked for in the first one, where it is asked for.
        let stages = stages.filter(|(at, stage)| *at == 0 || *stage != Key::default());
        let stages: Vec<Key> = stages.map(|(_, stage)| stage).collect();
        let mut so_far = Key::default();
        for (at, stage) in stages.iter().enumerate() {
            if self.is_ruled_out(&whole, stage) {
                self.seen.union(&so_far);
                return None;
            }
            so_far.union(stage);
            if tuple.rules().any(|rule| rule.pattern().agrees(self.key, &so_far)) {
                continue;
            }
            if at + 1 == stages.len() {
                self.narrow_ports(&whole, tuple, &mut so_far);
            }
            self.seen.union(&so_far);
            return None;
        }
        self.seen.union(&whole);
        let all = tuple.rules().filter(|rule| rule.pattern().matches(self.key));
        all.max_by_key(|rule| rule.priority)
    }

    /// Whether no rule of a mask can be for the packet by an address, of which fewer bits tell that.
    fn is_ruled_out(&mut self, mask: &Key, stage: &Key) -> bool {
        let own = self.key.get_u16(slot::ETH_TYPE);
        let addresses = ADDRESSES.into_iter().enumerate().zip(self.told);
        let told = addresses.filter(|((_, (.., kind)), is_told)| *is_told && *kind == own);
        for ((at, (address, ..)), _) in told {
            let width = u32::from(address.width());
            let len = prefix_len(mask.get(address), width);
            if len == 0 || stage.get(address) == 0 && !has_address(stage) {
                continue;
            }
            let prefixes = self.prefixes_of(at, address);
            let (bits, matching) = prefixes;
            if matching & bit_of(len) != 0 {
                continue;
            }
            if bits <= len {
                self.seen.set_masked(address, prefix(bits, width), prefix(bits, width));
                return true;
            }
            if self.seen.get(address) & prefix(bits, width) == prefix(bits, width) {
                return true;
            }
        }
        false
    }

    /// How many bits of an address it takes to tell which prefixes it has, and the lengths of those.
    fn prefixes_of(&mut self, at: usize, address: Slot) -> (u32, u128) {
        let width = u32::from(address.width());
        let Some(place) = self.prefixes.get_mut(at) else { return (width, u128::MAX) };
        let prefixes = place.get_or_insert_with(|| {
            let mut prefixes = Prefixes::default();
            let value = self.key.get(address);
            for rule in self.rules.iter() {
                let len = prefix_len(rule.pattern().mask().to_key().get(address), width);
                if len > 0 {
                    prefixes.add(rule.pattern().to_key().get(address), (len, width), value);
                }
            }
            prefixes
        });
        (prefixes.bits(width), prefixes.matching)
    }

    /// Of ports that no rule has, only as many bits count as it takes to tell that.
    fn narrow_ports(&self, mask: &Key, tuple: &Tuple<Arc<Rule>>, so_far: &mut Key) {
        let ports = |key: &Key| key.get(slot::TP_SRC) << 16 | key.get(slot::TP_DST);
        let bits = ports(mask);
        if bits == 0 {
            return;
        }
        let len = 32 - bits.trailing_zeros().min(31);
        let mut prefixes = Prefixes::default();
        let value = ports(self.key) & bits;
        for rule in tuple.rules() {
            prefixes.add(ports(&rule.pattern().to_key()) & bits, (len, 32), value);
        }
        let bits = bits & prefix(prefixes.bits(32), 32);
        so_far.set(slot::TP_SRC, bits >> 16);
        so_far.set(slot::TP_DST, bits & 0xFFFF);
    }
}

fn has_address(stage: &Key) -> bool {
    ADDRESSES.iter().any(|(address, ..)| stage.get(*address) != 0)
}

#[cfg(test)]
mod tests {
    use flow::{Change, Tables};
    use openflow::{Instructions, Match};

    use super::*;

    #[test]
    fn as_many_bits_of_an_address_count_as_tell_it_from_all_prefixes() {
        let kind = |kind: u128| Match::new().with(Field::EthType, kind);
        let (own, other) = (0x2001_0db8_0001 << 80, 0x2001_0db8_0005 << 80);
        let rules =
            [kind(0x0800).with(Field::IpSrc, 0x0A00_0001), kind(0x86DD).with(Field::Ipv6Src, own)];
        let mut tables = Tables::default();
        for matching in rules {
            tables.change(&Change::add(0, matching, Instructions::default()), 0).unwrap();
        }
        let seen = |kind: u128, (address, value): (Slot, u128), told: Option<&[Field]>| {
            let (mut key, mut seen, mut left) = (Key::default(), Key::default(), MAX_RULES);
            key.set(slot::ETH_TYPE, kind);
            key.set(address, value);
            look_up(&key, (tables.table(0).unwrap(), told), &mut seen, &mut left);
            seen.get(address)
        };
        let ipv6 = [Field::Ipv6Dst, Field::Ipv6Src];
        let seen6 = |value, told| seen(0x86DD, (slot::IPV6_SRC, value), told);
        assert_eq!(seen6(other, Some(&ipv6)), prefix(46, 128));
        assert_eq!(seen6(own, Some(&ipv6)), u128::MAX);
        assert_eq!(seen6(other, Some(&[Field::IpSrc])), u128::MAX);
        assert_eq!(seen6(other, None), u128::MAX, "it is the address of IPv4 that is asked for");
        let seen4 = |value, told| seen(0x0800, (slot::IPV4_SRC, value), told);
        assert_eq!(seen4(0x0A00_0101, None), prefix(24, 32));
        assert_eq!(seen4(0x0A00_0101, Some(&ipv6)), prefix(32, 32));
        assert_eq!([0, 1, 128].map(|len| prefix(len, 128)), [0, 1 << 127, u128::MAX]);
        assert_eq!((prefix_len(prefix(62, 128), 128), prefix_len(0xFF, 32)), (62, 0));
    }
}
