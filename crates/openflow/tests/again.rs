//! Messages of a real switch and its tools are written as they were read.

mod messages;

use messages::messages;
use openflow::message::asynchronous::AsyncConfig;
use openflow::message::bundle::{BundleAdd, BundleControl};
use openflow::message::config::Config;
use openflow::message::ct_flush::CtFlush;
use openflow::message::features::Features;
use openflow::message::flow_mod::FlowMod;
use openflow::message::flow_monitor::{FlowMonitorRequest, decode_cancel};
use openflow::message::flow_removed::FlowRemoved;
use openflow::message::flow_stats::{AggregateStats, FlowStats, FlowStatsRequest};
use openflow::message::group::{GroupDesc, GroupMod, GroupStats, ask, asked};
use openflow::message::hello::Hello;
use openflow::message::meter::{Meter, MeterMod, MeterStats};
use openflow::message::nicira::{
    FlowFormat, PacketInFormat, decode_controller_id, decode_flow_mod_table_id,
};
use openflow::message::packet_in::PacketIn;
use openflow::message::packet_out::PacketOut;
use openflow::message::port::{PortDesc, PortMod, PortStatus, decode_number, encode_number};
use openflow::message::role::{RoleRequest, RoleStatus};
use openflow::message::stats::desc::Desc;
use openflow::message::stats::ipfix::IpfixStats;
use openflow::message::stats::limits::{GroupFeatures, MeterFeatures};
use openflow::message::stats::port::PortStats;
use openflow::message::stats::queue::{QueueRequest, QueueStats};
use openflow::message::stats::queue_config::{self, QueueConfig, encode_port};
use openflow::message::stats::table::{TableDesc, TableStats};
use openflow::message::stats::table_features::TableFeatures;
use openflow::message::table_mod::{TableMod, decode_status, encode_status};
use openflow::message::tlv_table::{TlvTable, TlvTableMod};
use openflow::message::{Form, Kind, Message, Raw};
use openflow::wire::{Reader, Writer as _};
use openflow::{ErrorCode, ErrorMessage, Version, print};

/// What was read, written again; `None` where a message says nothing but what it is.
fn again(raw: &Raw<'_>) -> Result<Option<Vec<u8>>, ErrorCode> {
    let Raw { version, xid, kind, form, number, .. } = *raw;
    let mut reader = Reader::new(raw.body);
    let mut message = Message::numbered(version, form, number, xid);
    let out = message.body();
    match kind {
        Kind::Hello => return Ok(Some(Hello::decode(version.wire(), raw.body).encode(xid))),
        Kind::Error => {
            let error = ErrorMessage::decode(raw.body)?;
            let code = error.code(version).ok_or(ErrorCode::BrcBadLen)?;
            return Ok(Some(ErrorMessage::reply(code, version, xid, &error.data)));
        }
        Kind::FeaturesReply => {
            return Ok(Some(Features::decode(version, raw.body)?.encode(version, xid)));
        }
        Kind::GetConfigReply | Kind::SetConfig => {
            return Ok(Some(Config::decode(raw.body)?.encode(version, kind, xid)));
        }
        Kind::PacketIn => {
            let format = match (form, number) {
                (Form::Nx, 30) => PacketInFormat::Nxt2,
                (Form::Nx, _) => PacketInFormat::Nxt,
                _ => PacketInFormat::Standard,
            };
            return Ok(Some(PacketIn::decode(raw)?.encode(version, format)));
        }
        Kind::FlowRemoved => return Ok(Some(FlowRemoved::decode(raw)?.encode(version, form))),
        Kind::PortStatus => {
            return Ok(Some(PortStatus::decode(version, raw.body)?.encode(version, xid)));
        }
        Kind::PacketOut => return Ok(Some(PacketOut::decode(raw)?.encode(version, xid))),
        Kind::FlowMod => {
            let change = FlowMod::decode(raw, true)?;
            return Ok(Some(change.encode(version, form, true, xid)));
        }
        Kind::GroupMod => return Ok(Some(GroupMod::decode(raw)?.encode(version, xid))),
        Kind::PortMod => return Ok(Some(PortMod::decode(version, raw.body)?.encode(version, xid))),
        Kind::TableMod => TableMod::decode(version, raw.body)?.encode(version, out),
        Kind::RoleRequest | Kind::RoleReply => {
            return Ok(Some(RoleRequest::decode(raw)?.encode(version, kind, form, xid)));
        }
        Kind::GetAsyncReply | Kind::SetAsyncConfig => {
            let has_properties = AsyncConfig::has_properties(raw);
            AsyncConfig::decode(raw)?.encode_body(version, has_properties, out);
        }
        Kind::MeterMod => return Ok(Some(MeterMod::decode(raw)?.encode(version, xid))),
        Kind::RoleStatus => return Ok(RoleStatus::decode(raw.body)?.encode(version, xid)),
        Kind::RequestForward => out.extend(again(&Raw::read(raw.body)?)?.unwrap_or_default()),
        Kind::TableStatus => {
            let (event, desc) = decode_status(raw.body)?;
            return Ok(Some(encode_status(event, &desc, version)));
        }
        Kind::BundleControl => {
            return Ok(Some(BundleControl::decode(raw.body)?.encode(version, form, xid)));
        }
        Kind::BundleAdd => {
            return Ok(Some(BundleAdd::decode(version, xid, raw.body)?.encode(version, xid)));
        }
        _ => return statistics(raw, &mut reader, message),
    }
    Ok(Some(message.finish()))
}

