//! What forwards packets by a bridge's rules, as the bridge's OpenFlow side needs it.

use std::cell::Cell;
use std::sync::Arc;

use flow::{Frozen, Key, OptionField, PacketIn, Tables};
use openflow::action::Action;
use openflow::message::ct_flush::CtFlush;
use openflow::message::stats::ipfix::IpfixStats;
use openflow::{ErrorCode, PortNo};

use crate::port::Port;

/// A packet that a controller has sent out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketOut {
    /// Where it seems to have come in; [`PortNo::CONTROLLER`] where it has not.
    pub in_port: PortNo,
    /// What is done with it.
    pub actions: Vec<Action>,
    /// What travels with it: registers, metadata and the like. All else is zero.
    pub key: Box<Key>,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl PacketOut {
    /// What a message is about.
    ///
    /// # Errors
    /// `OFPBMC_BAD_FIELD` if something travels with it that no packet has here.
    pub fn of(wanted: openflow::message::packet_out::PacketOut) -> Result<Self, ErrorCode> {
        let in_port = wanted.in_port();
        let known = flow::place::pattern(&wanted.metadata).map_err(|_| ErrorCode::BmcBadField)?;
        let key = Box::new(known.to_key());
        Ok(Self { in_port, actions: wanted.actions, key, bytes: wanted.packet })
    }
}

/// A packet that had stopped, and that a controller has go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// What it goes on with.
    pub frozen: Box<Frozen>,
    /// Mirrors that have a copy of it already, a bit for each.
    pub mirrors: u32,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// A packet for controllers.
#[derive(Clone, Debug)]
pub struct Received {
    /// What they are told about it.
    pub about: Arc<PacketIn>,
    /// All of it, as far as it could be read.
    pub bytes: Vec<u8>,
    /// The length of all of it.
    pub len: usize,
    /// If it stops there: mirrors that have a copy of it already, a bit for each.
    pub mirrors: u32,
}

/// What forwards. None of it waits for a controller.
pub trait Datapath {
    /// The time at which rules are made, changed and ended, in milliseconds.
    fn now(&self) -> u64;

    /// Has all rules be told what they were for: they count all that came before.
    fn flush(&mut self);

    /// Has these fields stand for options of tunnels, from when rules are published next.
    fn set_options(&mut self, options: Vec<OptionField>);

    /// Has packets go by these rules and ports from now on. `asks_controllers` says whether
    /// controllers get those that no rule is for.
    fn publish(
        &mut self,
        tables: &Tables,
        ports: &mut dyn Iterator<Item = &Port>,
        asks_controllers: bool,
    );

    /// Does with a packet what its actions say.
    fn send(&mut self, packet: PacketOut);

    /// The same by these rules and ports, whatever the others go by.
    fn send_by(
        &mut self,
        tables: &Tables,
        ports: &mut dyn Iterator<Item = &Port>,
        packet: PacketOut,
    );

    /// Goes on with a packet.
    fn resume(&mut self, packet: Resumed);

    /// Ends connections, which all bridges have in common.
    fn flush_connections(&mut self, which: &CtFlush);

    /// What has come of telling collectors by IPFIX: of the bridge's packets, and of those that rules sample for a
    /// set of collectors, by its number.
    fn ipfix(&self) -> Vec<(Option<u32>, IpfixStats)> {
        Vec::new()
    }
}

/// None: nothing is forwarded, and no time passes but by being asked for it, if any. For tests.
#[derive(Clone, Debug, Default)]
pub struct Detached {
    /// By how many milliseconds it is later whenever it is asked for the time.
    pace: u64,
    now: Cell<u64>,
}

impl Detached {
    /// One for which so many milliseconds pass whenever it is asked for the time.
    #[must_use]
    pub fn with_pace(pace: u64) -> Self {
        Self { pace, ..Self::default() }
    }
}

impl Datapath for Detached {
    fn now(&self) -> u64 {
        self.now.set(self.now.get() + self.pace);
        self.now.get()
    }

    fn flush(&mut self) {}

    fn set_options(&mut self, _: Vec<OptionField>) {}

    fn publish(&mut self, _: &Tables, _: &mut dyn Iterator<Item = &Port>, _: bool) {}

    fn send(&mut self, _: PacketOut) {}

    fn send_by(&mut self, _: &Tables, _: &mut dyn Iterator<Item = &Port>, _: PacketOut) {}

    fn resume(&mut self, _: Resumed) {}

    fn flush_connections(&mut self, _: &CtFlush) {}
}
