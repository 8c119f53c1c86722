//! The flows that a datapath of Open vSwitch would have.

use std::fmt::Write as _;

use flow::{Key, place};
use odp::flows::{Flows, Look};
use odp::{Flow, action};
use openflow::text::{Names, matching};
use ordered::Order as _;
use ovs::unixctl::Answer;
use switch::WorkerReport;

use super::super::flows::{self, ask, collect, forget, line};
use super::Appctl;
use super::dpif::{PATHS, path_of};

/// What is asked.
#[derive(Debug, Default)]
struct Options<'o> {
    /// Whether bits are told that do not count, and names of flows.
    is_full: bool,
    /// Whether ports are called by their names; `None`: if all is told.
    names: Option<bool>,
    filter: Option<&'o str>,
    kinds: Option<&'o str>,
    /// Which worker's.
    worker: Option<&'o str>,
    /// Everything else.
    words: Vec<&'o str>,
}

impl<'o> Options<'o> {
    fn read(arguments: &'o [String]) -> Result<Self, String> {
        let mut options = Self::default();
        for word in arguments {
            match word.as_str() {
                "-m" | "--more" => options.is_full = true,
                "--names" => options.names = Some(true),
                "--no-names" => options.names = Some(false),
                word if word.starts_with('-') => return Err(format!("{word}: unknown option")),
                word => match word.split_once('=') {
                    Some(("filter", filter)) => options.filter = Some(filter),
                    Some(("type", kinds)) => options.kinds = Some(kinds),
                    Some(("pmd", worker)) => options.worker = Some(worker),
                    _ => options.words.push(word),
                },
            }
        }
        Ok(options)
    }

    /// How flows are told; where ports are called by their names, `names` says them.
    fn look<'l>(&self, appctl: &Appctl<'_>, names: action::Names<'l>) -> Look<'l> {
        let names = self.names.unwrap_or(self.is_full).then_some(names);
        Look { is_full: self.is_full, names, now: appctl.daemon.switch().flow_time() }
    }

    /// Whether flows of ours are of the kinds that are asked for: those of no hardware.
    fn has_ours(&self) -> Result<bool, String> {
        const KINDS: [&str; 7] =
            ["ovs", "tc", "dpdk", "offloaded", "non-offloaded", "partially-offloaded", "all"];
        let Some(kinds) = self.kinds else { return Ok(true) };
        let mut has_ours = false;
        for kind in kinds.split(',') {
            if !KINDS.contains(&kind) {
                return Err(format!("Failed to parse type ({kind})"));
            }
            has_ours |= matches!(kind, "ovs" | "non-offloaded" | "all");
        }
        Ok(has_ours)
    }
}

/// The place in [`PATHS`] of a data path by its name, or of the only one that there is.
fn path(appctl: &Appctl<'_>, name: Option<&str>) -> Result<usize, String> {
    let is_used = |path: &str| {
        let content = appctl.agent.content().into_iter();
        content
            .flat_map(|content| content.bridges.values())
            .any(|bridge| path_of(&bridge.datapath_type) == path)
    };
    let mut used = PATHS.iter().enumerate().filter(|(_, path)| is_used(path));
    let found = match name {
        Some(name) => {
            used.find(|(_, path)| **path == name || path.split('@').any(|part| part == name))
        }
        None => {
            let first = used.next();
            if first.is_some() && used.next().is_some() {
                return Err("multiple datapaths, specify one".to_owned());
            }
            first
        }
    };
    found.map(|(at, _)| at).ok_or_else(|| match name {
        Some(name) => format!("opening datapath {name} failed (No such device)"),
        None => "no datapaths exist".to_owned(),
    })
}

/// The name of a port by its number in data paths.
fn name_of(appctl: &Appctl<'_>, port: u32) -> Option<String> {
    appctl.agent.path_numbers().name(port).map(str::to_owned)
}

/// Whether there is anything to tell yet; if not, the command is asked again.
fn is_known(appctl: &mut Appctl<'_>) -> bool {
    appctl.waits = !ask(appctl);
    !appctl.waits
}

