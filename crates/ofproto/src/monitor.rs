//! Monitors of flows: which changes a connection is told of, and what becomes of them where it does
//! not read (nicira-ext.h, "Flow Monitoring").
//!
//! Where more waits than an eighth of the connection's room, monitors pause: then only flows are told that go and that were
//! there before. When all of it is sent, the others follow, each as it is by then.

use flow::{Command, Ended, Filter, Outcome, Rule, Selector, Tables};
use litemap::LiteMap;
use openflow::message::Replies;
use openflow::message::flow_mod::{ALL_TABLES, ANY_GROUP};
use openflow::message::flow_monitor::{
    self, FlowEvent, FlowMonitorRequest, FlowUpdate, MonitorCommand, MonitorFlags,
    encode_abbreviated, encode_pause,
};
use openflow::message::flow_removed::RemovedReason;
use openflow::{ErrorCode, PortNo, Version};
use ordered::Gather as _;

use crate::bridge::Bridge;
use crate::connection::{Connection, ConnectionId, Session};
use crate::handle::flow::refusal;

/// The most monitors of a connection.
const MONITORS: usize = 256;

/// Of the room for what is told unasked, the part that updates have until monitors pause.
const PAUSE: usize = 8;

/// How many times that room waits in updates when a connection is given up.
const TOO_MUCH: usize = 16;

/// A change of rules that is to be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made<'a> {
    pub outcome: &'a Outcome,
    pub command: Command,
    /// Who has made it, by the message with this number.
    pub by: Option<(ConnectionId, u32)>,
}

impl<'a> Made<'a> {
    /// One that no controller has made, or that goes with one of something else.
    pub const fn unasked(outcome: &'a Outcome) -> Self {
        Self { outcome, command: Command::Modify, by: None }
    }

    /// All rules of it: what has become of them, and what they were before where that is told.
    fn events(&self) -> impl Iterator<Item = (FlowEvent, &Rule, Option<&Rule>)> {
        let is_add = self.command == Command::Add;
        let event = if is_add { FlowEvent::Added } else { FlowEvent::Modified };
        let Outcome { added, modified, removed } = self.outcome;
        let added = added.iter().map(|rule| (FlowEvent::Added, &**rule, None));
        let modified = modified.iter().filter_map(move |(before, after)| {
            let is_same = before.instructions == after.instructions;
            let is_told = is_add || !is_same || before.cookie != after.cookie;
            is_told.then_some((event, &**after, Some(&**before).filter(|_| !is_same)))
        });
        let removed =
            removed.iter().map(|(rule, why)| (FlowEvent::Removed(reason(*why)), &**rule, None));
        added.chain(modified).chain(removed)
    }
}

/// Why a rule has gone, as messages have it.
pub(crate) const fn reason(why: Ended) -> RemovedReason {
    match why {
        Ended::Idle => RemovedReason::IDLE_TIMEOUT,
        Ended::Hard => RemovedReason::HARD_TIMEOUT,
        Ended::Deleted => RemovedReason::DELETE,
        Ended::Evicted => RemovedReason::EVICTION,
        Ended::GroupDeleted => RemovedReason::GROUP_DELETE,
        Ended::MeterDeleted => RemovedReason::METER_DELETE,
    }
}

/// One monitor.
#[derive(Clone, Debug)]
struct Monitor {
    flags: MonitorFlags,
    selector: Selector,
}

impl Monitor {
    fn of(request: FlowMonitorRequest) -> Result<Self, ErrorCode> {
        let filter = Filter {
            table: Some(request.table).filter(|table| *table != ALL_TABLES),
            matching: request.matching,
            cookie: (0, 0),
            out_port: Some(request.out_port).filter(|port| *port != PortNo::ANY),
            out_group: Some(request.out_group).filter(|group| *group != ANY_GROUP),
        };
        Ok(Self { flags: request.flags, selector: filter.selector().map_err(refusal)? })
    }
}

/// Monitors of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Monitors {
    all: LiteMap<u32, Monitor>,
    /// The version of the tables when they paused, if they do.
    paused: Option<u64>,
}

impl Monitors {
    /// Begins, changes and ends monitors, all or none; gives the numbers of those that have begun.
    fn change(&mut self, requests: Vec<FlowMonitorRequest>) -> Result<Vec<u32>, ErrorCode> {
        let mut all = self.all.clone();
        let mut begun = Vec::new();
        for request in requests {
            let id = request.id;
            match (request.command, all.contains_key(&id)) {
                (MonitorCommand::Add, true) => return Err(ErrorCode::MofcMonitorExists),
                (MonitorCommand::Modify | MonitorCommand::Delete, false) => {
                    return Err(ErrorCode::MofcUnknownMonitor);
                }
                (MonitorCommand::Delete, true) => _ = all.remove(&id),
                (MonitorCommand::Add, false) if all.len() >= MONITORS => {
                    tracing::warn!("a controller with more than {MONITORS} flow monitors");
                    return Err(ErrorCode::BrcEperm);
                }
                (MonitorCommand::Add | MonitorCommand::Modify, _) => {
                    all.insert(id, Monitor::of(request)?);
                    begun.push(id);
                }
            }
        }
        self.all = all;
        Ok(begun)
    }

    /// What monitors want of this change, which they tell together.
    fn wanted(&self, event: FlowEvent, rule: &Rule, before: Option<&Rule>) -> MonitorFlags {
        let update = match event {
            FlowEvent::Initial => MonitorFlags::INITIAL,
            FlowEvent::Added => MonitorFlags::ADD,
            FlowEvent::Removed(_) => MonitorFlags::REMOVED,
            FlowEvent::Modified => MonitorFlags::MODIFY,
        };
        let wants =
            |monitor: &&Monitor| monitor.flags.has(update) && monitor.selector.takes(rule, before);
        let all = self.all.values().filter(wants);
        all.fold(MonitorFlags::default(), |all, monitor| all.with(monitor.flags))
    }

