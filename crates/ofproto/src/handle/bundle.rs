//! Bundles: changes that are collected, and then made together or not at all.

use flow::{Command, Outcome, Tables};
use litemap::LiteMap;
use openflow::message::bundle::{BundleAdd, BundleControl, BundleStep};
use openflow::message::flow_mod::FlowMod;
use openflow::message::group::GroupMod;
use openflow::message::{Kind, Raw};
use openflow::{ErrorCode, ErrorMessage};

use super::flow::{change, refusal};
use super::forward::MadeGroups;
use super::{Answers, Request};
use crate::datapath::PacketOut;
use crate::monitor;

/// The most bundles of a connection at a time.
const BUNDLES: usize = 16;

/// The most bytes of messages in all bundles of a connection.
const ROOM: usize = 64 << 20;

/// Bundles of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bundles {
    all: LiteMap<u32, Bundle>,
    bytes: usize,
}

/// Messages that wait for their commit.
#[derive(Clone, Debug)]
struct Bundle {
    flags: u16,
    is_closed: bool,
    messages: Vec<Vec<u8>>,
    /// The message that it began with.
    head: Vec<u8>,
    /// When something was done with it, in milliseconds.
    used: u64,
}

/// What a message has to say about a bundle, beside what it is about.
struct Step {
    id: u32,
    flags: u16,
    /// The message.
    head: Vec<u8>,
    /// When, in milliseconds.
    now: u64,
}

impl Bundles {
    fn remove(&mut self, id: u32) -> Option<Bundle> {
        let bundle = self.all.remove(&id)?;
        let bytes: usize = bundle.messages.iter().map(Vec::len).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(bundle)
    }

    /// A new one.
    fn open(&mut self, step: Step) -> Result<(), ErrorCode> {
        let Step { id, flags, head, now } = step;
        if self.remove(id).is_some() {
            return Err(ErrorCode::BfcBadId);
        }
        if self.all.len() >= BUNDLES {
            return Err(ErrorCode::BfcOutOfBundles);
        }
        let messages = Vec::new();
        self.all.insert(id, Bundle { flags, is_closed: false, messages, head, used: now });
        Ok(())
    }

    /// One that is there, as it was opened; what is wrong with it ends it.
    fn checked(&mut self, step: &Step, is_open: bool) -> Result<&mut Bundle, ErrorCode> {
        let id = step.id;
        let bundle = self.all.get(&id).ok_or(ErrorCode::BfcBadId)?;
        let error = if is_open && bundle.is_closed {
            Some(ErrorCode::BfcBundleClosed)
        } else if bundle.flags != step.flags {
            Some(ErrorCode::BfcBadFlags)
        } else {
            None
        };
        if let Some(error) = error {
            self.remove(id);
            return Err(error);
        }
        let bundle = self.all.get_mut(&id).ok_or(ErrorCode::BfcBadId)?;
        bundle.used = step.now;
        Ok(bundle)
    }

