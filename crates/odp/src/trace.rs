//! A packet's way through bridges, told as `ofproto/trace` does.
//!
//! - `follow`: what is heard of a walk
//! - `onward`: where a packet is handed on to
//! - `rounds`: packets that are tracked, and looked up again
//! - `slow`: what a datapath leaves to others
//! - `thaw`: packets that come again, and what was left of their rules
//! - `tunnels`: into tunnels, and out of them

mod follow;
mod nat;
mod onward;
mod rounds;
mod slow;
mod thaw;
mod tunnels;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use flow::walk::{Start, walk};
use flow::{Cause, Change, Frozen, Key, PacketIn, Pipeline, slot};
use openflow::{Action as Of, PortNo};

use crate::abilities::Abilities;
use crate::action::{Action, Actions, Names, Onward, open_last_clone};
use crate::look::MAX_RULES;
use crate::node::{Tree, What};
use crate::seen::Seen;
use crate::told;
use crate::tunnel::IntoTunnel;
use rounds::Round;
pub use slow::Protocol;

/// What lies behind a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlet {
    /// A port of the datapath, by its number there.
    Port(u32),
    /// Another bridge, where the packet comes in on this port.
    Patch(String, PortNo),
    /// A tunnel, by the name of its port.
    Tunnel(String),
    /// A bond that divides traffic by flow: the packet comes again by this number.
    Balanced(u32),
    /// The same, where the datapath has the bond's table, by this number.
    ByTable(u32),
    /// A port that is to be sent nothing (`OFPPC_NO_FWD`).
    Shut,
    /// Nothing.
    Nowhere,
}

/// A copy for a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorCopy {
    /// Where it goes.
    pub outlet: Outlet,
    /// What it is.
    pub key: Key,
    /// How many bytes of it there are at most; `None`: all.
    pub len: Option<u16>,
}

/// What switching as usual does with a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Normal {
    /// What there is to say about it: whether as a warning, and what.
    pub notes: Vec<(bool, String)>,
    /// Where it goes, and what it is by then.
    pub outputs: Vec<(Outlet, Key)>,
    /// What mirrors copy of what goes out.
    pub copies: Vec<MirrorCopy>,
    /// Whether it goes to all, as nobody knows its destination.
    pub is_flooded: bool,
}

/// What a trace has to know of the switch.
pub trait World {
    /// What decides about a bridge's packets.
    fn pipeline(&mut self, bridge: &str) -> Option<Arc<Pipeline>>;

    /// What lies behind a port, of the number by which the switch knows it.
    fn outlet(&mut self, bridge: &str, port: u16) -> Outlet;

