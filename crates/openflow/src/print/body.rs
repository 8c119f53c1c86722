//! What messages say.

use std::fmt::Write as _;

use super::said::Said;
use super::{Depth, dumped, group, limits, nested, port, queue, session, table, table_features};
use crate::action::Actions;
use crate::error::{ErrorCode, ErrorMessage};
use crate::field::text::Hex;
use crate::message::bundle::{ATOMIC, BundleAdd, BundleControl, BundleStep, ORDERED};
use crate::message::config::{Config, Fragments, INVALID_TTL_TO_CONTROLLER};
use crate::message::ct_flush::CtFlush;
use crate::message::flow_mod::{ALL_TABLES, FlowFlags, FlowMod};
use crate::message::flow_monitor::{
    FlowEvent, FlowMonitorRequest, MonitorCommand, MonitorFlags, decode_cancel,
};
use crate::message::flow_removed::FlowRemoved;
use crate::message::flow_stats::{AggregateStats, FlowStats, FlowStatsRequest};
use crate::message::flow_text::{Ranked, Seconds};
use crate::message::flow_update::{ToldByMonitor, ToldFlow};
use crate::message::hello::Hello;
use crate::message::packet_in::PacketIn;
use crate::message::packet_out::PacketOut;
use crate::message::stats::desc::Desc;
use crate::message::stats::port::decode_request;
use crate::message::tlv_table::{TlvTable, TlvTableMod};
use crate::message::{Kind, Raw};
use crate::port_no::PortNo;
use crate::version::{Version, VersionSet};

/// Whether a message could be read to its end; what is written by then is kept.
type Shown = Result<(), ErrorCode>;

/// Writes what a message says behind its head.
pub(super) fn show(text: &mut String, raw: &Raw<'_>, version: u8, depth: Depth) -> Shown {
    match raw.kind {
        Kind::Hello => hello(text, raw, version),
        Kind::Error => error(text, raw, depth)?,
        Kind::EchoRequest | Kind::EchoReply => {
            put(text, format_args!(" {} bytes of payload", raw.body.len()));
        }
        Kind::GetConfigReply | Kind::SetConfig => config(text, Config::decode(raw.body)?),
        Kind::FlowMod => flow_mod(text, FlowMod::decode(raw, true)?, raw.version),
        Kind::FlowRemoved => flow_removed(text, &FlowRemoved::decode(raw)?),
        Kind::PacketOut => packet_out(text, &PacketOut::decode(raw)?),
        Kind::FlowStatsRequest | Kind::AggregateStatsRequest => {
            flow_stats_request(text, &FlowStatsRequest::decode(raw)?);
        }
        Kind::FlowStatsReply => {
            for flow in FlowStats::decode_all(raw)? {
                put(text, format_args!("\n {}", flow.dumped(true)));
            }
        }
        Kind::AggregateStatsReply => aggregate(text, &AggregateStats::decode(raw)?),
        Kind::DescReply => desc(text, &Desc::decode(raw.body)?),
        Kind::PortStatsRequest => {
            put(text, format_args!(" port_no={}", decode_request(raw.version, raw.body)?));
        }
        Kind::BundleControl => bundle_control(text, BundleControl::decode(raw.body)?),
        Kind::BundleAdd => bundle_add(text, raw, depth)?,
        Kind::GroupMod
        | Kind::GroupStatsRequest
        | Kind::GroupDescRequest
        | Kind::GroupDescReply
        | Kind::GroupStatsReply
        | Kind::MeterMod
        | Kind::MeterStatsRequest
        | Kind::MeterConfigRequest
        | Kind::MeterStatsReply
        | Kind::MeterConfigReply => group::show(text, raw)?,
        Kind::FeaturesReply
        | Kind::PortStatus
        | Kind::PortMod
        | Kind::PortDescReply
        | Kind::PortStatsReply => port::show(text, raw)?,
        Kind::QueueGetConfigRequest
        | Kind::QueueGetConfigReply
        | Kind::QueueStatsRequest
        | Kind::QueueStatsReply
        | Kind::IpfixBridgeStatsReply
        | Kind::IpfixFlowStatsReply => queue::show(text, raw)?,
        Kind::TableMod | Kind::TableStatus | Kind::TableDescReply => table::show(text, raw)?,
        Kind::TableStatsReply | Kind::TableFeaturesRequest | Kind::TableFeaturesReply => {
            table_features::show(text, raw)?;
        }
        Kind::RoleRequest
        | Kind::RoleReply
        | Kind::RoleStatus
        | Kind::SetAsyncConfig
        | Kind::GetAsyncReply
        | Kind::RequestForward
        | Kind::SetFlowFormat
        | Kind::SetPacketInFormat
        | Kind::FlowModTableId
        | Kind::SetControllerId => session::show(text, raw)?,
        Kind::GroupFeaturesReply | Kind::MeterFeaturesReply => limits::show(text, raw)?,
        Kind::PacketIn | Kind::Resume => packet_in(text, &PacketIn::decode_to_show(raw)?),
        _ => return rest(text, raw),
    }
    Ok(())
}

