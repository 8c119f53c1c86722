//! What neighbours say to the switch itself, and not through it: frames of link-local protocols, which a
//! worker takes out of what comes in on a port where somebody on a control thread listens.

use std::sync::Arc;

use ethdev::DropReason;
use flow::slot;
use l2proto::Bfd;
use l2proto::bfd::frame::{MAX_LEN as BFD_LEN, is_for};
use l2proto::cfm::frame::{MAX_LEN as CFM_LEN, is_message};
use l2proto::lacp::pdu::SLOW_PROTOCOLS;
use l2proto::lldp::frame::{ETHERTYPE as LLDP, GROUP as NEAREST_BRIDGE};
use l2proto::rstp::bpdu::GROUP as BRIDGES;
use packet::{BURST, Frame, MacAddr};

use crate::bond::answers::may_answer;
use crate::datapath::Source;
use crate::inlet::Inlet;

/// Where the EtherType of a frame without a tag is.
const ETHERTYPE_AT: usize = 12;

/// What one worker takes out of what comes in on a port.
#[derive(Clone, Debug, Default)]
pub struct Trap {
    /// Where frames of LLDP go.
    pub lldp: Option<Inlet>,
    /// Where messages of spanning tree go.
    pub bpdu: Option<Inlet>,
    /// Where frames of LACP go, of a port that is no member of a bond.
    pub slow: Option<Inlet>,
    /// Where answers go to what a member of a bond has asked.
    pub answers: Option<Answers>,
    /// Where frames go by which its link is watched, and which those are.
    pub watch: Option<(Watched, Inlet)>,
}

/// The most bytes of a frame by which a link is watched.
pub const WATCH_LEN: usize = if CFM_LEN > BFD_LEN { CFM_LEN } else { BFD_LEN };

/// By which frames a link is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Whether messages of CFM are extended ones, if there are any.
    pub extended: Option<bool>,
    /// Packets of BFD that are for this session.
    pub bfd: Option<Bfd>,
}

impl Watched {
    fn has(&self, head: &[u8], key: impl FnOnce() -> u64) -> bool {
        self.extended.is_some_and(|extended| is_message(head, extended))
            || self.bfd.as_ref().is_some_and(|settings| is_for(head, key(), settings))
    }
}

/// By what a neighbour speaks to the switch itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// LLDP.
    Lldp,
    /// Spanning tree.
    SpanningTree,
    /// LACP.
    Lacp,
    /// CFM or BFD, which watch a link.
    Watch,
}

/// What is listened for on a port.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listens<'w> {
    /// LLDP.
    pub lldp: bool,
    /// Messages of spanning tree.
    pub bpdu: bool,
    /// LACP.
    pub slow: bool,
    /// Frames by which its link is watched.
    pub watch: Option<&'w Watched>,
}

impl Listens<'_> {
    /// What a frame that begins with `head` is heard as; `key` is that of the tunnel it has come by.
    pub fn protocol(&self, head: &[u8], key: impl FnOnce() -> u64) -> Option<Protocol> {
        let ethertype = head.get(ETHERTYPE_AT..).and_then(|rest| rest.first_chunk());
        if self.lldp
            && head.starts_with(&NEAREST_BRIDGE.0)
            && ethertype == Some(&LLDP.to_be_bytes())
        {
            return Some(Protocol::Lldp);
        }
        if self.bpdu && head.starts_with(&BRIDGES.0) {
            return Some(Protocol::SpanningTree);
        }
        if self.slow && head.starts_with(&SLOW_PROTOCOLS.0) {
            return Some(Protocol::Lacp);
        }
        self.watch.filter(|watched| watched.has(head, key)).map(|_| Protocol::Watch)
    }
}

/// Who asks, and where answers go.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The address of the member, and those of all members of its bond.
    pub asker: Askers,
    /// Where answers go.
    pub inlet: Inlet,
}

/// The address by which a member of a bond asks, and those of all its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Askers {
    /// Its own.
    pub own: MacAddr,
    /// Those of all members, of the others, too.
    pub all: Arc<[MacAddr]>,
}

