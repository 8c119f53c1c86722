//! The cores that there are, and the nodes of memory that they are at.

use std::fs;

use eal::CoreList;
use ordered::Gather as _;

/// Where the kernel tells of nodes.
const NODES: &str = "/sys/devices/system/node";

/// A core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Core {
    /// Its number.
    pub number: usize,
    /// The node of memory that it is at.
    pub node: u32,
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thread {
    /// The core that it is bound to; none: it is wherever the kernel puts it.
    pub(super) core: Option<usize>,
    /// The node of memory that it is at.
    pub(super) node: u32,
}

impl From<Core> for Thread {
    fn from(core: Core) -> Self {
        Self { core: Some(core.number), node: core.node }
    }
}

/// The cores that workers can be on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cores {
    all: Vec<Core>,
    /// The nodes of the system.
    nodes: Vec<(u32, CoreList)>,
    /// Nobody runs on them: they are a test's.
    is_dummy: bool,
}

impl Cores {
    /// Those of the system that threads of the process can be bound to now.
    #[must_use]
    pub fn of_system() -> Self {
        let mut cores = Self { all: Vec::new(), nodes: nodes(), is_dummy: false };
        cores.look_again();
        cores
    }

    /// Takes those that there are now: of a system they come and go, and so does what a process may use.
    /// Nodes stay those of the start, as a confined process is not told of them.
    pub fn look_again(&mut self) {
        if self.is_dummy {
            return;
        }
        let core = |number: usize| {
            let is_there = |(_, list): &&(u32, CoreList)| list.contains(number);
            let node = self.nodes.iter().find(is_there).map_or(0, |(node, _)| *node);
            Core { number, node }
        };
        match CoreList::usable() {
            Ok(list) => self.all = list.iter().map(core).collect(),
            Err(error) => tracing::warn!("{error}; the cores are taken to be those of before"),
        }
    }

    /// Those of a test: the nodes of cores 0, 1 and so on, with commas between them. What is no number
    /// is no core.
    #[must_use]
    pub fn dummy(nodes: &str) -> Self {
        let nodes = nodes.split(',').filter_map(|node| node.trim().parse().ok());
        let all = nodes.enumerate().map(|(number, node)| Core { number, node }).collect();
        Self { all, nodes: Vec::new(), is_dummy: true }
    }

    /// Whether nobody runs on them.
    #[must_use]
    pub const fn are_dummy(&self) -> bool {
        self.is_dummy
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Core] {
        &self.all
    }

    /// The core of this number.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<Core> {
        self.all.iter().copied().find(|core| core.number == number)
    }

    /// Tells the log of them, in Open vSwitch's words.
    pub fn tell(&self) {
        let nodes: std::collections::BTreeSet<u32> = self.all.iter().map(|core| core.node).gather();
        for node in &nodes {
            let count = self.all.iter().filter(|core| core.node == *node).count();
            tracing::info!("Discovered {count} CPU cores on NUMA node {node}");
        }
        let (nodes, cores) = (nodes.len(), self.all.len());
        tracing::info!("Discovered {nodes} NUMA nodes and {cores} CPU cores");
    }
}

/// The nodes of the system with their cores; none where the kernel does not tell.
fn nodes() -> Vec<(u32, CoreList)> {
    let entries = fs::read_dir(NODES).into_iter().flatten().flatten();
    let node = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        let list = fs::read_to_string(entry.path().join("cpulist")).ok()?;
        Some((number, list.trim().parse().ok()?))
    };
    entries.filter_map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_says_at_which_nodes_cores_are() {
        let cores = Cores::dummy("1,1, 8,x");
        let expected = [(0, 1), (1, 1), (2, 8)].map(|(number, node)| Core { number, node });
        assert_eq!((cores.as_slice(), cores.are_dummy()), (&expected[..], true));
        assert_eq!((cores.get(2).map(|core| core.node), cores.get(3)), (Some(8), None));
        let own = Cores::of_system();
        assert!(
            !own.are_dummy() && own.as_slice().iter().all(|core| own.get(core.number).is_some())
        );
        assert!(!own.as_slice().is_empty());
    }

    #[test]
    fn cores_come_while_the_process_runs() {
        let own = Cores::of_system();
        let mut before = Cores { all: Vec::new(), ..own.clone() };
        before.look_again();
        assert_eq!(before, own);
        let mut dummies = Cores::dummy("0");
        dummies.look_again();
        assert_eq!(dummies, Cores::dummy("0"));
    }
}
