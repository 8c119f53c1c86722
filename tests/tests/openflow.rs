//! What we read of OpenFlow, and what rules do, against Open vSwitch.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests: to panic is how they fail"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use std::time::Duration;

use e2e::Peer;
use e2e::ovs_fuzz::{self, Effort};
use e2e::peers::require_shared;
use openflow::message::bundle::{ATOMIC, BundleAdd, BundleControl, BundleStep, ORDERED};
use openflow::message::config::Config;
use openflow::message::features::Features;
use openflow::message::flow_mod::{Command as Change, FlowFlags, FlowMod};
use openflow::message::flow_stats::FlowStats;
use openflow::message::hello::Hello;
use openflow::message::nicira::PacketInFormat;
use openflow::message::packet_in::PacketIn;
use openflow::message::port::{PortDesc, PortReason, PortStatus, config, feature};
use openflow::message::stats::port::{FIGURES, PortStats};
use openflow::message::{Form, Kind, Raw, Replies};
use openflow::packet_in::Reason;
use openflow::testing::{Random, flow_mod};
use openflow::text::{self, Names};
use openflow::{ErrorCode, ErrorMessage, PortNo, Version, VersionSet, print};
use packet::MacAddr;

/// Changes of flows that are made, and how many of them are damaged.
const MESSAGES: u64 = 6_000;

/// Messages of all kinds that are shown.
const SHOWN: u64 = 1_000;

/// Flows that are written.
const FLOWS: u64 = 1_500;

/// Begins at a seed of its own for each test, and at others by `RINGWAY_SEED=N`, to look for more.
fn random(own: u64) -> Random {
    let other = std::env::var("RINGWAY_SEED").map_or(0, |seed| seed.parse::<u64>().unwrap());
    Random::new(own + (other << 16))
}

