//! Settings of connections: roles, what a controller is told unasked, formats; and what tells of them.

use std::fmt::Write as _;

use super::group;
use crate::error::ErrorCode;
use crate::framing::Header;
use crate::message::asynchronous::{AsyncConfig, Unasked};
use crate::message::flow_removed::RemovedReason;
use crate::message::nicira::{
    FlowFormat, PacketInFormat, decode_controller_id, decode_flow_mod_table_id,
};
use crate::message::role::{Role, RoleReason, RoleRequest, RoleStatus};
use crate::message::{Kind, Raw};
use crate::packet_in::Reason;

/// Writes what a message about a connection says.
pub(super) fn show(text: &mut String, raw: &Raw<'_>) -> Result<(), ErrorCode> {
    match raw.kind {
        Kind::RoleRequest | Kind::RoleReply => {
            let request = RoleRequest::decode(raw)?;
            role(text, request.role, request.generation);
        }
        Kind::RoleStatus => role_status(text, RoleStatus::decode(raw.body)?),
        Kind::SetAsyncConfig | Kind::GetAsyncReply => unasked(text, AsyncConfig::decode(raw)?),
        Kind::RequestForward => forwarded(text, raw)?,
        Kind::SetFlowFormat => {
            *text += match FlowFormat::decode(raw.body) {
                Ok(FlowFormat::OpenFlow10) => " format=openflow10",
                Ok(FlowFormat::Nxm) => " format=nxm",
                Err(_) => " format=(unknown)",
            };
        }
        Kind::SetPacketInFormat => {
            *text += match PacketInFormat::decode(raw.body)? {
                PacketInFormat::Standard => " format=standard",
                PacketInFormat::Nxt => " format=nxt_packet_in",
                PacketInFormat::Nxt2 => " format=nxt_packet_in2",
            };
        }
        Kind::FlowModTableId => {
            let is_on = decode_flow_mod_table_id(raw.body)?;
            *text += if is_on { " enable" } else { " disable" };
        }
        _ => {
            let _ = write!(text, " id={}", decode_controller_id(raw.body)?);
        }
    }
    Ok(())
}

fn role(text: &mut String, role: Option<Role>, generation: Option<u64>) {
    let role = match role {
        None => "nochange",
        Some(Role::Equal) => "equal",
        Some(Role::Primary) => "primary",
        Some(Role::Secondary) => "secondary",
    };
    let _ = write!(text, " role={role}");
    if let Some(generation) = generation {
        let _ = write!(text, " generation_id={generation}");
    }
}

/// Reasons of messages about roles, by their numbers.
const ROLE_REASONS: [&str; 3] =
    ["primary_request", "configuration_changed", "experimenter_data_changed"];

fn role_status(text: &mut String, status: RoleStatus) {
    role(text, status.role, status.generation);
    let [request, config, experimenter] = ROLE_REASONS;
    *text += " reason=";
    *text += match status.reason {
        RoleReason::PrimaryRequest => request,
        RoleReason::Config => config,
        RoleReason::Experimenter => experimenter,
        RoleReason::Unknown(_) => "(unknown)",
    };
}

/// What a controller is told unasked, as primary or equal, and as secondary: a line for each kind.
fn unasked(text: &mut String, config: AsyncConfig) {
    for (role, primary) in [("primary", true), ("secondary", false)] {
        let _ = writeln!(text, "\n {role}:");
        for kind in Unasked::ALL {
            let name = match kind {
                Unasked::PacketIn => "PACKET_IN",
                Unasked::PortStatus => "PORT_STATUS",
                Unasked::FlowRemoved => "FLOW_REMOVED",
                Unasked::RoleStatus => "ROLE_STATUS",
                Unasked::TableStatus => "TABLE_STATUS",
                Unasked::RequestForward => "REQUESTFORWARD",
            };
            let _ = write!(text, "{name:>16}:");
            let mask = config.get(kind, primary);
            for reason in (0..32_u8).filter(|reason| mask >> reason & 1 != 0) {
                if let Some(name) = reason_name(kind, reason) {
                    let _ = write!(text, " {name}");
                }
            }
            *text += if mask == 0 { " (off)\n" } else { "\n" };
        }
    }
}

/// What a reason is called; none are those that a switch keeps to itself.
fn reason_name(kind: Unasked, reason: u8) -> Option<String> {
    let names: &[&str] = match kind {
        Unasked::PacketIn => {
            let is_own = [Reason::EXPLICIT_MISS, Reason::IMPLICIT_MISS].contains(&Reason(reason));
            return (!is_own).then(|| Reason(reason).to_string());
        }
        Unasked::FlowRemoved => return Some(RemovedReason(reason).to_string()),
        Unasked::PortStatus => &["add", "delete", "modify"],
        Unasked::RoleStatus => &ROLE_REASONS,
        Unasked::TableStatus => &["0", "1", "2", "vacancy_down", "vacancy_up"],
        Unasked::RequestForward => &["group_mod_request", "meter_mod_request"],
    };
    let name = names.get(usize::from(reason)).map(|name| (*name).to_owned());
    Some(name.unwrap_or_else(|| reason.to_string()))
}

/// A change of a group or a meter that somebody else has made.
fn forwarded(text: &mut String, raw: &Raw<'_>) -> Result<(), ErrorCode> {
    let bad = |_| ErrorCode::BfcMsgBadLen;
    let header = Header::read(raw.body).map_err(bad)?;
    let message = raw.body.get(..usize::from(header.length)).ok_or(ErrorCode::BfcMsgBadLen)?;
    if header.version != raw.version.wire() {
        return Err(ErrorCode::BrcBadVersion);
    }
    let inner = Raw::read(message)?;
    // What is not to be shown in full is not shown.
    let (begin, mut said) = (text.len(), String::new());
    *text += match inner.kind {
        Kind::GroupMod => " reason=group_mod",
        Kind::MeterMod => " reason=meter_mod",
        _ => return Err(ErrorCode::BfcMsgUnsup),
    };
    let end = group::show(&mut said, &inner);
    if end.is_err() {
        text.truncate(begin);
    }
    *text += &said;
    end
}
