//! Workers and the queues that they poll, as the database says: `pmd-cpu-mask`, `pmd-rxq-assign`,
//! `pmd-rxq-isolate`, `pmd-rxq-affinity`, `pmd-auto-lb` and `pmd-sleep-max`. A worker is what Open vSwitch calls a PMD thread.
//!
//! - `assign`: which worker polls which queue
//! - `balance`: queues that are divided anew by themselves
//! - `cores`: the cores that there are
//! - `settings`: what the database says
//! - `sleep`: whether workers sleep
//! - `usage`: what queues and workers did lately

mod assign;
mod balance;
mod cores;
mod settings;
mod sleep;
mod usage;

use std::time::Instant;

use daemon::State;
use eal::CoreList;
use litemap::LiteMap;
use ordered::Gather as _;

use self::assign::{Assigned, Queue};
use self::balance::{Balance, Trial};
use self::cores::Thread;
pub use self::cores::{Core, Cores};
use self::settings::Settings;
pub use self::usage::{INTERVAL, Usage, Worked, intervals};
use crate::content::{Content, Interface};
use crate::device::{is_af_xdp, rx_queues};

/// What decided who polls what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Basis {
    settings: Settings,
    threads: Vec<Thread>,
    ports: Vec<PmdPort>,
}

/// A port with queues that Open vSwitch polls.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PmdPort {
    name: String,
    /// How many it has, if the database says that; if not, its queues are spread among all workers.
    queues: Option<usize>,
    node: Option<u32>,
    /// Queues and the cores that they are pinned to.
    pins: Vec<(usize, usize)>,
}

impl PmdPort {
    fn is_pinned(&self) -> bool {
        self.queues.is_some() && !self.pins.is_empty()
    }

