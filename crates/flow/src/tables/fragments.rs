//! What becomes of fragments of IP packets.

use std::sync::Arc;

pub use openflow::message::config::Fragments;
use openflow::{Instructions, Match};

use super::Tables;
use crate::key::{Key, slot};
use crate::pattern::Pattern;
use crate::rule::Rule;

/// A setting, with what it takes.
#[derive(Clone, Debug, Default)]
pub(super) enum Handling {
    #[default]
    Normal,
    /// They find this rule in every table, which no controller sees: it drops them and counts them.
    Drop(Arc<Rule>),
    NxMatch,
}

impl Tables {
    /// What becomes of fragments.
    #[must_use]
    pub const fn fragments(&self) -> Fragments {
        match self.fragments {
            Handling::Normal => Fragments::Normal,
            Handling::Drop(_) => Fragments::Drop,
            Handling::NxMatch => Fragments::NxMatch,
        }
    }

    /// Has this become of fragments from now on.
    pub fn set_fragments(&mut self, fragments: Fragments) {
        if self.fragments() == fragments {
            return;
        }
        self.fragments = match fragments {
            Fragments::Normal => Handling::Normal,
            Fragments::Drop => Handling::Drop(Arc::new(drop_all())),
            Fragments::NxMatch => Handling::NxMatch,
        };
        self.touch();
    }

    /// The rule that fragments find in every table, if they are dropped.
    #[inline]
    pub(crate) const fn fragment_rule(&self) -> Option<&Arc<Rule>> {
        match &self.fragments {
            Handling::Drop(rule) => Some(rule),
            Handling::Normal | Handling::NxMatch => None,
        }
    }

    /// Adds what this depends on to what `relevant` packets depend on.
    pub(super) fn note_fragments(&self, key: &mut Key) {
        // Of fragments rules see no ports, or other ones.
        let has_ports = key.get(slot::TP_SRC) != 0 || key.get(slot::TP_DST) != 0;
        if has_ports || self.fragment_rule().is_some() {
            key.set(slot::IP_FRAG, slot::IP_FRAG.ones());
        }
    }
}

/// A rule for all packets, by which nothing is done with them.
fn drop_all() -> Rule {
    let all = (Match::new(), Pattern::default());
    Rule::new((0, u16::MAX), all, Arc::new(Instructions::default()), 0)
}