    /// Whether a change is told while they pause.
    fn passes(&self, event: FlowEvent, rule: &Rule) -> bool {
        let Some(paused) = self.paused else { return true };
        matches!(event, FlowEvent::Removed(_)) && rule.added <= paused
    }

    /// Writes the changes that these monitors tell to the connection `of`.
    fn write(&self, made: &[Made<'_>], of: ConnectionId, version: Version) -> Option<Replies> {
        let mut replies: Option<Replies> = None;
        for made in made {
            let own = made.by.filter(|(by, _)| *by == of && self.paused.is_none());
            let mut is_short = false;
            for (event, rule, before) in made.events() {
                let flags = self.wanted(event, rule, before);
                if flags == MonitorFlags::default() || !self.passes(event, rule) {
                    continue;
                }
                let replies = replies.get_or_insert_with(|| flow_monitor::updates(version));
                match own.filter(|_| !flags.has(MonitorFlags::OWN)) {
                    None => {
                        replies.entry(|out| update(event, rule, flags).encode(version, out));
                    }
                    Some((_, xid)) if !is_short => {
                        replies.entry(|out| encode_abbreviated(xid, version, out));
                        is_short = true;
                    }
                    Some(_) => {}
                }
            }
        }
        replies
    }

    /// Writes flows as they are: those that are there when the monitors `begun` begin, or what has
    /// changed since all of them paused.
    fn refresh(&self, begun: Option<&[u32]>, tables: &Tables, replies: &mut Replies, to: Version) {
        let is_asked = |id: &u32| begun.is_none_or(|begun| begun.contains(id));
        let asked = self.all.iter().filter(|(id, _)| is_asked(id));
        let asked = Self { all: asked.map(|(id, it)| (*id, it.clone())).gather(), paused: None };
        for rule in tables.iter() {
            let event = match (begun, self.paused) {
                (Some(_), _) | (None, None) => FlowEvent::Initial,
                (None, Some(paused)) if rule.added > paused => FlowEvent::Added,
                (None, Some(paused)) if rule.changed > paused => FlowEvent::Modified,
                _ => continue,
            };
            let mut flags = asked.wanted(event, rule, None);
            if event == FlowEvent::Added {
                flags = flags.with(asked.wanted(FlowEvent::Modified, rule, None));
            }
            if flags != MonitorFlags::default() {
                replies.entry(|out| update(event, rule, flags).encode(to, out));
            }
        }
    }
}

fn update(event: FlowEvent, rule: &Rule, flags: MonitorFlags) -> FlowUpdate<'_> {
    FlowUpdate {
        event,
        table: rule.table,
        priority: rule.priority,
        cookie: rule.cookie,
        idle_timeout: rule.timeouts.idle,
        hard_timeout: rule.timeouts.hard,
        matching: &rule.matching,
        instructions: flags.has(MonitorFlags::INSTRUCTIONS).then_some(&*rule.instructions),
    }
}

impl Session {
    /// Begins, changes and ends monitors, as the message `xid` says.
    pub(crate) fn change_monitors(
        &mut self,
        requests: Vec<FlowMonitorRequest>,
        tables: &Tables,
        xid: u32,
    ) -> Result<Vec<Vec<u8>>, ErrorCode> {
        let begun = self.monitors.change(requests)?;
        let mut replies = flow_monitor::answers(self.version, xid);
        self.monitors.refresh(Some(&begun), tables, &mut replies, self.version);
        Ok(replies.finish())
    }

    /// Ends a monitor.
    pub(crate) fn cancel_monitor(&mut self, id: u32) -> Result<(), ErrorCode> {
        let ended = self.monitors.all.remove(&id);
        ended.map(drop).ok_or(ErrorCode::MofcUnknownMonitor)
    }
}

impl Connection {
    /// Tells what monitors have to tell, as far as they do not pause.
    fn tell_monitored(&mut self, id: ConnectionId, made: &[Made<'_>], tables: &Tables) {
        let Some(session) = self.session.as_mut() else { return };
        let Session { monitors, version, .. } = session;
        if monitors.all.is_empty() {
            return;
        }
        let written = monitors.write(made, id, *version).map(Replies::finish);
        written.into_iter().flatten().for_each(|message| self.outbox.update(message));
        if monitors.paused.is_none() && self.outbox.updates() > self.outbox.room() / PAUSE {
            monitors.paused = Some(tables.version());
            self.outbox.update(encode_pause(true, *version));
        }
    }

    /// Tells what has changed while monitors paused, if all is sent that waited then.
    pub(crate) fn resume_monitors(&mut self, tables: &Tables) {
        let Some(session) = self.session.as_mut() else { return };
        let Session { monitors, version, .. } = session;
        if monitors.paused.is_none() || self.outbox.updates() > 0 {
            return;
        }
        let mut replies = flow_monitor::updates(*version);
        monitors.refresh(None, tables, &mut replies, *version);
        monitors.paused = None;
        replies.finish().into_iter().for_each(|message| self.outbox.answer(message));
        self.outbox.answer(encode_pause(false, *version));
    }

    /// Whether more waits for it than monitors may have.
    pub(crate) const fn is_overrun(&self) -> bool {
        self.outbox.updates() / TOO_MUCH > self.outbox.room()
    }
}

impl Bridge {
    /// Tells those who monitor flows what has become of them.
    pub(crate) fn tell_monitors(&mut self, made: &[Made<'_>]) {
        let Self { connections, tables, .. } = self;
        for (id, connection) in connections {
            connection.tell_monitored(*id, made, tables);
        }
    }
}
