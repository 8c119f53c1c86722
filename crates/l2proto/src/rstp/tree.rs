//! The tree as one bridge knows it: its ports, which of them have which role (IEEE 802.1D-2004 clause
//! 17.28), and what is to be done.

use litemap::LiteMap;

use super::bpdu::Bpdu;
#[cfg(test)]
use super::port::State;
use super::port::{Around, Port, Role, Settings as PortSettings, Source, Wishes};
use super::vector::{BridgeName, Times, Vector};

/// Rounds of the state machines for one event at most. They come to rest after some ten; this is for
/// faults of ours.
const MOST_ROUNDS: usize = 1_000;

/// What a bridge is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its priority and address.
    pub name: BridgeName,
    /// What holds where it is the root.
    pub max_age: u8,
    /// How often it speaks, in seconds, where it is the root.
    pub hello: u8,
    /// How many seconds ports wait before they learn, and again before they forward, where it is the root.
    pub forward_delay: u8,
    /// The most messages in a second from one port.
    pub hold_count: u8,
    /// Whether it speaks the rapid protocol.
    pub is_rapid: bool,
}

impl Settings {
    const fn times(&self) -> Times {
        let Self { max_age, hello, forward_delay, .. } = *self;
        Times { message_age: 0, max_age, hello, forward_delay }
    }

    /// What it says of itself as the root.
    const fn own(&self) -> Vector {
        Vector { root: self.name, cost: 0, bridge: self.name, port: 0 }
    }
}

/// A port, as whoever runs the protocol sees it.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Its number.
    pub port: u16,
    /// What it is set to.
    pub settings: PortSettings,
    /// Whether its link is up and it is in service.
    pub is_up: bool,
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub struct Todo {
    /// Ports whose state is another one now.
    pub states: Vec<u16>,
    /// Ports behind which all that was learnt is to be forgotten.
    pub flush: Vec<u16>,
    /// What is to be sent, and by which port.
    pub send: Vec<(u16, Bpdu)>,
}

/// A bridge's view of its tree.
#[derive(Debug)]
pub struct Tree {
    settings: Settings,
    ports: LiteMap<u16, Port>,
    root: Vector,
    root_times: Times,
    root_port: Option<u16>,
    /// How often the topology has changed.
    pub changes: u64,
    todo: Todo,
}

/// How many ports have not agreed, and were the root port lately.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    unsynced: usize,
    rerooting: usize,
}

impl Tally {
    fn of(port: &Port) -> Self {
        let is_settled = port.selected && port.role == port.selected_role;
        let is_synced = is_settled && (port.synced || port.role == Role::Root);
        Self { unsynced: usize::from(!is_synced), rerooting: usize::from(port.timers.rr != 0) }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            unsynced: self.unsynced.saturating_add(other.unsynced),
            rerooting: self.rerooting.saturating_add(other.rerooting),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            unsynced: self.unsynced.saturating_sub(other.unsynced),
            rerooting: self.rerooting.saturating_sub(other.rerooting),
        }
    }
}

