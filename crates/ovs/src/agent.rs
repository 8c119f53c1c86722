//! Keeps a switch as the database says, and the database informed about it.
//!
//! - `news`: what the database is told
//! - `trees`: since when ports have been what they are in spanning tree

pub(crate) mod news;
mod trees;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daemon::{Daemon, Missing, OTHER_POLICY, State};
use eal::time::{Time, later};
use litemap::LiteMap;
use ordered::Gather as _;
use ovsdb::{Client, Event, Outcome, Remote, TransactionId, Uuid};
use rustix::event::PollFlags;
use tls::Identity;

use self::news::exists;
pub use self::trees::Spans;
use self::trees::Trees;
use crate::content::{Content, decide, wanted};
use crate::controller::link::Link;
use crate::desired::{Desired, Problems, RESERVED};
use crate::device::{self, Dummies, Places};
use crate::export::{Exports, View};
use crate::features;
use crate::numbers::{Applicant, Numbers, PathNumbers};
use crate::pmd::{Cores, Pmd, Usage};
use crate::refused::Refused;
use crate::report;
use crate::shaping::{self, Kernel, Shaping};

/// How often links and counters are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How often statistics are written where the database does not say it.
const STATISTICS: Duration = Duration::from_secs(5);

/// The clock of the connection: a test that moves the other one does not hold a server up.
const CLOCK: Time = Time::system();

/// What the database does not say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the database is.
    pub remote: Remote,
    /// Where else it is looked for, in this order.
    pub other_remotes: Vec<Remote>,
    /// The folder of sockets that have no path of their own.
    pub run: PathBuf,
    /// Workers, sockets, limits: everything but bridges and ports.
    pub base: State,
    /// Which interfaces are dummy ports.
    pub dummies: Dummies,
    /// The clock by which links and counters are looked at.
    pub time: Time,
    /// The cores that workers can be on.
    pub cores: Cores,
    /// Who secures connections, with the keys for the database, which are those for controllers where it
    /// names none.
    pub tls: Option<Identity>,
}

/// The writer of the desired state that takes it from a database.
///
/// ```no_run
/// use std::time::Instant;
/// use daemon::{Daemon, Options, State};
/// use ovs::{Agent, Settings};
///
/// let settings = Settings {
///     remote: "unix:/run/openvswitch/db.sock".parse()?,
///     other_remotes: Vec::new(),
///     run: "/run/openvswitch".into(),
///     base: State::default(),
///     dummies: Default::default(),
///     time: Default::default(),
///     cores: Default::default(),
///     tls: None,
/// };
/// let mut daemon = Daemon::start(settings.base.clone(), Options::default())?;
/// let mut agent = Agent::new(settings);
/// loop {
///     agent.run(&mut daemon);
///     // Poll `agent.fd()` for `agent.interest()`, at most for `agent.due()`.
/// #   break;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    /// Whether the database may say something else than what the switch is.
    is_stale: bool,
    content: Option<Content>,
    problems: Problems,
    /// Interfaces that the system does not have.
    absent: Vec<String>,
    numbers: LiteMap<String, Numbers>,
    path_numbers: PathNumbers,
    /// The names of mirrors, by their rows.
    mirrors: LiteMap<Uuid, String>,
    /// What ports do by spanning tree.
    trees: Trees,
    /// Controllers of bridges.
    controllers: Link,
    /// What collectors are told.
    exports: Exports,
    /// Whether clients wait to be told what has come of their change.
    is_awaited: bool,
    /// The transaction under way: there is one at a time.
    under_way: Option<TransactionId>,
    /// That the database takes no news.
    refused: Refused,
    /// What the kernel shapes.
    shaping: Shaping,
    looked: Instant,
    counted: Instant,
    /// How often something had changed of links that are watched.
    watched: u64,
    /// How often bridges or ports became other ones.
    reconfigurations: u64,
    /// Whether another process's lock was told of.
    told: bool,
    /// Who polls what, and what that took lately.
    pmd: Pmd,
    usage: Usage,
    /// Goes last: with it goes the lock, and what another process takes over then has to be free.
    client: Client,
}

