//! The way of a packet through the tables.
//!
//! It is what OVS's translation does (`ofproto-dpif-xlate`), with its limits: what is wrong with a
//! packet's way, such as a loop, drops the packet.
//!
//! - `actions`: instructions of rules, and lists of actions
//! - `output`: where a packet goes
//! - `emit`: what is done with a packet once it is what its key says
//! - `state`: what a clone of the packet has of its own
//! - `write`: what is written to the key, and so to the packet
//! - `learn`: rules that are made of packets, or end sooner by them
//! - `larger`: what depends on how long a packet is
//! - `cut`: packets of which only the start is sent
//! - `dirty`: what was written to it
//! - `finish`: what has come of it in the end
//! - `links`: which of several links a packet takes
//! - `mark`: classes of service that queues of ports give
//! - `mpls`: labels of MPLS
//! - `nsh`: network service headers
//! - `outer`: headers in front of a whole packet
//! - `room`: memory for it
//! - `set`: the action set
//! - `freeze`: packets that stop, and go on later
//! - `group`: groups, and which of their buckets are alive
//! - `guide`: a way that was taken before
//! - `table`: which rules a packet finds
//! - `tags`: what becomes of a packet's tags
//! - `trace`: what a packet was when it was looked up
//! - `track`: connections
//! - `watch`: what is told of it

mod actions;
mod cut;
mod dirty;
mod emit;
mod finish;
mod freeze;
mod group;
pub(crate) mod guide;
mod larger;
pub(crate) mod learn;
mod links;
mod mark;
mod mpls;
mod nsh;
mod outer;
mod output;
pub(crate) mod room;
pub(crate) mod set;
mod state;
mod table;
mod tags;
pub(crate) mod trace;
mod track;
mod watch;
pub(crate) mod write;

use std::fmt::Arguments;
use std::sync::Arc;

use openflow::{Action, PortNo};

use crate::frozen::Frozen;
use crate::key::{Key, TAG_PRESENT, slot};
use crate::path::{Basis, Lost, Op, Passed, Path, Way};
use crate::pipeline::Pipeline;
use crate::rule::{Rule, Stats};
use crate::tables::Change;
use freeze::Freezing;
use guide::Guide;
use room::Room;
use state::State;
use trace::Tracer;

pub use mpls::labels;
pub use nsh::metadata as nsh_metadata;
pub(crate) use nsh::nsh_len;
pub use outer::NO_ETHERNET;
pub(crate) use track::helper;
pub use watch::{Kind, Place, Step, Watch};
pub use write::holds;

/// Tables that are gone back to, at most; each that is not behind the one before counts.
pub const MAX_DEPTH: u32 = 64;

/// Look-ups for one packet, at most.
pub const MAX_LOOKUPS: u32 = MAX_DEPTH * MAX_DEPTH;

/// Tables and clones within each other, at most: what the stack of a worker has room for.
const MAX_LEVEL: usize = 340;

/// Clones within each other in the actions of one rule, at most.
pub(crate) const MAX_NESTING: usize = 16;

/// Operations of one path, at most.
const MAX_OPS: usize = 16_384;

/// Operations of a path, and rules that it passes, for which there is room from the beginning.
const USUAL_OPS: usize = 4;
const USUAL_RULES: usize = 64;

/// Values on the stack, at most.
const MAX_STACK: usize = 4_096;

/// The meter of what goes to controllers without one of its own.
const NO_METER: u32 = u32::MAX;

/// How a walk begins.
#[derive(Clone, Debug)]
pub enum Start<'s> {
    /// In the first table.
    Table,
    /// With the actions of a message from a controller.
    Actions(&'s [Action]),
    /// Where it was stopped.
    Frozen(&'s Frozen),
}

/// The way of a packet with this key, which is what it comes to in the end when this returns.
pub fn walk<'w>(
    pipeline: &'w Pipeline,
    key: &mut Key,
    start: &Start<'_>,
    watch: Option<&'w mut dyn Watch>,
) -> Path {
    let mut room = Room::default();
    let mut walk = Walk::new(pipeline, key, watch, &mut room);
    walk.go(start);
    *key = walk.state.key;
    walk.finish().into_path(None, &mut room)
}

/// The same, as it is on the way to a path; if it `is_traced`, it is noted what the packet is whenever it
/// is looked up. It may be known then which way it took before.
pub(crate) fn find_way<'w>(
    pipeline: &'w Pipeline,
    key: &Key,
    start: &Start<'_>,
    (is_traced, guide): (bool, Option<Guide<'w>>),
    room: &mut Room,
) -> Way<'w> {
    let mut walk = Walk::new(pipeline, key, None, room);
    if is_traced {
        let mut tracer = room.tracer();
        tracer.begin(key);
        (walk.tracer, walk.guide) = (Some(tracer), guide);
    }
    walk.go(start);
    walk.finish()
}