impl Askers {
    /// Whether a frame that begins with `head` was sent by one of them to a group: a question that has
    /// come back by another member.
    fn have_asked(&self, head: &[u8]) -> bool {
        let source = head.get(6..).and_then(|rest| rest.first_chunk());
        let is_group = head.first().is_some_and(|first| first & 1 != 0);
        is_group && source.is_some_and(|source| self.all.contains(&MacAddr(*source)))
    }
}

impl Trap {
    /// Takes a frame, if it is one of those that are listened for; an error is why it is dropped all
    /// the same.
    fn take(&self, frame: &Frame<'_>, source: &Source<'_>) -> Option<Result<(), DropReason>> {
        let (head, from) = (frame.head(), (source.port, 0));
        let had_room = match self.protocol(head, source) {
            Some(Protocol::Lldp) => self.lldp.as_ref()?.put(from, frame, source.now),
            Some(Protocol::SpanningTree) => self.bpdu.as_ref()?.put(from, frame, source.now),
            Some(Protocol::Lacp) => self.slow.as_ref()?.put(from, frame, source.now),
            Some(Protocol::Watch) => self.watch.as_ref()?.1.put(from, frame, source.now),
            None => return self.answer(frame, source),
        };
        Some(had_room.then_some(()).ok_or(DropReason::RateLimited))
    }

    fn protocol(&self, head: &[u8], source: &Source<'_>) -> Option<Protocol> {
        let listens = Listens {
            lldp: self.lldp.is_some(),
            bpdu: self.bpdu.is_some(),
            slow: self.slow.is_some(),
            watch: self.watch.as_ref().map(|(watched, _)| watched),
        };
        listens.protocol(head, || source.tunnel().key().get_u64(slot::TUN_ID))
    }

    /// Takes a frame if it answers what a member of a bond has asked, or is such a question.
    fn answer(&self, frame: &Frame<'_>, source: &Source<'_>) -> Option<Result<(), DropReason>> {
        let head = frame.head();
        if let Some(Answers { asker, inlet }) = &self.answers {
            if may_answer(head, asker.own) {
                let had_room = inlet.put((source.port, 0), frame, source.now);
                return Some(had_room.then_some(()).ok_or(DropReason::RateLimited));
            }
            return asker.have_asked(head).then_some(Err(DropReason::CameBack));
        }
        None
    }
}

/// The traps of all ports.
#[derive(Debug, Default)]
pub(crate) struct Traps {
    /// By port number; empty where there are none.
    ports: Vec<Option<Box<Trap>>>,
}

impl Traps {
    /// Whether no port has one.
    pub(crate) const fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Gives `port` another trap, or none.
    pub(crate) fn set(&mut self, port: u16, trap: Option<Box<Trap>>) {
        let index = usize::from(port);
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, || None);
        }
        if let Some(place) = self.ports.get_mut(index) {
            *place = trap;
        }
        if self.ports.iter().all(Option::is_none) {
            self.ports.clear();
        }
    }

    /// Whether anything is taken from what comes in on `port`.
    #[inline]
    pub(crate) fn has(&self, port: u16) -> bool {
        matches!(self.ports.get(usize::from(port)), Some(Some(_)))
    }

    /// Takes frames out of a burst, and returns which. Those that nobody hears, as for which there was no
    /// room, are counted as drops.
    pub(crate) fn take(&self, frames: &[Frame<'_>], source: &Source<'_>) -> u32 {
        let trap = self.ports.get(usize::from(source.port)).and_then(Option::as_deref);
        let Some(trap) = trap else { return 0 };
        let mut taken = 0;
        for (index, frame) in frames.iter().enumerate().take(BURST) {
            let Some(outcome) = trap.take(frame, source) else { continue };
            taken |= 1_u32 << index;
            if let Err(reason) = outcome {
                source.stats.count_drops(reason, 1);
            }
        }
        taken
    }
}