/// Older versions have no flag by which counters begin anew: it goes without saying.
fn flow_mod(text: &mut String, mut change: FlowMod, version: Version) {
    if version <= Version::V11 {
        change.flags = change.flags.without(FlowFlags::RESET_COUNTS);
    }
    put(text, format_args!(" {change}"));
}

/// A packet is told by its length.
fn packet_in(text: &mut String, packet: &PacketIn) {
    if packet.table != 0 {
        put(text, format_args!(" table_id={}", packet.table));
    }
    if let Some(cookie) = packet.cookie {
        put(text, format_args!(" cookie=0x{cookie:x}"));
    }
    put(text, format_args!(" total_len={} {}", packet.full_len, packet.metadata));
    put(text, format_args!(" (via {}) data_len={}", packet.reason, packet.packet.len()));
    let len = u32::try_from(packet.packet.len()).unwrap_or(u32::MAX);
    match packet.buffer {
        None => put(text, " (unbuffered)"),
        Some(buffer) => put(text, format_args!(" buffer=0x{buffer:08x}")),
    }
    // Of one that waits in the switch, a part is enough.
    match packet.buffer {
        None if packet.full_len != len => put(text, " (***total_len != data_len***)"),
        Some(_) if packet.full_len < len => put(text, " (***total_len < data_len***)"),
        _ => {}
    }
    if !packet.userdata.is_empty() {
        let bytes: Vec<String> = packet.userdata.iter().map(|byte| format!("{byte:02x}")).collect();
        put(text, format_args!("\n userdata={}", bytes.join(".")));
    }
}

fn put(text: &mut String, said: impl std::fmt::Display) {
    let _ = write!(text, "{said}");
}

/// The rest, and all of which no more is shown than that they are there.
fn rest(text: &mut String, raw: &Raw<'_>) -> Shown {
    match raw.kind {
        Kind::CtFlushZone => {
            let zone = raw.body.last_chunk::<2>().copied().map_or(0, u16::from_be_bytes);
            put(text, format_args!(" zone_id={zone}"));
        }
        Kind::CtFlush => {
            let flush = CtFlush::decode(raw.body)?;
            if let Some(zone) = flush.zone {
                put(text, format_args!(" zone={zone}"));
            }
            put(text, format_args!(" {flush}"));
        }
        Kind::TlvTableMod => put(text, format_args!("\n {}", TlvTableMod::decode(raw.body)?)),
        Kind::TlvTableReply => put(text, format_args!("\n{}", TlvTable::decode(raw.body)?)),
        Kind::FlowMonitorCancel => put(text, format_args!(" id={}", decode_cancel(raw.body)?)),
        Kind::FlowMonitorRequest => {
            FlowMonitorRequest::decode_all(raw)?.iter().for_each(|one| monitor(text, one));
        }
        Kind::FlowMonitorReply => {
            ToldByMonitor::decode_all(raw)?.iter().for_each(|told| told_by_monitor(text, told));
        }
        Kind::PortDescRequest => {
            let port = match raw.body {
                [] => PortNo::ANY,
                body => decode_request(raw.version, body)?,
            };
            put(text, format_args!(" port={port}"));
        }
        _ if raw.body.is_empty() => {}
        // What is not read here is shown byte by byte.
        _ => put(text, format_args!("\n{}", dumped(raw.body))),
    }
    Ok(())
}

