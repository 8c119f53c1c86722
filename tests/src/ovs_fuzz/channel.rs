use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use openflow::error::{ErrorCode, ErrorMessage};
use openflow::framing::{HEADER, Header, Splitter};
use openflow::message::bundle::{ATOMIC, BundleAdd, BundleControl, BundleStep, ORDERED};
use openflow::message::config::Config;
use openflow::message::flow_mod::{ALL_TABLES, Command, FlowMod};
use openflow::message::flow_stats::{FlowStats, FlowStatsRequest};
use openflow::message::group::{
    ALL_BUCKETS, ALL_GROUPS, GroupCommand, GroupMod, GroupStats, GroupType, ask,
};
use openflow::message::hello::Hello;
use openflow::message::meter::{ALL_METERS, Band, Meter, MeterCommand, MeterMod, MeterStats};
use openflow::message::packet_in::PacketIn;
use openflow::message::{Form, Kind, Message, Raw};
use openflow::{Version, VersionSet};

use super::lab::digits;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What is spoken.
const VERSION: Version = Version::V15;

/// Meters that rules can use, and what those are like: flags of METER_MOD.
pub const METERS: u32 = 2;
const KBPS: u16 = 1;
const PACKETS: u16 = 2;
const BURST: u16 = 4;
const STATS: u16 = 8;

const BUNDLE: u32 = 1;
const FLAGS: u16 = ATOMIC | ORDERED;

/// The form in which it tells of packets.
const NXT_PACKET_IN2: u32 = 2;

/// What a switch is given.
#[derive(Clone, Debug)]
pub enum Change {
    Group(GroupMod),
    Rule(FlowMod),
}

impl Change {
    fn encode(&self, xid: u32) -> Vec<u8> {
        match self {
            Self::Group(group) => group.encode(VERSION, xid),
            Self::Rule(rule) => rule.encode(VERSION, Form::Of, false, xid),
        }
    }

    /// What takes away all that there is.
    fn clear() -> [Self; 2] {
        let rules = FlowMod { command: Command::Delete, table: ALL_TABLES, ..FlowMod::default() };
        let groups = GroupMod {
            command: GroupCommand::Delete,
            kind: GroupType::All,
            group: ALL_GROUPS,
            bucket: ALL_BUCKETS,
            buckets: Vec::new(),
            selection: None,
        };
        [Self::Rule(rules), Self::Group(groups)]
    }
}

/// What a switch has refused: its place among what it was given, and why.
pub type Refused = (usize, Option<ErrorCode>);

/// An OpenFlow connection to a bridge.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    splitter: Splitter,
    xid: u32,
    /// Packets that it was told of.
    told: Vec<PacketIn>,
}

