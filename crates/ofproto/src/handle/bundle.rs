//! Bundles: changes that are collected, and then made together or not at all.

use std::collections::BTreeMap;

use flow::{Outcome, Tables};
use openflow::message::bundle::{BundleAdd, BundleControl, BundleStep};
use openflow::message::flow_mod::FlowMod;
use openflow::message::{Kind, Raw};
use openflow::{ErrorCode, ErrorMessage};

use super::flow::{change, refusal};
use super::{Answers, Request};
use crate::datapath::PacketOut;

/// The most bundles of a connection at a time.
const BUNDLES: usize = 16;

/// The most bytes of messages in all bundles of a connection.
const ROOM: usize = 64 << 20;

/// Bundles of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bundles {
    all: BTreeMap<u32, Bundle>,
    bytes: usize,
}

/// Messages that wait for their commit.
#[derive(Clone, Debug)]
struct Bundle {
    flags: u16,
    is_closed: bool,
    messages: Vec<Vec<u8>>,
}

impl Bundles {
    fn remove(&mut self, id: u32) -> Option<Bundle> {
        let bundle = self.all.remove(&id)?;
        let bytes: usize = bundle.messages.iter().map(Vec::len).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(bundle)
    }

    /// A new one.
    fn open(&mut self, id: u32, flags: u16) -> Result<(), ErrorCode> {
        if self.remove(id).is_some() {
            return Err(ErrorCode::BfcBadId);
        }
        if self.all.len() >= BUNDLES {
            return Err(ErrorCode::BfcOutOfBundles);
        }
        self.all.insert(id, Bundle { flags, is_closed: false, messages: Vec::new() });
        Ok(())
    }

    /// One that is there, as it was opened; what is wrong with it ends it.
    fn checked(&mut self, id: u32, flags: u16, is_open: bool) -> Result<&mut Bundle, ErrorCode> {
        let bundle = self.all.get(&id).ok_or(ErrorCode::BfcBadId)?;
        let error = if is_open && bundle.is_closed {
            Some(ErrorCode::BfcBundleClosed)
        } else if bundle.flags != flags {
            Some(ErrorCode::BfcBadFlags)
        } else {
            None
        };
        if let Some(error) = error {
            self.remove(id);
            return Err(error);
        }
        self.all.get_mut(&id).ok_or(ErrorCode::BfcBadId)
    }

    fn add(&mut self, add: &BundleAdd<'_>) -> Result<(), ErrorCode> {
        if !self.all.contains_key(&add.id) {
            self.open(add.id, add.flags)?;
        }
        let bytes = self.bytes.saturating_add(add.message.len());
        if bytes > ROOM {
            self.remove(add.id);
            return Err(ErrorCode::BfcMsgTooMany);
        }
        self.checked(add.id, add.flags, true)?.messages.push(add.message.to_vec());
        self.bytes = bytes;
        Ok(())
    }
}

/// What came of a bundle's messages, as long as all went well.
struct Made {
    tables: Tables,
    outcomes: Vec<Outcome>,
    packets: Vec<PacketOut>,
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
        let bundles = &mut self.session()?.bundles;
        match step {
            BundleStep::OpenRequest => bundles.open(id, flags)?,
            BundleStep::CloseRequest => bundles.checked(id, flags, true)?.is_closed = true,
            BundleStep::CommitRequest => {
                bundles.checked(id, flags, false)?;
                let bundle = bundles.remove(id).ok_or(ErrorCode::BfcBadId)?;
                self.commit(&bundle)?;
            }
            BundleStep::DiscardRequest => _ = bundles.remove(id).ok_or(ErrorCode::BfcBadId)?,
            _ => return Err(ErrorCode::BfcBadType),
        }
        let step = step.reply().ok_or(ErrorCode::BfcBadType)?;
        let (version, form, xid) = (self.raw.version, self.raw.form, self.raw.xid);
        // Open vSwitch's answers have no flags.
        Ok(vec![BundleControl { id, flags: 0, step }.encode(version, form, xid)])
    }

    fn bundle_add(&mut self) -> Answers {
        let (version, xid) = (self.raw.version, self.raw.xid);
        let add = BundleAdd::decode(version, xid, self.raw.body)?;
        let raw = Raw::read(add.message)?;
        if !matches!(raw.kind, Kind::FlowMod | Kind::PacketOut) {
            return Err(ErrorCode::BfcMsgUnsup);
        }
        // What cannot be read is said at once.
        let has_table_id = self.session()?.has_table_id;
        if raw.kind == Kind::FlowMod {
            FlowMod::decode(&raw, has_table_id)?;
        } else {
            openflow::message::packet_out::PacketOut::decode(&raw)?;
        }
        self.session()?.bundles.add(&add)?;
        Ok(Vec::new())
    }

    /// Makes all of a bundle, or nothing: then the message that is wrong is told, too.
    fn commit(&mut self, bundle: &Bundle) -> Result<(), ErrorCode> {
        let has_table_id = self.session()?.has_table_id;
        let (tables, now) = (self.bridge.tables.clone(), self.datapath.now());
        let mut made = Made { tables, outcomes: Vec::new(), packets: Vec::new() };
        for message in &bundle.messages {
            if let Err(code) = make(&mut made, message, has_table_id, now) {
                let (version, xid) = (self.raw.version, Raw::read(message)?.xid);
                let error = ErrorMessage::reply(code, version, xid, message);
                if let Some(connection) = self.bridge.connections.get_mut(&self.id) {
                    connection.outbox.answer(error);
                }
                return Err(ErrorCode::BfcMsgFailed);
            }
        }
        self.bridge.tables = made.tables;
        self.bridge.is_dirty = true;
        let mut removed = made.outcomes.iter().flat_map(|outcome| &outcome.removed);
        if removed.any(|(rule, _)| rule.flags.send_flow_removed) {
            self.datapath.flush();
        }
        for outcome in &made.outcomes {
            self.bridge.tell_removed(outcome, now);
        }
        if !made.packets.is_empty() {
            self.bridge.settle(self.datapath);
            made.packets.into_iter().for_each(|packet| self.datapath.send(packet));
        }
        Ok(())
    }
}

fn make(made: &mut Made, message: &[u8], has_table_id: bool, now: u64) -> Result<(), ErrorCode> {
    let raw = Raw::read(message)?;
    if raw.kind == Kind::PacketOut {
        let wanted = openflow::message::packet_out::PacketOut::decode(&raw)?;
        let in_port = wanted.in_port();
        made.packets.push(PacketOut { in_port, actions: wanted.actions, bytes: wanted.packet });
        return Ok(());
    }
    let change = change(&FlowMod::decode(&raw, has_table_id)?)?;
    made.outcomes.push(made.tables.change(&change, now).map_err(refusal)?);
    Ok(())
}
