//! Queues that are divided anew by themselves (`pmd-auto-lb`), once a worker has had too much to do for a
//! minute and others would have it more evenly.
//!
//! That is looked at in turns: whether a worker is overloaded, whether there is anything that could be
//! divided otherwise, and then whether it would be enough of a gain, which is tried without moving anything.

use std::time::{Duration, Instant};

use eal::time::later;

use super::assign::{Assigned, Queue};
use super::cores::Thread;
use super::settings::Assign;
use crate::content::Texts;

/// What is said of it in the log, which tells of trials only if it is asked to.
const MODULE: &str = "dpif_netdev";

const MINUTE: Duration = Duration::from_secs(60);

/// The longest time between two turns, in minutes, and the usual one.
const MOST_MINUTES: u64 = 20_000;
const USUAL_MINUTES: u64 = 1;

/// From how many hundredths of its time on a worker is overloaded, and how many hundredths the spread of
/// the load is to become smaller by, where the database does not say it.
const USUAL_LOAD: u64 = 95;
const USUAL_IMPROVEMENT: u64 = 25;

/// What the database says of it; values that there cannot be are the usual ones, as in Open vSwitch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    is_enabled: bool,
    minutes: u64,
    load: u64,
    improvement: u64,
}

impl Plan {
    fn of(other_config: &Texts) -> Self {
        let number = |key: &str, most: u64, usual: u64| {
            let said = other_config.get(key).and_then(|text| text.parse().ok());
            said.filter(|number| *number <= most).unwrap_or(usual)
        };
        Self {
            is_enabled: is_enabled(other_config),
            minutes: number("pmd-auto-lb-rebal-interval", MOST_MINUTES, USUAL_MINUTES).max(1),
            load: number("pmd-auto-lb-load-threshold", 100, USUAL_LOAD),
            improvement: number("pmd-auto-lb-improvement-threshold", 100, USUAL_IMPROVEMENT),
        }
    }
}

/// Whether queues are divided anew by themselves.
pub(super) fn is_enabled(other_config: &Texts) -> bool {
    other_config.get("pmd-auto-lb").is_some_and(|text| text == "true")
}

/// When it is looked at, and what has come of that.
#[derive(Clone, Debug, Default)]
pub(super) struct Balance {
    plan: Option<Plan>,
    /// When the last turn was.
    looked: Option<Instant>,
    /// Whether anything could be divided otherwise, if nothing has changed since that was looked at.
    could_help: Option<bool>,
}

impl Balance {
    /// Takes what the database says, and tells the log what is different, in Open vSwitch's words.
    pub(super) fn adjust(&mut self, other_config: &Texts) {
        let (new, before) = (Plan::of(other_config), self.plan);
        let differs = |of: fn(&Plan) -> u64| before.as_ref().map(of) != Some(of(&new));
        let Plan { is_enabled, minutes, load, improvement } = new;
        if differs(|plan| plan.minutes) {
            tracing::info!(target: MODULE, "PMD auto load balance interval set to {minutes} mins");
        }
        if differs(|plan| plan.improvement) {
            tracing::info!(
                target: MODULE,
                "PMD auto load balance improvement threshold set to {improvement}%"
            );
        }
        if differs(|plan| plan.load) {
            tracing::info!(target: MODULE, "PMD auto load balance load threshold set to {load}%");
        }
        if before == Some(new) {
            return;
        }
        self.plan = Some(new);
        if is_enabled {
            tracing::info!(
                target: MODULE,
                "PMD auto load balance is enabled, interval {minutes} mins, pmd load threshold {load}%, \
                 improvement threshold {improvement}%."
            );
        } else {
            self.looked = None;
            tracing::info!(target: MODULE, "PMD auto load balance is disabled.");
        }
    }

    /// Queues were divided: what was found before does not hold any more.
    pub(super) const fn forget(&mut self) {
        self.could_help = None;
    }

