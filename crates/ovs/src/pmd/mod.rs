//! Workers and the queues that they poll, as the database says: `pmd-cpu-mask`, `pmd-rxq-assign`,
//! `pmd-rxq-isolate` and `pmd-rxq-affinity`. A worker is what Open vSwitch calls a PMD thread.
//!
//! - `assign`: which worker polls which queue
//! - `cores`: the cores that there are
//! - `settings`: what the database says
//! - `usage`: what queues and workers did lately

mod assign;
mod cores;
mod settings;
mod usage;

use std::collections::BTreeMap;

use daemon::State;
use eal::CoreList;
use litemap::LiteMap;
use ordered::Gather as _;

use self::assign::{Assigned, Queue};
pub use self::cores::{Core, Cores};
use self::settings::Settings;
pub use self::usage::{INTERVAL, Usage, Worked, intervals};
use crate::content::{Content, Interface};
use crate::device::rx_queues;

/// The number of a core that nobody is bound to.
const ANY: usize = usize::MAX;

/// What decided who polls what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Basis {
    settings: Settings,
    threads: Vec<Core>,
    ports: Vec<PmdPort>,
}

/// A port with queues that Open vSwitch polls.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PmdPort {
    name: String,
    queues: usize,
    node: Option<u32>,
    /// Queues and the cores that they are pinned to.
    pins: Vec<(usize, usize)>,
}

/// Who polls what.
#[derive(Clone, Debug, Default)]
pub struct Pmd {
    cores: Cores,
    basis: Basis,
    /// The worker of each queue of a port.
    places: LiteMap<String, Vec<usize>>,
    isolated: Vec<bool>,
    /// Settings that were told to be wrong.
    wrong: Vec<String>,
    /// Queues are to be divided anew.
    is_stale: bool,
    changes: u64,
}

impl Pmd {
    /// On some of these cores.
    #[must_use]
    pub fn new(cores: Cores) -> Self {
        Self { cores, ..Self::default() }
    }

    /// The worker of this number: its core, if it is bound to one, and the node of that.
    #[must_use]
    pub fn core(&self, worker: usize) -> Option<Core> {
        self.basis.threads.get(worker).copied().filter(|core| core.number != ANY)
    }

    /// Whether a worker polls nothing but what is pinned to it.
    #[must_use]
    pub fn is_isolated(&self, worker: usize) -> bool {
        self.isolated.get(worker) == Some(&true)
    }

    /// Whether a port is one that Open vSwitch's PMD threads poll.
    #[must_use]
    pub fn polls(&self, port: &str) -> bool {
        self.basis.ports.iter().any(|own| own.name == port)
    }

    /// How often queues were divided anew, or workers became others.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Has queues be divided anew by what they take by now.
    pub const fn rebalance(&mut self) {
        self.is_stale = true;
    }

    /// Has `state` have those workers and places that `content` says; `cycles` is what a queue took
    /// lately.
    pub fn adjust(
        &mut self,
        content: &Content,
        state: &mut State,
        cycles: impl Fn(&str, usize) -> u64,
    ) {
        let (settings, wrong) = Settings::of(&content.other_config);
        self.tell_settings(&settings, wrong);
        let ports = pmd_ports(content, state, self.cores.are_dummy());
        let threads = self.threads(&settings, state);
        let is_set = settings.are_set || ports.iter().any(|port| !port.pins.is_empty());
        let basis = Basis { settings, threads, ports };
        if self.basis != basis {
            self.tell_threads(&basis);
            self.changes = self.changes.wrapping_add(1);
            self.is_stale = true;
        }
        self.basis = basis;
        if !is_set {
            (self.places, self.isolated) = Default::default();
        } else if std::mem::take(&mut self.is_stale) {
            self.divide(cycles);
        }
        for (name, places) in &self.places {
            if let Some(port) = state.ports.get_mut(name) {
                port.workers.clone_from(places);
            }
        }
    }

    /// The workers, which `state` is to have; those that it has anyway if nothing is said.
    fn threads(&self, settings: &Settings, state: &mut State) -> Vec<Core> {
        let wanted = settings.cores.as_deref();
        let cores: Vec<Core> = wanted
            .into_iter()
            .flatten()
            .filter_map(|number| self.cores.get(*number))
            .take(switch::MAX_WORKERS)
            .collect();
        let list = cores.iter().map(|core| core.number.to_string()).collect::<Vec<_>>().join(",");
        if cores.is_empty() {
            return self.usual_threads(state);
        }
        match list.parse::<CoreList>() {
            Ok(list) if !self.cores.are_dummy() => {
                (state.cores, state.workers) = (Some(list), None);
            }
            _ => (state.cores, state.workers) = (None, Some(cores.len())),
        }
        cores
    }

