//! What few connections have, behind a pointer that is empty for the others.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::expect::MOST_OF_ONE;
use crate::helper::Helper;
use crate::nat::NatEnd;
use crate::numbers::Numbers;
use crate::state::{Request, State};
use crate::tuple::Tuple;

/// What is translated of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translated {
    /// Of the packets that come back.
    pub(crate) reply: Tuple,
    /// The end that is another one.
    pub(crate) end: NatEnd,
}

impl Translated {
    /// What is said of a packet that was translated.
    pub(crate) const fn state(&self, is_reply: bool) -> State {
        match (self.end, is_reply) {
            (NatEnd::Source, false) | (NatEnd::Destination, true) => State::SOURCE_NAT,
            (NatEnd::Source, true) | (NatEnd::Destination, false) => State::DESTINATION_NAT,
        }
    }
}

/// What few connections have.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) nat: Option<Translated>,
    /// What was asked for when it began.
    pub(crate) helper: Option<Helper>,
    /// What its packets have announced, if they are looked at.
    control: Option<Box<Mutex<Control>>>,
    /// The first packet of the connection that has announced it.
    pub(crate) master: Option<Box<Tuple>>,
}

/// What packets of a connection have announced.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// The connections that are expected, the oldest first.
    expected: Vec<Tuple>,
    /// What has become of the numbers of its own packets.
    pub(crate) numbers: Numbers,
}

impl Control {
    /// One more is expected; returns the oldest where there are too many then.
    pub(crate) fn expect(&mut self, next: Tuple) -> Option<Tuple> {
        self.expected.retain(|own| *own != next);
        self.expected.push(next);
        (self.expected.len() > MOST_OF_ONE).then(|| self.expected.remove(0))
    }
}

impl Beside {
    /// That of a connection that begins with these ends; `None` if it has nothing.
    pub(crate) fn new(
        original: &Tuple,
        nat: Option<Translated>,
        helper: Option<Helper>,
        master: Option<Tuple>,
    ) -> Option<Box<Self>> {
        if nat.is_none() && helper.is_none() && master.is_none() {
            return None;
        }
        let reply = nat.map_or_else(|| original.reversed(), |nat| nat.reply);
        let control =
            helper.filter(|helper| helper.is_for(original, &reply)).map(|_| Box::default());
        Some(Box::new(Self { nat, helper, control, master: master.map(Box::new) }))
    }

    /// What it adds to what is said of a packet that is this to the connection.
    pub(crate) fn state(&self, state: State, request: &Request, is_reply: bool) -> State {
        let of_nat = match &self.nat {
            Some(nat) if request.nat.is_some() || request.is_translated => nat.state(is_reply),
            _ => State::default(),
        };
        let is_related = self.master.is_some() && !state.contains(State::INVALID);
        of_nat | if is_related { State::RELATED } else { State::default() }
    }

    /// Who has to look at a packet that is this to the connection.
    pub(crate) fn listener(&self, state: State) -> Option<Helper> {
        const ITS_OWN: u8 = State::NEW.0 | State::ESTABLISHED.0;
        self.helper.filter(|_| self.control.is_some() && state.0 & ITS_OWN != 0)
    }

    /// What its packets have announced, if they are looked at.
    pub(crate) fn control(&self) -> Option<MutexGuard<'_, Control>> {
        Some(self.control.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
