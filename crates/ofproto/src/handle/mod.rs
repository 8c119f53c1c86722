//! Answers to messages.
//!
//! - `bundle`: changes that are made together
//! - `connections`: connections that end
//! - `flow`: rules
//! - `forward`: changes of groups and meters that others have asked for
//! - `group`: groups
//! - `ipfix`: counts of what is told by IPFIX
//! - `meter`: meters
//! - `monitor`: monitors of rules
//! - `packet`: packets from and for controllers
//! - `port`: ports and their statistics
//! - `queue`: queues of ports
//! - `resume`: packets that stop on their way
//! - `session`: what a controller sets for its connection
//! - `table`: tables
//! - `tlv`: options of tunnels as fields

pub(crate) mod bundle;
mod connections;
pub(crate) mod flow;
pub(crate) mod forward;
mod group;
mod ipfix;
mod meter;
mod monitor;
mod packet;
mod port;
mod queue;
mod resume;
mod session;
mod table;
mod tlv;

use std::time::Instant;

use openflow::ErrorCode;
use openflow::message::features::{Features, capability};
use openflow::message::role::Role;
use openflow::message::{Form, Kind, Message, Raw, Replies};
use openflow::{Version, wire::Writer as _};

use crate::bridge::Bridge;
use crate::connection::{ConnectionId, Session};
use crate::datapath::Datapath;

/// Tables that controllers see; one more is hidden behind them.
pub(crate) const VISIBLE_TABLES: u8 = 254;

/// Actions of OpenFlow 1.0, a bit for each: all but those of vendors.
const ACTIONS_V10: u32 = 0x0fff;

/// What is to be answered, in turn.
type Answers = Result<Vec<Vec<u8>>, ErrorCode>;

/// A message, and who has sent it.
pub(crate) struct Request<'a> {
    pub bridge: &'a mut Bridge,
    pub id: ConnectionId,
    pub raw: &'a Raw<'a>,
    pub datapath: &'a mut dyn Datapath,
    pub now: Instant,
}

