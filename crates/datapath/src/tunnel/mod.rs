//! Ports of tunnels: what a bridge sends to such a port goes out by another bridge, in an IP packet, as if
//! the host had sent it there by that bridge's own port; and what comes to that port for the host, and is of
//! a tunnel, comes in at the tunnel's port instead.
//!
//! Both happen where patch ports lead from bridge to bridge, in the same worker and burst, with the same
//! bounds: so tunnels within tunnels end as loops of patch ports do.
//!
//! - `hop`: where an outer packet goes
//! - `pop`: out of a tunnel
//! - `push`: into one
//! - `words`: what rules see of it

pub mod hop;
mod pop;
mod push;
mod words;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use ethdev::QueueStats;
use packet::{BURST, Frame};
use tunnel::{Envelope, Kind, Settings};

use crate::bridge::BridgeId;
use crate::inlet::Inlet;
use crate::outputs::Outputs;
use hop::{Asked, End, Ways};

pub(crate) use pop::Popped;
pub(crate) use push::{Pushed, Taken, inner};
pub use words::{inner_of, meta_of, wish, words};

/// The most bytes of an answer of a neighbour that matter: those of an advertisement of IPv6 with an
/// option.
pub const ANSWER_LEN: usize = 128;

/// How long addresses of Ethernet are, behind which tags and the EtherType are; how long a tag is.
const ADDRESSES: usize = 12;
const TAG: usize = 4;

/// One worker's view of a port of a tunnel.
#[derive(Clone, Debug)]
pub struct TunnelPort {
    /// Its number.
    pub port: u16,
    /// The bridge that it belongs to.
    pub bridge: BridgeId,
    /// What it is set to.
    pub settings: Arc<Settings>,
    /// The number that the next packet has, where packets have numbers; all workers share it.
    pub numbers: Arc<AtomicU32>,
    /// The worker's counters of what comes in there.
    pub rx: Arc<QueueStats>,
    /// The worker's counters of what goes out there.
    pub tx: Arc<QueueStats>,
}

/// One worker's tunnels.
#[derive(Debug)]
pub struct Tunnels {
    ports: Vec<TunnelPort>,
    ways: Arc<Ways>,
    /// Where answers of neighbours go.
    inlet: Inlet,
    asked: Asked,
    /// Where frames are counted that come out of no tunnel: with the first port of any.
    pub(crate) lost: Arc<QueueStats>,
}

/// What a port has to do with tunnels.
pub(crate) enum Place<'t> {
    Port(&'t TunnelPort),
    /// It is where tunnels end.
    End,
}

impl Tunnels {
    /// These ports, whose packets go these ways. What hosts answer to what was asked goes into `inlet`.
    #[must_use]
    pub fn new(ports: Vec<TunnelPort>, ways: Arc<Ways>, inlet: Inlet) -> Self {
        let lost = ports.first().map(|port| Arc::clone(&port.rx)).unwrap_or_default();
        Self { ports, ways, inlet, asked: Asked::default(), lost }
    }

    /// Keeps in mind what the one before has asked, and how much it has taken: whoever has ways change by what
    /// he answers may answer no more by that.
    pub(crate) fn go_on_from(&mut self, before: Self) {
        (self.asked, self.inlet) = (before.asked, before.inlet);
    }

    /// All ports at which frames are not sent, but go on from.
    pub(crate) fn places(&self) -> impl Iterator<Item = u16> {
        let ends = self.ways.ends.iter().map(|end| end.port);
        self.ports.iter().map(|port| port.port).chain(ends)
    }

    /// The end of this number.
    pub(crate) fn end(&self, port: u16) -> Option<&End> {
        self.ways.ends.iter().find(|end| end.port == port)
    }

