//! The way of a packet through the tables.
//!
//! It is what OVS's translation does (`ofproto-dpif-xlate`), with its limits: what is wrong with a
//! packet's way, such as a loop, drops the packet.
//!
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

mod cut;
mod dirty;
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
pub(crate) mod room;
pub(crate) mod set;
mod table;
mod tags;
pub(crate) mod trace;
mod track;
mod watch;
pub(crate) mod write;

use std::fmt::Arguments;
use std::sync::Arc;

use openflow::action::Sample as SampleAction;
use openflow::packet_in::Reason;
use openflow::{Action, Instructions, PortNo, Subfield};

use crate::frozen::{Frozen, Zone};
use crate::key::{Key, TAG_PRESENT, TunnelWords, slot};
use crate::meters::CONTROLLER_METER;
use crate::path::{Basis, Cause, Edit, Lost, Op, PacketIn, Passed, Path, Sample, Way};
use crate::pipeline::Pipeline;
use crate::place::place;
use crate::rule::{Rule, Stats};
use crate::tables::{Change, HIDDEN_TABLE};
use dirty::Dirty;
use freeze::Freezing;
use guide::Guide;
use mpls::Labels;
use nsh::Metadata;
use room::Room;
use table::Next;
use tags::Tags;
use trace::Tracer;

pub use mpls::labels;
pub use nsh::metadata as nsh_metadata;
pub(crate) use nsh::nsh_len;
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

/// What a clone of the packet has of its own.
#[derive(Clone, Debug)]
struct State {
    key: Key,
    /// What was written to words of the packet since the last operation.
    dirty: Dirty,
    /// What has become of its tags since then.
    tags: Tags,
    /// And of its labels.
    labels: Labels,
    /// A network service header that was put on since then.
    nsh: Option<Metadata>,
    /// By how many bytes it has grown until then.
    grown: i32,
    /// What is known by now of the tunnel that it goes into; `None` where that is not known.
    tunnel: Option<TunnelWords>,
    /// What it is known by now to begin with, where it goes out.
    begins: u32,
    /// The mark that it is known by now to have, where it goes to another bridge, and by what it goes there.
    mark: u32,
    cause: Cause,
    /// Where it was tracked when it went on; `None` once it may be of another connection.
    zone: Option<Zone>,
}

impl State {
    #[inline]
    fn new(key: &Key) -> Self {
        let (tags, labels) = (Tags::new(key), Labels::new(key));
        let (grown, begins) = (outer::longer(key), key.get_u32(slot::PACKET_TYPE));
        let (dirty, mark) = (Dirty::NONE, key.get_u32(slot::PKT_MARK));
        let (nsh, tunnel, zone, cause) = (None, None, None, Cause::Rule);
        Self { key: *key, dirty, tags, labels, nsh, grown, tunnel, begins, mark, cause, zone }
    }

    /// By how many bytes it is to grow since, and by how many to shrink.
    fn changes(&self) -> (u32, u32) {
        let (tags, labels) = (self.tags.growth(&self.key), self.labels.growth(&self.key));
        let nsh = self.nsh.as_ref().map_or(0, Metadata::header_len);
        let more = tags.0.saturating_add(labels.0).saturating_add(nsh);
        (more, tags.1.saturating_add(labels.1))
    }

    /// By how many bytes it has grown since.
    fn growth(&self) -> i32 {
        let (more, less) = self.changes();
        more.cast_signed().saturating_sub(less.cast_signed())
    }
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

