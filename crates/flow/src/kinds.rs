//! What the ways of packets of a kind depend on: of rules that are for others, nothing.
//!
//! A bridge whose rules answer requests of ARP looks at addresses in them, which are in the same place of a key
//! as those of IPv4. No packet of UDP is told apart by that, and packets of all flows of UDP have one entry,
//! where no rule for these asks for more.

use std::sync::Arc;

use crate::extract::{IPV4, IPV6};
use crate::key::{Key, Slot, slot};
use crate::rule::Rule;

/// A kind of packet: the EtherType and the protocol, which stay as they are on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(pub(crate) u16, pub(crate) u8);

/// Those whose needs are known apart.
pub(crate) const KINDS: [Kind; 6] =
    [Kind(IPV4, 6), Kind(IPV4, 17), Kind(IPV4, 1), Kind(IPV6, 6), Kind(IPV6, 17), Kind(IPV6, 58)];

impl Kind {
    /// Whether a rule may be for packets of this kind.
    fn may_take(self, rule: &Rule) -> bool {
        let fits = |slot: Slot, own: u128| {
            let (value, bits) = rule.pattern.word(u8::try_from(slot.word()).unwrap_or_default());
            let placed = |value: u128| slot.spread(value).next().map_or(0, |(_, bits)| bits);
            (placed(own) ^ value) & bits & placed(slot.ones()) == 0
        };
        fits(slot::ETH_TYPE, self.0.into()) && fits(slot::IP_PROTO, self.1.into())
    }
}

/// The bits that rules match on and read, for each kind; it may have bits of rules that are not there any
/// more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needs(Arc<[Key; KINDS.len()]>);

impl Default for Needs {
    fn default() -> Self {
        Self(Arc::new([Key::default(); KINDS.len()]))
    }
}

impl Needs {
    /// Adds those of a rule.
    pub(crate) fn add(&mut self, rule: &Rule) {
        let mut bits = rule.reads;
        for (at, more) in rule.pattern.mask().words() {
            if let Some(word) = bits.0.get_mut(usize::from(*at)) {
                *word |= more;
            }
        }
        for (at, kind) in KINDS.into_iter().enumerate() {
            let has = |own: &Key| own.0.iter().zip(&bits.0).all(|(own, bits)| bits & !own == 0);
            // Copies share them as long as none needs more.
            if kind.may_take(rule)
                && !self.0.get(at).is_some_and(has)
                && let Some(own) = Arc::make_mut(&mut self.0).get_mut(at)
            {
                own.union(&bits);
            }
        }
    }

    /// Those of each kind.
    pub(crate) fn all(&self) -> &[Key; KINDS.len()] {
        &self.0
    }
}

/// Whether actions that read these bits may make a packet one of another kind: by a label, by a tag before
/// others that hides what is behind, or by looking for a connection's addresses instead of its own.
pub(crate) fn may_turn(reads: &Key) -> bool {
    [slot::MPLS_LSE, slot::VLAN_TPID, slot::CT_NW_PROTO]
        .into_iter()
        .any(|slot| reads.get(slot) != 0)
}

#[cfg(test)]
mod tests;
