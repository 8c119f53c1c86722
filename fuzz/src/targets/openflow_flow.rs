//! Messages of OpenFlow about flows, groups, meters and packets, and what people write of flows.

use openflow::message::ct_flush::CtFlush;
use openflow::message::flow_mod::{Command, FlowMod};
use openflow::message::flow_removed::FlowRemoved;
use openflow::message::flow_stats::{AggregateStats, FlowStats, FlowStatsRequest};
use openflow::message::flow_update::ToldByMonitor;
use openflow::message::group::{GroupDesc, GroupMod};
use openflow::message::meter::MeterMod;
use openflow::message::nicira::PacketInFormat;
use openflow::message::packet_in::PacketIn;
use openflow::message::packet_out::PacketOut;
use openflow::message::stats::port::PortStats;
use openflow::message::stats::table::{TableDesc, TableStats};
use openflow::message::tlv_table::{TlvTable, TlvTableMod};
use openflow::message::{Form, Kind, Message, Raw, Replies};
use openflow::text::{Names, flow_mod};
use openflow::wire::Reader;
use openflow::{ErrorCode, Instructions, Match};

/// Plays one input: a message with its header.
pub(super) fn run(data: &[u8]) {
    // Whatever it is, it is shown somehow.
    let shown = openflow::print::message(data);
    assert!(!shown.is_empty() || data.is_empty());
    let Ok(raw) = Raw::read(data) else { return };
    match raw.kind {
        Kind::TlvTableMod => {
            stays(&raw, |raw| TlvTableMod::decode(raw.body), |change| change.encode(&raw));
        }
        Kind::TlvTableReply => {
            stays(&raw, |raw| TlvTable::decode(raw.body), |table| table.encode(&raw));
        }
        Kind::PortStatsReply => {
            stays(&raw, ports, |ports| {
                let mut replies = Replies::new(raw.version, raw.kind, raw.form, raw.xid);
                for port in ports {
                    replies.entry(|out| port.encode(raw.version, out));
                }
                replies.finish().swap_remove(0)
            });
        }
        Kind::FlowMod => {
            stays(
                &raw,
                |raw| FlowMod::decode(raw, true),
                |change| {
                    assert!(!change.to_string().is_empty());
                    change.encode(raw.version, raw.form, true, raw.xid)
                },
            );
        }
        Kind::FlowStatsRequest | Kind::AggregateStatsRequest => {
            stays(&raw, FlowStatsRequest::decode, |request| {
                request.encode(raw.version, raw.kind, raw.form, raw.xid)
            });
        }
        Kind::FlowStatsReply => {
            stays(&raw, FlowStats::decode_all, |flows| {
                let mut replies = Replies::new(raw.version, raw.kind, raw.form, raw.xid);
                for flow in flows {
                    assert!(flow.dumped(true).to_string().starts_with("cookie="));
                    replies.entry(|out| flow.encode(raw.version, raw.form, out));
                }
                replies.finish().swap_remove(0)
            });
        }
        Kind::AggregateStatsReply => {
            stays(&raw, AggregateStats::decode, |sum| sum.encode(raw.version, raw.form, raw.xid));
        }
        Kind::FlowMonitorReply => {
            stays(&raw, ToldByMonitor::decode_all, |all| {
                let mut replies = Replies::new(raw.version, raw.kind, raw.form, raw.xid);
                for told in all {
                    replies.entry(|out| told.encode(raw.version, out));
                }
                replies.finish().swap_remove(0)
            });
        }
        Kind::TableDescReply => {
            stays(
                &raw,
                |raw| TableDesc::decode_all(raw.body),
                |all| {
                    let mut replies = Replies::new(raw.version, raw.kind, raw.form, raw.xid);
                    for desc in all {
                        replies.entry(|out| desc.encode(out));
                    }
                    replies.finish().swap_remove(0)
                },
            );
        }
        Kind::TableStatsReply => {
            stays(&raw, tables, |all| {
                let mut replies = Replies::new(raw.version, raw.kind, raw.form, raw.xid);
                for stats in all {
                    replies.entry(|out| stats.encode(raw.version, out));
                }
                replies.finish().swap_remove(0)
            });
        }
        Kind::FlowRemoved => {
            stays(&raw, FlowRemoved::decode, |flow| flow.encode(raw.version, raw.form));
        }
        Kind::PacketOut => stays(&raw, PacketOut::decode, |out| out.encode(raw.version, raw.xid)),
        Kind::PacketIn => {
            let format = match (raw.form, raw.number) {
                (Form::Nx, 30) => PacketInFormat::Nxt2,
                (Form::Nx, _) => PacketInFormat::Nxt,
                _ => PacketInFormat::Standard,
            };
            stays(&raw, PacketIn::decode, |packet| packet.encode(raw.version, format));
        }
        Kind::CtFlush => {
            stays(
                &raw,
                |raw| CtFlush::decode(raw.body),
                |flush| {
                    assert!(flush.to_string().ends_with('\''));
                    let mut message = Message::new(raw.version, raw.kind, raw.xid);
                    flush.write(&mut message);
                    message.finish()
                },
            );
        }
        Kind::GroupMod => {
            stays(&raw, GroupMod::decode, |change| change.encode(raw.version, raw.xid));
        }
        Kind::MeterMod => {
            stays(&raw, MeterMod::decode, |change| change.encode(raw.version, raw.xid));
        }
        Kind::GroupDescReply => {
            stays(&raw, GroupDesc::decode_all, |groups| {
                let mut replies = Replies::new(raw.version, raw.kind, raw.form, raw.xid);
                for group in groups {
                    replies.entry(|out| group.encode(raw.version, out));
                }
                replies.finish().swap_remove(0)
            });
        }
        _ => {}
    }
}

