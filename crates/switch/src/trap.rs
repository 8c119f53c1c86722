//! What neighbours say to the switch itself, and not through it: frames of link-local protocols, which a
//! worker takes out of what comes in on a port where somebody on a control thread listens.

use ethdev::DropReason;
use packet::{BURST, Frame};

use crate::datapath::Source;
use crate::inlet::Inlet;
use crate::lldp::frame::{ETHERTYPE as LLDP, GROUP as NEAREST_BRIDGE, MAX_LEN as LLDP_LEN};
use crate::rstp::bpdu::{FRAME_LEN as BPDU_LEN, GROUP as BRIDGES};

/// Where the EtherType of a frame without a tag is.
const ETHERTYPE_AT: usize = 12;

/// What one worker takes out of what comes in on a port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trap {
    /// Where frames of LLDP go.
    pub(crate) lldp: Option<Inlet<LLDP_LEN>>,
    /// Where messages of spanning tree go.
    pub(crate) bpdu: Option<Inlet<BPDU_LEN>>,
}

impl Trap {
    /// Takes a frame, if it is one of those that are listened for: then tells whether there was room
    /// for it.
    fn take(&mut self, frame: &Frame<'_>, source: &Source<'_>) -> Option<bool> {
        let head = frame.head();
        let ethertype = head.get(ETHERTYPE_AT..).and_then(|rest| rest.first_chunk());
        if let Some(inlet) = &mut self.lldp
            && head.starts_with(&NEAREST_BRIDGE.0)
            && ethertype == Some(&LLDP.to_be_bytes())
        {
            return Some(inlet.put(source.port, frame, source.now));
        }
        if let Some(inlet) = &mut self.bpdu
            && head.starts_with(&BRIDGES.0)
        {
            return Some(inlet.put(source.port, frame, source.now));
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

    /// Takes frames out of a burst, and returns which. Those for which there was no room are counted
    /// as drops.
    pub(crate) fn take(&mut self, frames: &[Frame<'_>], source: &Source<'_>) -> u32 {
        let trap = self.ports.get_mut(usize::from(source.port)).and_then(Option::as_deref_mut);
        let Some(trap) = trap else { return 0 };
        let mut taken = 0;
        for (index, frame) in frames.iter().enumerate().take(BURST) {
            let Some(had_room) = trap.take(frame, source) else { continue };
            taken |= 1_u32 << index;
            if !had_room {
                source.stats.count_drops(DropReason::RateLimited, 1);
            }
        }
        taken
    }
}
