use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use openflow::message::flow_mod::FlowMod;
use openflow::message::flow_stats::FlowStats;
use openflow::message::group::GroupStats;
use openflow::message::meter::MeterStats;
use openflow::message::packet_in::PacketIn;
use openflow::{Instructions, Match};

use super::capture::Capture;
use super::channel::{Change, Channel, Refused};
use super::coverage::Coverage;
use super::frame::Packet;
use super::unixctl::Unixctl;
use super::values::{PATCHES, PORTS, SECOND_PORTS};
use crate::netns::Netns;
use crate::ovsdb::{OvsDatabase, environment};
use crate::process::Process;
use crate::ringway::binary;

/// One of the bridges of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bridge {
    /// Where packets come in.
    First,
    /// Where they may go on to.
    Second,
}

impl Bridge {
    pub const ALL: [Self; 2] = [Self::First, Self::Second];

    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "br0",
            Self::Second => "br1",
        }
    }
}

/// Where marks go: frames that tell that those before them have gone where they go.
const MARKS: &str = "marks";

/// A port of no other use.
const MARKS_PORT: u16 = 99;

/// A mark, which no rule but that for marks is for.
const MARK: &[u8; 14] = &[2, 0, 0, 0, 0, 0xFE, 2, 0, 0, 0, 0, 0xFD, 0x88, 0xB6];

/// How long a switch may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How often it is looked whether a switch is done.
const NAP: Duration = Duration::from_micros(50);

/// Frames that a port takes at a time: Open vSwitch keeps 100 that it has not looked at yet.
const BATCH: usize = 50;

/// What a rule or a group has done: its text, packets and bytes.
pub type Count = (String, u64, u64);

/// What has become of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What has come out: the port and the frame, in no order.
    pub sent: Vec<(String, Vec<u8>)>,
    /// What the rules and groups that there are then have counted.
    pub counts: Vec<Count>,
    /// What controllers were told, in no order.
    pub told: Vec<String>,
    /// The connections that there are then, if that was asked.
    pub connections: Vec<String>,
    /// What rules that have counted packets match on and do.
    pub coverage: Coverage,
}

/// A switch with a bridge of dummy ports.
#[derive(Debug)]
pub struct Side {
    /// What it is called.
    pub name: &'static str,
    /// Whether packets are sent on by what was found out for those before, until that is looked at
    /// again.
    is_lazy: bool,
    appctl: Unixctl,
    channel: Channel,
    second: Channel,
    ports: BTreeMap<String, Capture>,
    marks: Capture,
    /// What meters had counted by the outcome before.
    metered: BTreeMap<u32, u64>,
    /// What else has gone where marks go.
    among_marks: Vec<(String, Vec<u8>)>,
    // Dropped in this order: the switch before its database.
    process: Process,
    _database: OvsDatabase,
}

impl Side {
    /// Starts Debian's Open vSwitch with everything that it has in `dir`.
    pub fn real(netns: &Netns, dir: &Path) -> Result<Self> {
        let mut command = netns.command("ovs-vswitchd");
        command.args(["--no-chdir", "-vconsole:warn", "-vsyslog:off"]);
        Self::start("Open vSwitch", command, dir)
    }

    /// Starts ours.
    pub fn ours(netns: &Netns, dir: &Path) -> Result<Self> {
        let mut command = netns.command(&binary()?.display().to_string());
        command.args(["ovs-vswitchd", "--control"]).arg(dir.join("ringway.ctl"));
        Self::start("Ringway", command, dir)
    }

    fn start(name: &'static str, mut command: std::process::Command, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let database = OvsDatabase::start(dir)?;
        let control = dir.join("vswitchd.ctl");
        command.arg(format!("unix:{}", dir.join("db.sock").display()));
        command.arg(format!("--unixctl={}", control.display()));
        command.args(["--enable-dummy", "--disable-system", "--disable-system-route"]);
        let process = Process::start(name, environment(command, dir))?;
        process.wait_for_listener(&control, LIMIT)?;
        for words in [bridge(dir), second_bridge(dir), marks(dir)] {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            database.vsctl(&words).with_context(|| process.log())?;
        }
        let channel = |bridge: Bridge| {
            let socket = dir.join(format!("{}.mgmt", bridge.name()));
            process.wait_for_listener(&socket, LIMIT)?;
            Channel::connect(&socket)
        };
        let (first, second) = (channel(Bridge::First)?, channel(Bridge::Second)?);
        let names = (1..=PORTS).map(port_name).chain(["LOCAL".to_owned()]);
        let names = names.chain((1..=SECOND_PORTS).map(second_name));
        let open = |name: String| Ok((name.clone(), Capture::open(&pcap(dir, &name))?));
        Ok(Self {
            name,
            is_lazy: name != "Ringway",
            appctl: Unixctl::connect(&control)?,
            channel: first,
            second,
            ports: names.map(open).collect::<Result<_>>()?,
            marks: Capture::open(&pcap(dir, MARKS))?,
            metered: BTreeMap::new(),
            among_marks: Vec::new(),
            process,
            _database: database,
        })
    }

