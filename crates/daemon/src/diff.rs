//! From one desired state to another: an exact list of changes, each with its opposite.

use std::fmt;

use eal::CoreList;
use ordered::Order as _;
use serde::Serialize;
use serde_json::Value;

use switch::{BridgeOptions, DEFAULT_BRIDGE, Mirror};

use crate::address::Address;
use crate::metrics::Metrics;
use crate::mirror;
use crate::state::{Port, Sandbox, Sockets, State};
use crate::vdpa::Vdpa;

/// One change of a running switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An address is not always behind a port any more.
    Forget {
        /// The port.
        port: String,
        /// The address.
        address: Address,
    },
    /// A bridge comes.
    AddBridge {
        /// Its name.
        name: String,
        /// What it is to be.
        options: BridgeOptions,
    },
    /// Settings of a bridge.
    SetBridge {
        /// Its name.
        name: String,
        /// What it is so far.
        from: BridgeOptions,
        /// What it is to be.
        to: BridgeOptions,
    },
    /// A bridge goes, which has no ports any more.
    RemoveBridge {
        /// Its name.
        name: String,
        /// What it is so far.
        options: BridgeOptions,
    },
    /// Other workers do the work.
    Workers {
        /// Those so far.
        from: Workers,
        /// Those from now on.
        to: Workers,
    },
    /// Workers without frames do something else.
    Idle {
        /// What they do so far.
        from: Idle,
        /// What they do from now on.
        to: Idle,
    },
    /// Settings of a port that stays on its device, or the peer of a patch port. Addresses are changes of their own.
    Set {
        /// The port.
        name: String,
        /// What it is so far.
        from: Box<Port>,
        /// What it is to be.
        to: Box<Port>,
    },
    /// A port has another device of the same driver, as one with other options; the rest stays.
    Exchange {
        /// The port.
        name: String,
        /// What it is with the device so far, and with all settings that it is to have.
        from: Box<Port>,
        /// What it is to be.
        to: Box<Port>,
    },
    /// An address is always behind a port from now on.
    Remember {
        /// The port.
        port: String,
        /// The address.
        address: Address,
    },
    /// A port goes.
    RemovePort {
        /// Its name.
        name: String,
        /// What it is so far.
        port: Port,
    },
    /// A vDPA device goes.
    RemoveVdpa {
        /// Its name.
        name: String,
        /// What it is so far.
        device: Vdpa,
    },
    /// A mirror comes, goes, or copies something else.
    Mirror {
        /// Its name.
        name: String,
        /// What it is so far; `None`: not there.
        from: Option<Box<Mirror>>,
        /// What it is to be.
        to: Option<Box<Mirror>>,
    },
    /// A port comes, with its addresses.
    AddPort {
        /// Its name.
        name: String,
        /// What it is to be.
        port: Port,
    },
    /// A vDPA device comes.
    AddVdpa {
        /// Its name.
        name: String,
        /// What it is to be.
        device: Vdpa,
    },
}

/// Who does the work: workers on these cores, or so many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// One worker on each.
    pub cores: Option<CoreList>,
    /// Their number where no cores are given.
    pub workers: Option<usize>,
}

impl Workers {
    fn of(state: &State) -> Self {
        Self { cores: state.cores.clone(), workers: state.workers }
    }

    /// The cores, and how many workers there are where that is empty.
    pub(crate) fn places(&self) -> (&[usize], usize) {
        let cores = self.cores.as_ref().map_or(&[][..], CoreList::as_slice);
        (cores, self.workers.unwrap_or(cores.len()))
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cores {
            Some(cores) => write!(f, "on cores {cores}"),
            None => write!(f, "{}", self.places().1),
        }
    }
}

/// What workers without frames do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Whether they never sleep.
    pub busy_poll: bool,
    /// For how long they poll before they do, in microseconds.
    pub idle_after: u64,
}

impl Idle {
    /// What a [resolved](State::resolved) state says.
    fn of(state: &State) -> Option<Self> {
        Some(Self { busy_poll: state.busy_poll?, idle_after: state.idle_after? })
    }
}

/// A setting that holds from the start of a switch to its end, and its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its key in the file, as in `fdb.size`.
    pub key: String,
    /// The value so far.
    pub from: String,
    /// The value that it was to have.
    pub to: String,
}

