//! Actions and instructions.

use super::flow::table;
use super::large;
use super::pairs::Pairs;
use super::value::{fit, number, of_field, port, subfield, wide};
use super::{Names, TextError};
use crate::action::wire::{self, Place};
use crate::action::{Action, Controller};
use crate::field::{Field, ones};
use crate::instruction::Instructions;
use crate::packet_in::Reason;
use crate::port_no::PortNo;

/// How deep lists may lie in each other.
const DEPTH: u8 = 32;

/// What a flow does: actions, and behind them `clear_actions`, `write_actions(...)`,
/// `write_metadata:...` and `goto_table:...`; or `drop`.
///
/// # Errors
/// Says what is wrong.
pub fn instructions(text: &str, names: Names<'_>) -> Result<Instructions, TextError> {
    let mut all = Instructions::default();
    let mut rank = 0;
    let mut has_drop = false;
    for (name, value) in Pairs::new(text) {
        let before = rank;
        let lower = name.to_ascii_lowercase();
        rank = match lower.as_str() {
            "drop" => {
                has_drop = true;
                continue;
            }
            "clear_actions" => 2,
            "write_actions" => 3,
            "write_metadata" => 4,
            "goto_table" => 5,
            "meter" => 0,
            _ => 1,
        };
        if rank < before || rank == before && rank > 1 {
            return Err(TextError::new(format_args!(
                "{name} is in the wrong place, or there twice"
            )));
        }
        match rank {
            2 => all.clear = true,
            3 => all.write = Some(list(value, names, DEPTH, Place::Write)?),
            4 => all.metadata = Some(metadata(value)?),
            5 => all.goto_table = Some(table(value)?),
            _ => all.apply.push(one(name, value, names, DEPTH)?),
        }
    }
    if has_drop && !all.is_empty() {
        return Err(TextError::new("drop is there alone, or not at all"));
    }
    verify(&all.apply, Place::Apply)?;
    Ok(all)
}

fn metadata(text: &str) -> Result<(u64, u64), TextError> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "-1"));
    Ok((wide(value)?, wide(mask)?))
}

fn verify(actions: &[Action], place: Place) -> Result<(), TextError> {
    let wrong = |code| TextError::new(format_args!("these actions may not be there ({code})"));
    wire::verify(actions, place).map_err(wrong)
}

/// Actions in another one.
pub(super) fn list(
    text: &str,
    names: Names<'_>,
    depth: u8,
    place: Place,
) -> Result<Vec<Action>, TextError> {
    let deep = || TextError::new("there are too many actions in actions");
    let depth = depth.checked_sub(1).ok_or_else(deep)?;
    let mut actions = Vec::new();
    let mut has_drop = false;
    for (name, value) in Pairs::new(text) {
        if name.eq_ignore_ascii_case("drop") {
            has_drop = true;
        } else {
            actions.push(one(name, value, names, depth)?);
        }
    }
    if has_drop && !actions.is_empty() {
        return Err(TextError::new("drop is there alone, or not at all"));
    }
    verify(&actions, place)?;
    Ok(actions)
}

/// An action by its name and its argument.
fn one(name: &str, value: &str, names: Names<'_>, depth: u8) -> Result<Action, TextError> {
    let lower = name.to_ascii_lowercase();
    let found = plain(&lower)
        .map(Ok)
        .or_else(|| simple(&lower, value))
        .or_else(|| ports(&lower, value, names))
        .or_else(|| large::action(&lower, value, names, depth));
    match found {
        Some(action) => action.map_err(|error| error.about(name)),
        None => port(name, names)
            .map(|port| Action::Output { port, max_len: 0 })
            .map_err(|_| TextError::new(format_args!("unknown action {name}"))),
    }
}