    /// Puts groups and rules in the place of all that there are in a bridge; or gives those that are refused,
    /// and leaves it as it is.
    pub fn set(&mut self, bridge: Bridge, changes: &[Change]) -> Result<Vec<Refused>> {
        if bridge == Bridge::Second {
            return self.second.replace(changes).with_context(|| self.name);
        }
        let mut all = changes.to_vec();
        all.push(Change::Rule(mark_rule()));
        self.channel.replace(&all).with_context(|| self.name)
    }

    /// Changes rules; or gives those changes that are refused, and leaves it as it is.
    pub fn change(&mut self, changes: &[Change]) -> Result<Vec<Refused>> {
        self.channel.change(changes).with_context(|| self.name)
    }

    /// Whether it is gone.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Forgets what it has learnt of earlier packets, and their connections.
    pub fn begin(&mut self) -> Result<()> {
        self.told()?;
        // Open vSwitch counts what it traces, too.
        self.metered()?;
        self.call("fdb/flush", &[Bridge::First.name().to_owned()])?;
        self.call("dpctl/flush-conntrack", &[])
    }

    /// What it knows of connections, in no order.
    pub fn connections(&mut self) -> Result<Vec<String>> {
        let text = self.appctl.call("dpctl/dump-conntrack", &[]).with_context(|| self.name)?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        Ok(lines)
    }

    /// Has packets come in, port by port, until they have gone where they go.
    pub fn take(&mut self, packets: &[Packet]) -> Result<()> {
        for port in 1..=PORTS {
            let of_port: Vec<&Packet> =
                packets.iter().filter(|packet| packet.port == port).collect();
            of_port.chunks(BATCH).try_for_each(|packets| self.receive(port, packets))?;
        }
        self.forget()
    }

    /// Takes what controllers were told until `wanted` packets are there, or as long as that: a barrier does not wait for
    /// packets that are on their way to controllers.
    pub fn hear(&mut self, wanted: usize, limit: Duration) -> Result<usize> {
        let end = Instant::now() + limit;
        loop {
            let count = self.channel.told()?.len() + self.second.told()?.len();
            if count >= wanted || Instant::now() >= end {
                return Ok(count);
            }
            sleep(NAP);
        }
    }