/// What differs between two states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// What a running switch can change, in the order in which it is to be done: what may be
    /// refused comes before what goes, and what goes before what comes in its place.
    pub changes: Vec<Change>,
    /// What it cannot.
    pub fixed: Vec<Setting>,
}

/// The changes that make `new` of `old`, both [resolved](State::resolved).
#[must_use]
pub fn diff(old: &State, new: &State) -> Diff {
    let mut diff = Diff { changes: forgotten(old, new), fixed: fixed(old, new) };
    if let (Some(from), Some(to)) = (Idle::of(old), Idle::of(new))
        && from != to
    {
        diff.changes.push(Change::Idle { from, to });
    }
    // More workers come before ports are told to use them, and fewer are left when none does any
    // more.
    let (from, to) = (Workers::of(old), Workers::of(new));
    let is_more = to.places().1 >= from.places().1;
    let workers = (from != to).then_some(Change::Workers { from, to });
    let (more, fewer) = if is_more { (workers, None) } else { (None, workers) };
    diff.changes.extend(more);
    diff.changes.extend(set_bridges(old, new));
    diff.changes.extend(bridges_removed(new, old).map(|change| change.inverse()));
    diff.changes.extend(set(old, new));
    diff.changes.extend(remembered(old, new));
    diff.changes.extend(removed(old, new));
    diff.changes.extend(bridges_removed(old, new));
    diff.changes.extend(fewer);
    diff.changes.extend(mirror::changes(old, new));
    diff.changes.extend(exchanged(old, new));
    diff.changes.extend(added(old, new));
    diff
}

/// Whether it is a patch port, which stays whatever its peer is.
fn is_patch(from: &Port, to: &Port) -> bool {
    from.peer().is_some() && to.peer().is_some()
}

/// Whether port `name` stays where its device string becomes another one: it is of the same driver, and no
/// other port has or had such a device. What is known behind it stays, too.
fn stays(states: [&State; 2], name: &str, [from, to]: [&Port; 2]) -> bool {
    let driver = |port: &Port| port.device.split_once(':').map(|(driver, _)| driver.to_owned());
    let is_device = driver(from)
        .is_some_and(|driver| !["patch", "bond"].contains(&driver.as_str()))
        && !from.is_tunnel();
    let is_others = |port: &Port| {
        let targets = [target(from), target(to)];
        target(port).is_some_and(|target| targets.contains(&Some(target)))
    };
    let others = states.into_iter().flat_map(|state| &state.ports);
    let mut others = others.filter(|(other, _)| *other != name);
    from.device == to.device
        || is_patch(from, to)
        || (is_device && driver(from) == driver(to) && !others.any(|(_, port)| is_others(port)))
}

/// A device string without its options; `None` where it has nothing else.
fn target(port: &Port) -> Option<&str> {
    port.device.split(',').next().filter(|target| !target.ends_with(':'))
}

/// Ports that stay, on another device.
fn exchanged(old: &State, new: &State) -> Vec<Change> {
    let others =
        kept(old, new).filter(|(_, from, to)| from.device != to.device && !is_patch(from, to));
    let change = |(name, from, to): (&String, &Port, &Port)| {
        let from = Port { device: from.device.clone(), ..to.clone() };
        Change::Exchange { name: name.clone(), from: Box::new(from), to: Box::new(to.clone()) }
    };
    others.map(change).collect()
}

/// Ports that are in both states, and stay.
fn kept<'a>(
    old: &'a State,
    new: &'a State,
) -> impl Iterator<Item = (&'a String, &'a Port, &'a Port)> {
    let both = old.ports.iter().filter_map(|(name, from)| {
        let to = new.ports.get(name)?;
        Some((name, from, to))
    });
    both.filter(|(name, from, to)| stays([old, new], name, [from, to]))
}

fn set(old: &State, new: &State) -> Vec<Change> {
    let differs = kept(old, new).filter_map(|(name, from, to)| {
        // Another device is a change of its own, but the peer of a patch port.
        let device = if is_patch(from, to) { &to.device } else { &from.device };
        let (device, addresses) = (device.clone(), from.addresses.clone());
        let to = Port { device, addresses, ..to.clone() };
        (to != *from).then(|| (name, Box::new(from.clone()), Box::new(to)))
    });
    differs.map(|(name, from, to)| Change::Set { name: name.clone(), from, to }).collect()
}