/// Actions without an argument.
fn plain(name: &str) -> Option<Action> {
    Some(match name {
        "strip_vlan" => Action::StripVlan,
        "pop_vlan" => Action::PopVlan,
        "dec_mpls_ttl" => Action::DecMplsTtl,
        "dec_nsh_ttl" => Action::DecNshTtl,
        "pop_queue" => Action::PopQueue,
        "exit" => Action::Exit,
        "ct_clear" => Action::CtClear,
        "debug_recirc" => Action::DebugRecirc,
        "debug_slow" => Action::DebugSlow,
        _ => return None,
    })
}

/// A number within a mask.
fn within<T: TryFrom<u128>>(text: &str, mask: u128, what: &str) -> Result<T, TextError> {
    let wrong = || TextError::new(format_args!("{text} is no {what}"));
    let value = number(text)?;
    if value & !mask != 0 {
        return Err(wrong());
    }
    T::try_from(value).map_err(|_| wrong())
}

/// A value of a field, whole.
fn exact(field: Field, text: &str) -> Result<u128, TextError> {
    let (value, mask) = of_field(field, text, Names::NONE)?;
    let masked = || TextError::new(format_args!("expected no mask in '{text}'"));
    if mask == field.byte_mask() { Ok(value) } else { Err(masked()) }
}

fn mac(text: &str) -> Result<packet::MacAddr, TextError> {
    text.parse().map_err(|_| TextError::new(format_args!("'{text}' is no MAC address")))
}

fn ipv4(text: &str) -> Result<std::net::Ipv4Addr, TextError> {
    text.parse().map_err(|_| TextError::new(format_args!("'{text}' is no IPv4 address")))
}

/// Actions with one argument.
fn simple(name: &str, text: &str) -> Option<Result<Action, TextError>> {
    let vid = |push: bool| {
        let vid = within(text, 0xFFF, "number of a VLAN");
        vid.map(|vid| Action::SetVlanVid { vid, push })
    };
    let pcp = |push: bool| {
        let pcp = within(text, 7, "priority of a VLAN");
        pcp.map(|pcp| Action::SetVlanPcp { pcp, push })
    };
    let tunnel = |is_wide: bool| {
        wide(text).map(|id| Action::SetTunnel { id, wide: is_wide || u32::try_from(id).is_err() })
    };
    Some(match name {
        "mod_vlan_vid" => vid(true),
        "set_vlan_vid" => vid(false),
        "mod_vlan_pcp" => pcp(true),
        "set_vlan_pcp" => pcp(false),
        "push_vlan" => push_vlan(text),
        "mod_dl_src" => mac(text).map(Action::SetEthSrc),
        "mod_dl_dst" => mac(text).map(Action::SetEthDst),
        "mod_nw_src" => ipv4(text).map(Action::SetIpSrc),
        "mod_nw_dst" => ipv4(text).map(Action::SetIpDst),
        "mod_nw_tos" => within(text, 0xFC, "type of service").map(Action::SetNwTos),
        "mod_nw_ecn" => within(text, 3, "congestion notification").map(Action::SetNwEcn),
        "mod_nw_ttl" | "set_nw_ttl" => fit(text).map(Action::SetNwTtl),
        "mod_tp_src" => fit(text).map(Action::SetL4Src),
        "mod_tp_dst" => fit(text).map(Action::SetL4Dst),
        "set_mpls_label" => within(text, 0xF_FFFF, "label of MPLS").map(Action::SetMplsLabel),
        "set_mpls_tc" => within(text, 7, "traffic class of MPLS").map(Action::SetMplsTc),
        "set_mpls_ttl" => fit(text).map(Action::SetMplsTtl),
        "push_mpls" => fit(text).map(|ethertype| Action::PushMpls { ethertype }),
        "pop_mpls" => fit(text).map(|ethertype| Action::PopMpls { ethertype }),
        "dec_ttl" => dec_ttl(text),
        "set_tunnel" => tunnel(false),
        "set_tunnel64" => tunnel(true),
        "set_queue" => fit(text).map(Action::SetQueue),
        "group" => fit(text).map(Action::Group),
        "meter" => fit(text).map(Action::Meter),
        "push" => subfield(text).map(Action::Push),
        "pop" => subfield(text).map(Action::Pop),
        "move" => copy(text),
        "load" => load(text),
        "set_field" => set_field(text),
        "delete_field" => delete_field(text),
        "note" => bytes(text).map(Action::Note),
        _ => return None,
    })
}

