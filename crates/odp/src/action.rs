//! Actions of a datapath, in Open vSwitch's words.

use std::collections::BTreeSet;
use std::fmt::{self, Formatter};
use std::sync::Arc;

use crate::tunnel::Push;
use flow::{Frozen, HashKind, Key, PlaceHash, WORDS, slot};

/// What a datapath does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes out on the port of this number.
    Output(u32),
    /// These are done with a copy.
    Clone(Vec<Self>),
    /// The same, where a datapath has no word for it: they are done with a copy of some packets, which are all.
    Sample(Vec<Self>),
    /// The first ones are done with a packet that is longer than so many bytes, the others with one that
    /// is not.
    ByLen(u16, [Vec<Self>; 2]),
    /// It goes round, and comes again, to take what its hash has: the member of a bond, or a bucket.
    Balance(Box<Balance>),
    /// It goes into a tunnel.
    Push(Box<Push>),
    /// It comes out of one, at this port.
    Pop(u32),
    /// What is said here.
    Said(String),
}

/// Where a packet goes on that comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onward {
    /// In this bridge.
    pub bridge: String,
    /// With this.
    pub frozen: Arc<Frozen>,
    /// By this hash, if it has come again for a group.
    pub hash: Option<PlaceHash>,
    /// Mirrors that have a copy of it.
    pub copied: BTreeSet<String>,
}

/// How a packet comes again that is to go out by a member of a bond, to take a bucket of a group, or since
/// an action says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The number by which it comes again.
    pub number: u32,
    /// Where it goes on, if it does not come again for a bond.
    pub onward: Option<Arc<Onward>>,
    /// The bits that are others by then, and what they are.
    changed: [Key; 2],
}

impl Balance {
    /// That of a packet that was `before` and is `after`.
    #[must_use]
    pub fn new(number: u32, before: &Key, after: &Key) -> Self {
        let differ = zip(before, after, |a, b| a ^ b);
        let changed = [differ, zip(&differ, after, |mask, now| mask & now)];
        Self { number, onward: None, changed }
    }

    /// A packet that went into the same flow as it comes again. `part` is its hash if that is for a bond.
    #[must_use]
    pub fn again(&self, key: &Key, part: impl FnOnce(&Key) -> u32) -> Key {
        let [differ, values] = &self.changed;
        let kept = zip(key, differ, |key, differ| key & !differ);
        let mut again = zip(&kept, values, |kept, value| kept | value);
        let hash = match &self.onward {
            Some(onward) => match onward.hash {
                Some(hash) => hash.told(&again),
                None => again.get_u32(slot::DP_HASH),
            },
            None => part(key),
        };
        again.set(slot::RECIRC_ID, self.number.into());
        again.set(slot::DP_HASH, hash.into());
        again
    }
}

fn zip(a: &Key, b: &Key, of: impl Fn(u64, u64) -> u64) -> Key {
    let mut words = [0; WORDS];
    let both = a.words().iter().zip(b.words());
    words.iter_mut().zip(both).for_each(|(word, (a, b))| *word = of(*a, *b));
    Key::from_words(words)
}

impl Action {
    /// How a packet comes again with which these are done.
    pub fn balances(actions: &[Self]) -> Vec<Balance> {
        let of = |action: &Self| match action {
            Self::Balance(balance) => vec![Balance::clone(balance)],
            Self::Clone(inner) | Self::Sample(inner) => Self::balances(inner),
            Self::ByLen(_, [longer, others]) => {
                let mut all = Self::balances(longer);
                all.extend(Self::balances(others));
                all
            }
            Self::Output(_) | Self::Push(_) | Self::Pop(_) | Self::Said(_) => Vec::new(),
        };
        actions.iter().flat_map(of).collect()
    }

    /// What is said by this.
    #[must_use]
    pub fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }
}

/// Names of ports, by their numbers.
pub type Names<'a> = &'a dyn Fn(u32) -> Option<String>;

/// Actions as they are shown: with commas between them, `drop` where there is none.
#[derive(Clone, Copy)]
pub struct Actions<'a> {
    /// What is shown.
    pub actions: &'a [Action],
    /// With these, ports are called by their names.
    pub names: Option<Names<'a>>,
}

impl fmt::Debug for Actions<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.actions).finish()
    }
}