    /// What there is to be told of pins that nothing comes of.
    fn unpinned(&self) -> Option<String> {
        let name = &self.name;
        (self.queues.is_none() && !self.pins.is_empty()).then(|| {
            format!(
                "pmd-rxq-affinity of port '{name}' is passed over: nobody says how many queues it has; \
                 set options:n_rxq"
            )
        })
    }
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
    /// Why workers could not become those that are wanted.
    refusal: Option<String>,
    /// Queues are to be divided anew.
    is_stale: bool,
    changes: u64,
    balance: Balance,
    /// For how many microseconds workers may sleep, if that is said.
    sleep: Option<u64>,
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
        let Thread { core, node } = *self.basis.threads.get(worker)?;
        core.map(|number| Core { number, node })
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
        let (settings, mut wrong) = Settings::of(&content.other_config);
        if settings.cores != self.basis.settings.cores {
            self.cores.look_again();
        }
        let ports = pmd_ports(content, state, self.cores.are_dummy());
        let (threads, passed_over) = self.threads(&settings, state);
        wrong.extend(passed_over.into_iter().chain(ports.iter().filter_map(PmdPort::unpinned)));
        wrong.extend(self.adjust_sleep(content, state));
        self.tell_settings(&settings, wrong);
        self.balance.adjust(&content.other_config);
        let is_set = settings.are_set || ports.iter().any(PmdPort::is_pinned);
        let basis = Basis { settings, threads, ports };
        if self.basis.threads == basis.threads {
            self.refusal = None;
        }
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
        self.fill_in(state);
    }

    /// Has workers of `state` sleep as `content` says; gives what is wrong with that.
    fn adjust_sleep(&mut self, content: &Content, state: &mut State) -> Vec<String> {
        let (asked, wrong) = sleep::of(&content.other_config);
        sleep::tell(self.sleep, asked);
        self.sleep = asked;
        if let Some(micros) = asked {
            state.busy_poll = Some(micros == 0);
        }
        wrong
    }

    /// Has `state` go on with the workers of `before`, as those that are wanted cannot be had; the next time,
    /// that is tried again. Returns whether that makes a difference: then it is worth trying.
    pub fn give_up(
        &mut self,
        error: &dyn std::fmt::Display,
        state: &mut State,
        before: &State,
        cycles: impl Fn(&str, usize) -> u64,
    ) -> bool {
        let seats = |state: &State| {
            let config = state.switch();
            (config.worker_count(), config.cores)
        };
        if seats(state) == seats(before) {
            return false;
        }
        let why = error.to_string();
        if self.refusal.as_ref() != Some(&why) {
            tracing::warn!("the workers stay as they are: {why}");
        }
        self.refusal = Some(why);
        (state.cores, state.workers) = (before.cores.clone(), before.workers);
        self.basis.threads = self.usual_threads(state);
        self.cores.look_again();
        if !self.places.is_empty() {
            self.divide(cycles);
        }
        self.fill_in(state);
        true
    }

    /// Has ports of `state` be polled by whom they were given to.
    fn fill_in(&self, state: &mut State) {
        for (name, places) in &self.places {
            if let Some(port) = state.ports.get_mut(name) {
                port.workers.clone_from(places);
            }
        }
    }

    /// The workers, which `state` is to have: those that it has anyway if nothing is said. And what
    /// there is to be told of cores that are asked for and have none.
    fn threads(&self, settings: &Settings, state: &mut State) -> (Vec<Thread>, Vec<String>) {
        let wanted = settings.cores.as_deref().unwrap_or_default();
        let is_there = |number: &&usize| self.cores.get(**number).is_some();
        let (own, absent): (Vec<usize>, Vec<usize>) = wanted.iter().partition(is_there);
        let (own, too_many) = own.split_at(own.len().min(switch::MAX_WORKERS));
        let mut notes = Vec::new();
        if let Some(list) = list_of(&absent) {
            notes.push(format!(
                "pmd-cpu-mask: cores {list} are passed over: they are not available to this process"
            ));
        }
        if let Some(list) = list_of(too_many) {
            let most = switch::MAX_WORKERS;
            notes.push(format!(
                "pmd-cpu-mask: cores {list} are passed over: there can be {most} workers"
            ));
        }
        let Some(list) = list_of(own) else {
            if !wanted.is_empty() {
                notes.push("pmd-cpu-mask: the workers are those of the command line".to_owned());
            }
            return (self.usual_threads(state), notes);
        };
        let threads = own.iter().filter_map(|number| self.cores.get(*number)).map(Thread::from);
        (state.cores, state.workers) = match self.cores.are_dummy() {
            true => (None, Some(own.len())),
            false => (Some(list), None),
        };
        (threads.collect(), notes)
    }

    /// The workers of the command line.
    fn usual_threads(&self, state: &State) -> Vec<Thread> {
        if let Some(cores) = &state.cores {
            return cores
                .iter()
                .map(|number| self.cores.get(number).unwrap_or(Core { number, node: 0 }).into())
                .collect();
        }
        let count = state.workers.unwrap_or(1);
        let dummies = self.cores.as_slice().iter().copied().filter(|_| self.cores.are_dummy());
        let others = std::iter::repeat(Thread { core: None, node: 0 });
        dummies.map(Thread::from).chain(others).take(count).collect()
    }

    /// Whether queues are to be divided anew, since that is due by itself and would help by what they took
    /// lately.
    pub fn wants_balance(&mut self, now: Instant, usage: &Usage) -> bool {
        let Some(too_much) = self.balance.turn(now) else { return false };
        let workers = 0..self.basis.threads.len();
        let free: Vec<usize> = workers.filter(|worker| !self.is_isolated(*worker)).collect();
        if !free.iter().any(|worker| usage.was_busy(*worker, too_much)) {
            return false;
        }
        let polled_by = |worker: &usize| {
            self.places.values().flatten().filter(|polled_by| *polled_by == worker).count()
        };
        let counts: Vec<usize> = free.iter().map(polled_by).collect();
        self.balance.could_help(self.basis.settings.assign, &counts) && self.would_help(usage)
    }

    /// Tries to divide queues anew, without anything coming of it, and tells whether it would be worth it.
    fn would_help(&self, usage: &Usage) -> bool {
        let queues = self.queues(|port, queue| usage.load(port, queue));
        let Basis { settings, threads, .. } = &self.basis;
        let place = |queue: &Queue| self.places.get(&queue.port)?.get(queue.number).copied();
        let (workers, isolated) = (queues.iter().map(place).collect(), self.isolated.clone());
        let now = Assigned { workers, isolated, notes: Vec::new() };
        let then = assign::assign(threads, &queues, settings.assign, settings.isolates);
        let totals: Vec<u64> =
            (0..threads.len()).map(|worker| usage.total(worker).unwrap_or(0)).collect();
        let trial = |assigned| Trial { threads, queues: &queues, assigned, totals: &totals };
        let is_worth = self.balance.is_worth(&trial(&now), &trial(&then));
        if is_worth {
            tracing::info!("PMD auto load balance dry run. Requesting datapath reconfigure.");
        }
        is_worth
    }

    /// All queues that are divided, with what they took.
    fn queues(&self, cycles: impl Fn(&str, usize) -> u64) -> Vec<Queue> {
        let of_port = |port: &PmdPort, number: usize| {
            let pin = port.pins.iter().find(|(queue, _)| *queue == number);
            Queue {
                port: port.name.clone(),
                number,
                node: port.node,
                pinned: pin.map(|(_, core)| *core),
                cycles: cycles(&port.name, number),
            }
        };
        let all = self.basis.ports.iter().flat_map(|port| {
            let of_port = &of_port;
            (0..port.queues.unwrap_or(0)).map(move |number| of_port(port, number))
        });
        all.collect()
    }

    fn divide(&mut self, cycles: impl Fn(&str, usize) -> u64) {
        self.balance.forget();
        let queues = self.queues(cycles);
        let Basis { settings, threads, .. } = &self.basis;
        let Assigned { workers, isolated, notes } =
            assign::assign(threads, &queues, settings.assign, settings.isolates);
        for (is_warning, note) in notes {
            match is_warning {
                true => tracing::warn!("{note}"),
                false => tracing::info!("{note}"),
            }
        }
        let mut places = LiteMap::<String, Vec<usize>>::new();
        for (queue, worker) in queues.into_iter().zip(workers) {
            places.entry(queue.port).or_default().push(worker.unwrap_or(0));
        }
        self.places = places;
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
    match row.kind.as_str() {
        "dpdk" | "dpdkvhostuser" | "dpdkvhostuserclient" | "dummy-pmd" => true,
        _ => is_af_xdp(row),
    }
}

