//! Which worker polls which queue.
//!
//! As Open vSwitch does it: queues that are pinned to a core go there, and their worker has no others then,
//! unless it is told otherwise. The rest goes to workers at the node of memory that the port is at, or, if
//! there are none, to those of other nodes, node after node.

use std::cmp::Reverse;

use ordered::{Gather as _, Order as _};

use super::cores::Thread;
use super::settings::Assign;

/// A queue that is to be polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) port: String,
    pub(super) number: usize,
    /// The node of memory that its port is at, if that is known.
    pub(super) node: Option<u32>,
    /// The core that it is pinned to.
    pub(super) pinned: Option<usize>,
    /// What it took lately, in clock cycles.
    pub(super) cycles: u64,
}

/// Who polls what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Assigned {
    /// The worker of each queue, in the order of the queues; none: nobody is left for it.
    pub(super) workers: Vec<Option<usize>>,
    /// Whether a worker polls nothing but what is pinned to it.
    pub(super) isolated: Vec<bool>,
    /// What there is to be told, and whether it is a warning.
    pub(super) notes: Vec<(bool, String)>,
}

/// A node of memory with its workers, of which those that are isolated stay in their places.
struct Node {
    number: u32,
    workers: Vec<usize>,
    /// Whose turn is next, and in which direction it goes on.
    next: usize,
    goes_down: bool,
}

struct Division<'d> {
    threads: &'d [Thread],
    nodes: Vec<Node>,
    /// What each worker has to do, in cycles, and how many queues it has.
    load: Vec<(u64, usize)>,
    /// The node that had its turn last for what is at other nodes.
    last_other: Option<usize>,
    out: Assigned,
}

/// Divides queues among workers on these cores.
pub(super) fn assign(
    threads: &[Thread],
    queues: &[Queue],
    how: Assign,
    isolates: bool,
) -> Assigned {
    let mut division = Division::new(threads, queues.len());
    let mut rest: Vec<usize> = Vec::new();
    for (index, queue) in queues.iter().enumerate() {
        match queue.pinned {
            Some(core) if division.pin(index, queue, core, isolates) => {}
            _ => rest.push(index),
        }
    }
    if how != Assign::RoundRobin {
        rest.order_by_key(|index| Reverse(queues.get(*index).map_or(0, |queue| queue.cycles)));
    }
    if !rest.is_empty() {
        let how = how.name();
        division
            .note(false, format!("Performing pmd to rx queue assignment using {how} algorithm."));
    }
    for index in rest {
        if let Some(queue) = queues.get(index) {
            division.place(index, queue, how);
        }
    }
    division.out
}

impl<'d> Division<'d> {
    fn new(threads: &'d [Thread], queues: usize) -> Self {
        let numbers: std::collections::BTreeSet<u32> =
            threads.iter().map(|core| core.node).gather();
        let node = |number: u32| {
            let own = threads.iter().enumerate().filter(|(_, core)| core.node == number);
            let workers = own.map(|(index, _)| index).collect();
            Node { number, workers, next: 0, goes_down: false }
        };
        let (isolated, workers) = (vec![false; threads.len()], vec![None; queues]);
        Self {
            threads,
            nodes: numbers.into_iter().map(node).collect(),
            load: vec![(0, 0); threads.len()],
            last_other: None,
            out: Assigned { workers, isolated, notes: Vec::new() },
        }
    }

    fn note(&mut self, is_warning: bool, text: String) {
        self.out.notes.push((is_warning, text));
    }

    fn give(&mut self, index: usize, queue: &Queue, worker: usize) {
        if let Some(place) = self.out.workers.get_mut(index) {
            *place = Some(worker);
        }
        if let Some((cycles, count)) = self.load.get_mut(worker) {
            *cycles = cycles.saturating_add(queue.cycles);
            *count = count.saturating_add(1);
        }
    }

    /// Gives a queue to the worker on the core that it is pinned to; returns whether there is one.
    fn pin(&mut self, index: usize, queue: &Queue, core: usize, isolates: bool) -> bool {
        let Queue { port, number, .. } = queue;
        let Some(worker) = self.threads.iter().position(|thread| thread.core == Some(core)) else {
            self.note(
                true,
                format!(
                    "Core {core:>2} cannot be pinned with port '{port}' rx queue {number}. Use \
                     pmd-cpu-mask to enable a pmd on core {core}. An alternative core will be \
                     assigned."
                ),
            );
            return false;
        };
        if isolates && let Some(isolated) = self.out.isolated.get_mut(worker) {
            *isolated = true;
        }
        self.give(index, queue, worker);
        true
    }