impl Channel {
    /// Connects to a bridge's socket, and agrees on OpenFlow 1.5.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).with_context(|| path.display().to_string())?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let mut channel = Self { stream, splitter: Splitter::default(), xid: 0, told: Vec::new() };
        let versions = VersionSet::from_bits(1 << VERSION.wire());
        channel.send(&Hello { versions }.encode(0))?;
        let hello = channel.next()?;
        let header = Header::read(&hello).context("no HELLO")?;
        let theirs = Hello::decode(header.version, hello.get(HEADER..).unwrap_or_default());
        if !theirs.versions.has(VERSION) {
            bail!("the bridge does not speak OpenFlow {VERSION}");
        }
        channel.listen()?;
        channel.add_meters()?;
        Ok(channel)
    }

    /// Adds meters by which no packet is dropped.
    fn add_meters(&mut self) -> Result<()> {
        for (id, unit) in (1..=METERS).zip([KBPS, PACKETS].into_iter().cycle()) {
            let bands = vec![Band { remark: None, rate: 100_000_000, burst: 100_000_000 }];
            let meter = Meter { id, flags: unit | BURST | STATS, bands };
            let change = MeterMod { command: MeterCommand::Add, meter };
            self.send(&change.encode(VERSION, 0))?;
        }
        Ok(())
    }

    /// Has the bridge tell of packets, with all that is known of them.
    fn listen(&mut self) -> Result<()> {
        let mut format = Message::of_form(VERSION, Kind::SetPacketInFormat, Form::Nx, 0);
        format.body().extend_from_slice(&NXT_PACKET_IN2.to_be_bytes());
        let config = Config { flags: 0, miss_send_len: u16::MAX };
        self.send(&[format.finish(), config.encode(VERSION, Kind::SetConfig, 0)].concat())
    }

    /// The packets that it has told of by now.
    pub fn told(&mut self) -> Result<&[PacketIn]> {
        self.xid += 1;
        self.send(&Message::new(VERSION, Kind::BarrierRequest, self.xid).finish())?;
        let message = self.answer()?;
        match Raw::read(&message)?.kind {
            Kind::BarrierReply => Ok(&self.told),
            other => bail!("expected a barrier's answer, got {other:?}"),
        }
    }

    /// Forgets them.
    pub fn forget_told(&mut self) {
        self.told.clear();
    }

    fn send(&mut self, message: &[u8]) -> Result<()> {
        self.stream.write_all(message).context("the bridge has closed the connection")
    }

    /// The next message, whatever it is.
    fn next(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(message) = self.splitter.next()? {
                return Ok(message);
            }
            let mut chunk = [0; 65_536];
            let count = match self.stream.read(&mut chunk) {
                // A debugger, or whoever else has this process stand still for a while.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                count => count?,
            };
            if count == 0 {
                bail!("the bridge has closed the connection");
            }
            self.splitter.push(&chunk[..count]);
        }
    }

    /// The next message that is an answer; whether we are there is answered meanwhile.
    fn answer(&mut self) -> Result<Vec<u8>> {
        loop {
            let message = self.next()?;
            let raw = Raw::read(&message)?;
            match raw.kind {
                Kind::EchoRequest => {
                    let mut reply = Message::new(VERSION, Kind::EchoReply, raw.xid);
                    reply.body().extend_from_slice(raw.body);
                    self.send(&reply.finish())?;
                }
                Kind::PacketIn => self.told.push(PacketIn::decode(&raw)?),
                Kind::PortStatus | Kind::FlowRemoved => {}
                _ => return Ok(message),
            }
        }
    }

    fn control(step: BundleStep, xid: u32) -> Vec<u8> {
        BundleControl { id: BUNDLE, step, flags: FLAGS }.encode(VERSION, Form::Of, xid)
    }

    /// Puts these in the place of all that there are; or none, and gives those that are refused.
    pub fn replace(&mut self, changes: &[Change]) -> Result<Vec<Refused>> {
        self.bundle(&Change::clear(), changes)
    }

    /// The same without taking away what there is.
    pub fn change(&mut self, changes: &[Change]) -> Result<Vec<Refused>> {
        self.bundle(&[], changes)
    }

    fn bundle(&mut self, clear: &[Change], changes: &[Change]) -> Result<Vec<Refused>> {
        let first = self.xid + 1;
        let count = u32::try_from(changes.len())?;
        let last = first + count + 3;
        self.xid = last + 1;
        let mut messages = Self::control(BundleStep::OpenRequest, last - 1);
        let all = clear.iter().zip(first + count..).chain(changes.iter().zip(first..));
        for (change, xid) in all {
            let message = change.encode(xid);
            let add = BundleAdd { id: BUNDLE, flags: FLAGS, message: &message };
            messages.extend(add.encode(VERSION, xid));
        }
        messages.extend(Self::control(BundleStep::CommitRequest, last));
        self.send(&messages)?;
        let (mut refused, mut is_over) = (Vec::new(), false);
        while !is_over {
            let message = self.answer()?;
            let raw = Raw::read(&message)?;
            is_over = raw.xid == last;
            if raw.kind == Kind::Error {
                let code = ErrorMessage::decode(raw.body)?.code(VERSION);
                if (first..first + count).contains(&raw.xid) {
                    refused.push(((raw.xid - first) as usize, code));
                } else if raw.xid != last || refused.is_empty() {
                    bail!("the bundle is refused: {code:?}");
                }
            }
        }
        // Some are refused as they come, and others when all are there.
        refused.sort_unstable_by_key(|(at, _)| *at);
        refused.dedup_by_key(|(at, _)| *at);
        Ok(refused)
    }

    /// All rules and what they have counted.
    pub fn rules(&mut self) -> Result<Vec<FlowStats>> {
        self.xid += 1;
        let request = FlowStatsRequest::default();
        let request = request.encode(VERSION, Kind::FlowStatsRequest, Form::Request, self.xid);
        self.ask(&request, Kind::FlowStatsReply, FlowStats::decode_all)
    }

    /// What groups have counted.
    pub fn groups(&mut self) -> Result<Vec<GroupStats>> {
        self.xid += 1;
        let request = ask(VERSION, Kind::GroupStatsRequest, ALL_GROUPS, self.xid);
        self.ask(&request, Kind::GroupStatsReply, GroupStats::decode_all)
    }

    /// What meters have counted.
    pub fn meters(&mut self) -> Result<Vec<MeterStats>> {
        self.xid += 1;
        let request = ask(VERSION, Kind::MeterStatsRequest, ALL_METERS, self.xid);
        self.ask(&request, Kind::MeterStatsReply, MeterStats::decode_all)
    }

    /// All parts of an answer.
    fn ask<T>(
        &mut self,
        request: &[u8],
        reply: Kind,
        read: impl Fn(&Raw<'_>) -> Result<Vec<T>, ErrorCode>,
    ) -> Result<Vec<T>> {
        self.send(request)?;
        let mut all = Vec::new();
        loop {
            let message = self.answer()?;
            let raw = Raw::read(&message)?;
            if raw.kind != reply {
                bail!("expected {reply:?}, got {:?}", raw.kind);
            }
            all.extend(read(&raw).with_context(|| format!("in {}", digits(&message)))?);
            if !raw.more {
                return Ok(all);
            }
        }
    }
}