/// Cores as users write them; none if there are none.
fn list_of(cores: &[usize]) -> Option<CoreList> {
    let texts: Vec<String> = cores.iter().map(usize::to_string).collect();
    // An empty text is no list.
    texts.join(",").parse().ok()
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

    /// What a test's database says: settings, and those of port p1 and of its queues. Of port xdp it does
    /// not say how many queues it has.
    fn adjusted(pmd: &mut Pmd, settings: &[(&str, &str)], pins: &[(&str, &str)]) -> State {
        let row = |kind: &str| Interface {
            options: match kind {
                "system" => texts(&[("driver", "af-xdp")]),
                _ => texts(&[("n_rxq", "4")]),
            },
            other_config: texts(pins),
            ..Interface::bare(Uuid(1), kind)
        };
        let port = |(name, kind): (&str, &str)| {
            let interfaces = [(name.to_owned(), row(kind))].into_iter().collect();
            (name.to_owned(), OvsPort { interfaces, ..OvsPort::bare(Uuid(2)) })
        };
        let ports = [("p1", "dummy-pmd"), ("tap", "internal"), ("xdp", "system")]
            .into_iter()
            .map(port)
            .collect();
        let bridge = Bridge::bare(Uuid(3), Texts::new(), ports);
        let content = Content::bare(texts(settings), ("br0", bridge));
        let mut state = State { workers: Some(1), ..State::default() };
        for name in ["p1", "tap", "xdp"] {
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
        assert!(pmd.wrong[0].contains("cores 3 are passed over"), "{:?}", pmd.wrong);
        assert!(pmd.wrong[1].contains("those of the command line"), "{:?}", pmd.wrong);
    }

    #[test]
    fn workers_sleep_where_the_database_lets_them() {
        let mut pmd = Pmd::new(Cores::dummy("0"));
        let mut sleep = |text: Option<&str>| {
            let said: Vec<(&str, &str)> =
                text.map(|text| ("pmd-maxsleep", text)).into_iter().collect();
            adjusted(&mut pmd, &said, &[]).busy_poll
        };
        let said = [None, Some("0"), Some("100"), None].map(&mut sleep);
        assert_eq!(said, [None, Some(true), Some(false), None]);
        assert!(pmd.wrong.is_empty() && pmd.changes() == 1, "{:?} {}", pmd.wrong, pmd.changes());
    }

    #[test]
    fn cores_that_are_passed_over_are_told() {
        let mut pmd = Pmd::new(Cores::dummy("0,0,1"));
        let state = adjusted(&mut pmd, &[("pmd-cpu-mask", "0x39")], &[]);
        assert_eq!((state.workers, pmd.core(0)), (Some(1), Some(Core { number: 0, node: 0 })));
        assert_eq!(pmd.wrong.len(), 1);
        assert!(pmd.wrong[0].contains("cores 3-5 are passed over"), "{:?}", pmd.wrong);
        let many = vec!["0"; switch::MAX_WORKERS + 2].join(",");
        let mut pmd = Pmd::new(Cores::dummy(&many));
        let mask = format!("3{}", "f".repeat(switch::MAX_WORKERS / 4));
        let state = adjusted(&mut pmd, &[("pmd-cpu-mask", &mask)], &[]);
        assert_eq!(state.workers, Some(switch::MAX_WORKERS));
        assert!(pmd.wrong[0].contains("cores 128-129 are passed over"), "{:?}", pmd.wrong);
    }

    #[test]
    fn queues_of_which_nobody_says_how_many_there_are_go_to_all_workers() {
        let mut pmd = Pmd::new(Cores::dummy("0,0"));
        let state = adjusted(&mut pmd, &[("pmd-cpu-mask", "0x3")], &[("pmd-rxq-affinity", "0:1")]);
        assert!(pmd.polls("xdp") && state.ports["xdp"].workers.is_empty());
        assert_eq!(state.ports["p1"].workers, [1, 0, 0, 0]);
        assert_eq!(pmd.wrong.len(), 1);
        assert!(pmd.wrong[0].contains("port 'xdp' is passed over"), "{:?}", pmd.wrong);
    }

    #[test]
    fn where_workers_cannot_be_had_those_go_on_that_there_are() {
        let mut pmd = Pmd::new(Cores::dummy("0,0,0"));
        let before = adjusted(&mut pmd, &[("pmd-cpu-mask", "0x3")], &[]);
        let mut state = adjusted(&mut pmd, &[("pmd-cpu-mask", "0x7")], &[]);
        let wanted = state.ports["p1"].workers.clone();
        assert_eq!((state.workers, wanted.contains(&2)), (Some(3), true));
        assert!(pmd.give_up(&"core 2 is gone", &mut state, &before, |_, _| 0));
        assert_eq!((state.workers, pmd.core(1).is_some(), pmd.core(2)), (Some(2), true, None));
        assert_eq!(state.ports["p1"].workers, [0, 1, 1, 0]);
        // It was not that.
        assert!(!pmd.give_up(&"core 2 is gone", &mut state, &before, |_, _| 0));
        // They may be had by now.
        let state = adjusted(&mut pmd, &[("pmd-cpu-mask", "0x7")], &[]);
        assert_eq!((state.workers, &state.ports["p1"].workers), (Some(3), &wanted));
    }

    #[test]
    fn cores_are_those_of_the_moment_in_which_they_are_asked_for() {
        let mut pmd = Pmd::new(Cores::default());
        let state = adjusted(&mut pmd, &[("pmd-cpu-mask", &"f".repeat(256))], &[]);
        let all = CoreList::usable().unwrap();
        let most = all.len().min(switch::MAX_WORKERS);
        assert_eq!(state.cores.unwrap().as_slice(), &all.as_slice()[..most]);
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