    fn add(&mut self, step: Step, message: &[u8]) -> Result<(), ErrorCode> {
        let bytes = self.bytes.saturating_add(message.len());
        if bytes > ROOM {
            self.remove(step.id);
            return Err(ErrorCode::BfcMsgTooMany);
        }
        if self.all.contains_key(&step.id) {
            self.checked(&step, true)?.messages.push(message.to_vec());
        } else {
            let id = step.id;
            self.open(step)?;
            self.all.entry(id).and_modify(|bundle| bundle.messages.push(message.to_vec()));
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Ends those with which nothing was done since `then`; gives the messages that they began with.
    pub fn expire(&mut self, then: u64) -> Vec<Vec<u8>> {
        let old = self.all.iter().filter(|(_, bundle)| bundle.used <= then);
        let old: Vec<u32> = old.map(|(id, _)| *id).collect();
        old.into_iter().filter_map(|id| Some(self.remove(id)?.head)).collect()
    }
}

/// What came of a bundle's messages, as long as all went well.
struct Made {
    tables: Tables,
    /// With the numbers of the messages.
    outcomes: Vec<(Outcome, Command, u32)>,
    /// What was done to rules, for the log.
    flow_mods: Vec<Command>,
    groups: Vec<MadeGroups>,
    /// With the tables that they go by: as they were made up to there.
    packets: Vec<(Tables, PacketOut)>,
}

impl Request<'_> {
    pub(super) fn bundle_answer(&mut self) -> Answers {
        self.check_role()?;
        match self.raw.kind {
            Kind::BundleControl => self.bundle_control(),
            _ => self.bundle_add(),
        }
    }

    fn bundle_control(&mut self) -> Answers {
        let control = BundleControl::decode(self.raw.body)?;
        let BundleControl { id, flags, step } = control;
        let (version, form, xid) = (self.raw.version, self.raw.form, self.raw.xid);
        let about =
            Step { id, flags, head: control.encode(version, form, xid), now: self.datapath.now() };
        let bundles = &mut self.session()?.bundles;
        match step {
            BundleStep::OpenRequest => bundles.open(about)?,
            BundleStep::CloseRequest => bundles.checked(&about, true)?.is_closed = true,
            BundleStep::CommitRequest => {
                bundles.checked(&about, false)?;
                let bundle = bundles.remove(id).ok_or(ErrorCode::BfcBadId)?;
                self.commit(&bundle)?;
            }
            BundleStep::DiscardRequest => _ = bundles.remove(id).ok_or(ErrorCode::BfcBadId)?,
            _ => return Err(ErrorCode::BfcBadType),
        }
        let step = step.reply().ok_or(ErrorCode::BfcBadType)?;
        // Open vSwitch's answers have no flags.
        Ok(vec![BundleControl { id, flags: 0, step }.encode(version, form, xid)])
    }

    fn bundle_add(&mut self) -> Answers {
        let (version, xid) = (self.raw.version, self.raw.xid);
        let add = BundleAdd::decode(version, xid, self.raw.body)?;
        let raw = Raw::read(add.message)?;
        // What cannot be read is said at once.
        let has_table_id = self.session()?.has_table_id;
        match raw.kind {
            Kind::FlowMod => {
                let wanted = self.bridge.tlv.fit_change(FlowMod::decode(&raw, has_table_id)?)?;
                drop(change(&wanted, raw.version)?);
            }
            Kind::GroupMod => drop(GroupMod::decode(&raw)?),
            Kind::PacketOut => drop(openflow::message::packet_out::PacketOut::decode(&raw)?),
            _ => return Err(ErrorCode::BfcMsgUnsup),
        }
        let (id, flags, now) = (add.id, add.flags, self.datapath.now());
        let step = Step { id, flags, head: add.encode(version, xid), now };
        self.session()?.bundles.add(step, add.message)?;
        Ok(Vec::new())
    }

    /// Makes all of a bundle, or nothing: then the message that is wrong is told, too.
    fn commit(&mut self, bundle: &Bundle) -> Result<(), ErrorCode> {
        let has_table_id = self.session()?.has_table_id;
        let (tables, now) = (self.bridge.tables.clone(), self.datapath.now());
        let (outcomes, flow_mods, groups, packets) = Default::default();
        let mut made = Made { tables, outcomes, flow_mods, groups, packets };
        for message in &bundle.messages {
            if let Err(code) = self.make(&mut made, message, has_table_id, now) {
                let (version, xid) = (self.raw.version, Raw::read(message)?.xid);
                let error = ErrorMessage::reply(code, version, xid, message);
                if let Some(connection) = self.bridge.connections.get_mut(&self.id) {
                    connection.outbox.answer(error);
                }
                return Err(ErrorCode::BfcMsgFailed);
            }
        }
        let tally = &mut self.session()?.tally;
        made.flow_mods.iter().for_each(|command| tally.count(*command, now));
        self.bridge.tables = made.tables;
        self.bridge.is_dirty = true;
        let mut removed = made.outcomes.iter().flat_map(|(outcome, ..)| &outcome.removed);
        if removed.any(|(rule, _)| rule.flags.send_flow_removed) {
            self.datapath.flush();
        }
        let told = made.outcomes.iter().map(|(outcome, command, xid)| {
            let by = Some((self.id, *xid));
            monitor::Made { outcome, command: *command, by }
        });
        let told: Vec<monitor::Made<'_>> = told.collect();
        self.bridge.tell_changes(&told, now);
        made.groups.iter().for_each(|group| self.bridge.forward_groups(group, self.id));
        // When it is answered, packets go by it.
        self.bridge.settle(self.datapath);
        for (tables, packet) in made.packets {
            self.datapath.send_by(&tables, &mut self.bridge.ports.values(), packet);
        }
        Ok(())
    }

    fn make(
        &mut self,
        made: &mut Made,
        message: &[u8],
        has_table_id: bool,
        now: u64,
    ) -> Result<(), ErrorCode> {
        let raw = Raw::read(message)?;
        if raw.kind == Kind::GroupMod {
            let change = GroupMod::decode(&raw)?;
            let (group, outcome) = MadeGroups::make(change, &mut made.tables, raw.xid, now)?;
            made.outcomes.push((outcome, Command::Delete, raw.xid));
            made.groups.push(group);
            return Ok(());
        }
        if raw.kind == Kind::PacketOut {
            let wanted = openflow::message::packet_out::PacketOut::decode(&raw)?;
            made.tables.check_actions(&wanted.actions).map_err(refusal)?;
            made.packets.push((made.tables.clone(), PacketOut::of(wanted)?));
            return Ok(());
        }
        let wanted = self.bridge.tlv.fit_change(FlowMod::decode(&raw, has_table_id)?)?;
        let change = change(&wanted, raw.version)?;
        if made.tables.may_evict(&change) {
            self.datapath.flush();
        }
        let outcome = made.tables.change(&change, now).map_err(refusal)?;
        made.outcomes.push((outcome, change.command, raw.xid));
        made.flow_mods.push(change.command);
        Ok(())
    }
}