impl Tree {
    /// One without ports.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ports: LiteMap::new(),
            root: settings.own(),
            root_times: settings.times(),
            root_port: None,
            changes: 0,
            todo: Todo::default(),
        }
    }

    /// Gives it other settings. With another version of the protocol it begins anew (clause 17.13.4).
    pub fn set(&mut self, settings: Settings) {
        if settings == self.settings {
            return;
        }
        if settings.is_rapid != self.settings.is_rapid {
            let (changes, gone) = (self.changes, std::mem::take(&mut self.ports));
            *self = Self { changes, ..Self::new(settings) };
            // They are discarding until they are there again.
            self.todo.states.extend(gone.into_iter().map(|(number, _)| number));
            return;
        }
        self.settings = settings;
        for (_, port) in &mut self.ports {
            (port.reselect, port.selected) = (true, false);
        }
    }

    /// These are its ports, in the order of their numbers.
    pub fn update(&mut self, links: &[Link]) {
        self.ports.retain(|number, _| links.binary_search_by_key(number, |link| link.port).is_ok());
        let Settings { is_rapid, .. } = self.settings;
        for link in links {
            let new = || Port::new(link.settings, self.settings.times(), is_rapid);
            let port = self.ports.entry(link.port).or_insert_with(new);
            port.set(link.settings);
            port.is_up = link.is_up;
        }
        if self.root_port.is_some_and(|port| !self.ports.contains_key(&port)) {
            self.find_root();
            self.ports.iter_mut().for_each(|(_, port)| port.reselect = true);
        }
        self.run();
    }

    /// A message has come in on a port.
    pub fn hear(&mut self, number: u16, bpdu: &Bpdu) {
        let Some(port) = self.ports.get_mut(&number) else { return };
        port.counts.received = port.counts.received.saturating_add(1);
        // One of its own that came back on the port that has sent it.
        let is_own = match bpdu {
            Bpdu::Tcn => false,
            Bpdu::Config(config) | Bpdu::Rst(config, _) => {
                config.priority.bridge.address() == self.settings.name.address()
                    && config.priority.port == port.settings.id
            }
        };
        if !is_own && port.is_up {
            port.heard = Some(*bpdu);
            self.run();
        }
    }

    /// A frame has come in on a port that makes no sense.
    pub fn hear_nonsense(&mut self, number: u16) {
        if let Some(port) = self.ports.get_mut(&number) {
            port.counts.bad = port.counts.bad.saturating_add(1);
        }
    }

    /// Has a port find out anew which protocol its neighbour speaks. Returns whether it is one of the
    /// tree's.
    pub fn check_protocol(&mut self, number: u16) -> bool {
        let Some(port) = self.ports.get_mut(&number) else { return false };
        port.check_protocol();
        self.run();
        true
    }

    /// Has neighbours told of a change of the topology, as if a port had noticed one.
    pub fn note_change(&mut self) {
        self.changes = self.changes.saturating_add(1);
        self.ports.iter_mut().for_each(|(_, port)| port.tc_prop = true);
        self.run();
    }

    /// A second is over.
    pub fn tick(&mut self) {
        self.ports.iter_mut().for_each(|(_, port)| port.tick());
        self.run();
    }

    /// What is to be done since this was asked last.
    pub fn take(&mut self) -> Todo {
        std::mem::take(&mut self.todo)
    }

    /// Its ports, by number.
    pub fn ports(&self) -> impl Iterator<Item = (u16, &Port)> {
        self.ports.iter().map(|(number, port)| (*number, port))
    }

    /// What a port does with frames.
    #[cfg(test)]
    pub fn state(&self, number: u16) -> State {
        self.ports.get(&number).map_or(State::Discarding, Port::state)
    }

    /// What it is set to.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Who the root is, how far that is, and who says so.
    pub const fn root(&self) -> &Vector {
        &self.root
    }

    /// The times that hold.
    pub const fn times(&self) -> &Times {
        &self.root_times
    }

    /// The way to the root; `None` where this bridge is that.
    pub const fn root_port(&self) -> Option<u16> {
        self.root_port
    }

    /// Lets all machines run until none has anything to do.
    fn run(&mut self) {
        for _ in 0..MOST_ROUNDS {
            let selected = self.select();
            if !self.round() && !selected {
                return;
            }
        }
        tracing::error!("spanning tree does not come to rest");
    }

    /// One step of each port's machines; returns whether any was made.
    fn round(&mut self) -> bool {
        let mut tally = self.ports.values().fold(Tally::default(), |sum, p| sum.plus(Tally::of(p)));
        let numbers: Vec<u16> = self.ports.keys().copied().collect();
        let mut has_moved = false;
        for number in numbers {
            let Some(port) = self.ports.get_mut(&number) else { continue };
            let (before, state) = (Tally::of(port), port.state);
            let others = tally.minus(before);
            let around = Around {
                is_rapid: self.settings.is_rapid,
                hold_count: self.settings.hold_count,
                all_synced: tally.unsynced == 0,
                re_rooted: others.rerooting == 0,
            };
            let mut wishes = Wishes::default();
            let moved = port.step(&around, &mut wishes);
            has_moved |= moved;
            tally = others.plus(Tally::of(port));
            if port.state != state && !self.todo.states.contains(&number) {
                self.todo.states.push(number);
            }
            if self.grant(number, wishes) {
                let all = self.ports.values();
                tally = all.fold(Tally::default(), |sum, port| sum.plus(Tally::of(port)));
            }
        }
        has_moved
    }

    /// Does what a port wishes; returns whether that has changed others.
    fn grant(&mut self, number: u16, wishes: Wishes) -> bool {
        let Wishes { sync, re_root, tc_prop, flush, send } = wishes;
        if sync || re_root || tc_prop {
            self.changes = self.changes.saturating_add(u64::from(tc_prop));
            for (other, port) in &mut self.ports {
                port.sync |= sync;
                port.re_root |= re_root;
                port.tc_prop |= tc_prop && *other != number;
            }
        }
        if flush && !self.todo.flush.contains(&number) {
            self.todo.flush.push(number);
        }
        self.todo.send.extend(send.map(|bpdu| (number, bpdu)));
        sync || re_root
    }

    /// Port role selection (clause 17.28); returns whether roles were selected.
    fn select(&mut self) -> bool {
        if !self.ports.values().any(|port| port.reselect) {
            return false;
        }
        self.ports.iter_mut().for_each(|(_, port)| port.reselect = false);
        self.find_root();
        let Self { settings, root, root_times, root_port, .. } = *self;
        for (number, port) in &mut self.ports {
            let own = Vector {
                root: root.root,
                cost: root.cost,
                bridge: settings.name,
                port: port.settings.id,
            };
            port.designated_priority = own;
            port.designated_times = Times { hello: settings.hello, ..root_times };
            let is_root = root_port == Some(*number);
            let (role, update) = match port.info_is {
                Source::Disabled => (Role::Disabled, false),
                Source::Aged => (Role::Designated, true),
                Source::Mine => {
                    let is_known = port.priority == own && port.times == port.designated_times;
                    (Role::Designated, !is_known)
                }
                Source::Received if is_root => (Role::Root, false),
                Source::Received if own < port.priority => (Role::Designated, true),
                Source::Received if is_own(&settings, port) => (Role::Backup, false),
                Source::Received => (Role::Alternate, false),
            };
            port.selected_role = role;
            port.updt_info = update;
            port.selected = true;
        }
        true
    }

    /// Finds the way to the root: the best of what was heard, by the port with the lowest number, or none
    /// where this bridge is better.
    fn find_root(&mut self) {
        let settings = self.settings;
        let heard = self
            .ports
            .iter()
            .filter(|(_, port)| port.info_is == Source::Received && !is_own(&settings, port));
        let best = heard
            .map(|(number, port)| (port.priority.behind(port.settings.cost), port, *number))
            .min_by_key(|(vector, port, _)| (*vector, port.settings.id))
            .filter(|(vector, ..)| *vector < settings.own());
        (self.root, self.root_times, self.root_port) = match best {
            Some((vector, port, number)) => {
                let message_age = port.times.message_age.saturating_add(1);
                (vector, Times { message_age, ..port.times }, Some(number))
            }
            None => (settings.own(), settings.times(), None),
        };
    }
}

/// Whether what a port has heard was from this bridge itself.
fn is_own(settings: &Settings, port: &Port) -> bool {
    port.priority.bridge.address() == settings.name.address()
}