    /// The protocol because of which nothing goes out on a port, of the number by which the switch knows it:
    /// of spanning tree.
    fn closed_by(&mut self, _bridge: &str, _port: u16) -> Option<&'static str> {
        None
    }

    /// What switching as usual does with a packet on this bridge.
    fn normal(&mut self, bridge: &str, port: Option<u16>, key: &Key) -> Normal;

    /// What becomes of a packet that goes to a port of a tunnel; `None`: nobody says where it leads.
    fn enter_tunnel(&mut self, bridge: &str, port: &str, key: &Key) -> Option<IntoTunnel> {
        let _ = (bridge, port, key);
        None
    }

    /// The port of tunnels where a packet comes out that is to go out on a port of the datapath.
    fn out_of_tunnel(&mut self, port: u32, key: &Key) -> Option<u32> {
        let _ = (port, key);
        None
    }

    /// What mirrors of a bridge copy of a packet that came in on a port, or is to go out on one.
    fn copies(&mut self, bridge: &str, key: &Key, out: Option<u16>) -> Vec<MirrorCopy> {
        let _ = (bridge, key, out);
        Vec::new()
    }

    /// Mirrors that have a copy of the packet by now: none gets another where it comes again.
    fn copied(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Whether mirrors of a bridge look at packets' VLANs.
    fn mirrors_vlans(&self, bridge: &str) -> bool {
        let _ = bridge;
        false
    }

    /// Whether there are collectors that are told of packets of this bridge.
    fn has_collectors(&self, bridge: &str) -> bool {
        let _ = bridge;
        false
    }

    /// By which protocol a packet that comes in on a bridge speaks to the switch itself, and goes no further; and
    /// which bits of it tell that.
    fn heard(&mut self, bridge: &str, key: &Key) -> (Option<Protocol>, Key) {
        let _ = (bridge, key);
        (None, Key::default())
    }

    /// A number for what is to go on with a packet that leaves the datapath.
    fn context(&mut self, bridge: &str, about: &PacketIn) -> u32;

    /// What the datapath can.
    fn abilities(&self) -> Abilities {
        Abilities::ALL
    }

    /// How long the packet is, if there is one.
    fn packet_len(&self) -> Option<usize> {
        None
    }

    /// A number for what a tracked packet goes on with.
    fn round(&mut self, bridge: &str, frozen: &Arc<Frozen>) -> u32;

    /// Controllers get the packet, of which this is known. Only asked where there is a packet.
    fn controller(&mut self, bridge: &str, key: &Key, about: &Arc<PacketIn>) {
        let _ = (bridge, key, about);
    }

    /// A rule is made. Only asked where there is a packet.
    fn learn(&mut self, bridge: &str, change: &Arc<Change>) {
        let _ = (bridge, change);
    }

    /// Whether packets come in on a bridge's port without a header of Ethernet, and rules see them with one that is
    /// empty.
    fn puts_ethernet_on(&self, bridge: &str, port: PortNo) -> bool {
        let _ = (bridge, port);
        false
    }

    /// The name of a bridge's port.
    fn port_name(&self, bridge: &str, port: PortNo) -> Option<String> {
        let _ = (bridge, port);
        None
    }

    /// The name of a port of the datapath.
    fn path_name(&self, port: u32) -> Option<String> {
        let _ = port;
        None
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'q> {
    /// Where the packet is.
    pub bridge: &'q str,
    /// What it is.
    pub key: Key,
    /// What is done with it, if that is not what rules say.
    pub actions: Option<&'q [Of]>,
    /// Where it goes on, if it has come again.
    pub onward: Option<&'q Onward>,
    /// Whether there is a packet: addresses are learnt, rules made, and controllers told.
    pub is_real: bool,
    /// Whether it is told as a flow of a datapath, by which controllers are told of its packets; not as a mere
    /// question.
    pub is_flow: bool,
    /// Whether ports are called by their names.
    pub names: bool,
    /// What connections are taken for when the packet was tracked, one after the other: bits of
    /// OpenFlow's `ct_state`. Beyond these, they are new.
    pub states: &'q [u32],
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// All of it, as text.
    pub text: String,
    /// Which bits of the packet count.
    pub mask: Key,
    /// What a datapath does with it.
    pub actions: Vec<Action>,
    /// Whether it floods.
    pub is_flooded: bool,
    /// What was wrong on the way.
    pub errors: Vec<String>,
    /// Whether it is dropped since its way has no end.
    is_lost: bool,
}

impl Told {
    /// Whether it is dropped since its way is too long.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.is_lost
    }
}

/// The most bridges that a packet is followed through.
const MAX_BRIDGES: usize = 1_024;

/// Errors of ways that have no end, as far as can be told.
const ENDLESS: [&str; 2] = ["Recursion too deep", "Too many resubmits"];

/// The most errors that are kept for the log.
const MAX_ERRORS: usize = 16;

/// The most times that it is asked what switching as usual does.
const MAX_NORMAL: usize = 1_024;

/// How deep lines may be within each other when another bridge follows: what the stack has room for.
const MAX_DEPTH: usize = 256;

/// Tells a packet's way.
pub fn trace(world: &mut dyn World, question: &Question<'_>) -> Told {
    let (mut told, rounds) = pass(world, question);
    rounds::follow(world, question, &mut told, rounds);
    told
}

/// Tells a packet's way until it is to come again, and what it comes with then.
fn pass(world: &mut dyn World, question: &Question<'_>) -> (Told, Vec<Round>) {
    let mut first = question.key;
    first.set(slot::ACTSET_OUTPUT, PortNo::UNSET.0.into());
    if let Some(Onward { frozen, .. }) = question.onward {
        first.set(slot::IN_PORT, frozen.key.get(slot::IN_PORT));
    }
    let mut tracer = Tracer::new(world, question, &first);
    let mut key = first;
    let start = match (question.onward, question.actions) {
        (Some(onward), _) => Start::Frozen(&onward.frozen),
        (None, Some(actions)) => Start::Actions(actions),
        (None, None) => Start::Table,
    };
    let port = PortNo(key.get_u32(slot::IN_PORT));
    if matches!(start, Start::Table)
        && key.get(slot::PACKET_TYPE) != 0
        && tracer.world.puts_ethernet_on(question.bridge, port)
    {
        key.set(slot::PACKET_TYPE, 0);
        tracer.encap = Some(Vec::new());
    }
    tracer.bridge(question.bridge, &mut key, &start);
    // It is still one that has come again.
    key.set(slot::RECIRC_ID, first.get(slot::RECIRC_ID));
    tracer.finish(question.bridge, &first, &key)
}