    /// The workers of the command line.
    fn usual_threads(&self, state: &State) -> Vec<Core> {
        if let Some(cores) = &state.cores {
            return cores
                .iter()
                .map(|number| self.cores.get(number).unwrap_or(Core { number, node: 0 }))
                .collect();
        }
        let count = state.workers.unwrap_or(1);
        let dummies = self.cores.as_slice().iter().copied().filter(|_| self.cores.are_dummy());
        let others = std::iter::repeat(Core { number: ANY, node: 0 });
        dummies.chain(others).take(count).collect()
    }

    fn divide(&mut self, cycles: impl Fn(&str, usize) -> u64) {
        let Basis { settings, threads, ports } = &self.basis;
        let queues = ports.iter().flat_map(|port| {
            (0..port.queues).map(|number| {
                let pin = port.pins.iter().find(|(queue, _)| *queue == number);
                Queue {
                    port: port.name.clone(),
                    number,
                    node: port.node,
                    pinned: pin.map(|(_, core)| *core),
                    cycles: cycles(&port.name, number),
                }
            })
        });
        let queues: Vec<Queue> = queues.collect();
        let Assigned { workers, isolated, notes } =
            assign::assign(threads, &queues, settings.assign, settings.isolates);
        for (is_warning, note) in notes {
            match is_warning {
                true => tracing::warn!("{note}"),
                false => tracing::info!("{note}"),
            }
        }
        let mut places = BTreeMap::<String, Vec<usize>>::new();
        for (queue, worker) in queues.into_iter().zip(workers) {
            places.entry(queue.port).or_default().push(worker.unwrap_or(0));
        }
        self.places = places.into_iter().collect();
        self.isolated = isolated;
    }

    /// Tells the log of settings that are others, in Open vSwitch's words.
    fn tell_settings(&mut self, settings: &Settings, wrong: Vec<String>) {
        let new = wrong.iter().filter(|text| !self.wrong.contains(text));
        new.for_each(|text| tracing::warn!("{text}"));
        self.wrong = wrong;
        let before = &self.basis.settings;
        if before.assign != settings.assign {
            let name = settings.assign.name();
            tracing::info!("Rxq to PMD assignment mode changed to: '{name}'.");
        }
        if before.isolates != settings.isolates {
            let does = if settings.isolates { "isolates" } else { "does not isolate" };
            tracing::info!("pmd-rxq-affinity {does} PMD core");
        }
    }

    /// Tells it how many workers are at each node, if these are others, or the first that have something
    /// to poll.
    fn tell_threads(&self, new: &Basis) {
        let begins = self.basis.ports.is_empty() && !new.ports.is_empty();
        if new.ports.is_empty() || (!begins && self.basis.threads == new.threads) {
            return;
        }
        let nodes: std::collections::BTreeSet<u32> =
            new.threads.iter().map(|core| core.node).gather();
        for node in nodes {
            let count = new.threads.iter().filter(|core| core.node == node).count();
            tracing::info!("There are {count} pmd threads on numa node {node}");
        }
    }
}

/// Whether Open vSwitch polls an interface by its PMD threads, and not now and then.
fn is_polled(row: &Interface) -> bool {
    let is_xdp = || row.options.get("driver").is_some_and(|driver| driver == "af-xdp");
    match row.kind.as_str() {
        "dpdk" | "dpdkvhostuser" | "dpdkvhostuserclient" | "dummy-pmd" => true,
        "" | "system" => is_xdp(),
        _ => false,
    }
}

fn pmd_ports(content: &Content, state: &State, are_dummy: bool) -> Vec<PmdPort> {
    let rows = content
        .interfaces()
        .filter(|(_, _, name, row)| is_polled(row) && state.ports.contains_key(*name));
    let port = |name: &str, row: &Interface| {
        let said = row.options.get("numa_id").and_then(|node| node.parse().ok());
        PmdPort {
            name: name.to_owned(),
            queues: rx_queues(row),
            node: said.or_else(|| are_dummy.then_some(0)),
            pins: settings::pins(&row.other_config),
        }
    };
    rows.map(|(_, _, name, row)| port(name, row)).collect()
}

#[cfg(test)]
mod tests {
    use daemon::Port as Made;
    use ovsdb::Uuid;