/// Flows of a data path, under the threads that have them.
pub fn dump_path(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let options = Options::read(arguments)?;
    let at = path(appctl, options.words.first().copied())?;
    let wanted = options.has_ours()?;
    let filter = options.filter.map(|text| filter(appctl, text)).transpose()?;
    if !is_known(appctl) {
        return Ok(String::new());
    }
    let threads = Threads::new(appctl);
    let names = |port| name_of(appctl, port);
    let look = options.look(appctl, &names);
    let flows = appctl.flows.of(at).into_iter().flat_map(Flows::iter);
    let is_wanted =
        |flow: &&Flow| wanted && filter.as_ref().is_none_or(|(key, bits)| flow.may_be(key, bits));
    let mut all: Vec<(String, &Flow)> =
        flows.filter(is_wanted).map(|flow| (threads.of(flow), flow)).collect();
    all.order_by(|(a, _), (b, _)| a.cmp(b));
    let (mut text, mut last) = (String::new(), None);
    for (thread, flow) in &all {
        if let Some(worker) = options.worker {
            if *thread != thread_of(worker) {
                continue;
            }
        } else if last != Some(thread) {
            let end = if thread == MAIN { ":" } else { "" };
            let _ = writeln!(text, "flow-dump from {thread}{end}");
            last = Some(thread);
        }
        if options.is_full {
            let (of, counts, does) = (flow.matching(look), flow.counts(look), flow.actions(look));
            let _ = writeln!(text, "{}, {of}, {counts}, dp:ovs, actions:{does}", flow.ufid());
        } else {
            let _ = writeln!(text, "{}", line(flow, look));
        }
    }
    Ok(text)
}

/// The heading of a worker's flows, as `pmd=` asks for them.
fn thread_of(worker: &str) -> String {
    if worker == "-1" { MAIN.to_owned() } else { format!("pmd on cpu core: {worker}") }
}

/// Who has flows of dummy ports in Open vSwitch.
const MAIN: &str = "the main thread";

/// The cores of workers, by their places.
struct Threads(Vec<(usize, usize)>);

impl Threads {
    fn new(appctl: &Appctl<'_>) -> Self {
        let workers = appctl.daemon.switch().workers().into_iter();
        let core = |worker: WorkerReport| {
            let bound = appctl.agent.pmd().core(worker.index).map(|core| core.number);
            (worker.index, bound.or(worker.core).unwrap_or(worker.index))
        };
        Self(workers.map(core).collect())
    }

    /// The thread of a flow, as it is called.
    fn of(&self, flow: &Flow) -> String {
        if flow.thread == flows::MAIN {
            return MAIN.to_owned();
        }
        let place = usize::from(flow.thread);
        let core =
            self.0.iter().find(|(known, _)| *known == place).map_or(place, |(_, core)| *core);
        format!("pmd on cpu core: {core}")
    }
}

/// What a filter asks for, and which of its bits: ports are those of the datapath.
fn filter(appctl: &Appctl<'_>, text: &str) -> Result<(Key, Key), String> {
    let port = |name: &str| appctl.agent.path_numbers().of(name).map(openflow::PortNo);
    let wrong = |error: &dyn std::fmt::Display| format!("Failed to parse filter ({error})");
    let asked = matching(text, Names { port: &port }).map_err(|error| wrong(&error))?;
    let pattern =
        place::pattern(&asked).map_err(|field| wrong(&format!("unknown field {field}")))?;
    Ok((pattern.to_key(), pattern.bits()))
}

