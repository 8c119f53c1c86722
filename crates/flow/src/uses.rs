//! What rules use of what else there is, and how many use it.

use openflow::{Action, Instructions};

use crate::pattern::{finish, mix};
use crate::shards::Shards;

/// Something that rules use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Used {
    /// The group of this number.
    Group(u32),
    /// The meter of this number.
    Meter(u32),
    /// Which of the ports are alive.
    Links,
    /// How many rules of this table have this cookie.
    Learned(u8, u64),
}

impl Used {
    /// What one action uses itself.
    fn by(action: &Action) -> Option<Self> {
        match action {
            Action::Group(id) => Some(Self::Group(*id)),
            Action::Meter(id) => Some(Self::Meter(*id)),
            Action::Bundle(_) => Some(Self::Links),
            Action::Learn(learn) if learn.limit != 0 => {
                Some(Self::Learned(learn.table, learn.cookie))
            }
            _ => None,
        }
    }

    fn hash(self) -> u64 {
        let (kind, id) = match self {
            Self::Group(id) => (1, id.into()),
            Self::Meter(id) => (2, id.into()),
            Self::Links => (3, 0),
            Self::Learned(table, cookie) => (4 + u64::from(table), cookie),
        };
        finish(mix(kind, id))
    }
}

/// All that instructions use: a group as often as they do, and a meter once, as Open vSwitch counts.
pub(crate) fn of(instructions: &Instructions) -> Box<[Used]> {
    let written = instructions.write.iter().flatten();
    all(instructions.apply.iter().chain(written)).into()
}

/// All that actions use.
pub(crate) fn of_actions(actions: &[Action]) -> Vec<Used> {
    all(actions.iter())
}

fn all<'a>(actions: impl Iterator<Item = &'a Action>) -> Vec<Used> {
    let mut all = Vec::new();
    actions.for_each(|action| add(action, &mut all));
    all
}

fn add(action: &Action, all: &mut Vec<Used>) {
    if let Some(used) = Used::by(action)
        && (matches!(used, Used::Group(_)) || !all.contains(&used))
    {
        all.push(used);
    }
    if let Action::Clone(actions) = action {
        actions.iter().for_each(|action| add(action, all));
    }
}

/// How often each thing is used by rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uses(Shards<(Used, u32)>);

impl Uses {
    /// How often it is used.
    pub(crate) fn of(&self, used: Used) -> u32 {
        let mut found = self.0.get(used.hash()).filter(|(other, _)| *other == used);
        found.next().map_or(0, |(_, count)| *count)
    }

    /// A rule that uses these has come.
    pub(crate) fn come(&mut self, all: &[Used]) {
        for used in all {
            let count = self.of(*used).saturating_add(1);
            self.put(*used, count);
        }
    }

    /// One has gone.
    pub(crate) fn go(&mut self, all: &[Used]) {
        for used in all {
            let count = self.of(*used).saturating_sub(1);
            self.put(*used, count);
        }
    }

    fn put(&mut self, used: Used, count: u32) {
        let (hash, is_it) = (used.hash(), |(other, _): &(Used, u32)| *other == used);
        if count == 0 {
            self.0.remove(hash, is_it);
        } else if self.0.replace(hash, (used, count), is_it).is_none() {
            self.0.insert(hash, (used, count));
        }
    }
}