    /// Does what a rule says; gives the table that it says last to go on to, if nobody watches.
    fn instructions(&mut self, instructions: &Instructions) -> Option<Next> {
        let Instructions { apply, clear, write, metadata, goto_table } = instructions;
        if self.watch.is_some() && instructions.is_empty() {
            self.tell(|watch, key| watch.step(key, Step::Drop, true));
        }
        let more = *clear || write.is_some() || metadata.is_some() || goto_table.is_some();
        if let Some((Action::Resubmit { port, table, ct: false }, before)) = apply.split_last()
            && !more
            && self.watch.is_none()
            && !before.iter().any(|action| matches!(action, Action::CheckPktLarger { .. }))
        {
            if !before.is_empty()
                && let Some(left) = self.list(before, Some(instructions))
            {
                let done = before.len() - left.len();
                self.keep(apply.get(done..).unwrap_or_default(), Some(instructions));
                return None;
            }
            return Some(self.resubmit(*port, *table));
        }
        if let Some(left) = self.list(apply, Some(instructions)) {
            self.keep(left, Some(instructions));
            return None;
        }
        if *clear {
            self.tell_cleared();
            self.set.clear();
            self.update_actset_output();
        }
        if let Some(actions) = write {
            self.tell(|watch, key| watch.step(key, Step::Write(actions), false));
            self.set.extend(actions.iter().cloned());
            self.update_actset_output();
            self.tell_action_set();
        }
        if let Some((value, mask)) = metadata {
            self.tell(|watch, key| watch.step(key, Step::Metadata(*value, *mask), false));
            self.state.key.set_masked(slot::METADATA, u128::from(*value), u128::from(*mask));
        }
        // What goes to no table has ended: the number of the hidden one is not for controllers' rules.
        if let Some(table) = goto_table
            && *table < HIDDEN_TABLE
        {
            let is_last = self.set.is_empty();
            self.tell(|watch, key| watch.step(key, Step::GoTo(*table), is_last));
            let next = (self.in_port(), *table, true);
            if self.watch.is_none() {
                return Some(next);
            }
            self.table(next.0, next.1, next.2);
        }
        None
    }

    /// Where a packet goes on to, as if it had come in on `port`.
    fn resubmit(&self, port: Option<PortNo>, table: Option<u8>) -> Next {
        let port = port.filter(|port| *port != PortNo::IN_PORT);
        (port.unwrap_or_else(|| self.in_port()), table.unwrap_or(self.table), false)
    }

    /// Does actions.
    fn actions(&mut self, actions: &[Action]) {
        if actions.is_empty() {
            self.tell(|watch, key| watch.step(key, Step::Drop, true));
        }
        if let Some(left) = self.list(actions, None) {
            self.keep(left, None);
        }
    }