    /// Whether it is time for a turn: then the load, in hundredths, from which on a worker has too much.
    pub(super) fn turn(&mut self, now: Instant) -> Option<u64> {
        let plan = self.plan.filter(|plan| plan.is_enabled)?;
        let minutes = u32::try_from(plan.minutes).unwrap_or(u32::MAX);
        let due = self.looked.map(|before| later(before, MINUTE.saturating_mul(minutes)));
        if due.is_none_or(|due| now > due) {
            self.looked = Some(now);
        }
        due.filter(|due| now > *due).map(|_| plan.load)
    }

    /// Whether anything could be divided otherwise: `counts` is how many queues each worker has that is not
    /// isolated.
    pub(super) fn could_help(&mut self, how: Assign, counts: &[usize]) -> bool {
        if let Some(could_help) = self.could_help {
            if !could_help {
                nothing_to_do("no configuration changes since last check");
            }
            return could_help;
        }
        let could_help = if how == Assign::RoundRobin {
            nothing_to_do("pmd-rxq-assign=roundrobin assignment type configured");
            false
        } else if counts.len() < 2 || counts.iter().all(|count| *count < 2) {
            nothing_to_do("not enough non-isolated PMDs or RxQs");
            false
        } else {
            true
        };
        *self.could_help.insert(could_help)
    }

    /// Whether the gain of dividing queues so is enough.
    pub(super) fn is_worth(&self, now: &Trial<'_>, then: &Trial<'_>) -> bool {
        tracing::debug!(target: MODULE, "PMD auto load balance performing dry run.");
        let Some(Plan { improvement: wanted, .. }) = self.plan else { return false };
        let nodes = now.nodes();
        if nodes.len() > 1 && then.crosses_nodes() {
            tracing::debug!(
                target: MODULE,
                "PMD auto load balance detected cross-numa polling with multiple numa nodes. Unable to \
                 accurately estimate."
            );
            return false;
        }
        let gain = |node: u32| {
            let (before, after) = (now.variance(node), then.variance(node));
            let gain = before.saturating_sub(after).saturating_mul(100);
            let gain = gain.checked_div(before).unwrap_or(0);
            tracing::debug!(
                target: MODULE,
                "Numa node {node}. Current variance {before} Estimated variance {after}. Variance \
                 improvement {gain}%."
            );
            gain
        };
        let most = nodes.into_iter().map(gain).max();
        let is_met = most.is_some_and(|most| most >= wanted);
        let met = if is_met { "met" } else { "not met" };
        tracing::debug!(
            target: MODULE,
            "PMD load variance improvement threshold {wanted}% is {met}."
        );
        is_met
    }
}

fn nothing_to_do(why: &str) {
    tracing::debug!(target: MODULE, "PMD auto load balance nothing to do, {why}.");
}

/// Queues as they are divided, or could be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial<'t> {
    pub(super) threads: &'t [Thread],
    pub(super) queues: &'t [Queue],
    pub(super) assigned: &'t Assigned,
    /// The clock cycles that each worker had while queues took theirs; 0: that is not known.
    pub(super) totals: &'t [u64],
}