impl Agent {
    /// One that connects with the first [`run`](Self::run).
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let now = settings.time.now();
        let client = Client::new(settings.remote.clone(), wanted(), CLOCK.now());
        let client =
            client.or_at(settings.other_remotes.iter().cloned()).secured(settings.tls.clone());
        let pmd = Pmd::new(settings.cores.clone());
        let exports = Exports::default();
        Self {
            settings,
            is_stale: false,
            content: None,
            problems: Problems::new(),
            absent: Vec::new(),
            numbers: LiteMap::new(),
            path_numbers: PathNumbers::default(),
            mirrors: LiteMap::new(),
            trees: Trees::default(),
            controllers: Link::new(exports.counts()),
            exports,
            is_awaited: false,
            under_way: None,
            refused: Refused::default(),
            shaping: Shaping::default(),
            looked: now,
            counted: now,
            watched: 0,
            reconfigurations: 0,
            told: false,
            pmd,
            usage: Usage::new(now),
            client,
        }
    }

    /// The database.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// What the database said when the switch was made so last.
    #[must_use]
    pub const fn content(&self) -> Option<&Content> {
        self.content.as_ref()
    }

    /// The descriptor to be polled.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.client.fd()
    }

    /// What it is to be polled for.
    #[must_use]
    pub fn interest(&self) -> PollFlags {
        self.client.interest()
    }

    /// How long until [`run`](Self::run) has something to do although nothing comes.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let look = self.is_in_charge().then(|| later(self.looked, LOOK).min(self.usage.due()));
        let look = look.and_then(|due| self.settings.time.until(due));
        let exports = self.exports.due().and_then(|due| self.settings.time.until(due));
        let client = self.client.due().and_then(|due| CLOCK.until(due));
        look.into_iter().chain(exports).chain(client).min()
    }

    /// Whether whoever waits for the start may go on: the switch is as the database says, or it says nothing. While
    /// another process has the lock, which may be one that was killed and that the database still knows, it is not.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.content.is_some() || self.is_in_charge()
    }

    /// What collectors are told.
    #[must_use]
    pub const fn exports(&self) -> &Exports {
        &self.exports
    }

    /// The same, to be told of packets.
    pub const fn exports_mut(&mut self) -> &mut Exports {
        &mut self.exports
    }

    /// Waits until controllers have been told of all packets that were for them by now: for tests.
    pub fn settle_controllers(&self) {
        self.controllers.settle();
    }

    /// What else is to be polled for reading: controllers want something.
    #[must_use]
    pub fn controllers(&self) -> Option<BorrowedFd<'_>> {
        self.controllers.fd()
    }

    /// Whether it is waiting for an answer to what it has written.
    #[must_use]
    pub const fn is_writing(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether the database is there and its lock is ours.
    #[must_use]
    pub fn is_in_charge(&self) -> bool {
        self.client.session().is_online() && self.client.session().is_locked()
    }

    /// The OpenFlow number of port `name` of `bridge`.
    #[must_use]
    pub fn number(&self, bridge: &str, name: &str) -> Option<u16> {
        self.numbers.get(bridge)?.of(name)
    }

    /// The port of `bridge` with this OpenFlow number.
    #[must_use]
    pub fn port(&self, bridge: &str, number: u16) -> Option<&str> {
        self.numbers.get(bridge)?.name(number)
    }

    /// The numbers of ports in the data path.
    #[must_use]
    pub const fn path_numbers(&self) -> &PathNumbers {
        &self.path_numbers
    }

    /// Gives a port another number in the data path: for tests.
    ///
    /// # Errors
    /// There is no such port, or another one has that number.
    pub fn renumber(&mut self, port: &str, number: u32) -> Result<(), &'static str> {
        self.path_numbers.renumber(port, number)
    }

    /// How often bridges or ports became other ones, as the database said.
    #[must_use]
    pub const fn reconfigurations(&self) -> u64 {
        self.reconfigurations
    }

    /// Who polls what.
    #[must_use]
    pub const fn pmd(&self) -> &Pmd {
        &self.pmd
    }

    /// What workers and queues did in the last minute.
    #[must_use]
    pub const fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Divides queues among workers by what they took lately, with the next [`run`](Self::run).
    pub const fn rebalance(&mut self) {
        self.pmd.rebalance();
        self.is_stale = true;
    }

    /// Which interfaces are dummy ports.
    #[must_use]
    pub const fn dummies(&self) -> Dummies {
        self.settings.dummies
    }

    /// Makes the switch what the database says with the next [`run`](Self::run), whether that says
    /// something new or not.
    pub const fn again(&mut self) {
        self.is_stale = true;
    }

    /// Takes what the database says. Returns whether the next [`run`](Self::run) makes the switch that: whatever
    /// goes by what it was is to be done before.
    pub fn hear(&mut self) -> bool {
        for event in self.client.run(CLOCK.now()) {
            self.take(&event);
        }
        self.is_stale && self.is_in_charge()
    }

    /// Takes what the database says, makes the switch that, and tells it what has come of it. Never waits.
    pub fn run(&mut self, daemon: &mut Daemon) {
        let now = self.settings.time.now();
        self.hear();
        self.is_awaited |= self.controllers.serve(daemon);
        // Whether the database is there or not.
        self.export(daemon, now, Exports::run);
        if !self.is_in_charge() {
            return self.tell_who_is();
        }
        let is_time = now >= later(self.looked, LOOK);
        self.is_stale |= is_time && self.absent.iter().any(|name| exists(name));
        if !self.is_stale && self.pmd.wants_balance(now, &self.usage) {
            self.rebalance();
        }
        if std::mem::take(&mut self.is_stale) {
            self.reconfigure(daemon);
            self.is_awaited = true;
        }
        let changes = self.pmd.changes();
        if self.usage.wants(now, changes) {
            let switch = daemon.switch();
            self.usage.look((now, changes), &switch.workers(), &switch.samples());
        }
        let watched = daemon.switch().watch_changes();
        self.is_awaited |= watched != std::mem::replace(&mut self.watched, watched);
        if let (true, Some(content)) = (is_time || self.is_awaited, &self.content) {
            self.trees.look(content, &daemon.switch().rstp(), now);
        }
        let may_write = self.under_way.is_none() && !self.refused.waits(now);
        if is_time || self.is_awaited {
            self.shape(daemon);
        }
        if (is_time || self.is_awaited) && may_write {
            self.looked = now;
            self.is_awaited = false;
            let counts = now >= later(self.counted, self.statistics_interval());
            if counts {
                self.counted = now;
            }
            self.report(daemon, counts);
        }
    }

    /// Has the kernel shape what goes out where the database wants that.
    fn shape(&mut self, daemon: &Daemon) {
        let Some(content) = &self.content else { return };
        let device = |name: &str| daemon.state().ports.get(name).map(|port| port.device.as_str());
        let wanted: Vec<_> = content
            .interfaces()
            .filter(|(_, port, name, _)| {
                device(name).is_some_and(|device| shaping::is_shaped(device, port.qos.as_ref()))
            })
            .filter_map(|(_, port, name, _)| Some((name, port.qos.as_ref()?)))
            .collect();
        if wanted.is_empty() && self.shaping.is_idle() {
            return;
        }
        let link = |name: &str| {
            let report = daemon.switch().port(name).ok();
            let speed = report.as_ref().and_then(|report| report.link.speed_mbps);
            shaping::Link {
                mtu: report.map_or(1_500, |report| report.mtu),
                speed: speed.map(|mbps| u64::from(mbps).saturating_mul(125_000)),
            }
        };
        let wanted = wanted.into_iter().map(|(name, qos)| (name, qos, link(name)));
        // What it refuses is for the switch to limit.
        self.is_stale |= self.shaping.follow(wanted, &System);
    }

    /// Tells collectors what there is to tell, whether or not it is time for that: for tests.
    pub fn export_now(&mut self, daemon: &Daemon) {
        self.export(daemon, self.settings.time.now(), Exports::run_now);
    }

    /// Tells collectors what they were not told yet, since the switch ends.
    pub fn end_exports(&mut self, daemon: &Daemon) {
        self.export(daemon, self.settings.time.now(), Exports::end);
    }

    /// Tells collectors what there is to tell.
    fn export(&mut self, daemon: &Daemon, now: Instant, tell: fn(&mut Exports, &View<'_>)) {
        let Self { exports, content, numbers, settings, .. } = self;
        if let Some(content) = content {
            let has_dummies = settings.dummies != Dummies::None;
            tell(exports, &View { daemon, content, numbers, has_dummies, now });
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Online | Event::Locked(true) => self.is_stale = true,
            Event::Changed(changes) => {
                if decide(changes) {
                    self.is_stale = true;
                    // What was refused before may be taken now.
                    self.refused = Refused::default();
                }
            }
            Event::Locked(false) => self.told = false,
            Event::Ended(id, outcome) if self.under_way == Some(*id) => {
                self.under_way = None;
                match outcome {
                    Outcome::Done(_) => self.refused = Refused::default(),
                    refusal => {
                        let now = self.settings.time.now();
                        if let Some(wait) = self.refused.again(&refusal.to_string(), now) {
                            tracing::warn!(
                                "cannot write to the database: {refusal}; trying again in {} s",
                                wait.as_secs()
                            );
                        }
                    }
                }
            }
            Event::Ended(..) => {}
            Event::Offline(reason) => {
                self.under_way = None;
                tracing::info!("the database is gone ({reason}); the switch goes on as it is");
            }
        }
    }

    fn tell_who_is(&mut self) {
        let has_lock = self.client.session().is_locked();
        if self.client.session().is_online()
            && !has_lock
            && !std::mem::replace(&mut self.told, true)
        {
            // As Open vSwitch says it; the number is our own.
            tracing::error!(
                "another ovs-vswitchd process is running, disabling this process (pid {}) until it \
                 goes away",
                std::process::id()
            );
        }
    }

    /// Makes the switch what the database says.
    fn reconfigure(&mut self, daemon: &mut Daemon) {
        let Some(content) = Content::read(self.client.cache()) else { return };
        let Settings { run, dummies, .. } = &self.settings;
        let shapes = |name: &str| self.shaping.can(name);
        let places = Places { dummies: *dummies, run, exists: &exists, shapes: &shapes };
        let mut desired = Desired::new(&content, &self.settings.base, places);
        let usage = &self.usage;
        self.pmd.adjust(&content, &mut desired.state, |port, queue| usage.load(port, queue));
        self.controllers.adjust(&mut desired.state);
        self.assign_numbers(&content);
        desired.number_links(|bridge, port| self.number(bridge, port));
        self.controllers.hold();
        // Which MTU a device can have is known once it was asked for.
        desired.fit_mtus(&content, |name, port| mtu_of(daemon, name, port));
        let mut has_changed = self.apply(&mut desired, daemon);
        if desired.fit_mtus(&content, |name, port| mtu_of(daemon, name, port)) {
            has_changed |= self.apply(&mut desired, daemon);
        }
        if self.settings.dummies != Dummies::None {
            // Open vSwitch opens their files at each change, which tests have that take them away.
            daemon.switch().dummies().renew_files();
        }
        if has_changed && !content.bridges.is_empty() {
            self.reconfigurations = self.reconfigurations.saturating_add(1);
        }
        let devices = content.interfaces().filter(|(.., row)| row.kind != "patch");
        let devices = devices.map(|(_, _, name, row)| (name, device::path_name(row)));
        self.path_numbers.assign(devices, self.settings.dummies != Dummies::None);
        self.controllers.update(&content, &self.numbers, daemon, &self.settings);
        let before = self.content.as_ref().map(|content| &content.zones);
        content.zones.apply(before, &daemon.switch().connections());
        self.tell_news(&content, &desired);
        let has_dummies = self.settings.dummies != Dummies::None;
        let now = self.settings.time.now();
        self.exports.update(&View {
            daemon,
            content: &content,
            numbers: &self.numbers,
            has_dummies,
            now,
        });
        self.mirrors = desired.mirrors;
        self.problems = desired.problems;
        self.absent = desired.absent;
        self.content = Some(content);
    }

    /// Has the switch be so, but for what it cannot be; gives whether it was otherwise.
    fn apply(&mut self, desired: &mut Desired, daemon: &mut Daemon) -> bool {
        loop {
            match daemon.apply(desired.state.clone(), Missing::Retry) {
                Ok(applied) => return !applied.changes.is_empty(),
                Err(error) if desired.leave_out(&error, daemon.state()) => {}
                Err(error) if self.gives_up(&error, desired, daemon.state()) => {}
                Err(error) => {
                    tracing::error!("what the database says cannot be done: {error}");
                    return false;
                }
            }
        }
    }

    /// Has workers stay as they are if they cannot become others, so that all the rest can.
    fn gives_up(&mut self, error: &daemon::Error, desired: &mut Desired, before: &State) -> bool {
        let usage = &self.usage;
        self.pmd.give_up(error, &mut desired.state, before, |port, queue| usage.load(port, queue))
    }

    /// Gives ports their numbers of OpenFlow.
    fn assign_numbers(&mut self, content: &Content) {
        for (name, row) in &content.bridges {
            let ports = row.ports.values().flat_map(|port| &port.interfaces);
            let applicants: Vec<Applicant<'_>> = ports
                .map(|(name, interface)| Applicant {
                    name,
                    request: interface.ofport_request,
                    before: report::number_before(interface),
                })
                .collect();
            self.numbers.entry(name.clone()).or_default().assign(name, &applicants);
        }
        self.numbers.retain(|name, _| content.bridges.contains_key(name));
    }

    /// Tells the log what bridges and interfaces are new, in Open vSwitch's words.
    fn tell_news(&self, content: &Content, desired: &Desired) {
        for (_, _, name, row) in content.interfaces() {
            let is_reserved = |all: &Problems| all.get(&row.row).is_some_and(|why| why == RESERVED);
            if is_reserved(&desired.problems) && !is_reserved(&self.problems) {
                tracing::warn!("could not create interface {name}, {RESERVED}");
            }
            let has_other_policy =
                |all: &Problems| all.get(&row.row).is_some_and(|why| why.contains(OTHER_POLICY));
            if has_other_policy(&desired.problems) && !has_other_policy(&self.problems) {
                tracing::warn!("{name}: could not set configuration (File exists)");
            }
        }
        let before = self.content.as_ref();
        let paths = |content: &Content| -> BTreeSet<&str> {
            content.bridges.values().map(|bridge| features::path_of(&bridge.datapath_type)).gather()
        };
        let old = before.map(paths).unwrap_or_default();
        paths(content).difference(&old).for_each(|path| features::tell(path));
        let had: BTreeSet<(&str, &str)> = before
            .into_iter()
            .flat_map(|content| content.interfaces().map(|(bridge, _, name, _)| (bridge, name)))
            .gather();
        for (bridge, _, name, _) in content.interfaces() {
            let is_there = desired.state.ports.contains_key(name);
            if let Some(number) = self.number(bridge, name).filter(|_| is_there)
                && !had.contains(&(bridge, name))
            {
                tracing::info!("bridge {bridge}: added interface {name} on port {number}");
            }
        }
        for (name, bridge) in &content.bridges {
            let id = report::datapath_id(bridge);
            let old = before.and_then(|content| content.bridges.get(name)).map(report::datapath_id);
            if old.as_ref() != Some(&id) {
                tracing::info!("bridge {name}: using datapath ID {id}");
            }
        }
    }

    fn statistics_interval(&self) -> Duration {
        let asked = self
            .content
            .as_ref()
            .and_then(|content| content.other_config.get("stats-update-interval")?.parse().ok());
        asked.map_or(STATISTICS, Duration::from_millis).max(STATISTICS)
    }
}

/// The kernel that there is.
struct System;

impl Kernel for System {
    fn index(&self, name: &str) -> Option<u32> {
        news::interface_index(name)
    }
}

/// Which MTU a port has that was asked to have the one that it is to have.
fn mtu_of(daemon: &Daemon, name: &str, port: &daemon::Port) -> Option<u16> {
    let before = daemon.state().ports.get(name)?;
    let was_asked = port.mtu.is_some() && before.mtu == port.mtu;
    let report = daemon.switch().port(name).ok().filter(|_| was_asked)?;
    Some(report.mtu)
}

#[cfg(test)]
mod tests;