fn push_vlan(text: &str) -> Result<Action, TextError> {
    let ethertype: u16 = fit(text)?;
    let wrong = || TextError::new(format_args!("{text} is no EtherType of a VLAN tag"));
    if [0x8100, 0x88A8].contains(&ethertype) {
        Ok(Action::PushVlan { ethertype })
    } else {
        Err(wrong())
    }
}

fn dec_ttl(text: &str) -> Result<Action, TextError> {
    if text.is_empty() {
        return Ok(Action::DecTtl(None));
    }
    let ids = text.split([',', ' ']).filter(|id| !id.is_empty()).map(fit);
    Ok(Action::DecTtl(Some(ids.collect::<Result<_, _>>()?)))
}

/// Two sides of an arrow.
pub(super) fn arrow(text: &str) -> Result<(&str, &str), TextError> {
    let missing = || TextError::new(format_args!("expected -> in '{text}'"));
    text.split_once("->").ok_or_else(missing)
}

fn copy(text: &str) -> Result<Action, TextError> {
    let (source, target) = arrow(text)?;
    let (source, target) = (subfield(source)?, subfield(target)?);
    if source.bits != target.bits {
        let (from, to) = (source.bits, target.bits);
        return Err(TextError::new(format_args!("{from} bits are copied to {to}")));
    }
    writable(target.field)?;
    Ok(Action::Move { source, target })
}

/// Whether actions may write a field.
pub(super) fn writable(field: Field) -> Result<(), TextError> {
    let fixed = || TextError::new(format_args!("{field} is read-only"));
    if field.is_writable() { Ok(()) } else { Err(fixed()) }
}

fn load(text: &str) -> Result<Action, TextError> {
    let (value, target) = arrow(text)?;
    let target = subfield(target)?;
    let value = number(value)?;
    if value & !ones(target.bits) != 0 {
        return Err(TextError::new(format_args!("{text} has more than {} bits", target.bits)));
    }
    writable(target.field)?;
    match u64::try_from(value) {
        Ok(value) if target.bits <= 64 => Ok(Action::Load { target, value }),
        _ => {
            let (field, mask) = (target.field, target.mask());
            Ok(Action::SetField { field, value: value << target.offset, mask })
        }
    }
}

fn set_field(text: &str) -> Result<Action, TextError> {
    let (value, name) = arrow(text)?;
    let unknown = || TextError::new(format_args!("there is no field '{name}'"));
    let field = Field::by_name(name).or_else(|| Field::by_header_name(name)).ok_or_else(unknown)?;
    writable(field)?;
    let (value, mask) = of_field(field, value, Names::NONE)?;
    if !field.is_valid(value) {
        return Err(TextError::new(format_args!("'{text}' has a value that {field} cannot have")));
    }
    Ok(Action::SetField { field, value: value & mask, mask })
}

fn delete_field(text: &str) -> Result<Action, TextError> {
    let unknown = || TextError::new(format_args!("there is no field '{text}'"));
    Field::by_name(text).map(Action::DeleteField).ok_or_else(unknown)
}

/// Bytes in base 16 with dots or nothing between them.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, TextError> {
    let digits: Vec<char> = text.chars().filter(|letter| ![' ', '.'].contains(letter)).collect();
    let wrong = || TextError::new(format_args!("expected bytes in base 16, not '{text}'"));
    let byte = |pair: &[char]| {
        let [high, low] = pair else { return Err(wrong()) };
        let digit = |letter: &char| letter.to_digit(16).ok_or_else(wrong);
        u8::try_from(digit(high)? << 4 | digit(low)?).map_err(|_| wrong())
    };
    digits.chunks(2).map(byte).collect()
}

