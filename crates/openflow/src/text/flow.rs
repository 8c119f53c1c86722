//! Flows and changes of them.

use super::pairs::Pairs;
use super::value::{fit, number, of_field, port, subfield, wide};
use super::{Names, TextError, action};
use crate::field::{Field, ones};
use crate::matching::Match;
use crate::message::flow_mod::{ALL_TABLES, Command, FlowFlags, FlowMod};

/// Words that stand for a type and a protocol.
static PROTOCOLS: &[(&str, u16, u8)] = &[
    ("ip", 0x0800, 0),
    ("ipv4", 0x0800, 0),
    ("ip4", 0x0800, 0),
    ("arp", 0x0806, 0),
    ("icmp", 0x0800, 1),
    ("tcp", 0x0800, 6),
    ("udp", 0x0800, 17),
    ("sctp", 0x0800, 132),
    ("ipv6", 0x86DD, 0),
    ("ip6", 0x86DD, 0),
    ("icmp6", 0x86DD, 58),
    ("tcp6", 0x86DD, 6),
    ("udp6", 0x86DD, 17),
    ("sctp6", 0x86DD, 132),
    ("rarp", 0x8035, 0),
    ("mpls", 0x8847, 0),
    ("mplsm", 0x8848, 0),
];

/// What ovs-ofctl shows of flows and passes over where it reads them.
static PASSED_OVER: &[&str] = &[
    "duration",
    "n_packets",
    "n_bytes",
    "idle_age",
    "hard_age",
    "no_readonly_table",
    "allow_hidden_fields",
];

/// Adds what a pair says to a match; returns whether it is about one.
fn match_pair(
    matching: &mut Match,
    name: &str,
    value: &str,
    names: Names<'_>,
) -> Result<bool, TextError> {
    if let Some((_, eth_type, protocol)) = PROTOCOLS.iter().find(|(word, ..)| *word == name) {
        matching.set(Field::EthType, (*eth_type).into());
        if *protocol != 0 {
            matching.set(Field::IpProto, (*protocol).into());
        }
        return Ok(true);
    }
    if name == "eth" {
        matching.set(Field::PacketType, 0);
        return Ok(true);
    }
    if let Some(field) = Field::by_name(name) {
        // Without a value only that the field is there counts, which goes without saying.
        let text = if value.is_empty() { "*" } else { value };
        let (value, mask) = of_field(field, text, names).map_err(|error| error.about(name))?;
        if mask == field.byte_mask() {
            matching.set(field, value);
        } else {
            matching.set_masked(field, value, mask);
        }
        return Ok(true);
    }
    if name.contains('[') {
        let part = subfield(name)?;
        let value = number(value).map_err(|error| error.about(name))?;
        if value & !ones(part.bits) != 0 {
            return Err(TextError::new(format_args!(
                "{name}: {value} has more than {} bits",
                part.bits
            )));
        }
        let (old, mask) = matching.get(part.field).unwrap_or_default();
        let value = old & !part.mask() | value << part.offset;
        matching.set_masked(part.field, value, mask | part.mask());
        return Ok(true);
    }
    Ok(false)
}

/// A match: `tcp,in_port=1,nw_src=10.0.0.0/8`.
///
/// # Errors
/// Says what is wrong.
pub fn matching(text: &str, names: Names<'_>) -> Result<Match, TextError> {
    let mut matching = Match::new();
    for (name, value) in Pairs::new(text) {
        if !match_pair(&mut matching, name, value, names)? {
            return Err(unknown(name));
        }
    }
    matching.forget_implied();
    Ok(matching)
}

fn unknown(name: &str) -> TextError {
    TextError::new(format_args!("unknown keyword {name}"))
}