impl Request<'_> {
    fn session(&mut self) -> Result<&mut Session, ErrorCode> {
        let connection = self.bridge.connections.get_mut(&self.id);
        connection.and_then(|connection| connection.session.as_mut()).ok_or(ErrorCode::HfcEperm)
    }

    /// Refuses changes by a controller that may only read.
    fn check_role(&mut self) -> Result<(), ErrorCode> {
        match self.session()?.role {
            Role::Secondary => Err(ErrorCode::BrcIsSecondary),
            Role::Equal | Role::Primary => Ok(()),
        }
    }

    /// An empty answer of this kind.
    fn reply(&self, kind: Kind) -> Message {
        Message::new(self.raw.version, kind, self.raw.xid)
    }

    /// An answer of this kind to a request for statistics, with one entry.
    fn stats_reply(&self, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) -> Vec<Vec<u8>> {
        let mut replies = self.replies(kind);
        replies.entry(write);
        replies.finish()
    }

    /// Answers of this kind to a request for statistics, as it was numbered.
    fn replies(&self, kind: Kind) -> Replies {
        Replies::new(self.raw.version, kind, self.reply_form(), self.raw.xid)
    }

    /// How answers to a request for statistics are numbered.
    const fn reply_form(&self) -> Form {
        match self.raw.form {
            Form::NxRequest => Form::NxReply,
            Form::OnfRequest => Form::OnfReply,
            _ => Form::Reply,
        }
    }

    fn answer(&mut self) -> Answers {
        // Whatever is no change of rules comes after those that came before it.
        if !matches!(
            self.raw.kind,
            Kind::FlowMod | Kind::GroupMod | Kind::MeterMod | Kind::BundleAdd
        ) {
            self.bridge.settle(self.datapath);
        }
        match self.raw.kind {
            Kind::EchoRequest => {
                let mut reply = self.reply(Kind::EchoReply);
                reply.body().bytes(self.raw.body);
                Ok(vec![reply.finish()])
            }
            Kind::BarrierRequest => Ok(vec![self.reply(Kind::BarrierReply).finish()]),
            Kind::FeaturesRequest => Ok(vec![self.features()]),
            Kind::DescRequest => {
                let desc = self.bridge.settings.desc.clone();
                Ok(self.stats_reply(Kind::DescReply, |out| desc.encode(out)))
            }
            // What has no consequence.
            Kind::Hello | Kind::EchoReply | Kind::Error | Kind::FlowAge => Ok(Vec::new()),
            Kind::GetConfigRequest
            | Kind::SetConfig
            | Kind::RoleRequest
            | Kind::GetAsyncRequest
            | Kind::SetAsyncConfig
            | Kind::SetFlowFormat
            | Kind::SetPacketInFormat
            | Kind::SetControllerId
            | Kind::FlowModTableId => self.session_answer(),
            Kind::PortMod | Kind::PortStatsRequest | Kind::PortDescRequest => self.port_answer(),
            Kind::QueueStatsRequest | Kind::QueueGetConfigRequest => self.queue_answer(),
            Kind::TableMod
            | Kind::TableStatsRequest
            | Kind::TableDescRequest
            | Kind::TableFeaturesRequest => self.table_answer(),
            Kind::FlowMod | Kind::FlowStatsRequest | Kind::AggregateStatsRequest => {
                self.flow_answer()
            }
            Kind::MeterMod
            | Kind::MeterStatsRequest
            | Kind::MeterConfigRequest
            | Kind::MeterFeaturesRequest => self.meter_answer(),
            Kind::GroupMod
            | Kind::GroupStatsRequest
            | Kind::GroupDescRequest
            | Kind::GroupFeaturesRequest => self.group_answer(),
            Kind::FlowMonitorRequest | Kind::FlowMonitorCancel => self.monitor_answer(),
            Kind::IpfixBridgeStatsRequest | Kind::IpfixFlowStatsRequest => self.ipfix_stats(),
            Kind::PacketOut => self.packet_out(),
            Kind::Resume => self.resume(),
            Kind::CtFlushZone => self.flush_zone(),
            Kind::CtFlush => self.flush_connections(),
            Kind::TlvTableMod => self.tlv_table_mod(),
            Kind::TlvTableRequest => Ok(self.tlv_table()),
            Kind::BundleControl | Kind::BundleAdd => self.bundle_answer(),
            _ if self.raw.form.is_stats() => Err(ErrorCode::BrcBadStat),
            _ => Err(ErrorCode::BrcBadType),
        }
    }

    fn features(&self) -> Vec<u8> {
        let version = self.raw.version;
        let mut capabilities = capability::FLOW_STATS
            | capability::TABLE_STATS
            | capability::PORT_STATS
            | capability::QUEUE_STATS;
        if version <= Version::V11 {
            capabilities |= capability::ARP_MATCH_IP;
        }
        if version >= Version::V11 {
            capabilities |= capability::GROUP_STATS;
        }
        if version >= Version::V14 {
            capabilities |= capability::BUNDLES;
        }
        let features = Features {
            datapath_id: self.bridge.settings.datapath_id,
            buffers: 0,
            tables: VISIBLE_TABLES,
            auxiliary: 0,
            capabilities,
            actions: ACTIONS_V10,
            ports: self.bridge.ports.values().map(|port| port.desc.clone()).collect(),
        };
        features.encode(version, self.raw.xid)
    }
}

/// Answers a message.
///
/// # Errors
/// What is to be answered instead.
pub(crate) fn handle(
    bridge: &mut Bridge,
    id: ConnectionId,
    raw: &Raw<'_>,
    datapath: &mut dyn Datapath,
    now: Instant,
) -> Answers {
    Request { bridge, id, raw, datapath, now }.answer()
}