/// The same of requests for statistics, answers to them, and short messages of Nicira's.
fn statistics(
    raw: &Raw<'_>,
    reader: &mut Reader<'_>,
    mut message: Message,
) -> Result<Option<Vec<u8>>, ErrorCode> {
    let Raw { version, xid, kind, form, .. } = *raw;
    let out = message.body();
    match kind {
        Kind::DescReply => Desc::decode(raw.body)?.encode(out),
        Kind::FlowStatsRequest | Kind::AggregateStatsRequest => {
            let request = FlowStatsRequest::decode(raw)?;
            return Ok(Some(request.encode(version, kind, form, xid)));
        }
        Kind::FlowStatsReply => {
            FlowStats::decode_all(raw)?.iter().for_each(|flow| flow.encode(version, form, out));
        }
        Kind::AggregateStatsReply => {
            return Ok(Some(AggregateStats::decode(raw)?.encode(version, form, xid)));
        }
        Kind::TableStatsReply => {
            while !reader.is_empty() {
                TableStats::decode(version, reader)?.encode(version, out);
            }
        }
        Kind::PortStatsRequest => {
            encode_number(version, decode_number(version, reader)?, out);
            out.zeroes(reader.len());
        }
        Kind::PortDescRequest if raw.body.is_empty() => return Ok(None),
        Kind::PortDescRequest => {
            encode_number(version, decode_number(version, reader)?, out);
            out.zeroes(4);
        }
        Kind::PortStatsReply => {
            while !reader.is_empty() {
                PortStats::decode(version, reader)?.encode(version, out);
            }
        }
        Kind::QueueStatsRequest => QueueRequest::decode(version, raw.body)?.encode(version, out),
        Kind::QueueStatsReply => {
            while !reader.is_empty() {
                QueueStats::decode(version, reader)?.encode(version, out);
            }
        }
        Kind::QueueGetConfigRequest => {
            let request = queue_config::decode_request(version, raw.body)?;
            queue_config::encode_request(version, request, out);
        }
        Kind::QueueGetConfigReply => {
            let queues = QueueConfig::decode_all(raw)?;
            if version < Version::V14 {
                encode_port(version, decode_number(version, reader)?, out);
            }
            queues.iter().for_each(|queue| queue.encode(version, out));
        }
        Kind::GroupStatsRequest | Kind::GroupDescRequest => {
            return Ok(Some(ask(version, kind, asked(raw)?, xid)));
        }
        Kind::GroupStatsReply => {
            GroupStats::decode_all(raw)?.iter().for_each(|stats| stats.encode(version, out));
        }
        Kind::GroupDescReply => {
            GroupDesc::decode_all(raw)?.iter().for_each(|desc| desc.encode(version, out));
        }
        Kind::GroupFeaturesReply => GroupFeatures::decode(raw.body)?.encode(out),
        Kind::MeterStatsRequest | Kind::MeterConfigRequest => {
            out.u32(reader.u32()?);
            out.zeroes(4);
        }
        Kind::MeterStatsReply => {
            MeterStats::decode_all(raw)?.iter().for_each(|stats| stats.encode(out));
        }
        Kind::MeterConfigReply => {
            Meter::decode_all(raw)?.iter().for_each(|meter| meter.encode(out));
        }
        Kind::MeterFeaturesReply => MeterFeatures::decode(raw.body)?.encode(out),
        Kind::TableFeaturesRequest | Kind::TableFeaturesReply => {
            TableFeatures::decode_all(raw)?.iter().for_each(|table| table.encode(version, out));
        }
        Kind::TableDescReply => {
            TableDesc::decode_all(raw.body)?.iter().for_each(|desc| desc.encode(out));
        }
        Kind::PortDescReply => {
            PortDesc::decode_all(version, raw.body)?
                .iter()
                .for_each(|port| port.encode(version, out));
        }
        Kind::FlowMonitorRequest => {
            let all = FlowMonitorRequest::decode_all(raw)?;
            return Ok(Some(FlowMonitorRequest::encode_all(&all, version, xid)));
        }
        Kind::FlowMonitorCancel => out.u32(decode_cancel(raw.body)?),
        Kind::SetFlowFormat => FlowFormat::decode(raw.body)?.encode(out),
        Kind::SetPacketInFormat => PacketInFormat::decode(raw.body)?.encode(out),
        Kind::FlowModTableId => {
            out.u8(decode_flow_mod_table_id(raw.body)?.into());
            out.zeroes(7);
        }
        Kind::SetControllerId => {
            out.zeroes(6);
            out.u16(decode_controller_id(raw.body)?);
        }
        Kind::TlvTableMod => return Ok(Some(TlvTableMod::decode(raw.body)?.encode(raw))),
        Kind::TlvTableReply => return Ok(Some(TlvTable::decode(raw.body)?.encode(raw))),
        Kind::IpfixBridgeStatsReply | Kind::IpfixFlowStatsReply => {
            IpfixStats::decode_all(raw.body)?.into_iter().for_each(|stats| stats.encode(out));
        }
        Kind::CtFlush => CtFlush::decode(raw.body)?.write(&mut message),
        _ => return Ok(None),
    }
    Ok(Some(message.finish()))
}