    use super::*;
    use crate::content::{Bridge, Port as OvsPort, Texts};

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// What a test's database says: settings, and those of port p1 and of its queues.
    fn adjusted(pmd: &mut Pmd, settings: &[(&str, &str)], pins: &[(&str, &str)]) -> State {
        let row = |kind: &str| Interface {
            options: texts(&[("n_rxq", "4")]),
            other_config: texts(pins),
            ..Interface::bare(Uuid(1), kind)
        };
        let port = |(name, kind): (&str, &str)| {
            let interfaces = [(name.to_owned(), row(kind))].into_iter().collect();
            (name.to_owned(), OvsPort { interfaces, ..OvsPort::bare(Uuid(2)) })
        };
        let ports = [("p1", "dummy-pmd"), ("tap", "internal")].into_iter().map(port).collect();
        let bridge = Bridge::bare(Uuid(3), Texts::new(), ports);
        let content = Content {
            root: Uuid(0),
            next_cfg: 0,
            other_config: texts(settings),
            bridges: [("br0".to_owned(), bridge)].into_iter().collect(),
            zones: Default::default(),
        };
        let mut state = State { workers: Some(1), ..State::default() };
        for name in ["p1", "tap"] {
            state.ports.insert(name.to_owned(), Made::new("dummy:".to_owned()));
        }
        pmd.adjust(&content, &mut state, |_, queue| if queue == 2 { 100 } else { 0 });
        state
    }

    #[test]
    fn workers_are_as_on_the_command_line_unless_something_is_said() {
        let mut pmd = Pmd::new(Cores::dummy("0,0,1"));
        let state = adjusted(&mut pmd, &[], &[]);
        assert_eq!((state.workers, state.ports["p1"].workers.len()), (Some(1), 0));
        assert_eq!((pmd.core(0), pmd.core(1)), (Some(Core { number: 0, node: 0 }), None));
        assert!(pmd.polls("p1") && !pmd.polls("tap") && !pmd.is_isolated(0));
        // There is no such core.
        let state = adjusted(&mut pmd, &[("pmd-cpu-mask", "8")], &[]);
        assert_eq!((state.workers, &state.ports["p1"].workers[..]), (Some(1), &[0; 4][..]));
    }

    #[test]
    fn queues_are_divided_when_something_has_changed_or_that_is_asked_for() {
        let mut pmd = Pmd::new(Cores::dummy("0,0,1"));
        let mask = ("pmd-cpu-mask", "0x7");
        let state = adjusted(&mut pmd, &[mask], &[]);
        // The one with most to do is the first; the other node is not the port's.
        assert_eq!((state.workers, &state.ports["p1"].workers[..]), (Some(3), &[1, 1, 0, 0][..]));
        assert!(state.ports["tap"].workers.is_empty() && state.cores.is_none());
        let changes = pmd.changes();
        assert_eq!(adjusted(&mut pmd, &[mask], &[]).ports["p1"].workers, [1, 1, 0, 0]);
        assert_eq!(pmd.changes(), changes);
        pmd.places.insert("p1".to_owned(), vec![0; 4]);
        assert_eq!(adjusted(&mut pmd, &[mask], &[]).ports["p1"].workers, [0; 4]);
        pmd.rebalance();
        assert_eq!(adjusted(&mut pmd, &[mask], &[]).ports["p1"].workers, [1, 1, 0, 0]);
        let state = adjusted(&mut pmd, &[mask], &[("pmd-rxq-affinity", "0:2")]);
        assert_eq!(state.ports["p1"].workers, [2, 1, 0, 1]);
        assert!(pmd.is_isolated(2) && pmd.changes() != changes);
        // Nothing is said any more.
        let state = adjusted(&mut pmd, &[], &[]);
        assert!(state.ports["p1"].workers.is_empty() && !pmd.is_isolated(2));
    }

    #[test]
    fn workers_are_bound_to_cores_of_the_system() {
        let cores = Cores::of_system();
        let first = cores.as_slice()[0];
        let mask = format!("1{}", "0".repeat(first.number / 4));
        let mask = match first.number % 4 {
            0 => mask,
            bit => mask.replacen('1', &(1 << bit).to_string(), 1),
        };
        let mut pmd = Pmd::new(cores);
        let state = adjusted(&mut pmd, &[("pmd-cpu-mask", &mask)], &[]);
        let own = state.cores.map(|list| list.as_slice().to_vec());
        assert_eq!((own, state.workers), (Some(vec![first.number]), None));
        assert_eq!(pmd.core(0), Some(first));
        // Without a mask, none is bound to any.
        adjusted(&mut pmd, &[], &[]);
        assert_eq!(pmd.core(0), None);
    }
}