/// Statistics of tables, one after the other.
fn tables(raw: &Raw<'_>) -> Result<Vec<TableStats>, ErrorCode> {
    let (mut reader, mut all) = (Reader::new(raw.body), Vec::new());
    while !reader.is_empty() {
        all.push(TableStats::decode(raw.version, &mut reader)?);
    }
    Ok(all)
}

/// Statistics of ports, one after the other.
fn ports(raw: &Raw<'_>) -> Result<Vec<PortStats>, ErrorCode> {
    let (mut reader, mut all) = (Reader::new(raw.body), Vec::new());
    while !reader.is_empty() {
        all.push(PortStats::decode(raw.version, &mut reader)?);
    }
    Ok(all)
}

/// What is read, written and read again is the same from then on: the first time some of it may become
/// what the version says better.
fn stays<T: PartialEq + std::fmt::Debug>(
    raw: &Raw<'_>,
    decode: impl Fn(&Raw<'_>) -> Result<T, ErrorCode>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let Ok(first) = decode(raw) else { return };
    let bytes = encode(&first);
    // It may have become too long for a message, which then is cut.
    if bytes.len() >= usize::from(u16::MAX) {
        return;
    }
    let read = Raw::read(&bytes).and_then(|raw| decode(&raw));
    let again = read.unwrap_or_else(|code| panic!("{code} in {first:?}"));
    let bytes = encode(&again);
    let read = Raw::read(&bytes).and_then(|raw| decode(&raw));
    assert_eq!(read.as_ref(), Ok(&again), "first {first:?}");
}

/// Plays one input: a flow as people write it.
pub(super) fn run_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let commands = [Command::Add, Command::ModifyStrict, Command::Delete];
    for command in commands {
        let Ok(flow) = flow_mod(text, command, Names::NONE) else { continue };
        // What is shown can be read, and is shown again.
        let shown = flow.matching.to_string();
        assert_eq!(shown.parse::<Match>().map(|read| read.to_string()), Ok(shown));
        let shown = flow.instructions.to_string();
        let read = shown.parse::<Instructions>().map(|read| read.to_string());
        assert_eq!(read, Ok(shown));
    }
}