/// Those that each switch writes in a way of its own, all of which are read alike: what more there is of ports is in
/// properties of an experimenter; packets of NXT_PACKET_IN2 may say where they came in by any of two numbers of the
/// port; matches of OpenFlow 1.1 may be those of 1.2; the usual weight of buckets, and what a controller is not told
/// of, may be said or not.
const OWN: [Kind; 6] = [
    Kind::PortStatsReply,
    Kind::PacketIn,
    Kind::FlowStatsReply,
    Kind::GroupDescReply,
    Kind::GroupMod,
    Kind::SetAsyncConfig,
];

/// What unasked messages have no number of.
fn plain(message: &[u8]) -> Vec<u8> {
    [message.get(..4).unwrap_or_default(), message.get(8..).unwrap_or_default()].concat()
}

/// What a message says, without its name and its length.
fn meant(message: &[u8]) -> String {
    let shown = print::message(message);
    shown.split_once("):").map(|(_, said)| said.to_owned()).unwrap_or(shown)
}

#[test]
fn messages_are_written_as_they_were_read() {
    let (mut alike, mut own, mut different) = (0, 0, Vec::new());
    for (message, said) in messages() {
        let Ok(raw) = Raw::read(&message) else { continue };
        let made = again(&raw).unwrap_or_else(|code| Some(code.to_string().into_bytes()));
        let Some(made) = made else { continue };
        if plain(&made) == plain(&message) {
            alike += 1;
        } else if OWN.contains(&raw.kind) && meant(&made) == meant(&message) {
            own += 1;
        } else {
            let hex = |bytes: &[u8]| -> String {
                bytes.iter().take(300).map(|byte| format!("{byte:02x}")).collect()
            };
            let first = said.lines().next().unwrap_or_default();
            different.push(format!("{first}\n read    {}\n written {}", hex(&message), hex(&made)));
        }
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
    assert!(alike > 350 && own < 30, "{alike} are the same, {own} have a form of their own");
}
