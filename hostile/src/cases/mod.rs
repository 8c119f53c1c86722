//! The cases, as data: what each is called, what it does, and what a back-end may do about it.

/// Commands of the control queue.
mod control;
/// Chains of descriptors.
mod descriptors;
/// What else the protocol has: logs, records of chains in flight, configuration, channels.
mod extras;
/// Files of kinds and in states that can make a back-end wait.
mod files;
/// Net headers, and frames of odd lengths.
mod headers;
/// Locks of the kernel that the attacker holds.
mod held;
/// Indexes and wrap counters.
mod indexes;
/// Tables of memory regions.
mod memory;
/// Names, lengths and flags of messages; connections in odd states.
mod messages;
/// Sizes, places and positions of rings.
mod vrings;

use anyhow::Result;

use crate::attack::{Attack, Scene};
use crate::frontend::Setup;
use crate::ring::Format;
use crate::wire::Wire;

/// What a back-end may do. Whatever it does, it goes on, and so does everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Refuse the message or close the connection.
    Refuse,
    /// Stop the ring, and tell the front-end so.
    Stop,
    /// Drop the frame.
    Drop,
    /// Nothing: the front-end is within its rights, however odd.
    Serve,
}

impl May {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Refuse => "refuse or close",
            Self::Stop => "stop the ring",
            Self::Drop => "drop the frame",
            Self::Serve => "go on as if nothing were",
        }
    }
}

/// How a case is played.
#[derive(Clone, Copy, Debug)]
pub enum Play {
    /// On a connection.
    Wire(fn(&Attack) -> Result<Heard>),
    /// On rings of both formats that run, once as it is and once while another thread changes
    /// all that the lie has written.
    Rings(fn(Setup) -> Setup, fn(&mut Scene)),
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Group and name.
    pub name: &'static str,
    /// What is done.
    pub does: &'static str,
    /// What may happen.
    pub may: May,
    pub play: Play,
}

impl Case {
    const fn wire(
        name: &'static str,
        may: May,
        does: &'static str,
        play: fn(&Attack) -> Result<Heard>,
    ) -> Self {
        Self { name, does, may, play: Play::Wire(play) }
    }

    const fn rings(
        name: &'static str,
        may: May,
        does: &'static str,
        setup: fn(Setup) -> Setup,
        lie: fn(&mut Scene),
    ) -> Self {
        Self { name, does, may, play: Play::Rings(setup, lie) }
    }
}

/// What the back-end did, as far as the attacker can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard(pub String);

impl Heard {
    /// What it did on this connection, when it has read all of it.
    pub fn on(wire: &Wire) -> Self {
        let open = wire.settle();
        match (&wire.refusal, open) {
            (Some(refusal), _) => Self(refusal.clone()),
            (None, false) => Self("closed".into()),
            (None, true) => Self("went on".into()),
        }
    }
}

/// A case in one ring format, where it has one.
#[derive(Clone, Copy, Debug)]
pub struct Instance {
    pub case: &'static Case,
    pub format: Option<Format>,
}

impl Instance {
    /// The name in tables and on the command line.
    pub fn name(&self) -> String {
        match self.format {
            Some(format) => format!("{}/{}", self.case.name, format.name()),
            None => self.case.name.to_owned(),
        }
    }

    /// The group in which the case is.
    pub fn group(&self) -> &'static str {
        self.case.name.split('/').next().unwrap_or_default()
    }
}

/// All cases.
pub fn all() -> Vec<Instance> {
    let groups = [
        messages::CASES,
        vrings::CASES,
        memory::CASES,
        files::CASES,
        held::CASES,
        extras::CASES,
        descriptors::CASES,
        indexes::CASES,
        headers::CASES,
        control::CASES,
    ];
    let formats = |case: &'static Case| match case.play {
        Play::Wire(_) => vec![None],
        Play::Rings(..) => vec![Some(Format::Split), Some(Format::Packed)],
    };
    let cases = groups.into_iter().flatten();
    cases
        .flat_map(|case| formats(case).into_iter().map(|format| Instance { case, format }))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_that_fits_a_table() {
        let names: Vec<_> = all().iter().map(Instance::name).collect();
        let distinct: BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        for name in &names {
            assert!(name.len() <= 40 && name.contains('/'), "{name}");
        }
    }
}