/// What ovs-ofctl says to input for one of its commands, which it is given at once.
fn ovs_ofctl(arguments: &[&str], input: Vec<u8>) -> (String, String) {
    let mut command = Command::new("ovs-ofctl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // It ends early where a line is wrong, and says so.
    let _ = writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// A change of flows, damaged one time in three.
fn message(random: &mut Random) -> Vec<u8> {
    let at = random.place(7);
    let version = Version::ALL[at.min(5)];
    let form = if at == 6 { Form::Nx } else { Form::Of };
    let version = if at == 6 { Version::V10 } else { version };
    let mut bytes = flow_mod(random, version).encode(version, form, true, 1);
    if random.once_in(3) {
        // Not the header, which is the framing's matter, nor Nicira's.
        let first = if form == Form::Nx { 16 } else { 8 };
        let place = first + random.place(bytes.len() - first);
        bytes[place] ^= random.one(&[1, 2, 8, 0xFF, 0x80, 0x20]).unwrap();
    }
    bytes
}

/// Whether both say that a field to be set is not known: which of two errors it is depends on where
/// Open vSwitch's hash table has come to when it finds no such field.
fn is_unknown(ours: ErrorCode, theirs: &str) -> bool {
    ours == ErrorCode::BacBadSetType && theirs == "***decode error: OFPBAC_BAD_SET_LEN***"
}

/// How many bytes of an option of a tunnel are kept here.
const WIDEST_OPTION: u8 = 16;

/// Whether a match may have an option of a tunnel with more bytes than are kept here, which is refused.
fn has_wide_option(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|header| {
        let (number, has_mask) = (header[2] >> 1, header[2] & 1);
        let widest = WIDEST_OPTION << has_mask;
        header[..2] == [0, 1] && (40..104).contains(&number) && header[3] > widest
    })
}

/// Where `learn` has its second form's number, and what follows up to the bit that it writes.
const LEARN2: [u8; 6] = [0, 0, 0x23, 0x20, 0, 45];
const RESULT: usize = LEARN2.len() + 26;

/// Whether `learn` is to write a bit beyond the 32 of its field, which Open vSwitch takes, and then
/// writes beyond it.
fn has_result_beyond(bytes: &[u8]) -> bool {
    bytes.windows(RESULT + 2).any(|action| {
        let bit = u16::from_be_bytes([action[RESULT], action[RESULT + 1]]);
        action.starts_with(&LEARN2) && bit >= 32
    })
}

/// What they say, without the bits of a mask that no label of IPv6 has, which we leave out.
fn without_bits_beyond(said: &str) -> String {
    let words = said.split(',').map(|word| {
        let parts = word.strip_prefix("ipv6_label=").and_then(|label| label.split_once("/0x"));
        let Some((label, mask)) = parts else { return word.to_owned() };
        let (mask, behind) = mask
            .split_once(' ')
            .map_or((mask, ""), |(mask, _)| (mask, &word[word.find(' ').unwrap()..]));
        let mask = u32::from_str_radix(mask, 16).unwrap() & 0xF_FFFF;
        format!("ipv6_label={label}/0x{mask:x}{behind}")
    });
    words.collect::<Vec<_>>().join(",")
}

/// Whether we refuse it for a reason for which Open vSwitch does not.
fn is_refused_by_us_only(bytes: &[u8], ours: ErrorCode) -> bool {
    match ours {
        ErrorCode::BmcBadValue => has_wide_option(bytes),
        ErrorCode::BacBadSetLen => has_result_beyond(bytes),
        _ => false,
    }
}

/// What we say of it, in the words of ovs-ofctl.
fn ours(bytes: &[u8]) -> Result<String, ErrorCode> {
    let raw = Raw::read(bytes)?;
    let mut change = FlowMod::decode(&raw, true)?;
    if raw.version <= Version::V11 {
        // It says nothing of what older versions do not ask for.
        change.flags = change.flags.without(FlowFlags::RESET_COUNTS);
    }
    Ok(change.to_string())
}

#[test]
fn changes_of_flows_are_read_as_ovs_reads_them() {
    let Some(_turn) = require_shared(&[Peer::OvsSuite]) else { return };
    let mut random = random(0x0F15);
    let messages: Vec<Vec<u8>> = (0..MESSAGES).map(|_| message(&mut random)).collect();
    let (shown, _) = ovs_ofctl(&["ofp-parse", "-"], messages.concat());
    let mut theirs = shown.lines().filter_map(|line| line.split_once("T_FLOW_MOD "));
    let (mut refused, mut different) = (0, Vec::new());
    for bytes in &messages {
        let (_, line) = theirs.next().unwrap();
        let (_, said) = line.split_once("(xid=0x1):").unwrap();
        let said = said.trim();
        let ours = ours(bytes);
        let is_same = match &ours {
            Ok(text) => text == said || *text == without_bits_beyond(said),
            Err(code) => {
                said == format!("***decode error: {code}***")
                    || is_unknown(*code, said)
                    || is_refused_by_us_only(bytes, *code)
            }
        };
        refused += u32::from(ours.is_err());
        if !is_same {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let said_by_us = ours.unwrap_or_else(|code| code.to_string());
            different.push(format!("{hex}\n theirs {said}\n ours   {said_by_us}"));
        }
    }
    assert!(theirs.next().is_none());
    assert!(refused > 100 && u64::from(refused) < MESSAGES / 2, "{refused} were refused");
    let first = different.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(different.is_empty(), "{} differ:\n{first}", different.len());
}

/// Messages of all kinds that are shown in words, with random numbers.
fn shown_message(random: &mut Random) -> Vec<u8> {
    let version = random.one(&Version::ALL).unwrap();
    let xid = u32::try_from(random.below(1 << 32)).unwrap();
    let half = |random: &mut Random| u16::try_from(random.below(1 << 16)).unwrap();
    let desc = |random: &mut Random| PortDesc {
        mac: MacAddr([2, 0, 0, 0, 0, half(random).to_be_bytes()[0]]),
        name: "p1".to_owned(),
        config: config::PORT_DOWN | config::NO_FWD,
        state: u32::from(half(random) & 1),
        current: feature::GB_10_FD | feature::COPPER,
        ..PortDesc::new(PortNo(u32::from(half(random) & 0xFF) + 1))
    };
    let change = |random: &mut Random, version| {
        flow_mod(random, version).encode(version, Form::Of, true, xid)
    };
    match random.below(10) {
        0 => Hello { versions: VersionSet::from_bits(random.one(&[2, 6, 0x12, 0x7E]).unwrap()) }
            .encode(xid),
        1 => Config { flags: half(random) & 7, miss_send_len: half(random) }.encode(
            Version::V10,
            Kind::SetConfig,
            xid,
        ),
        2 => {
            let change = change(random, version);
            ErrorMessage::reply(ErrorCode::BrcBadTableId, version, xid, &change)
        }
        3 => {
            let message = change(random, Version::V14);
            BundleAdd { id: 7, flags: ATOMIC, message: &message }.encode(Version::V14, xid)
        }
        4 => {
            BundleControl { id: half(random).into(), step: BundleStep::CommitReply, flags: ORDERED }
                .encode(Version::V14, Form::Of, xid)
        }
        5 => PortStatus { reason: PortReason::Modify, port: desc(random) }.encode(version, xid),
        6 => {
            let ports = vec![desc(random)];
            let features =
                Features { datapath_id: random.bits(), tables: 254, ports, ..Features::default() };
            features.encode(version, xid)
        }
        7 => {
            let mut replies = Replies::new(version, Kind::PortStatsReply, Form::Reply, xid);
            let custom = vec![("some_packets".to_owned(), random.bits())];
            let age = Duration::new(5, 120_000_000);
            let figures = [random.bits(); FIGURES];
            let stats = PortStats { port: PortNo(7), age, figures, custom };
            replies.entry(|out| stats.encode(version, out));
            replies.finish().swap_remove(0)
        }
        8 => {
            let flow = flow_mod(random, version);
            let stats = FlowStats {
                matching: flow.matching,
                instructions: flow.instructions,
                ..FlowStats::default()
            };
            let mut replies = Replies::new(version, Kind::FlowStatsReply, Form::Reply, xid);
            replies.entry(|out| stats.encode(version, Form::Reply, out));
            replies.finish().swap_remove(0)
        }
        _ => change(random, version),
    }
}

#[test]
fn whole_messages_are_shown_as_ovs_shows_them() {
    let Some(_turn) = require_shared(&[Peer::OvsSuite]) else { return };
    let mut random = random(0xD15B);
    let messages: Vec<Vec<u8>> = (0..SHOWN).map(|_| shown_message(&mut random)).collect();
    let (theirs, _) = ovs_ofctl(&["ofp-parse", "-"], messages.concat());
    let mut rest = &theirs[..];
    for message in &messages {
        let ours = print::message(message) + "\n";
        let Some(behind) = rest.strip_prefix(&ours) else {
            let end = rest.len().min(ours.len() + 200);
            panic!("theirs {}\nours   {ours}", &rest[..end]);
        };
        rest = behind;
    }
    assert!(rest.is_empty(), "{rest}");
}

/// How packets are told.
const FORMS: [PacketInFormat; 3] =
    [PacketInFormat::Standard, PacketInFormat::Nxt, PacketInFormat::Nxt2];

/// A packet that is told to a controller, cut to nothing one time in three.
fn packet_in(random: &mut Random) -> PacketIn {
    let len = if random.once_in(3) { 0 } else { random.place(9) };
    let reason = random.one(&[Reason::NO_MATCH, Reason::ACTION, Reason::INVALID_TTL]).unwrap();
    let told = PacketIn::new(vec![7; len], PortNo(3), reason);
    let cookie = random.once_in(2).then(|| random.bits() >> 1);
    let userdata = if random.once_in(2) { vec![1, 0xFE] } else { Vec::new() };
    let full_len = if random.once_in(2) { told.full_len } else { 60 };
    PacketIn { table: random.bits().to_be_bytes()[0], cookie, userdata, full_len, ..told }
}

#[test]
fn packets_that_are_told_are_shown_as_ovs_shows_them() {
    let Some(_turn) = require_shared(&[Peer::OvsSuite]) else { return };
    let mut random = random(0xD15C);
    let message = |random: &mut Random| {
        let (version, form) = (random.one(&Version::ALL).unwrap(), random.one(&FORMS).unwrap());
        packet_in(random).encode(version, form)
    };
    let messages: Vec<Vec<u8>> = (0..SHOWN).map(|_| message(&mut random)).collect();
    let (theirs, _) = ovs_ofctl(&["ofp-parse", "-"], messages.concat());
    let (mut lines, mut refused) = (theirs.lines(), 0);
    for message in &messages {
        let ours = print::message(message);
        for line in ours.lines() {
            assert_eq!(lines.next(), Some(line), "{ours}");
        }
        if ours.contains("***decode error") {
            refused += 1;
        } else {
            // What is in the packet is not shown here.
            assert!(lines.next().unwrap().starts_with("vlan_tci=0x0000,dl_src="), "{ours}");
        }
    }
    assert_eq!(lines.next(), None);
    assert!(refused > 50, "{refused} had nothing in them");
}

/// A flow as people write it, which OpenFlow 1.5 can express.
fn flow(random: &mut Random) -> Option<String> {
    let version = Version::V15;
    let flow = FlowMod { command: Change::Add, ..flow_mod(random, version) };
    ours(&flow.encode(version, Form::Of, false, 1)).ok()?;
    let cookie =
        if flow.new_cookie == 0 { String::new() } else { format!("cookie={},", flow.new_cookie) };
    let FlowMod { table, priority, matching, instructions, idle_timeout, .. } = flow;
    Some(format!(
        "table={table},{cookie}priority={priority} {matching},idle_timeout={idle_timeout} \
         actions={instructions}"
    ))
}

#[test]
fn flows_that_people_write_are_read_as_ovs_reads_them() {
    let Some(_turn) = require_shared(&[Peer::OvsSuite]) else { return };
    let mut random = random(0x7E87);
    let flows: Vec<String> = (0..FLOWS).filter_map(|_| flow(&mut random)).collect();
    assert!(flows.len() as u64 > FLOWS / 2);
    let options = ["-O", "OpenFlow15", "parse-flows", "-"];
    let (shown, said) = ovs_ofctl(&options, flows.join("\n").into_bytes());
    let mut theirs = shown.lines().filter_map(|line| line.split_once("T_FLOW_MOD "));
    let mut different = Vec::new();
    for line in &flows {
        let Some((_, shown)) = theirs.next() else { panic!("{said}") };
        let (_, theirs) = shown.split_once("):").unwrap_or(("", shown));
        let read = text::flow_mod(line, Change::Add, Names::NONE).unwrap();
        // As it is in a message, which may have another action for it.
        let ours = ours(&read.encode(Version::V15, Form::Of, false, 1)).unwrap();
        let theirs = theirs.rsplit_once("): ").map_or(theirs, |(_, text)| text).trim();
        if ours != theirs {
            different.push(format!("{line}\n theirs {theirs}\n ours   {ours}"));
        }
    }
    let first = different.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(different.is_empty(), "{} differ:\n{first}", different.len());
}

/// Sets of rules that are compared at least.
const SETS: u64 = 60;

/// With how many more Open vSwitch itself may end.
const ENDS: u64 = 1;

/// `cargo xtask ovs-fuzz` for longer.
#[test]
fn rules_do_what_they_do_in_open_vswitch() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let effort = Effort {
        time: Duration::MAX,
        sets: SETS + ENDS,
        packets: u64::MAX,
        seed: 1,
        differences: 1,
        traces: 0,
        pairs: 1,
    };
    let report = ovs_fuzz::run(dir.path(), effort).unwrap();
    assert!(report.differences.is_empty(), "{}", report.differences.concat());
    assert!(report.sets >= SETS, "{report}");
    assert_eq!(report.sets + report.ended, SETS + ENDS);
}