    /// What a port has to do with tunnels, if it has.
    pub(crate) fn place(&self, port: u16) -> Option<Place<'_>> {
        let own = self.ports.iter().find(|own| own.port == port).map(Place::Port);
        own.or_else(|| self.end(port).map(|_| Place::End))
    }

    /// Has frames that are of tunnels not go out on a bridge's own port, but go on from there; and notes
    /// what neighbours say.
    pub(crate) fn divert(&self, frames: &[Frame<'_>], outputs: &mut Outputs, now: u64) {
        for end in &self.ways.ends {
            outputs.divert(end.port, |mask| {
                let own = frames.iter().enumerate().take(BURST);
                let own = own.filter(|(index, _)| mask & 1_u32 << *index != 0);
                own.fold(0, |taken, (index, frame)| {
                    if is_answer(frame.head()) {
                        self.inlet.put((end.port, 0), frame, now);
                    }
                    taken | u32::from(self.is_of_tunnel(frame, end)) << index
                })
            });
        }
    }

    /// Whether a frame is of a tunnel that ends here; what else it says is looked at later.
    fn is_of_tunnel(&self, frame: &Frame<'_>, end: &End) -> bool {
        ended(self.settings(), end, (frame.head(), frame.len())).is_some()
    }

    fn settings(&self) -> impl Iterator<Item = &Settings> {
        self.ports.iter().map(|port| &*port.settings)
    }

    /// Which kind of tunnel a packet is of, and the port of UDP that it has come to.
    fn kind_of(&self, envelope: &Envelope, head: &[u8]) -> Option<(Kind, u16)> {
        kind_of(self.settings(), envelope, head)
    }
}

/// Which tunnel of some a frame is of that ends here: its kind, and its port of UDP. The frame is how it begins,
/// and how long it is.
pub fn ended<'s>(
    all: impl Iterator<Item = &'s Settings>,
    end: &End,
    (head, len): (&[u8], usize),
) -> Option<(Kind, u16)> {
    let mut plain = [0; packet::HEAD_LEN];
    // The tag may still have to be taken off.
    let (head, len) = match without_tag(head, &mut plain) {
        Some(head) => (head, len.saturating_sub(TAG)),
        None => (head, len),
    };
    let envelope = Envelope::parse(head, len).ok()?;
    let is_here = end.addresses.contains(&envelope.destination);
    kind_of(all, &envelope, head).filter(|_| is_here)
}

fn kind_of<'s>(
    all: impl Iterator<Item = &'s Settings>,
    envelope: &Envelope,
    head: &[u8],
) -> Option<(Kind, u16)> {
    // The port of UDP, or what GRE is around.
    let to = head.get(envelope.at.checked_add(2)?..).and_then(|rest| rest.first_chunk());
    let to = to.map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let mut other = None;
    for Settings { kind, port, .. } in all.filter(|own| own.kind.protocol() == envelope.protocol) {
        let found = Some((*kind, *port));
        match kind.is_over_udp() {
            true if *port == to => return found,
            false if *kind == Kind::over_gre(to) => return found,
            true => {}
            // Who has one of them has none of the other kind for himself.
            false => other = other.or(found),
        }
    }
    other
}

/// The first bytes of a frame without the tag that it has, if it has one.
fn without_tag<'p>(head: &[u8], plain: &'p mut [u8; packet::HEAD_LEN]) -> Option<&'p [u8]> {
    let (addresses, rest) = head.split_at_checked(ADDRESSES)?;
    let ([a, b, ..], behind) = rest.split_first_chunk::<TAG>()?;
    if [*a, *b] != [0x81, 0] {
        return None;
    }
    let len = behind.len().min(plain.len() - ADDRESSES);
    plain.get_mut(..ADDRESSES)?.copy_from_slice(addresses);
    plain.get_mut(ADDRESSES..ADDRESSES + len)?.copy_from_slice(behind.get(..len)?);
    plain.get(..ADDRESSES + len)
}

/// Whether a frame may be an answer of ARP, or an advertisement of a neighbour.
fn is_answer(head: &[u8]) -> bool {
    let mut plain = [0; packet::HEAD_LEN];
    let head = without_tag(head, &mut plain).unwrap_or(head);
    let at = |at: usize| head.get(at).copied();
    match head.get(ADDRESSES..).and_then(|rest| rest.first_chunk()) {
        Some([0x08, 0x06]) => at(21) == Some(2),
        Some([0x86, 0xDD]) => (at(20), at(54)) == (Some(58), Some(136)),
        _ => false,
    }
}