/// The bridges that are in both states and differ.
fn set_bridges(old: &State, new: &State) -> impl Iterator<Item = Change> {
    old.bridge_names().filter_map(|name| {
        let (from, to) = (old.bridge(name)?, new.bridge(name)?);
        (from != to).then(|| Change::SetBridge { name: name.to_owned(), from, to })
    })
}

fn bridges_removed(old: &State, new: &State) -> impl Iterator<Item = Change> {
    let gone = old.bridge_names().filter(|name| new.bridge(name).is_none());
    gone.filter_map(|name| {
        Some(Change::RemoveBridge { name: name.to_owned(), options: old.bridge(name)? })
    })
}

/// The addresses of a port that it does not have any more: all where it moves to another bridge.
fn forgotten(old: &State, new: &State) -> Vec<Change> {
    let each = kept(old, new).flat_map(|(port, from, to)| {
        let stays = |address: &&Address| to.bridge == from.bridge && to.addresses.contains(address);
        let gone = from.addresses.iter().filter(move |address| !stays(address));
        gone.map(|address| Change::Forget { port: port.clone(), address: *address })
    });
    each.collect()
}

fn remembered(old: &State, new: &State) -> Vec<Change> {
    forgotten(new, old).into_iter().map(|change| change.inverse()).collect()
}

fn removed(old: &State, new: &State) -> Vec<Change> {
    let stays = |name: &str, port: &Port| {
        new.ports.get(name).is_some_and(|to| stays([old, new], name, [port, to]))
    };
    let ports = old.ports.iter().filter(|(name, port)| !stays(name, port));
    let ports =
        ports.map(|(name, port)| Change::RemovePort { name: name.clone(), port: port.clone() });
    let devices = old.vdpa.iter().filter(|(name, device)| new.vdpa.get(*name) != Some(device));
    let devices = devices
        .map(|(name, device)| Change::RemoveVdpa { name: name.clone(), device: device.clone() });
    ports.chain(devices).collect()
}

fn added(old: &State, new: &State) -> impl Iterator<Item = Change> {
    removed(new, old).into_iter().map(|change| change.inverse())
}

impl Change {
    /// The change that undoes this one.
    #[must_use]
    pub fn inverse(&self) -> Self {
        match self.clone() {
            Self::Forget { port, address } => Self::Remember { port, address },
            Self::Remember { port, address } => Self::Forget { port, address },
            Self::Workers { from, to } => Self::Workers { from: to, to: from },
            Self::Idle { from, to } => Self::Idle { from: to, to: from },
            Self::AddBridge { name, options } => Self::RemoveBridge { name, options },
            Self::RemoveBridge { name, options } => Self::AddBridge { name, options },
            Self::SetBridge { name, from, to } => Self::SetBridge { name, from: to, to: from },
            Self::Set { name, from, to } => Self::Set { name, from: to, to: from },
            Self::Exchange { name, from, to } => Self::Exchange { name, from: to, to: from },
            Self::RemovePort { name, port } => Self::AddPort { name, port },
            Self::AddPort { name, port } => Self::RemovePort { name, port },
            Self::RemoveVdpa { name, device } => Self::AddVdpa { name, device },
            Self::AddVdpa { name, device } => Self::RemoveVdpa { name, device },
            Self::Mirror { name, from, to } => Self::Mirror { name, from: to, to: from },
        }
    }