/// Tells the way of a packet of a datapath that has come again, until it comes again once more: that is a flow of
/// its own, which is asked for by itself.
pub fn resume(world: &mut dyn World, key: &Key, onward: &Onward) -> Told {
    let question = Question {
        bridge: &onward.bridge,
        key: *key,
        actions: None,
        onward: Some(onward),
        is_real: false,
        is_flow: true,
        names: false,
        states: &[],
    };
    pass(world, &question).0
}

/// How what is done with a copy is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CopyKind {
    /// Without more: it can be undone, or nothing follows.
    Plain,
    /// By the datapath's action for that.
    Clone,
    /// By that for some of all packets, for all of them.
    Sample,
    /// Not at all, as the datapath can do neither.
    None,
}

/// Where a way is, at the moment.
#[derive(Debug)]
struct Fork {
    base: Key,
    tunnel: Option<String>,
    cause: Cause,
    /// How deep lines were.
    depth: usize,
    /// How what is done is told.
    kind: CopyKind,
    was_last: bool,
}

/// A way that depends on how long the packet is.
#[derive(Debug)]
struct ByLen {
    len: u16,
    base: Key,
    tunnel: Option<String>,
    cause: Cause,
    /// What is done with a longer packet, once it is told.
    longer: Option<Vec<Action>>,
}

/// A way as it is told.
struct Tracer<'w> {
    world: &'w mut dyn World,
    is_real: bool,
    is_flow: bool,
    names: bool,
    can: Abilities,
    bridge: String,
    tree: Tree,
    /// What the packet was, and what the datapath has it for by now.
    first: Key,
    base: Key,
    /// What the datapath was told of the tunnel that it is to go into.
    tunnel: Option<String>,
    /// By what the packet has come to the bridge, and by what it goes to other bridges.
    causes: (Cause, Cause),
    seen: Seen,
    /// Actions, and those of clones that are not at their end, the innermost last.
    actions: Vec<Vec<Action>>,
    /// Whether nothing follows what is done, and for each place whether nothing follows that.
    is_last: bool,
    lasts: Vec<(bool, usize)>,
    /// Of each action that was left where the packet has come again, the rule, if that is told.
    origins: VecDeque<Option<(u8, u64)>>,
    forks: Vec<Fork>,
    by_len: Vec<ByLen>,
    /// The next table is the first one of another bridge.
    is_new_bridge: bool,
    /// How deep lines are where the bridge's walk began.
    root: usize,
    error: Option<&'static str>,
    /// What was wrong on the way, for the log.
    errors: Vec<String>,
    /// Something was to be taken from the stack, which was empty.
    is_underflow: bool,
    /// A queue was chosen before the action at hand.
    has_queue: bool,
    /// A header was put on in front of all, which the datapath was not told yet; and its metadata, if it has any of its
    /// own.
    encap: Option<Vec<u8>>,
    /// A label of MPLS is in front of what the packet began with.
    is_covered: bool,
    /// Whether a kernel's datapath could not do it.
    is_slow: bool,
    /// By what it has spoken to the switch.
    heard: BTreeSet<Protocol>,
    /// Whether it has flooded.
    is_flooded: bool,
    /// Copies of what has come in that a port is not sent: told with the first table.
    shut_copies: Option<usize>,
    rules_left: usize,
    bridges_left: usize,
    normals_left: usize,
    rounds: Vec<Round>,
}

