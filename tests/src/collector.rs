use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::peers::find_program;
use crate::process::{Process, run};
use crate::wait;

/// nfdump's programs, with Debian's packages that have them.
pub const PROGRAMS: [(&str, &str); 3] =
    [("nfcapd", "nfdump"), ("nfdump", "nfdump"), ("sfcapd", "nfdump-sflow")];

const LIMIT: Duration = Duration::from_secs(60);

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// What is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collects {
    /// NetFlow and IPFIX.
    Flows,
    /// Samples, by sFlow.
    Samples,
}

/// One line of what was collected: packets with all of that in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// From where to where.
    pub addresses: [String; 2],
    /// Ports of UDP or TCP.
    pub ports: [u16; 2],
    /// The protocol's number.
    pub protocol: u8,
    /// How many there were.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The numbers of the interfaces where they came in and went out.
    pub interfaces: [u32; 2],
}

/// A collector of nfdump's that listens in a namespace.
#[derive(Debug)]
pub struct Collector {
    // It ends first.
    process: Process,
    dir: PathBuf,
}

impl Collector {
    /// Starts one that listens at `port` of 127.0.0.1 and writes into the folder `dir`, which it makes.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn start(netns: &Netns, what: Collects, dir: &Path, port: u16) -> Result<Self> {
        let program = match what {
            Collects::Flows => "nfcapd",
            Collects::Samples => "sfcapd",
        };
        fs::create_dir_all(dir)?;
        let path = find_program(program).with_context(|| format!("no {program}"))?;
        let mut command = netns.command(&path.display().to_string());
        // It begins another file every two seconds, the least that it takes.
        command.args(["-C", "none", "-t", "2", "-b", "127.0.0.1", "-p", &port.to_string(), "-w"]);
        let process = Process::start(program, {
            command.arg(dir);
            command
        })?;
        let started = format!("Startup {program}");
        wait::until(program, LIMIT, PAUSE, || Ok(process.log().contains(&started).then_some(())))
            .with_context(|| process.log())?;
        Ok(Self { process, dir: dir.to_owned() })
    }

    /// All that is in files which are whole, until `is_enough` of it: so many bytes wait for each file.
    ///
    /// # Errors
    /// When it is not within a minute; the message has what there is.
    pub fn wait_for(&self, is_enough: impl Fn(&[Record]) -> bool) -> Result<Vec<Record>> {
        let mut last = Vec::new();
        let found = wait::until("what is collected", LIMIT, PAUSE, || {
            last = self.records()?;
            Ok(is_enough(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("{last:#?}\n{}", self.process.log()))
    }

    fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // What is being written is named for the process.
            if !name.starts_with("nfcapd.2") {
                continue;
            }
            let program = find_program("nfdump").context("no nfdump")?;
            let mut nfdump = Command::new(program);
            let columns = "fmt:%sa|%da|%sp|%dp|%pr|%pkt|%byt|%in|%out";
            nfdump.args(["-C", "none", "-q", "-N", "-6", "-o", columns, "-r"]).arg(&path);
            for line in run(&mut nfdump)?.lines().filter(|line| line.contains('|')) {
                records.push(record(line).with_context(|| format!("a line of nfdump: {line}"))?);
            }
        }
        Ok(records)
    }
}

fn record(line: &str) -> Result<Record> {
    let words: Vec<&str> = line.split('|').map(str::trim).collect();
    let [from, to, source, destination, protocol, packets, bytes, input, output] = words[..] else {
        anyhow::bail!("{} words instead of 9", words.len());
    };
    Ok(Record {
        addresses: [from, to].map(str::to_owned),
        ports: [source.parse()?, port(destination)?],
        protocol: protocol.parse()?,
        packets: packets.parse()?,
        bytes: bytes.parse()?,
        interfaces: [input.parse()?, output.parse()?],
    })
}

/// Of ICMP there is the type and the code instead: `8.0`.
fn port(text: &str) -> Result<u16> {
    Ok(match text.split_once('.') {
        Some((kind, code)) => kind.parse::<u16>()? << 8 | code.parse::<u16>()?,
        None => text.parse()?,
    })
}