    fn place(&mut self, index: usize, queue: &Queue, how: Assign) {
        let Queue { port, number, node: wanted, .. } = queue;
        let node = self.nodes.iter().position(|node| Some(node.number) == *wanted);
        let node = node.filter(|node| self.has_free(*node)).or_else(|| self.other_node());
        let worker = node.and_then(|node| self.next_of(node, how, queue.cycles > 0));
        let Some(worker) = worker else {
            let text = format!(
                "No non-isolated pmd on any numa available for port '{port}' rx queue {number}. It \
                 is polled by a worker that is isolated."
            );
            return self.note(true, text);
        };
        let node = self.threads.get(worker).map_or(0, |core| core.node);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != node) {
            let text = format!(
                "There's no available (non-isolated) pmd thread on numa node {wanted}. Port '{port}' \
                 rx queue {number} will be assigned to a pmd on numa node {node}. This may lead to \
                 reduced performance."
            );
            self.note(false, text);
        }
        self.give(index, queue, worker);
    }

    fn is_free(&self, worker: usize) -> bool {
        self.out.isolated.get(worker) == Some(&false)
    }

    /// Whether a node has a worker that is not isolated.
    fn has_free(&self, node: usize) -> bool {
        let workers = self.nodes.get(node).map_or(&[][..], |node| &node.workers);
        workers.iter().any(|worker| self.is_free(*worker))
    }

    /// The next node that has one, for a port whose own node has none.
    fn other_node(&mut self) -> Option<usize> {
        let count = self.nodes.len();
        let first = self.last_other.map_or(0, |last| last.saturating_add(1));
        let found = (first..first.saturating_add(count))
            .filter_map(|node| node.checked_rem(count))
            .find(|node| self.has_free(*node));
        self.last_other = found.or(self.last_other);
        found
    }

    /// The worker of a node that gets the next queue.
    fn next_of(&mut self, node: usize, how: Assign, is_measured: bool) -> Option<usize> {
        if how == Assign::Group {
            let workers = &self.nodes.get(node)?.workers;
            let load = |worker: &usize| {
                let (cycles, count) = self.load.get(*worker).copied().unwrap_or_default();
                if is_measured { cycles } else { count as u64 }
            };
            return workers.iter().copied().filter(|one| self.is_free(*one)).min_by_key(load);
        }
        let turns = self.nodes.get(node)?.workers.len().saturating_mul(2);
        for _ in 0..turns {
            let worker = self.nodes.get_mut(node)?.turn(how == Assign::Cycles)?;
            if self.is_free(worker) {
                return Some(worker);
            }
        }
        None
    }
}