    /// What controllers were told.
    fn told(&mut self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for (bridge, channel) in
            [(Bridge::First, &mut self.channel), (Bridge::Second, &mut self.second)]
        {
            all.extend(channel.told()?.iter().map(|packet| text(bridge, packet)));
            channel.forget_told();
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Tells what has become of them.
    pub fn outcome(&mut self) -> Result<Outcome> {
        let mut sent = self.sent()?;
        sent.sort_unstable();
        let told = self.told()?;
        let rules = self.own_rules()?;
        let others = self.second.rules().with_context(|| self.name)?;
        let mut coverage = Coverage::of(&rules);
        coverage.add(&Coverage::of(&others));
        let mut counts: Vec<Count> = rules.iter().map(count).collect();
        // Open vSwitch counts bytes of packets as they came in, and ours as they went on.
        let in_second =
            |(text, packets, _)| (format!("in {}: {text}", Bridge::Second.name()), packets, 0);
        counts.extend(others.iter().map(count).map(in_second));
        counts.extend(self.channel.groups()?.iter().flat_map(counts_of));
        counts.extend(self.metered()?);
        counts.sort_unstable();
        Ok(Outcome { sent, counts, told, connections: Vec::new(), coverage })
    }

    /// What meters have counted since this was asked last: packets. Open vSwitch counts a rule with several for one of
    /// them, and bytes of a packet as it was before what was written to it last.
    fn metered(&mut self) -> Result<Vec<Count>> {
        let mut counts = Vec::new();
        for MeterStats { id, counts: (packets, _), .. } in self.channel.meters()? {
            let before = self.metered.insert(id, packets).unwrap_or_default();
            counts.push((format!("meter={id}"), packets.wrapping_sub(before), 0));
        }
        Ok(counts)
    }

    /// What has come out of which port since this was asked last.
    fn sent(&mut self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut sent = std::mem::take(&mut self.among_marks);
        for (name, capture) in &mut self.ports {
            sent.extend(capture.take()?.into_iter().map(|frame| (name.clone(), frame)));
        }
        Ok(sent)
    }

    /// Which way a packet would go, line by line, but for which others would go it, too, what it scores
    /// with buckets by a hash of its own, and numbers that are given as they come. Open vSwitch does send a packet that it tells of where that is within a
    /// `check_pkt_larger`.
    pub fn trace(&mut self, packet: &Packet) -> Result<Vec<String>> {
        let flow = format!("in_port={}", packet.port);
        let arguments = [Bridge::First.name().to_owned(), flow, digits(&packet.bytes)];
        let text = self.appctl.call("ofproto/trace", &arguments).with_context(|| self.name)?;
        if self.is_lazy {
            self.sent()?;
            self.marks.take()?;
        }
        let is_own = |line: &str| line.starts_with("Megaflow: ") || line.contains(": score ");
        let lines = text.lines().filter(|line| !is_own(line));
        Ok(lines.map(without_numbers).collect())
    }

    /// The rules that there are.
    pub fn rules(&mut self) -> Result<Vec<Count>> {
        let mut rules: Vec<Count> = self.own_rules()?.iter().map(count).collect();
        rules.sort_unstable();
        Ok(rules)
    }

    fn own_rules(&mut self) -> Result<Vec<FlowStats>> {
        let mut rules = self.channel.rules().with_context(|| self.name)?;
        rules.retain(|rule| !is_mark(rule));
        Ok(rules)
    }

    /// Waits until rules have learnt as others have, or as long as that: rules are learnt behind packets.
    /// Gives whether they have.
    pub fn wait_for(&mut self, others: &[Count], limit: Duration) -> Result<bool> {
        let text = |rules: &[Count]| -> Vec<String> {
            rules.iter().map(|(text, ..)| text.clone()).collect()
        };
        let (wanted, end) = (text(others), Instant::now() + limit);
        while text(&self.rules()?) != wanted {
            if Instant::now() >= end {
                return Ok(false);
            }
            sleep(NAP);
        }
        Ok(true)
    }

    fn receive(&mut self, port: u16, packets: &[&Packet]) -> Result<()> {
        let frames = packets.iter().map(|packet| packet.bytes.as_slice()).chain([&MARK[..]]);
        let arguments: Vec<String> =
            [port_name(port)].into_iter().chain(frames.map(digits)).collect();
        self.call("netdev-dummy/receive", &arguments)?;
        let end = Instant::now() + LIMIT;
        loop {
            // What floods goes there, too.
            let mut has_mark = false;
            for frame in self.marks.take()? {
                if frame == MARK {
                    has_mark = true;
                } else {
                    self.among_marks.push((MARKS.to_owned(), frame));
                }
            }
            if has_mark {
                return Ok(());
            }
            ensure!(!self.has_ended(), "{} has ended", self.name);
            ensure!(Instant::now() < end, "{}: packets have not come through", self.name);
            sleep(NAP);
        }
    }

    /// Has it look at rules for each packet anew, and count in the rules what it has counted elsewhere.
    fn forget(&mut self) -> Result<()> {
        if !self.is_lazy {
            return Ok(());
        }
        // A flow that a thread looks at just then would not be forgotten.
        let commands = ["revalidator/pause", "revalidator/purge", "revalidator/resume"];
        commands.iter().try_for_each(|command| self.call(command, &[]))
    }

    fn call(&mut self, command: &str, arguments: &[String]) -> Result<()> {
        self.appctl.call(command, arguments).map(drop).with_context(|| self.name)
    }
}

/// What a controller is told of a packet, but for what only the switch itself can read. Of one that stops Open vSwitch says
/// that it is in the first table.
fn text(bridge: Bridge, packet: &PacketIn) -> String {
    let PacketIn {
        packet, full_len, table, cookie, reason, metadata, userdata, continuation, ..
    } = packet;
    let place = match continuation.is_empty() {
        true => format!("table={table}"),
        false => "stops".to_owned(),
    };
    let (name, packet, userdata) = (bridge.name(), digits(packet), digits(userdata));
    format!(
        "{name} tells of {packet} of {full_len} bytes: {reason}, {place}, cookie={cookie:?}, {metadata}, userdata={userdata}"
    )
}

/// A line without the numbers of places where packets go on.
fn without_numbers(line: &str) -> String {
    let mut parts = line.split("recirc_id=");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += "recirc_id=";
        text += part.trim_start_matches(|digit: char| digit.is_ascii_hexdigit() || digit == 'x');
    }
    // Open vSwitch tells a rule of its own for what no other is for, where there are two bridges.
    text.replace("reg0=0x2, priority 0", "No match.")
}

/// Bytes as digits, two for each.
pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn port_name(port: u16) -> String {
    format!("p{port}")
}

/// A port of the other bridge; the data paths take its number from its name.
fn second_name(port: u16) -> String {
    format!("q{}", 20 + port)
}

fn pcap(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.pcap"))
}

/// What ovs-vsctl is to do: a bridge without rules, with ports that write down what they send.
fn bridge(dir: &Path) -> Vec<String> {
    let mut words = bridge_words(Bridge::First);
    words.extend(["--", "set", "Interface", Bridge::First.name()].map(str::to_owned));
    words.push(sends(dir, "LOCAL"));
    for port in 1..=PORTS {
        words.extend(port_words(dir, Bridge::First, &port_name(port), port));
    }
    words
}

fn bridge_words(bridge: Bridge) -> Vec<String> {
    let name = bridge.name();
    let words = ["add-br", name, "--", "set", "Bridge", name, "datapath_type=dummy"];
    words.into_iter().chain(["fail_mode=secure"]).map(str::to_owned).collect()
}

/// The same for the other bridge, and the ports between both.
fn second_bridge(dir: &Path) -> Vec<String> {
    let mut words = bridge_words(Bridge::Second);
    for port in 1..=SECOND_PORTS {
        words.extend(port_words(dir, Bridge::Second, &second_name(port), port));
    }
    for number in PATCHES {
        for (bridge, other) in [(Bridge::First, Bridge::Second), (Bridge::Second, Bridge::First)] {
            let name = |bridge: Bridge| format!("{}-{number}", bridge.name());
            let (own, peer) = (name(bridge), name(other));
            let request = format!("ofport_request={number}");
            let peer = format!("options:peer={peer}");
            let port = ["--", "add-port", bridge.name(), &own, "--", "set", "Interface", &own];
            words
                .extend(port.into_iter().chain(["type=patch", &request, &peer]).map(str::to_owned));
        }
    }
    words
}

/// The same for the port of marks, which comes last: the data paths take the numbers of the others from
/// their names, unless somebody has them.
fn marks(dir: &Path) -> Vec<String> {
    port_words(dir, Bridge::First, MARKS, MARKS_PORT)
}

fn port_words(dir: &Path, bridge: Bridge, name: &str, number: u16) -> Vec<String> {
    let words = ["--", "add-port", bridge.name(), name, "--", "set", "Interface", name];
    let rest = ["type=dummy".to_owned(), format!("ofport_request={number}"), sends(dir, name)];
    words.map(str::to_owned).into_iter().chain(rest).collect()
}

fn sends(dir: &Path, name: &str) -> String {
    format!("options:tx_pcap={}", pcap(dir, name).display())
}

fn mark_rule() -> FlowMod {
    let port = openflow::PortNo(MARKS_PORT.into());
    FlowMod {
        table: 0,
        priority: u16::MAX,
        matching: Match::new().with(openflow::Field::EthType, 0x88B6),
        instructions: Instructions::apply(vec![openflow::Action::output(port)]),
        ..FlowMod::default()
    }
}

fn is_mark(rule: &FlowStats) -> bool {
    rule.table == 0 && rule.priority == u16::MAX
}

fn count(rule: &FlowStats) -> Count {
    let FlowStats { table, priority, matching, instructions, .. } = rule;
    let text = format!("table={table},priority={priority},{matching} actions={instructions}");
    (text, rule.packets.unwrap_or_default(), rule.bytes.unwrap_or_default())
}

/// What a group has counted, and each of its buckets.
fn counts_of(stats: &GroupStats) -> Vec<Count> {
    let GroupStats { group, references, counts, .. } = stats;
    let all = (format!("group={group},references={references}"), counts.0, counts.1);
    let buckets = stats.buckets.iter().zip(0_u32..);
    let buckets = buckets.map(|((packets, bytes), bucket)| {
        (format!("group={group},bucket={bucket}"), *packets, *bytes)
    });
    [all].into_iter().chain(buckets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_given_as_they_come_are_left_out() {
        let line =
            "userspace(pid=0,controller(reason=2,recirc_id=23,rule_cookie=0x1f),recirc_id=0x9";
        let text = "userspace(pid=0,controller(reason=2,recirc_id=,rule_cookie=0x1f),recirc_id=";
        assert_eq!((without_numbers(line).as_str(), without_numbers("a")), (text, "a".to_owned()));
    }
}
