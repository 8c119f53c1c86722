//! Rules: changes of them, and what they have done.

use std::sync::Arc;
use std::time::Duration;

use flow::{Change, Command, Ended, Filter, Flags, Outcome, Refusal, Rule, Tables, Timeouts};
use openflow::action::wire::Style;
use openflow::message::asynchronous::Unasked;
use openflow::message::flow_mod::{self, ALL_TABLES, ANY_GROUP, FlowFlags, FlowMod};
use openflow::message::flow_removed::FlowRemoved;
use openflow::message::flow_stats::{AggregateStats, FlowStats, FlowStatsRequest};
use openflow::message::nicira::FlowFormat;
use openflow::message::{Form, Kind};
use openflow::{ErrorCode, PortNo, Version};

use super::{Answers, Request, VISIBLE_TABLES};
use crate::bridge::Bridge;
use crate::monitor::{Made, reason};

impl Request<'_> {
    pub(super) fn flow_answer(&mut self) -> Answers {
        match self.raw.kind {
            Kind::FlowMod => self.flow_mod(),
            Kind::FlowStatsRequest => self.flow_stats(),
            _ => self.aggregate_stats(),
        }
    }

    fn flow_mod(&mut self) -> Answers {
        self.check_role()?;
        let has_table_id = self.session()?.has_table_id;
        let wanted = self.bridge.tlv.fit_change(FlowMod::decode(self.raw, has_table_id)?)?;
        let change = change(&wanted, self.raw.version)?;
        if self.bridge.tables.may_evict(&change) {
            self.datapath.flush();
        }
        let now = self.datapath.now();
        let outcome = self.bridge.tables.change(&change, now).map_err(refusal)?;
        self.session()?.tally.count(change.command, now);
        self.made(&outcome, change.command, now);
        Ok(Vec::new())
    }

    /// Rules or groups are others than before.
    pub(super) fn made(&mut self, outcome: &Outcome, command: Command, now: u64) {
        self.bridge.is_dirty = true;
        // What the last packets have done with them is told.
        if outcome.removed.iter().any(|(rule, _)| rule.flags.send_flow_removed) {
            self.datapath.flush();
        }
        let by = Some((self.id, self.raw.xid));
        self.bridge.tell_changes(&[Made { outcome, command, by }], now);
    }

    /// The rules that a request for statistics means, which count all that has come so far.
    fn asked_rules(&mut self) -> Result<Vec<Arc<Rule>>, ErrorCode> {
        let mut request = FlowStatsRequest::decode(self.raw)?;
        self.bridge.tlv.fit(&mut request.matching)?;
        let filter = Filter {
            table: (request.table != ALL_TABLES).then_some(request.table),
            matching: request.matching,
            cookie: request.cookie,
            out_port: (request.out_port != PortNo::ANY).then_some(request.out_port),
            out_group: (request.out_group != ANY_GROUP).then_some(request.out_group),
        };
        self.bridge.count(self.datapath);
        self.bridge.tables.select(&filter).map_err(refusal)
    }

    fn flow_stats(&mut self) -> Answers {
        let rules = self.asked_rules()?;
        let now = self.datapath.now();
        let mut replies = self.replies(Kind::FlowStatsReply);
        let (lengths, form) = (self.bridge.tlv.lengths(), self.reply_form());
        let style = Style::new(self.raw.version, &lengths);
        for rule in rules {
            let stats = stats(&rule, now);
            if !replies.entry(|out| stats.encode_in(style, form, out)) {
                tracing::warn!(
                    target: "ofp_flow",
                    "Flow exceeded the maximum flow statistics reply size and was excluded from the \
                     response set"
                );
            }
        }
        Ok(replies.finish())
    }

    fn aggregate_stats(&mut self) -> Answers {
        let rules = self.asked_rules()?;
        let sum = |count: fn(&Rule) -> u64| {
            rules.iter().fold(0, |sum: u64, rule| sum.saturating_add(count(rule)))
        };
        let stats = AggregateStats {
            packets: Some(sum(|rule| rule.stats.packets())),
            bytes: Some(sum(|rule| rule.stats.bytes())),
            flows: u32::try_from(rules.len()).unwrap_or(u32::MAX),
        };
        Ok(vec![stats.encode(self.raw.version, self.reply_form(), self.raw.xid)])
    }
}

/// The errors that Open vSwitch has for what is refused.
pub(crate) fn refusal(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::BadTable => ErrorCode::BrcBadTableId,
        Refusal::Full { .. } => ErrorCode::FmfcTableFull,
        Refusal::Overlap => ErrorCode::FmfcOverlap,
        Refusal::NoGroup(_) => ErrorCode::BacBadOutGroup,
        Refusal::NoMeter(_) => ErrorCode::MmfcInvalidMeter,
        Refusal::Field(_) => ErrorCode::BmcBadField,
        Refusal::Action(name) => {
            tracing::info!("a rule with the action {name}, which is not possible yet");
            ErrorCode::BacBadType
        }
    }
}