    /// The same; if they are a rule's, with what else it says. `None` if what is behind them is done,
    /// too; if not, those that are left, which matters if the packet has stopped.
    fn list<'l>(
        &mut self,
        actions: &'l [Action],
        of: Option<&Instructions>,
    ) -> Option<&'l [Action]> {
        let more = of.is_some_and(|of| {
            of.clear || of.write.is_some() || of.metadata.is_some() || of.goto_table.is_some()
        });
        let mut left = actions;
        while let Some((action, rest)) = left.split_first() {
            if self.is_over() {
                return Some(left);
            }
            let from_here = left;
            left = rest;
            let is_last = left.is_empty() && !more && self.set.is_empty();
            self.tell(|watch, key| watch.step(key, Step::Action(action), is_last));
            if let Action::CheckPktLarger { len, target } = *action {
                self.check_larger((len, target), left, of);
                // What is left of the rule is done.
                return Some(&[]);
            }
            if !self.act(action) {
                // What it goes round for is still to be done.
                return Some(if self.goes_round() { from_here } else { left });
            }
            self.tell(|watch, key| watch.done(key, action));
        }
        self.is_over().then_some(left)
    }

    /// Does one; returns whether those behind it are done.
    fn act(&mut self, action: &Action) -> bool {
        match action {
            Action::Output { port, max_len } => self.output(*port, *max_len),
            Action::Enqueue { port, queue } => self.enqueue(*port, *queue),
            Action::OutputField { source, max_len } => self.output_field(*source, *max_len),
            Action::OutputTruncated { port, max_len } => self.truncated(*port, *max_len),
            Action::Controller(to) if to.pause => self.pause(to),
            Action::Controller(to) => {
                self.controller((to.max_len, to.id), to.reason, &to.userdata, to.meter);
            }
            Action::Resubmit { port, table, ct } => {
                let (port, table, may_ask) = self.resubmit(*port, *table);
                if *ct {
                    self.table_of_original(port, table);
                } else {
                    self.table(port, table, may_ask);
                }
            }
            Action::Clone(actions) => self.clone(actions),
            Action::Group(id) => return self.group(*id),
            Action::Meter(id) => return self.meter(*id),
            Action::Sample(sample) => self.sample(sample),
            Action::Exit => self.has_exited = true,
            Action::DebugRecirc => self.recirculate(),
            // There is one way for packets, and it is not slow.
            Action::DebugSlow => {}
            Action::Push(source) => {
                let value = self.read(*source);
                self.stack.push(value);
            }
            Action::Pop(target) => match self.stack.pop() {
                Some(value) => self.write(*target, value),
                None => self.note(Kind::Error, format_args!("stack underflow")),
            },
            Action::Learn(learn) => self.learn(learn),
            Action::Ct(ct) => self.track(ct),
            Action::CtClear => self.clear_connection(),
            Action::FinTimeout { idle, hard } => self.fin_timeout(*idle, *hard),
            Action::Bundle(bundle) => self.bundle(bundle),
            Action::Multipath(multipath) => self.multipath(multipath),
            Action::PushMpls { ethertype } => self.push_mpls(*ethertype),
            Action::PopMpls { ethertype } => self.pop_mpls(*ethertype),
            Action::Encap(encap) => self.encap(encap),
            Action::Decap { packet_type } => return self.decap(*packet_type),
            Action::DecMplsTtl => return self.dec_mpls_ttl(),
            Action::DecNshTtl => return self.dec_nsh_ttl(),
            Action::DecTtl(ids) => return self.dec_ttl(ids.as_deref().unwrap_or(&[0])),
            other => self.write_by(other),
        }
        true
    }

    /// The value of some bits of a field.
    fn read(&self, from: Subfield) -> u128 {
        let Some(slot) = place(from.field) else { return 0 };
        self.state.key.get(slot) >> from.offset & openflow::field::ones(from.bits)
    }

    /// Sends it to a port's queue; what follows is as before.
    fn enqueue(&mut self, port: PortNo, queue: u32) {
        let before = self.state.key.get(slot::SKB_PRIORITY);
        self.state.key.set(slot::SKB_PRIORITY, u128::from(queue));
        self.output(port, 0);
        self.state.key.set(slot::SKB_PRIORITY, before);
    }

    fn output_field(&mut self, source: Subfield, max_len: u16) {
        let port = self.read(source);
        let Ok(number) = u16::try_from(port) else {
            return self.note(Kind::Warning, format_args!("output port {port} is out of range"));
        };
        self.note(Kind::Detail, format_args!("output port is {port}"));
        self.output(PortNo::from_v10(number), max_len);
    }

    fn output(&mut self, port: PortNo, max_len: u16) {
        match port {
            PortNo::IN_PORT => self.send(self.in_port()),
            PortNo::TABLE => {
                let port = self.in_port();
                self.table(port, self.pipeline.tables.first_of(&self.state.key), true);
            }
            PortNo::NORMAL => self.switch(),
            PortNo::FLOOD => self.flood(false),
            PortNo::ALL => self.flood(true),
            PortNo::CONTROLLER => {
                let reason = match (self.is_packet_out, self.is_in_group, self.is_in_set) {
                    (true, ..) => Reason::PACKET_OUT,
                    (_, true, _) => Reason::GROUP,
                    (_, _, true) => Reason::ACTION_SET,
                    _ => Reason::ACTION,
                };
                let packet_in =
                    PacketIn { is_by_place: true, ..self.packet_in((max_len, 0), reason) };
                self.tell_controllers(packet_in, NO_METER);
            }
            PortNo::ANY => {}
            port if port == self.in_port() => {
                self.note(Kind::Warning, format_args!("skipping output to input port"));
            }
            port => self.send(port),
        }
    }

    /// Does what a switch without rules does, which needs a port where the packet came in, or that it
    /// is a controller's.
    fn switch(&mut self) {
        if !self.state.key.is_ethernet() {
            return self.refuse_without_ethernet();
        }
        let port = self.in_port();
        match self.pipeline.ports.get(&port) {
            Some(port) => self.emit(Op::Normal(Some(port.number))),
            None if matches!(port, PortNo::ANY | PortNo::CONTROLLER) => self.emit(Op::Normal(None)),
            None => self.note(Kind::Warning, format_args!("no input bundle, dropping")),
        }
    }

    fn send(&mut self, port: PortNo) {
        match self.pipeline.ports.get(&port) {
            None => self.note(Kind::Warning, format_args!("Nonexistent output port")),
            Some(to) if !to.takes(self.state.key.get_u32(slot::PACKET_TYPE)) => {
                self.refuse_without_ethernet();
            }
            Some(to) if to.no_forward => {
                self.note(Kind::Detail, format_args!("OFPPC_NO_FWD set, skipping output"));
            }
            Some(to) => self.send_marked(port, Op::Output(to.number)),
        }
    }

    /// Sends it to controllers, through a meter if there is that one, or one for all that they get.
    fn controller(
        &mut self,
        (max_len, id): (u16, u16),
        reason: Reason,
        userdata: &[u8],
        meter: u32,
    ) {
        let about = self.packet_in((max_len, id), reason);
        self.tell_controllers(PacketIn { userdata: userdata.to_vec(), ..about }, meter);
    }

    /// What controllers are told of it as it is.
    fn packet_in(&self, (max_len, id): (u16, u16), reason: Reason) -> PacketIn {
        // The rule for what no other rule is for is a miss that somebody has asked for.
        let is_miss = reason == Reason::ACTION && self.is_miss;
        let reason = if is_miss { Reason::EXPLICIT_MISS } else { reason };
        let mut key = Box::new(self.state.key.beside());
        self.state.key.tell_connection(&mut key);
        // What the action set holds is not told.
        key.set(slot::ACTSET_OUTPUT, u128::from(PortNo::UNSET.0));
        key.set(slot::PACKET_TYPE, self.state.key.get(slot::PACKET_TYPE));
        let (table, cookie, userdata) = (self.table, self.cookie, Vec::new());
        let (is_by_place, frozen) = (false, None);
        PacketIn { max_len, id, reason, is_by_place, table, cookie, key, userdata, frozen }
    }

    fn tell_controllers(&mut self, packet_in: PacketIn, meter: u32) {
        let op = Op::Controller(Arc::new(packet_in));
        self.basis.meters = true;
        let meters = self.pipeline.tables.meters();
        let Some(meter) = [meter, CONTROLLER_METER].into_iter().find_map(|id| meters.get(id))
        else {
            return self.emit(op);
        };
        // What the meter drops goes wherever else it was to go.
        let meter = Op::Meter(meter.desc.id);
        self.flush();
        // What is told of it is forgotten with the rest.
        let told = (self.state.begins, self.state.mark);
        self.ops.push(Op::Save);
        self.emit(meter);
        self.emit(op);
        self.ops.push(Op::Restore);
        (self.state.begins, self.state.mark) = told;
    }

    /// Tells collectors of it.
    fn sample(&mut self, sample: &SampleAction) {
        let said = sample.sampling_port;
        let port = match self.pipeline.ports.get(&said) {
            // Where it comes in.
            _ if said == PortNo::ANY || said == self.in_port() => None,
            Some(port) => Some(port.number),
            None => {
                let said = said.0;
                return self.note(
                    Kind::Warning,
                    format_args!("can't use unknown port {said} in flow sample action"),
                );
            }
        };
        let SampleAction { probability, direction, .. } = *sample;
        let (domain, point) = (sample.obs_domain_id, sample.obs_point_id);
        let set = sample.collector_set_id;
        let sample = Sample { probability, set, domain, point, port, direction };
        self.emit(Op::Sample(Arc::new(sample)));
    }

    /// Does actions with a copy of the packet.
    fn clone(&mut self, actions: &[Action]) {
        if self.level >= MAX_LEVEL {
            return self
                .fail(Lost::TooDeep, format_args!("over max translation depth {MAX_DEPTH}"));
        }
        // Off the stack, which deep clones must not exhaust.
        let (state, stack) = (Box::new(self.state.clone()), self.stack.clone());
        // What is in the action set is done with the copy, too.
        let set = self.set.clone();
        let at = self.ops.len();
        self.ops.push(Op::Save);
        self.tell(|watch, key| watch.fork(key, actions));
        self.level += 1;
        self.actions(actions);
        let stops = self.freezing.is_some() && !self.goes_round();
        self.end();
        // As in Open vSwitch, to which the one is as good as the other behind a copy.
        self.has_exited |= stops;
        self.level -= 1;
        self.tell(|watch, _| watch.join());
        self.end_copy(at);
        self.state = *state;
        (self.stack, self.set) = (stack, set);
    }

    /// A copy that was begun at this operation is done with.
    fn end_copy(&mut self, at: usize) {
        let changes = |op: &Op| op.is_change() || matches!(op, Op::Meter(_));
        if self.ops.iter().skip(at + 1).any(changes) {
            self.ops.push(Op::Restore);
        } else if at < self.ops.len() {
            self.ops.remove(at);
        }
    }

    /// Takes one from the time to live; returns whether the packet goes on.
    fn dec_ttl(&mut self, ids: &[u16]) -> bool {
        let ether_type = self.state.key.get_u16(slot::ETH_TYPE);
        if !matches!(ether_type, 0x0800 | 0x86DD) {
            return true;
        }
        let ttl = self.state.key.get_u8(slot::IP_TTL);
        if ttl > 1 {
            self.put(slot::IP_TTL, u128::from(ttl - 1));
            return true;
        }
        for id in ids {
            self.controller((u16::MAX, *id), Reason::INVALID_TTL, &[], NO_METER);
        }
        let version = if ether_type == 0x0800 { 4 } else { 6 };
        self.note(Kind::Warning, format_args!("IPv{version} decrement TTL exception"));
        false
    }

    /// Has the packet be what the key says, and then does something with it.
    fn emit(&mut self, op: Op) {
        if self.ops.len() >= MAX_OPS {
            return self.stop();
        }
        self.flush();
        let goes_out = matches!(op, Op::Output(_) | Op::Flood { .. } | Op::Normal(_));
        if goes_out && self.pipeline.tunnels.is_used {
            self.tell_tunnel();
        }
        if op.is_by_type() {
            self.tell_type();
            self.tell_mark();
            self.tell_cause(&op);
        } else if matches!(op, Op::Track(..) | Op::Again(..)) {
            // Whoever goes on finds it told.
            self.tell_mark();
        }
        self.tell(|watch, key| watch.send(key, &op));
        self.ops.push(op);
    }

    /// Has it be known which tunnel the packet goes into, if it goes into one for which rules say that.
    fn tell_tunnel(&mut self) {
        let words = self.state.key.tunnel();
        if self.state.tunnel.replace(words) != Some(words) {
            self.ops.push(Op::Tunnel(Arc::new(words)));
        }
    }

    /// Has it be known what the packet begins with, where that is something else than before.
    fn tell_type(&mut self) {
        let own = self.state.key.get_u32(slot::PACKET_TYPE);
        if std::mem::replace(&mut self.state.begins, own) != own {
            self.ops.push(Op::Begins(own));
        }
    }

    /// Has its mark be known, where that is another one than before: no packet has it, and other bridges look at it.
    fn tell_mark(&mut self) {
        let own = self.state.key.get_u32(slot::PKT_MARK);
        if std::mem::replace(&mut self.state.mark, own) != own {
            self.ops.push(Op::Mark(own));
        }
    }

    /// Has it be known by what it goes to another bridge, where it may go to one.
    fn tell_cause(&mut self, op: &Op) {
        let own = match (self.is_packet_out, self.is_in_set) {
            (true, _) => Cause::PacketOut,
            (_, true) => Cause::ActionSet,
            _ => Cause::Rule,
        };
        if own == self.state.cause || !self.may_cross(op) {
            return;
        }
        self.state.cause = own;
        let op = Op::Cause(own);
        self.tell(|watch, key| watch.send(key, &op));
        self.ops.push(op);
    }

    /// Whether another bridge may be behind where it goes.
    fn may_cross(&self, op: &Op) -> bool {
        let mut ports = self.pipeline.ports.values();
        match op {
            Op::Output(number) => ports.any(|port| port.is_patch && port.number == *number),
            Op::Flood { .. } | Op::Normal(_) => ports.any(|port| port.is_patch),
            _ => false,
        }
    }

    /// Adds the operations that change the packet as the key was changed.
    fn flush(&mut self) {
        let State { key, tags, .. } = &mut self.state;
        tags.settle(key);
        self.state.grown = self.state.grown.saturating_add(self.state.growth());
        let State { key, dirty, tags, labels, nsh, .. } = &mut self.state;
        self.ops.extend(tags.edits(key).map(Op::Edit));
        if let Some(edits) = labels.edits(key) {
            self.ops.extend(edits.into_iter().map(Op::Edit));
            // They are put on as they were written.
            dirty.forget(slot::MPLS_LSE.word()..slot::MPLS_LSE.word() + 1);
        }
        if let Some(metadata) = nsh.take() {
            self.ops.extend(metadata.push(key, dirty));
        }
        while let Some((word, mask)) = dirty.take() {
            let at = usize::from(word);
            let may_be_written = match at > slot::VLAN_TCI.word() {
                true if at < slot::MPLS_LSE.word() => has_network_header(key),
                true if at >= slot::NSH_FIRST.word() => nsh::is_nsh(key),
                _ => true,
            };
            if may_be_written {
                let value = key.word(at) & mask;
                self.ops.push(Op::Edit(Edit::Set { word, mask, value }));
            }
        }
    }
}

/// Whether what is above the link layer is written to the packet. As in OVS, it is not where it makes
/// no sense, for which the protocol stands, nor in RARP.
fn has_network_header(key: &Key) -> bool {
    key.get_u8(slot::IP_PROTO) != 0 && key.get_u16(slot::ETH_TYPE) != 0x8035
}

/// Whether control information of a tag says that there is one.
const fn is_tagged(tci: u16) -> bool {
    tci & TAG_PRESENT != 0
}

#[cfg(test)]
mod tests;