fn hello(text: &mut String, raw: &Raw<'_>, version: u8) {
    let versions = Hello::decode(version, raw.body).versions;
    put(text, format_args!("\n version bitmap: {}", numbers(versions)));
}

/// Versions' numbers: `0x01, 0x04`.
fn numbers(versions: VersionSet) -> String {
    let all = Version::ALL.into_iter().filter(|version| versions.has(*version));
    let all: Vec<String> = all.map(|version| format!("{:#04x}", version.wire())).collect();
    all.join(", ")
}

/// An error, and the message that it is about.
fn error(text: &mut String, raw: &Raw<'_>, depth: Depth) -> Shown {
    let error = ErrorMessage::decode(raw.body)?;
    let code = error.code(raw.version).ok_or(ErrorCode::BrcBadLen)?;
    put(text, format_args!(" {code}\n"));
    let is_said = matches!(code, ErrorCode::HfcIncompatible | ErrorCode::HfcEperm);
    match depth.deeper() {
        _ if is_said => put(text, error.data.escape_ascii()),
        Some(depth) => put(text, nested(&error.data, depth)),
        None => {}
    }
    Ok(())
}

fn config(text: &mut String, config: Config) {
    let kind = match config.fragments() {
        Ok(Fragments::Normal) => "normal",
        Ok(Fragments::Drop) => "drop",
        Ok(Fragments::NxMatch) => "nx-match",
        Err(_) => "reassemble",
    };
    put(text, format_args!(" frags={kind}"));
    if config.flags & INVALID_TTL_TO_CONTROLLER != 0 {
        put(text, " invalid_ttl_to_controller");
    }
    put(text, format_args!(" miss_send_len={}", config.miss_send_len));
}

fn flow_removed(text: &mut String, flow: &FlowRemoved) {
    let ranked = Ranked(flow.priority, &flow.matching);
    put(text, format_args!(" {ranked} reason={}", flow.reason));
    if flow.table != ALL_TABLES {
        put(text, format_args!(" table_id={}", flow.table));
    }
    if flow.cookie != 0 {
        put(text, format_args!(" cookie:{:#x}", flow.cookie));
    }
    put(text, format_args!(" duration{} idle{}", Seconds(flow.duration), flow.idle_timeout));
    if flow.hard_timeout != 0 {
        put(text, format_args!(" hard{}", flow.hard_timeout));
    }
    put(text, format_args!(" pkts{} bytes{}", flow.packets, flow.bytes));
}

/// A packet is told by its length.
fn packet_out(text: &mut String, packet: &PacketOut) {
    put(text, format_args!(" {} actions={}", packet.metadata, Actions(&packet.actions)));
    match packet.buffer {
        None => put(text, format_args!(" data_len={}", packet.packet.len())),
        Some(buffer) => put(text, format_args!(" buffer=0x{buffer:08x}")),
    }
}

fn flow_stats_request(text: &mut String, request: &FlowStatsRequest) {
    if request.table != ALL_TABLES {
        put(text, format_args!(" table={}", request.table));
    }
    if request.out_port != PortNo::ANY {
        put(text, format_args!(" out_port={}", request.out_port));
    }
    put(text, format_args!(" {}", request.matching));
}

fn aggregate(text: &mut String, stats: &AggregateStats) {
    let (packets, bytes) = (stats.packets.unwrap_or(u64::MAX), stats.bytes.unwrap_or(u64::MAX));
    put(
        text,
        format_args!(" packet_count={packets} byte_count={bytes} flow_count={}", stats.flows),
    );
}

fn desc(text: &mut String, desc: &Desc) {
    let Desc { manufacturer, hardware, software, serial, datapath } = desc;
    let [manufacturer, hardware, software, serial, datapath] =
        [manufacturer, hardware, software, serial, datapath].map(|words| Said(words));
    put(text, format_args!("\nManufacturer: {manufacturer}\nHardware: {hardware}\n"));
    put(text, format_args!("Software: {software}\nSerial Num: {serial}\n"));
    put(text, format_args!("DP Description: {datapath}"));
}