/// Actions that send, and those with a port.
fn ports(name: &str, text: &str, names: Names<'_>) -> Option<Result<Action, TextError>> {
    Some(match name {
        "output" | "output_reg" => output(text, names),
        "enqueue" => enqueue(text, names),
        "resubmit" => resubmit(text, names),
        "controller" => controller(text),
        _ => return None,
    })
}

fn output(text: &str, names: Names<'_>) -> Result<Action, TextError> {
    if text.contains("port") && text.contains("max_len") {
        let (mut to, mut len) = (None, None);
        for (name, value) in Pairs::new(text) {
            match name {
                "port" => to = Some(port(value, names)?),
                "max_len" => len = Some(fit::<u32>(value)?),
                _ => return Err(TextError::new(format_args!("unknown keyword {name}"))),
            }
        }
        let (Some(port), Some(max_len)) = (to, len) else {
            return Err(TextError::new("expected (port=...,max_len=...)"));
        };
        let short =
            || TextError::new("expected a max_len of 14 or more, which is an Ethernet header");
        return if max_len < 14 {
            Err(short())
        } else {
            Ok(Action::OutputTruncated { port, max_len })
        };
    }
    if let Ok(port) = port(text, names) {
        return Ok(Action::output(port));
    }
    let unknown = |_| TextError::new(format_args!("'{text}' is neither a port nor a field"));
    let source = subfield(text).map_err(unknown)?;
    Ok(Action::OutputField { source, max_len: u16::MAX })
}

fn enqueue(text: &str, names: Names<'_>) -> Result<Action, TextError> {
    let wrong = || TextError::new("expected port:queue");
    let (to, queue) = text.split_once([':', 'q', ',']).ok_or_else(wrong)?;
    Ok(Action::Enqueue { port: port(to, names)?, queue: fit(queue)? })
}

fn resubmit(text: &str, names: Names<'_>) -> Result<Action, TextError> {
    let mut parts = text.split(',').map(str::trim);
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let port = next().map(|part| port(part, names)).transpose()?;
    let port = port.filter(|port| *port != PortNo::IN_PORT);
    let table = next().map(table).transpose()?.filter(|table| *table != 0xFF);
    let ct = match next() {
        None => false,
        Some("ct") => true,
        Some(other) => return Err(TextError::new(format_args!("expected ct, not '{other}'"))),
    };
    if port.is_none() && table.is_none() {
        return Err(TextError::new("expected a port, a table, or both"));
    }
    Ok(Action::Resubmit { port, table, ct })
}

fn controller(text: &str) -> Result<Action, TextError> {
    let mut to = Controller::default();
    if text.chars().all(|letter| letter.is_ascii_digit()) && !text.is_empty() {
        to.max_len = fit(text)?;
    } else {
        for (name, value) in Pairs::new(text) {
            match name {
                "reason" => {
                    let unknown = || TextError::new(format_args!("there is no reason '{value}'"));
                    to.reason = Reason::by_name(value).ok_or_else(unknown)?;
                }
                "max_len" => to.max_len = fit(value)?,
                "id" => to.id = fit(value)?,
                "userdata" => to.userdata = bytes(value)?,
                "pause" => to.pause = true,
                "meter_id" => to.meter = fit(value)?,
                _ => return Err(TextError::new(format_args!("unknown keyword {name}"))),
            }
        }
    }
    let plain = Controller { max_len: to.max_len, ..Controller::default() };
    if to == plain {
        return Ok(Action::Output { port: PortNo::CONTROLLER, max_len: to.max_len });
    }
    Ok(Action::Controller(Box::new(to)))
}

/// A value of a field without a mask, for what is learnt.
pub(super) fn value_of(field: Field, text: &str) -> Result<u128, TextError> {
    exact(field, text)
}
