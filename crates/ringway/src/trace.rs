//! `ringway trace`: what becomes of a frame.

use std::fmt::Write as _;

use flow::{Depth, HIDDEN_TABLE, Key, TAG_PRESENT, Visit, extract, place, slot};
use odp::{compose, parse_hex, told};
use openflow::text::{Names, matching};
use switch::Switch;

use crate::admin::connect;
use crate::cli::TraceArgs;
use crate::control::protocol::{Request, Trace, TraceEntry, TraceOutput, TraceRule, TraceTable};
use crate::control::refusal::{Code, Refusal};
use crate::exit::Failure;
use crate::output;
use crate::printable::printable;

/// The shortest frame: addresses and what it carries.
const SHORTEST: usize = 14;

/// Tags that are told of.
const TAGS: u8 = 2;

/// Who sends a packet of which only other fields are said.
const SOURCE: u128 = 0x0200_0000_0001;

/// Columns that lines have at most, where they can be broken.
const COLUMNS: usize = 80;

/// Answers [`Request::Trace`]: the workers' own code decides, and nothing is sent, counted or learnt.
pub fn answer(switch: &Switch, port: &str, frame: &str) -> Result<Trace, Refusal> {
    let bytes = parse_hex(frame).filter(|bytes| bytes.len() >= SHORTEST);
    let Some(bytes) = bytes else {
        let expected = "trace: frame: expected 14 bytes or more, in digits of base 16";
        return Err(Refusal::new(Code::BadRequest, expected));
    };
    let traced = switch.trace(port, &bytes, false)?;
    let entry = |(port, visits): (String, Vec<Visit>)| TraceEntry {
        bridge: switch.port(&port).map(|report| report.bridge).unwrap_or_default(),
        port,
        tables: visits.iter().filter(|visit| is_told(visit)).map(passed).collect(),
    };
    let output = |(port, frame): (String, Vec<u8>)| TraceOutput { port, frame: hex(&frame) };
    Ok(Trace {
        entered: traced.entered.into_iter().map(entry).collect(),
        outputs: traced.outputs.into_iter().map(output).collect(),
        dropped: traced.dropped.map(|reason| reason.name().to_owned()),
    })
}

/// Whether it is no matter of hidden rules of which none was for the packet.
const fn is_told(visit: &Visit) -> bool {
    visit.table != HIDDEN_TABLE || visit.rule.is_some()
}