fn bundle_flags(flags: u16) -> &'static str {
    match (flags & ATOMIC != 0, flags & ORDERED != 0) {
        (true, true) => "atomic ordered",
        (true, false) => "atomic",
        (false, true) => "ordered",
        (false, false) => "0",
    }
}

fn bundle_control(text: &mut String, control: BundleControl) {
    let step = match control.step {
        BundleStep::OpenRequest => "OPEN_REQUEST",
        BundleStep::OpenReply => "OPEN_REPLY",
        BundleStep::CloseRequest => "CLOSE_REQUEST",
        BundleStep::CloseReply => "CLOSE_REPLY",
        BundleStep::CommitRequest => "COMMIT_REQUEST",
        BundleStep::CommitReply => "COMMIT_REPLY",
        BundleStep::DiscardRequest => "DISCARD_REQUEST",
        BundleStep::DiscardReply => "DISCARD_REPLY",
    };
    let id = Hex(control.id.into());
    put(text, format_args!("\n bundle_id={id} type={step} flags={}", bundle_flags(control.flags)));
}

/// What is in a bundle is shown, but for bundles in it.
fn bundle_add(text: &mut String, raw: &Raw<'_>, depth: Depth) -> Shown {
    let add = BundleAdd::decode(raw.version, raw.xid, raw.body)?;
    let id = Hex(add.id.into());
    put(text, format_args!("\n bundle_id={id} flags={}\n", bundle_flags(add.flags)));
    if let Some(depth) = depth.deeper() {
        put(text, nested(add.message, depth));
    }
    Ok(())
}

fn told_by_monitor(text: &mut String, told: &ToldByMonitor) {
    match told {
        ToldByMonitor::Flow(flow) => told_flow(text, flow),
        ToldByMonitor::Own(xid) => put(text, format_args!("\n event=ABBREV xid=0x{xid:x}")),
        ToldByMonitor::Paused => put(text, "\n event=PAUSED"),
        ToldByMonitor::Resumed => put(text, "\n event=RESUMED"),
    }
}

fn told_flow(text: &mut String, flow: &ToldFlow) {
    put(
        text,
        match flow.event {
            FlowEvent::Initial => "\n event=INITIAL".to_owned(),
            FlowEvent::Added => "\n event=ADDED".to_owned(),
            FlowEvent::Removed(why) => format!("\n event=DELETED reason={}", why),
            FlowEvent::Modified => "\n event=MODIFIED".to_owned(),
        },
    );
    put(text, format_args!(" table={}", flow.table));
    for (name, seconds) in
        [("idle_timeout", flow.idle_timeout), ("hard_timeout", flow.hard_timeout)]
    {
        if seconds != 0 {
            put(text, format_args!(" {name}={seconds}"));
        }
    }
    let cookie = Hex(flow.cookie.into());
    // Its priority is not told.
    put(text, format_args!(" cookie={cookie} {}", flow.matching));
    if let Some(instructions) = &flow.instructions {
        let space = if text.ends_with(' ') { "" } else { " " };
        put(text, format_args!("{space}actions={instructions}"));
    }
}

fn monitor(text: &mut String, request: &FlowMonitorRequest) {
    if request.command == MonitorCommand::Delete {
        return put(text, format_args!("\n id={} command=delete", request.id));
    }
    let names = [
        (MonitorFlags::INITIAL, "initial"),
        (MonitorFlags::ADD, "add"),
        (MonitorFlags::REMOVED, "delete"),
        (MonitorFlags::MODIFY, "modify"),
        (MonitorFlags::INSTRUCTIONS, "actions"),
        (MonitorFlags::OWN, "own"),
    ];
    let flags = names.into_iter().filter(|(flag, _)| request.flags.has(*flag));
    let flags: Vec<&str> = flags.map(|(_, name)| name).collect();
    put(text, format_args!("\n id={} flags={}", request.id, flags.join(",")));
    if request.out_port != PortNo::ANY {
        put(text, format_args!(" out_port={}", request.out_port));
    }
    if request.table != ALL_TABLES {
        put(text, format_args!(" table={}", request.table));
    }
    if !request.matching.is_empty() {
        put(text, format_args!(" {}", request.matching));
    }
}