/// Flows of the packets that come in on a bridge.
pub fn dump_bridge(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let options = Options::read(arguments)?;
    let Some(bridge) = options.words.last() else { return Err("no such bridge".to_owned()) };
    appctl.check_bridge(bridge)?;
    if !is_known(appctl) {
        return Ok(String::new());
    }
    let names = |port| name_of(appctl, port);
    let look = options.look(appctl, &names);
    let is_own = |flow: &&Flow| {
        let port = names(flow.key.get_u32(flow::slot::IN_PORT));
        port.is_some_and(|port| appctl.agent.number(bridge, &port).is_some())
    };
    let mut text = String::new();
    let flows = (0..PATHS.len()).filter_map(|at| appctl.flows.of(at)).flat_map(Flows::iter);
    for flow in flows.filter(is_own) {
        let id = if options.is_full { format!("{} ", flow.ufid()) } else { String::new() };
        let _ = writeln!(text, "{id}{}", line(flow, look));
    }
    Ok(text)
}

/// A flow by its name.
pub fn get(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let options = Options::read(arguments)?;
    let [name @ .., id] = options.words.as_slice() else { return Err("no flow".to_owned()) };
    let at = path(appctl, name.first().copied())?;
    if !is_known(appctl) {
        return Ok(String::new());
    }
    let names = |port| name_of(appctl, port);
    let look = options.look(appctl, &names);
    let id = id.trim_end_matches(',');
    let found =
        appctl.flows.of(at).into_iter().flat_map(Flows::iter).find(|flow| flow.ufid() == id);
    let flow = found.ok_or("getting flow (No such file or directory)")?;
    Ok(format!("{}\n", line(flow, look)))
}

/// Forgets all flows of a data path.
pub fn remove(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let options = Options::read(arguments)?;
    let at = path(appctl, options.words.first().copied())?;
    forget(appctl, Some(at));
    Ok(String::new())
}

/// Forgets all flows.
pub fn purge(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    forget(appctl, None);
    Ok(String::new())
}

/// Has flows stay what they are until [`resume`].
pub fn pause(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    appctl.flows.is_paused = true;
    Ok(String::new())
}

/// Has flows follow rules again.
pub fn resume(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    appctl.flows.is_paused = false;
    Ok(String::new())
}

/// Has flows be what rules say.
pub fn wait(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    collect(appctl, true);
    Ok(String::new())
}

/// How many flows there are.
pub fn show(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    collect(appctl, true);
    let ufid = appctl.flows.is_terse;
    let mut text = String::new();
    for (at, name) in PATHS.iter().enumerate() {
        let Some(flows) = appctl.flows.of(at).filter(|_| path(appctl, Some(*name)).is_ok()) else {
            continue;
        };
        let (count, most, limit) = (flows.len(), flows.most, flows.limit);
        let _ = writeln!(
            text,
            "{name}:\n  flows         : (current {count}) (avg {count}) (max {most}) (limit {limit})\n  \
             dump duration : 1ms\n  ufid enabled : {ufid}\n"
        );
    }
    Ok(text)
}

/// Has all bits of a packet count in flows, or no more.
fn set_masks(appctl: &mut Appctl<'_>, has_masks: bool) {
    collect(appctl, false);
    for flows in appctl.flows.all() {
        flows.clear();
        flows.has_masks = has_masks;
    }
}

/// Has only those bits count that packets' ways depend on.
pub fn enable_masks(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    set_masks(appctl, true);
    Ok("megaflows enabled".to_owned())
}

/// Has all bits count.
pub fn disable_masks(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    set_masks(appctl, false);
    Ok("megaflows disabled".to_owned())
}

/// Has the log know flows by their names alone.
pub fn enable_ids(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    appctl.flows.is_terse = true;
    Ok("Datapath dumping tersely using UFID enabled for supported datapaths".to_owned())
}

/// Has the log tell flows.
pub fn disable_ids(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    appctl.flows.is_terse = false;
    Ok("Datapath dumping tersely using UFID disabled".to_owned())
}

/// The most flows that are kept.
const MAX_LIMIT: usize = 10_000;

/// How many flows there may be.
pub fn set_limit(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let limit = arguments.first().and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let limit = limit.min(MAX_LIMIT);
    appctl.flows.all().for_each(|flows| flows.limit = limit);
    Ok(format!("set flow_limit to {limit}\n"))
}