impl Actions<'_> {
    /// What a port is called.
    fn port(&self, number: u32) -> String {
        self.names.and_then(|names| names(number)).unwrap_or_else(|| number.to_string())
    }
}

impl fmt::Display for Actions<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.actions.is_empty() {
            return f.write_str("drop");
        }
        let mut comma = "";
        for action in self.actions {
            f.write_str(comma)?;
            comma = ",";
            match action {
                Action::Output(port) => f.write_str(&self.port(*port))?,
                Action::Pop(port) => write!(f, "tnl_pop({})", self.port(*port))?,
                Action::Push(push) => {
                    let [to, out] = push.ports.map(|port| self.port(port));
                    write!(f, "tnl_push(tnl_port({to}),{},out_port({out}))", push.header)?;
                }
                Action::Clone(actions) => {
                    let nested = Self { actions, names: self.names };
                    write!(f, "clone({nested})")?;
                }
                Action::Sample(actions) => {
                    let nested = Self { actions, names: self.names };
                    write!(f, "sample(sample=100.0%,actions({nested}))")?;
                }
                Action::ByLen(len, [longer, others]) => {
                    let nested = |actions| Self { actions, names: self.names };
                    let (longer, others) = (nested(longer), nested(others));
                    write!(f, "check_pkt_len(size={len},gt({longer}),le({others}))")?;
                }
                Action::Balance(balance) => balance.fmt(f)?,
                Action::Said(text) => f.write_str(text)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let l4 = PlaceHash { kind: HashKind::Tuple, basis: 0 };
        if let Some(hash) = self.onward.as_ref().map_or(Some(l4), |onward| onward.hash) {
            let kind = match hash.kind {
                HashKind::Symmetric => "sym_l4",
                HashKind::Tuple => "hash_l4",
            };
            write!(f, "hash({kind}({})),", hash.basis)?;
        }
        write!(f, "recirc({:#x})", self.number)
    }
}

/// A clone at the end is as good as what is in it.
pub fn open_last_clone(actions: &mut Vec<Action>) {
    if let Some(Action::Clone(inner)) = actions.pop_if(|last| matches!(last, Action::Clone(_))) {
        actions.extend(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_for_a_bond_comes_again_as_what_it_has_become() {
        let key = |dst: u64, tag: u16| {
            let mut key = Key::default();
            key.set(slot::ETH_DST, dst.into());
            key.set(slot::VLAN_TCI, tag.into());
            key
        };
        let balance = Balance::new(7, &key(1, 0), &key(1, 0x1005));
        let again = balance.again(&key(2, 0), |_| 9);
        assert_eq!((again.get(slot::ETH_DST), again.get_u16(slot::VLAN_TCI)), (2, 0x1005));
        assert_eq!((again.get_u32(slot::RECIRC_ID), again.get_u32(slot::DP_HASH)), (7, 9));
        let actions = [Action::Output(1), Action::Clone(vec![Action::Balance(Box::new(balance))])];
        let shown = Actions { actions: &actions, names: None }.to_string();
        assert_eq!(shown, "1,clone(hash(hash_l4(0)),recirc(0x7))");
        assert_eq!(Action::balances(&actions).len(), 1);
    }

    #[test]
    fn actions_are_shown_as_open_vswitch_shows_them() {
        let said = Action::said("push_vlan(vid=5,pcp=0)");
        let mut actions =
            vec![Action::Output(1), Action::Clone(vec![said.clone(), Action::Output(20)])];
        let shown = Actions { actions: &actions, names: None }.to_string();
        assert_eq!(shown, "1,clone(push_vlan(vid=5,pcp=0),20)");
        let names = |port| (port == 20).then(|| "p20".to_owned());
        let shown = Actions { actions: &actions, names: Some(&names) }.to_string();
        assert_eq!(shown, "1,clone(push_vlan(vid=5,pcp=0),p20)");
        open_last_clone(&mut actions);
        assert_eq!(actions, [Action::Output(1), said, Action::Output(20)]);
        open_last_clone(&mut actions);
        assert_eq!(actions.len(), 3);
        assert_eq!(Actions { actions: &[], names: None }.to_string(), "drop");
        let by_len = [Action::ByLen(200, [vec![Action::Output(2)], vec![]])];
        let shown = Actions { actions: &by_len, names: None }.to_string();
        assert_eq!(shown, "check_pkt_len(size=200,gt(2),le(drop))");
    }
}