/// A change of flows: for [`Command::Add`] and those that change what flows do,
/// `table=1,priority=5,ip,actions=drop`; for those that delete, the same without actions.
///
/// # Errors
/// Says what is wrong, and whether actions do not fit the match.
pub fn flow_mod(text: &str, command: Command, names: Names<'_>) -> Result<FlowMod, TextError> {
    let mut flow = FlowMod { command, ..FlowMod::default() };
    let modifies = matches!(command, Command::Modify | Command::ModifyStrict);
    if modifies {
        flow.new_cookie = u64::MAX;
    }
    let (head, actions) = divide(text, command)?;
    for (name, value) in Pairs::new(head) {
        let is_known = flag(&mut flow, name)
            || match_pair(&mut flow.matching, name, value, names)?
            || PASSED_OVER.contains(&name)
            || setting(&mut flow, name, value, names).map_err(|error| error.about(name))?;
        if !is_known {
            return Err(unknown(name));
        }
    }
    if modifies && flow.cookie.1 == 0 && flow.new_cookie == u64::MAX {
        // It is added where there is none to be changed.
        flow.new_cookie = 0;
    }
    flow.matching.forget_implied();
    if let Some(actions) = actions {
        flow.instructions = action::instructions(actions, names)?;
        let fits = flow.instructions.check(&flow.matching, flow.table, crate::Version::V10);
        fits.map_err(|code| {
            TextError::new(format_args!("the actions do not fit the match ({code})"))
        })?;
    }
    Ok(flow)
}

/// What is before the actions, and the actions, which have to be there but to delete.
fn divide(text: &str, command: Command) -> Result<(&str, Option<&str>), TextError> {
    if command.is_delete() {
        return Ok((text, None));
    }
    let missing = || TextError::new("expected actions=... at the end");
    let at = text.find("action").ok_or_else(missing)?;
    let (head, tail) = text.split_at(at);
    let (_, actions) = tail.split_once('=').ok_or_else(missing)?;
    Ok((head, Some(actions)))
}

/// A flag of what is not deleted.
fn flag(flow: &mut FlowMod, name: &str) -> bool {
    let flag = match name {
        "send_flow_rem" => FlowFlags::SEND_FLOW_REMOVED,
        "check_overlap" => FlowFlags::CHECK_OVERLAP,
        "reset_counts" => FlowFlags::RESET_COUNTS,
        "no_packet_counts" => FlowFlags::NO_PACKET_COUNTS,
        "no_byte_counts" => FlowFlags::NO_BYTE_COUNTS,
        _ => return false,
    };
    flow.flags = flow.flags.with(flag);
    !flow.command.is_delete()
}

/// What a flow has beside a match; returns whether there is such a thing for the command.
fn setting(
    flow: &mut FlowMod,
    name: &str,
    value: &str,
    names: Names<'_>,
) -> Result<bool, TextError> {
    let is_delete = flow.command.is_delete();
    match name {
        "table" => flow.table = table(value)?,
        "cookie" => cookie(flow, value)?,
        "priority" if flow.command != Command::Delete => flow.priority = fit(value)?,
        "out_port" if is_delete => flow.out_port = port(value, names)?,
        "out_group" if is_delete => flow.out_group = fit(value)?,
        "idle_timeout" if !is_delete => flow.idle_timeout = fit(value)?,
        "hard_timeout" if !is_delete => flow.hard_timeout = fit(value)?,
        "importance" if flow.command == Command::Add => flow.importance = fit(value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// A table's number.
pub(super) fn table(text: &str) -> Result<u8, TextError> {
    if text.eq_ignore_ascii_case("all") { Ok(ALL_TABLES) } else { fit(text) }
}

/// A cookie that is set, or with a mask one that flows must have.
fn cookie(flow: &mut FlowMod, text: &str) -> Result<(), TextError> {
    match text.split_once('/') {
        Some(_) if flow.command == Command::Add => {
            Err(TextError::new("flows are added with a cookie that has no mask"))
        }
        Some((value, mask)) => {
            flow.cookie = (wide(value)?, wide(mask)?);
            Ok(())
        }
        None if flow.command.is_delete() => {
            Err(TextError::new(format_args!("expected a mask to look for it, as in {text}/-1")))
        }
        None => {
            (flow.new_cookie, flow.modify_cookie) = (wide(text)?, true);
            Ok(())
        }
    }
}