    /// Makes the change in a state that it fits.
    pub fn apply(&self, state: &mut State) {
        match self {
            Self::Forget { port, address } => {
                let port = state.ports.get_mut(port);
                port.map(|port| port.addresses.remove(address));
            }
            Self::Remember { port, address } => {
                let port = state.ports.get_mut(port);
                port.map(|port| port.addresses.insert(*address));
            }
            Self::Workers { to, .. } => {
                state.cores.clone_from(&to.cores);
                state.workers = to.workers;
            }
            Self::Idle { to, .. } => {
                state.busy_poll = Some(to.busy_poll);
                state.idle_after = Some(to.idle_after);
            }
            Self::SetBridge { name, to, .. } if name == DEFAULT_BRIDGE => {
                state.set_default_bridge(to.into());
            }
            Self::AddBridge { name, options: to } | Self::SetBridge { name, to, .. } => {
                state.bridges.insert(name.clone(), to.into());
            }
            Self::RemoveBridge { name, .. } => _ = state.bridges.shift_remove(name),
            Self::Set { name, to, .. } => {
                if let Some(port) = state.ports.get_mut(name) {
                    let addresses = std::mem::take(&mut port.addresses);
                    *port = Port { addresses, ..Port::clone(to) };
                }
            }
            Self::Exchange { name, to, .. } => {
                if let Some(port) = state.ports.get_mut(name) {
                    port.device.clone_from(&to.device);
                }
            }
            Self::RemovePort { name, .. } => _ = state.ports.shift_remove(name),
            Self::RemoveVdpa { name, .. } => _ = state.vdpa.shift_remove(name),
            Self::AddPort { name, port } => _ = state.ports.insert(name.clone(), port.clone()),
            Self::AddVdpa { name, device } => _ = state.vdpa.insert(name.clone(), device.clone()),
            Self::Mirror { name, to: Some(to), .. } => {
                state.mirrors.insert(name.clone(), Mirror::clone(to));
            }
            Self::Mirror { name, to: None, .. } => _ = state.mirrors.shift_remove(name),
        }
    }
}