fn passed(visit: &Visit) -> TraceTable {
    let Visit { table, rule } = visit;
    let Some(rule) = rule else { return TraceTable { table: *table, rule: None } };
    let (table, priority) = rule.shown_place();
    let (matching, actions) = (rule.matching.to_string(), rule.instructions.to_string());
    let cookie = format!("{:#x}", rule.cookie);
    TraceTable { table, rule: Some(TraceRule { priority, cookie, matching, actions }) }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// `ringway trace`.
pub fn run(args: &TraceArgs) -> Result<(), Failure> {
    let frame = frame(&args.packet).map_err(Failure::usage)?;
    let mut client = connect(args.control.control.as_deref())?;
    let request = Request::Trace { port: args.port.clone(), frame: hex(&frame) };
    if args.json {
        output::json_pretty(&client.ask_raw(&request)?);
    } else {
        let trace: Trace = client.ask(&request)?;
        output::text(&shown(&trace, &frame));
    }
    Ok(())
}

/// A frame of its bytes, or by its fields.
fn frame(text: &str) -> Result<Vec<u8>, String> {
    if let Some(bytes) = parse_hex(text) {
        let is_whole = bytes.len() >= SHORTEST;
        return is_whole.then_some(bytes).ok_or(format!("{text}: expected 14 bytes or more"));
    }
    let wrong = |why: String| format!("'{text}' is no packet: {why} (try udp,nw_dst=10.0.0.1)");
    let asked = matching(text, Names::NONE).map_err(|error| wrong(error.to_string()))?;
    let pattern = place::pattern(&asked);
    let mut key = pattern.map_err(|field| wrong(format!("unknown field {field}")))?.to_key();
    if key.get_u16(slot::VLAN_TCI) & TAG_PRESENT != 0 && key.get(slot::VLAN_TPID) == 0 {
        key.set(slot::VLAN_TPID, 0x8100);
    }
    if key.get(slot::ETH_SRC) == 0 {
        // Nobody has the address zero, and bridges drop what comes from it.
        key.set(slot::ETH_SRC, SOURCE);
    }
    Ok(compose(&key, None))
}

/// A frame in words.
fn words(frame: &[u8]) -> String {
    let mut key = Key::default();
    extract(&mut key, frame, frame.len(), TAGS, Depth::All);
    told::packet(&key, None)
}

/// The answer for people.
fn shown(trace: &Trace, frame: &[u8]) -> String {
    let mut text = String::new();
    for entry in &trace.entered {
        let (port, bridge) = (printable(&entry.port), printable(&entry.bridge));
        let _ = writeln!(text, "in on {port}, bridge {bridge}");
        if entry.tables.is_empty() {
            text += "  no rules decide: it goes where a plain bridge sends it\n";
        }
        for TraceTable { table, rule } in &entry.tables {
            match rule {
                None => _ = writeln!(text, "  table {table}: no rule is for it"),
                Some(rule) => show_rule(&mut text, *table, rule),
            }
        }
    }
    let sent = hex(frame);
    for TraceOutput { port, frame } in &trace.outputs {
        let _ = writeln!(text, "out on {}", printable(port));
        if *frame != sent
            && let Some(bytes) = parse_hex(frame)
        {
            broken(&mut text, "  as ", &words(&bytes));
        }
    }
    match &trace.dropped {
        Some(reason) => _ = writeln!(text, "dropped: {}", printable(reason)),
        None if trace.outputs.is_empty() => text += "no port gets it\n",
        None => {}
    }
    text
}

fn show_rule(text: &mut String, table: u8, rule: &TraceRule) {
    let TraceRule { priority, cookie, matching, actions } = rule;
    let matching = if matching.is_empty() { "all packets" } else { matching };
    broken(text, &format!("  table {table}, priority {priority}: "), matching);
    let cookie = if cookie == "0x0" { String::new() } else { format!("cookie {cookie}, ") };
    broken(text, &format!("    {cookie}does "), actions);
}

/// Adds lines, which are broken behind commas where they would be too long.
fn broken(text: &mut String, head: &str, parts: &str) {
    let mut column = head.len();
    *text += head;
    for (index, part) in parts.split_inclusive(',').enumerate() {
        let part = printable(part);
        if index > 0 && column + part.len() > COLUMNS {
            *text += "\n      ";
            column = 6;
        }
        *text += &part;
        column += part.len();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_bytes_or_fields() {
        let bytes = frame("udp,dl_vlan=7,nw_dst=10.0.0.1,tp_dst=53").unwrap();
        assert_eq!(bytes[12..18], [0x81, 0, 0, 7, 8, 0]);
        assert_eq!(frame(&hex(&bytes)).unwrap(), bytes);
        assert!(words(&bytes).contains("nw_dst=10.0.0.1"));
        assert_eq!(bytes[6..12], [2, 0, 0, 0, 0, 1], "somebody sends it");
        assert_eq!(frame("arp,dl_src=52:54:00:00:00:01").unwrap()[6], 0x52);
        assert!(frame("0102").unwrap_err().contains("14 bytes"));
        assert!(frame("upd").unwrap_err().contains("'upd' is no packet"));
    }

    #[test]
    fn lines_are_broken_behind_commas() {
        let rule = TraceRule {
            priority: 100,
            cookie: "0x1234".into(),
            matching:
                "tcp,metadata=0x1,dl_src=52:54:00:00:00:01,dl_dst=52:54:00:00:00:02,tp_dst=80"
                    .into(),
            actions: "resubmit(,9)".into(),
        };
        let tables =
            vec![TraceTable { table: 8, rule: Some(rule) }, TraceTable { table: 9, rule: None }];
        let entered = vec![TraceEntry { port: "vm1".into(), bridge: "br0".into(), tables }];
        let frame = frame("arp").unwrap();
        let outputs = vec![TraceOutput { port: "vm2".into(), frame: hex(&frame) }];
        let trace = Trace { entered, outputs, dropped: None };
        let expected = "in on vm1, bridge br0\n  table 8, priority 100: \
                        tcp,metadata=0x1,dl_src=52:54:00:00:00:01,\n      \
                        dl_dst=52:54:00:00:00:02,tp_dst=80\n    cookie 0x1234, does resubmit(,9)\n  \
                        table 9: no rule is for it\nout on vm2\n";
        assert_eq!(shown(&trace, &frame), expected);
        let nowhere = Trace { entered: vec![], outputs: vec![], dropped: Some("no_flow".into()) };
        assert_eq!(shown(&nowhere, &frame), "dropped: no_flow\n");
    }
}