struct Walk<'w> {
    pipeline: &'w Pipeline,
    watch: Option<&'w mut dyn Watch>,
    state: State,
    /// The table and the rule that is at work.
    table: u8,
    cookie: u64,
    rule: Option<&'w Rule>,
    /// Whether that is the one for what no other rule is for.
    is_miss: bool,
    depth: u32,
    lookups: u32,
    level: usize,
    stack: Vec<u128>,
    set: Vec<Action>,
    is_in_set: bool,
    is_in_group: bool,
    /// Buckets that it came to, and that were asked whether they are alive.
    buckets: u32,
    asked: u32,
    is_packet_out: bool,
    /// Nothing was looked up yet.
    is_first: bool,
    /// The port that it has come in by, if its way begins there.
    came_by: Option<PortNo>,
    has_exited: bool,
    /// The packet has stopped.
    freezing: Option<Box<Freezing>>,
    error: Option<Lost>,
    ops: Vec<Op>,
    /// How many of them stay if something goes wrong, where that is not for others to say.
    settled: Option<usize>,
    visits: Vec<Passed<'w>>,
    /// A hash of them.
    trail: u64,
    groups: Vec<&'w Arc<Stats>>,
    tracer: Option<Box<Tracer>>,
    /// By what the tracer has.
    guide: Option<Guide<'w>>,
    basis: Basis,
    learns: Vec<Arc<Change>>,
}

impl<'w> Walk<'w> {
    #[inline]
    fn new(
        pipeline: &'w Pipeline,
        key: &Key,
        watch: Option<&'w mut dyn Watch>,
        room: &mut Room,
    ) -> Self {
        let (ops, visits) = room.lists();
        Self {
            pipeline,
            watch,
            state: State::new(key),
            table: 0,
            cookie: u64::MAX,
            rule: None,
            is_miss: false,
            depth: 0,
            lookups: 0,
            level: 0,
            stack: Vec::new(),
            set: Vec::new(),
            is_in_set: false,
            is_in_group: false,
            buckets: 0,
            asked: 0,
            is_packet_out: false,
            is_first: false,
            came_by: None,
            has_exited: false,
            freezing: None,
            error: None,
            ops,
            settled: None,
            visits,
            trail: 0,
            groups: Vec::new(),
            tracer: None,
            guide: None,
            basis: Basis::default(),
            learns: Vec::new(),
        }
    }

    /// Goes all of the way.
    fn go(&mut self, start: &Start<'_>) {
        self.state.key.set(slot::ACTSET_OUTPUT, u128::from(PortNo::UNSET.0));
        match start {
            Start::Table => {
                let port = self.in_port();
                (self.is_first, self.came_by) = (true, Some(port));
                // It has come by that.
                self.state.tunnel = Some(self.state.key.tunnel());
                // It is as long as it is, without the place of a header that it has not.
                self.state.grown = 0;
                if self.is_refused() {
                    return self.pass_first(port);
                }
                self.table(port, self.pipeline.tables.first_of(&self.state.key), true);
            }
            Start::Actions(_) | Start::Frozen(_) if self.is_refused() => return,
            Start::Actions(actions) => {
                self.is_packet_out = true;
                self.actions(actions);
            }
            Start::Frozen(frozen) => self.thaw(frozen),
        }
        if self.error.is_none() {
            self.end();
        }
    }

    /// Whether the port where it comes in takes nothing like it.
    fn is_refused(&self) -> bool {
        let port = self.pipeline.ports.get(&self.in_port());
        port.is_some_and(|port| port.refuses(&self.state.key))
    }

    fn in_port(&self) -> PortNo {
        PortNo(self.state.key.get_u32(slot::IN_PORT))
    }

    /// Tells something of the packet as it is.
    fn tell(&mut self, tell: impl FnOnce(&mut dyn Watch, &Key)) {
        if let Some(watch) = &mut self.watch {
            tell(&mut **watch, &self.state.key);
        }
    }

    fn note(&mut self, kind: Kind, note: Arguments<'_>) {
        self.tell(|watch, _| watch.note(kind, note));
    }

    fn fail(&mut self, lost: Lost, note: Arguments<'_>) {
        self.note(Kind::Error, note);
        self.error = Some(lost);
    }

    /// Whether no more actions are done.
    const fn is_over(&self) -> bool {
        self.has_exited || self.error.is_some() || self.freezing.is_some()
    }

    /// What comes behind the tables.
    fn end(&mut self) {
        if self.freezing.is_none() {
            self.action_set();
        }
        self.finish_freezing();
    }

    /// Does no more, as there is too much to do; what was done stays.
    fn stop(&mut self) {
        self.note(Kind::Error, format_args!("resubmits yielded over 64 kB of actions"));
        self.has_exited = true;
    }
}

/// Whether control information of a tag says that there is one.
const fn is_tagged(tci: u16) -> bool {
    tci & TAG_PRESENT != 0
}

#[cfg(test)]
mod tests;