impl<'w> Tracer<'w> {
    fn new(world: &'w mut dyn World, question: &Question<'_>, key: &Key) -> Self {
        Self {
            can: world.abilities(),
            world,
            is_real: question.is_real,
            is_flow: question.is_flow,
            names: question.names,
            bridge: String::new(),
            tree: Tree::new(),
            first: *key,
            base: *key,
            tunnel: None,
            causes: Default::default(),
            seen: Seen::new(key),
            actions: vec![Vec::new()],
            is_last: true,
            lasts: Vec::new(),
            origins: VecDeque::new(),
            forks: Vec::new(),
            by_len: Vec::new(),
            is_new_bridge: false,
            root: 0,
            error: None,
            errors: Vec::new(),
            is_underflow: false,
            has_queue: false,
            encap: None,
            is_covered: false,
            is_slow: false,
            heard: BTreeSet::new(),
            is_flooded: false,
            shut_copies: None,
            rules_left: MAX_RULES,
            bridges_left: MAX_BRIDGES,
            normals_left: MAX_NORMAL,
            rounds: Vec::new(),
        }
    }

    /// Follows the packet through one bridge.
    fn bridge(&mut self, bridge: &str, key: &mut Key, start: &Start<'_>) {
        let Some(left) = self.bridges_left.checked_sub(1) else { return };
        self.bridges_left = left;
        let depth = self.tree.depth();
        self.tree.begin(What::Bridge, format!("bridge(\"{bridge}\")"));
        let outer = std::mem::replace(&mut self.bridge, bridge.to_owned());
        let root = std::mem::replace(&mut self.root, self.tree.depth());
        if let Some(pipeline) = self.world.pipeline(bridge) {
            let port = pipeline.ports.get(&PortNo(key.get_u32(slot::IN_PORT)));
            if let Start::Frozen(frozen) = start {
                self.thaw(frozen);
            }
            if self.admits(key) {
                let is_refused = port.is_some_and(|port| port.refuses(key));
                let is_heard = self.is_heard(bridge, key, start);
                // What comes again was copied where it came in.
                if !matches!(start, Start::Frozen(_)) && (is_heard || !is_refused) {
                    self.shut_copies = matches!(start, Start::Table).then_some(0);
                    self.copies(key, None);
                }
                if !is_heard {
                    let path = walk(&pipeline, key, start, Some(self));
                    if self.is_real {
                        path.learns.iter().for_each(|change| self.world.learn(bridge, change));
                    }
                }
            }
        }
        self.close_clones(depth);
        self.tree.end(depth);
        (self.bridge, self.root) = (outer, root);
    }

    /// Whether a packet is for the switch itself; what comes again was not, when it came in.
    fn is_heard(&mut self, bridge: &str, key: &Key, start: &Start<'_>) -> bool {
        if !matches!(start, Start::Table) {
            return false;
        }
        let (protocol, bits) = self.world.heard(bridge, key);
        self.seen.bits(&bits);
        self.heard.extend(protocol);
        protocol.is_some()
    }

    /// All of it.
    fn finish(mut self, bridge: &str, first: &Key, last: &Key) -> (Told, Vec<Round>) {
        let mut actions = self.actions.drain(..).next().unwrap_or_default();
        if self.error.is_some() {
            actions.clear();
        } else if self.is_flow
            && let Some(slow) = slow::flow(self.is_slow, &self.heard)
        {
            // A datapath hands its packets to who knows how to do it.
            actions = vec![Action::Said(slow)];
        }
        open_last_clone(&mut actions);
        let Self { world, tree, seen, error, errors, is_flooded, names, rounds, .. } = self;
        let (is_slow, heard) = (self.is_slow, self.heard);
        let mask = seen.finish(first, last);
        let way = tree.text();
        let port_names = |port| world.port_name(bridge, port);
        let path_names = |port| world.path_name(port);
        let port_names: Option<told::PortNames<'_>> = if names { Some(&port_names) } else { None };
        let path_names: Option<Names<'_>> = if names { Some(&path_names) } else { None };
        let end = match first == last {
            true => "unchanged".to_owned(),
            false => told::packet(last, port_names),
        };
        let mut text = format!(
            "Flow: {}\n{way}\nFinal flow: {end}\nMegaflow: {}\nDatapath actions: {}",
            told::packet(first, port_names),
            told::megaflow(first, &mask, port_names),
            Actions { actions: &actions, names: path_names },
        );
        if let Some(error) = error {
            text += &format!("\nTranslation failed ({error}), packet is dropped.\n");
        } else {
            text += &slow::text(is_slow, &heard);
        }
        let is_lost = error.is_some_and(|error| ENDLESS.contains(&error));
        (Told { text, mask, actions, is_flooded, errors, is_lost }, rounds)
    }
}

#[cfg(test)]
mod ability_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tunnel_tests;