impl fmt::Display for Change {
    /// One line; as many as there are settings for those of a port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forget { port, address } => write!(f, "port {port}: address {address} removed"),
            Self::Remember { port, address } => write!(f, "port {port}: address {address} added"),
            Self::Workers { from, to } => write!(f, "workers {from} -> {to}"),
            Self::Idle { from, to } => {
                let busy = (from.busy_poll != to.busy_poll)
                    .then(|| format!("busy-poll {} -> {}", from.busy_poll, to.busy_poll));
                let after = (from.idle_after != to.idle_after)
                    .then(|| format!("idle-after {} -> {}", from.idle_after, to.idle_after));
                let lines: Vec<String> = busy.into_iter().chain(after).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Mirror { name, from, to } => {
                f.write_str(&mirror::shown(name, from.as_deref(), to.as_deref()))
            }
            Self::AddBridge { name, .. } => write!(f, "bridge {name} added"),
            Self::RemoveBridge { name, .. } => write!(f, "bridge {name} removed"),
            Self::SetBridge { name, from, to } => {
                let of = match name.as_str() {
                    DEFAULT_BRIDGE => String::new(),
                    name => format!("bridge {name}: "),
                };
                let lines: Vec<String> = bridge_settings(from, to)
                    .map(|(key, from, to)| format!("{of}{key} {from} -> {to}"))
                    .collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Set { name, from, to } => {
                let lines: Vec<String> = settings(from, to)
                    .map(|(key, from, to)| format!("port {name}: {key} {from} -> {to}"))
                    .collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Exchange { name, from, to } => {
                write!(f, "port {name}: device {} -> {}", from.device, to.device)
            }
            Self::RemovePort { name, port } => write!(f, "port {name} removed: {}", port.device),
            Self::AddPort { name, port } => write!(f, "port {name} added: {}", port.device),
            Self::RemoveVdpa { name, device } => {
                write!(f, "vDPA device {name} removed: {}", device.device)
            }
            Self::AddVdpa { name, device } => {
                write!(f, "vDPA device {name} added: {}", device.device)
            }
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, from, to } = self;
        write!(f, "{key} {from} -> {to}, which takes a new start of the switch")
    }
}

/// The settings of a bridge that differ, by their keys in the file.
fn bridge_settings(
    from: &BridgeOptions,
    to: &BridgeOptions,
) -> impl Iterator<Item = (&'static str, String, String)> {
    let all = |options: &BridgeOptions| {
        let snooping = options.mcast_snooping;
        let address = snooping.querier_address;
        [
            ("group-fwd-mask", options.group_fwd_mask.to_string()),
            ("vlan-aware", options.vlan_aware.to_string()),
            ("any-source", options.any_source.to_string()),
            ("fdb.ageing", options.ageing.as_secs().to_string()),
            ("fdb.size", options.fdb_limit.to_string()),
            ("fdb.learn-per-burst", options.learn_per_burst.to_string()),
            ("rstp", shown(serde_json::to_value(&options.rstp).ok().as_ref())),
            ("mcast-snooping.enabled", snooping.enabled.to_string()),
            ("mcast-snooping.aging-time", snooping.aging_time.to_string()),
            ("mcast-snooping.table-size", snooping.table_size.to_string()),
            (
                "mcast-snooping.disable-flood-unregistered",
                snooping.disable_flood_unregistered.to_string(),
            ),
            ("mcast-snooping.querier", snooping.querier.to_string()),
            (
                "mcast-snooping.querier-address",
                address.map_or_else(|| "default".to_owned(), |address| address.to_string()),
            ),
        ]
    };
    let pairs = all(from).into_iter().zip(all(to));
    pairs.filter(|(from, to)| from != to).map(|((key, from), (_, to))| (key, from, to))
}

/// The settings of a port that differ, by their keys in the file.
fn settings(from: &Port, to: &Port) -> impl Iterator<Item = (String, String, String)> {
    let map = |port: &Port| {
        // Values that are as by default are left out of the file.
        let port = Port { enabled: true, ..port.clone() };
        match serde_json::to_value(port) {
            Ok(Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        }
    };
    let (old, new) = (map(from), map(to));
    let mut keys: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
    keys.order();
    keys.dedup();
    let differing = keys.into_iter().filter_map(move |key| {
        let (old, new) = (old.get(&key), new.get(&key));
        (old != new).then(|| (key, shown(old), shown(new)))
    });
    let enabled = (from.enabled != to.enabled)
        .then(|| ("enabled".to_owned(), from.enabled.to_string(), to.enabled.to_string()));
    differing.chain(enabled)
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "default".to_owned(), Value::to_string)
}

/// The settings that hold from the start to the end.
fn fixed(old: &State, new: &State) -> Vec<Setting> {
    // Named one by one, so that a new field has to be thought of here.
    let State {
        control,
        control_group,
        control_mode,
        cores: _,
        workers: _,
        busy_poll: _,
        group_fwd_mask: _,
        vlan_aware: _,
        any_source: _,
        rstp: _,
        idle_after: _,
        sockets: Sockets { group, mode },
        metrics,
        sandbox: Sandbox { enabled, ports: kinds, paths },
        fdb: _,
        mcast_snooping: _,
        bridges: _,
        mirrors: _,
        ports: _,
        vdpa: _,
        lone_patches: _,
        mtu_is_wish: _,
    } = old;
    let mut found = Vec::new();
    let mut compare = |key: &str, from: &dyn erased::Shown, to: &dyn erased::Shown| {
        let (from, to) = (from.text(), to.text());
        if from != to {
            found.push(Setting { key: key.to_owned(), from, to });
        }
    };
    compare("control", control, &new.control);
    let octal = |mode: Option<u32>| mode.map(|mode| format!("{mode:04o}"));
    compare("control-group", control_group, &new.control_group);
    compare("control-mode", &octal(*control_mode), &octal(new.control_mode));
    compare("sockets.group", group, &new.sockets.group);
    compare("sockets.mode", &octal(*mode), &octal(new.sockets.mode));
    compare("metrics.address", &address(metrics), &address(&new.metrics));
    compare("metrics.group", &metrics.group, &new.metrics.group);
    compare("metrics.mode", &octal(metrics.mode), &octal(new.metrics.mode));
    compare("sandbox.enabled", enabled, &new.sandbox.enabled);
    compare("sandbox.ports", kinds, &new.sandbox.ports);
    compare("sandbox.paths", paths, &new.sandbox.paths);
    found
}

fn address(metrics: &Metrics) -> Option<String> {
    metrics.address.as_ref().map(ToString::to_string)
}

/// Values as text, for comparison and for people.
mod erased {
    use serde::Serialize;

    pub(super) trait Shown {
        fn text(&self) -> String;
    }

    impl<T: Serialize> Shown for T {
        fn text(&self) -> String {
            match serde_json::to_value(self) {
                Ok(serde_json::Value::Null) | Err(_) => "default".to_owned(),
                Ok(value) => value.to_string(),
            }
        }
    }
}