impl Node {
    /// The worker whose turn it is; then it is the next one's: around, or up and down.
    fn turn(&mut self, up_and_down: bool) -> Option<usize> {
        let worker = self.workers.get(self.next).copied();
        let last = self.workers.len().saturating_sub(1);
        match (self.goes_down, self.next) {
            (false, next) if next < last => self.next = next + 1,
            (false, _) if up_and_down => self.goes_down = true,
            (false, _) => self.next = 0,
            (true, 0) => self.goes_down = false,
            (true, next) => self.next = next - 1,
        }
        worker
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cores(nodes: &[u32]) -> Vec<Thread> {
        let thread = |(core, node): (usize, &u32)| Thread { core: Some(core), node: *node };
        nodes.iter().enumerate().map(thread).collect()
    }

    fn queues(count: usize, node: u32) -> Vec<Queue> {
        let queue = |number| Queue {
            port: "p1".to_owned(),
            number,
            node: Some(node),
            pinned: None,
            cycles: 0,
        };
        (0..count).map(queue).collect()
    }

    fn workers(assigned: &Assigned) -> Vec<usize> {
        assigned.workers.iter().map(|worker| worker.unwrap()).collect()
    }

    #[test]
    fn queues_go_around_or_up_and_down_or_to_who_has_least() {
        let (cores, mut queues) = (cores(&[0, 0]), queues(8, 0));
        let divided = |queues: &[Queue], how| workers(&assign(&cores, queues, how, true));
        assert_eq!(divided(&queues, Assign::RoundRobin), [0, 1, 0, 1, 0, 1, 0, 1]);
        assert_eq!(divided(&queues, Assign::Cycles), [0, 1, 1, 0, 0, 1, 1, 0]);
        assert_eq!(divided(&queues, Assign::Group), [0, 1, 0, 1, 0, 1, 0, 1]);
        // One has most to do.
        queues[3].cycles = 100;
        queues[5].cycles = 60;
        queues[6].cycles = 50;
        assert_eq!(divided(&queues, Assign::RoundRobin), [0, 1, 0, 1, 0, 1, 0, 1]);
        let by_load = divided(&queues, Assign::Group);
        assert_eq!((by_load[3], by_load[5], by_load[6]), (0, 1, 1));
    }

    #[test]
    fn who_has_a_pinned_queue_has_no_others_unless_that_is_wanted() {
        let (cores, mut queues) = (cores(&[0, 0, 0]), queues(4, 0));
        queues[0].pinned = Some(1);
        let assigned = assign(&cores[1..], &queues, Assign::Cycles, true);
        assert_eq!((workers(&assigned), assigned.isolated), (vec![0, 1, 1, 1], vec![true, false]));
        let assigned = assign(&cores[1..], &queues, Assign::Group, false);
        assert_eq!((workers(&assigned), assigned.isolated), (vec![0, 1, 0, 1], vec![false; 2]));
        // There is nobody on that core.
        let assigned = assign(&cores[2..], &queues, Assign::Cycles, true);
        assert_eq!((workers(&assigned), assigned.isolated), (vec![0; 4], vec![false]));
        assert!(
            matches!(&assigned.notes[0], (true, text) if text.contains("Core  1 cannot be pinned"))
        );
        // All are isolated.
        let assigned = assign(&cores[1..2], &queues, Assign::Cycles, true);
        assert_eq!(assigned.workers, [Some(0), None, None, None]);
        assert!(matches!(&assigned.notes[1], (true, text) if text.contains("No non-isolated pmd")));
    }

    #[test]
    fn no_pin_names_a_worker_that_is_bound_to_no_core() {
        let mut queues = queues(2, 0);
        queues[0].pinned = Some(usize::MAX);
        let threads = [Thread { core: None, node: 0 }];
        let assigned = assign(&threads, &queues, Assign::Cycles, true);
        assert_eq!((workers(&assigned), assigned.isolated), (vec![0, 0], vec![false]));
        assert!(matches!(&assigned.notes[0], (true, text) if text.contains("cannot be pinned")));
    }

    #[test]
    fn a_port_is_polled_at_its_own_node_if_somebody_is_there() {
        let assigned = assign(&cores(&[1, 1, 0, 0]), &queues(3, 0), Assign::RoundRobin, true);
        assert_eq!((workers(&assigned), assigned.notes.len()), (vec![2, 3, 2], 1));
        // Nobody is there: all others take part.
        for how in Assign::tested() {
            let assigned = assign(&cores(&[1, 2, 1, 2]), &queues(4, 0), how, true);
            let mut all = workers(&assigned);
            all.sort_unstable();
            assert_eq!((all, assigned.notes.len()), (vec![0, 1, 2, 3], 5));
            assert!(
                assigned.notes[1]
                    .1
                    .contains("no available (non-isolated) pmd thread on numa node 0.")
            );
        }
    }

    impl Assign {
        fn tested() -> [Self; 3] {
            [Self::RoundRobin, Self::Cycles, Self::Group]
        }
    }

    proptest! {
        #[test]
        fn every_queue_has_a_worker_if_any_is_free_and_pinned_ones_have_theirs(
            nodes in prop::collection::vec(0..3_u32, 1..6),
            wanted in prop::collection::vec((0..3_u32, 0..9_usize, 0..99_u64), 0..20),
            how in prop::sample::select(Assign::tested().to_vec()),
            isolates: bool,
        ) {
            let cores = cores(&nodes);
            let queue = |(number, (node, pinned, cycles)): (usize, &(u32, usize, u64))| Queue {
                port: "p".to_owned(),
                number,
                node: Some(*node),
                pinned: Some(*pinned).filter(|core| *core < 7),
                cycles: *cycles,
            };
            let queues: Vec<Queue> = wanted.iter().enumerate().map(queue).collect();
            let assigned = assign(&cores, &queues, how, isolates);
            let is_any_free = assigned.isolated.iter().any(|isolated| !isolated);
            for (queue, worker) in queues.iter().zip(&assigned.workers) {
                match queue.pinned.filter(|core| *core < cores.len()) {
                    Some(core) => prop_assert_eq!(*worker, Some(core)),
                    None => {
                        prop_assert_eq!(worker.is_some(), is_any_free);
                        prop_assert!(worker.is_none_or(|worker| !assigned.isolated[worker]));
                    }
                }
            }
        }
    }
}