/// A change of rules as tables have it, of a message of this version: before 1.2, what is added counts anew.
///
/// # Errors
/// It is about a table that is not there, or one that controllers may not change.
pub(super) fn change(wanted: &FlowMod, version: Version) -> Result<Change, ErrorCode> {
    let command = match wanted.command {
        flow_mod::Command::Add => Command::Add,
        flow_mod::Command::Modify => Command::Modify,
        flow_mod::Command::ModifyStrict => Command::ModifyStrict,
        flow_mod::Command::Delete => Command::Delete,
        flow_mod::Command::DeleteStrict => Command::DeleteStrict,
    };
    let is_delete = wanted.command.is_delete();
    let table = match (wanted.table, command) {
        (ALL_TABLES, Command::Add) => Some(0),
        (ALL_TABLES, _) => None,
        (table, Command::Add) if table == VISIBLE_TABLES => return Err(ErrorCode::BrcEperm),
        (table, _) => Some(table),
    };
    let FlowMod { new_cookie, modify_cookie, cookie, .. } = *wanted;
    let is_added = command == Command::Add;
    let mut flags = flags(wanted.flags);
    flags.reset_counts |= is_added && version < Version::V12;
    Ok(Change {
        command,
        filter: Filter {
            table,
            matching: wanted.matching.clone(),
            cookie,
            out_port: Some(wanted.out_port).filter(|port| is_delete && *port != PortNo::ANY),
            out_group: Some(wanted.out_group).filter(|group| is_delete && *group != ANY_GROUP),
        },
        priority: wanted.priority,
        cookie: (is_added || modify_cookie).then_some(new_cookie),
        flags,
        timeouts: Timeouts { idle: wanted.idle_timeout, hard: wanted.hard_timeout },
        importance: wanted.importance,
        instructions: Arc::new(wanted.instructions.clone()),
        may_add: !is_delete && !is_added && new_cookie != u64::MAX && cookie.1 == 0,
        limit: 0,
    })
}

const FLAGS: [FlowFlags; 5] = [
    FlowFlags::SEND_FLOW_REMOVED,
    FlowFlags::CHECK_OVERLAP,
    FlowFlags::RESET_COUNTS,
    FlowFlags::NO_PACKET_COUNTS,
    FlowFlags::NO_BYTE_COUNTS,
];

fn flags(flags: FlowFlags) -> Flags {
    let [removed, overlap, reset, no_packets, no_bytes] = FLAGS.map(|flag| flags.has(flag));
    Flags {
        send_flow_removed: removed,
        check_overlap: overlap,
        reset_counts: reset,
        no_packet_counts: no_packets,
        no_byte_counts: no_bytes,
    }
}

fn wire_flags(flags: Flags) -> FlowFlags {
    let set = [
        flags.send_flow_removed,
        flags.check_overlap,
        flags.reset_counts,
        flags.no_packet_counts,
        flags.no_byte_counts,
    ];
    let all = FLAGS.into_iter().zip(set).filter(|(_, set)| *set);
    all.fold(FlowFlags::NONE, |all, (flag, _)| all.with(flag))
}

/// Seconds since `since`, both in milliseconds.
fn seconds(now: u64, since: u64) -> u32 {
    u32::try_from(now.saturating_sub(since) / 1_000).unwrap_or(u32::MAX)
}

fn stats(rule: &Rule, now: u64) -> FlowStats {
    FlowStats {
        table: rule.table,
        matching: rule.matching.clone(),
        priority: rule.priority,
        cookie: rule.cookie,
        duration: Duration::from_millis(now.saturating_sub(rule.created)),
        idle_timeout: rule.timeouts.idle,
        hard_timeout: rule.timeouts.hard,
        importance: rule.importance,
        flags: wire_flags(rule.flags),
        idle_age: Some(seconds(now, rule.stats.used())),
        hard_age: Some(seconds(now, rule.modified)),
        packets: Some(rule.stats.packets()),
        bytes: Some(rule.stats.bytes()),
        instructions: (*rule.instructions).clone(),
    }
}

impl Bridge {
    /// Tells those who want to know it what has become of rules.
    pub(crate) fn tell_changes(&mut self, made: &[Made<'_>], now: u64) {
        for (rule, why) in made.iter().flat_map(|made| &made.outcome.removed) {
            if rule.flags.send_flow_removed {
                self.tell_ended(rule, *why, now);
            }
        }
        self.tell_monitors(made);
        self.tell_room();
    }

    fn tell_ended(&mut self, rule: &Rule, why: Ended, now: u64) {
        let reason = reason(why);
        let told = FlowRemoved {
            table: rule.table,
            matching: rule.matching.clone(),
            priority: rule.priority,
            cookie: rule.cookie,
            reason,
            duration: Duration::from_millis(now.saturating_sub(rule.created)),
            idle_timeout: rule.timeouts.idle,
            hard_timeout: rule.timeouts.hard,
            packets: rule.stats.packets(),
            bytes: rule.stats.bytes(),
        };
        for (_, connection) in &mut self.connections {
            let listener = connection.listener(Unasked::FlowRemoved, u32::from(reason.0));
            let Some(session) = listener else { continue };
            let form = match session.flow_format {
                FlowFormat::Nxm => Form::Nx,
                FlowFormat::OpenFlow10 => Form::Of,
            };
            let message = told.encode(session.version, form);
            connection.outbox.tell(message);
        }
    }

    /// Ends rules whose time is over.
    pub(crate) fn expire_rules(&mut self, now: u64) {
        let removed = self.tables.expire(now);
        if removed.is_empty() {
            return;
        }
        self.is_dirty = true;
        self.tell_changes(&[Made::unasked(&Outcome { removed, ..Outcome::default() })], now);
    }
}

/// Adds the rule that a bridge has without a controller: all is switched as usual.
pub(crate) fn add_plain_rule(tables: &mut Tables, now: u64) {
    use openflow::action::Action;
    use openflow::{Instructions, Match};
    let normal = Instructions::apply(vec![Action::output(PortNo::NORMAL)]);
    let add = Change::add(0, Match::new(), normal).with_priority(0);
    if let Err(refusal) = tables.change(&add, now) {
        tracing::error!("a bridge without its usual rule: {refusal}");
    }
}