impl Trial<'_> {
    /// The nodes of memory with workers.
    fn nodes(&self) -> Vec<u32> {
        let mut nodes: Vec<u32> = Vec::new();
        for thread in self.threads {
            if !nodes.contains(&thread.node) {
                nodes.push(thread.node);
            }
        }
        nodes
    }

    fn is_free(&self, worker: usize) -> bool {
        self.assigned.isolated.get(worker) != Some(&true)
    }

    /// Whether a worker has a queue, by nobody's wish, of a port that is at another node.
    fn crosses_nodes(&self) -> bool {
        self.queues.iter().zip(&self.assigned.workers).any(|(queue, worker)| {
            let Some(worker) = worker.filter(|worker| self.is_free(*worker)) else { return false };
            let node = self.threads.get(worker).map(|thread| thread.node);
            queue.pinned.is_none() && queue.node.is_some() && queue.node != node
        })
    }

    /// How far the loads of a node's workers are apart, of those that are not isolated.
    fn variance(&self, node: u32) -> u64 {
        let own = self.threads.iter().enumerate().filter(|(_, thread)| thread.node == node);
        let free = own.map(|(worker, _)| worker).filter(|worker| self.is_free(*worker));
        let loads: Vec<u64> = free.map(|worker| self.load(worker)).collect();
        let count = loads.len() as u64;
        let mean = loads.iter().sum::<u64>().checked_div(count).unwrap_or(0);
        let squares = loads.iter().map(|load| load.abs_diff(mean).saturating_pow(2));
        squares.fold(0, u64::saturating_add).checked_div(count).unwrap_or(0)
    }

    /// The hundredths of its time that a worker's queues take.
    fn load(&self, worker: usize) -> u64 {
        let pairs = self.queues.iter().zip(&self.assigned.workers);
        let own = pairs.filter(|(_, polled_by)| **polled_by == Some(worker));
        let cycles = own.fold(0_u64, |sum, (queue, _)| sum.saturating_add(queue.cycles));
        let total = self.totals.get(worker).copied().unwrap_or(0);
        // No worker has more to do than ten times its time, whatever counters say.
        cycles.saturating_mul(100).checked_div(total).unwrap_or(0).min(1_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::assign::assign;
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn values_that_there_cannot_be_are_the_usual_ones() {
        let usual = Plan { is_enabled: false, minutes: 1, load: 95, improvement: 25 };
        assert_eq!(Plan::of(&Texts::new()), usual);
        let plan = |interval: &str, load: &str, improvement: &str| {
            Plan::of(&texts(&[
                ("pmd-auto-lb", "true"),
                ("pmd-auto-lb-rebal-interval", interval),
                ("pmd-auto-lb-load-threshold", load),
                ("pmd-auto-lb-improvement-threshold", improvement),
            ]))
        };
        let enabled = Plan { is_enabled: true, ..usual };
        for odd in [["20001", "101", "101"], ["-1", "-1", "x"], ["0", "", "1e2"]] {
            assert_eq!(plan(odd[0], odd[1], odd[2]), enabled, "{odd:?}");
        }
        let all = Plan { is_enabled: true, minutes: 20_000, load: 0, improvement: 100 };
        assert_eq!(plan("20000", "0", "100"), all);
    }

    #[test]
    fn turns_come_when_their_time_is_over_while_it_is_enabled() {
        let (mut balance, start) = (Balance::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(balance.turn(start), None);
        let on = texts(&[("pmd-auto-lb", "true"), ("pmd-auto-lb-rebal-interval", "2")]);
        balance.adjust(&on);
        let turns = [0, 60, 120, 121, 122, 241, 242].map(|second| balance.turn(at(second)));
        assert_eq!(turns, [None, None, None, Some(95), None, None, Some(95)]);
        balance.adjust(&Texts::new());
        assert_eq!(balance.turn(at(9_000)), None);
        // The time begins anew.
        balance.adjust(&on);
        assert_eq!(
            [9_001, 9_121, 9_122].map(|second| balance.turn(at(second)).is_some()),
            [false, false, true]
        );
    }

    #[test]
    fn there_is_something_to_divide_if_a_worker_has_two_queues_and_there_is_another() {
        let could = |how, counts: &[usize]| Balance::default().could_help(how, counts);
        assert!(could(Assign::Cycles, &[2, 1]) && could(Assign::Group, &[0, 2]));
        assert!(!could(Assign::Cycles, &[1, 1]) && !could(Assign::Cycles, &[9]));
        assert!(!could(Assign::RoundRobin, &[2, 1]) && !could(Assign::Group, &[]));
        // What was found holds until queues are divided.
        let mut balance = Balance::default();
        assert!(!balance.could_help(Assign::Cycles, &[1, 1]));
        assert!(!balance.could_help(Assign::Cycles, &[2, 2]));
        balance.forget();
        assert!(balance.could_help(Assign::Cycles, &[2, 2]));
    }

    /// Two workers at one node and two at another, with queues of ports at these nodes.
    const NODES: [u32; 4] = [0, 0, 1, 1];

    fn threads(nodes: &[u32]) -> Vec<Thread> {
        let thread = |(core, node): (usize, &u32)| Thread { core: Some(core), node: *node };
        nodes.iter().enumerate().map(thread).collect()
    }

    fn queue(number: usize, node: u32, cycles: u64) -> Queue {
        Queue { port: "p1".to_owned(), number, node: Some(node), pinned: None, cycles }
    }

    fn assigned(workers: &[usize]) -> Assigned {
        let workers = workers.iter().copied().map(Some).collect();
        Assigned { workers, isolated: vec![false; NODES.len()], notes: Vec::new() }
    }

    /// Whether a balance with this threshold has queues go from some workers to others.
    fn is_worth(improvement: &str, queues: &[Queue], now: &[usize], then: &[usize]) -> bool {
        let mut balance = Balance::default();
        balance.adjust(&texts(&[("pmd-auto-lb-improvement-threshold", improvement)]));
        let (threads, now, then) = (threads(&NODES), assigned(now), assigned(then));
        let trial = |assigned| Trial { threads: &threads, queues, assigned, totals: &[100; 4] };
        balance.is_worth(&trial(&now), &trial(&then))
    }

    #[test]
    fn queues_move_where_loads_come_nearer_to_each_other_by_enough() {
        let queues = [queue(0, 0, 40), queue(1, 0, 40), queue(2, 0, 10), queue(3, 1, 50)];
        // 90 and 0 are 2025 from each other, 50 and 40 are 25: 98 hundredths less.
        let (uneven, even) = ([0, 0, 0, 2], [0, 1, 0, 2]);
        assert!(
            is_worth("98", &queues, &uneven, &even) && !is_worth("99", &queues, &uneven, &even)
        );
        assert!(!is_worth("1", &queues, &even, &uneven) && !is_worth("1", &queues, &even, &even));
        // What a worker of another node does with them cannot be told.
        assert!(!is_worth("0", &queues, &uneven, &[0, 1, 2, 3]));
        let mut pinned = queues;
        pinned[2].pinned = Some(2);
        assert!(is_worth("25", &pinned, &uneven, &[0, 1, 2, 3]));
    }

    proptest! {
        #[test]
        fn whatever_there_is_to_divide_is_weighed(
            loads in prop::collection::vec((0..3_u32, prop::option::of(0..5_usize), any::<u64>()), 0..12),
            totals in prop::collection::vec(any::<u64>(), 0..5),
        ) {
            let threads = threads(&NODES);
            let queue = |(number, load): (usize, &(u32, Option<usize>, u64))| {
                Queue { pinned: load.1, ..queue(number, load.0, load.2) }
            };
            let queues: Vec<Queue> = loads.iter().enumerate().map(queue).collect();
            let mut balance = Balance::default();
            balance.adjust(&texts(&[("pmd-auto-lb-improvement-threshold", "1")]));
            let [cycles, group] =
                [Assign::Cycles, Assign::Group].map(|how| assign(&threads, &queues, how, true));
            let trial =
                |assigned| Trial { threads: &threads, queues: &queues, assigned, totals: &totals };
            let (one, other) = (trial(&cycles), trial(&group));
            // Nothing is gained by what is so already; and otherwise loads of a node have come
            // nearer to each other.
            prop_assert!(!balance.is_worth(&one, &one) && !balance.is_worth(&other, &other));
            let nears = |node: &u32| other.variance(*node) < one.variance(*node);
            if balance.is_worth(&one, &other) {
                prop_assert!(one.nodes().iter().any(nears));
            }
        }
    }
}
