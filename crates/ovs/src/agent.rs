//! Keeps a switch as the database says, and the database informed about it.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daemon::{Daemon, Missing, State};
use eal::time::{Time, later};
use ovsdb::{Client, Event, Outcome, Remote, Transaction, TransactionId};
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use switch::PortReport;

use crate::content::{Content, wanted};
use crate::desired::{Desired, Problems};
use crate::device::Places;
use crate::numbers::{Applicant, Numbers};
use crate::report;

/// How often links and counters are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How often statistics are written where the database does not say it.
const STATISTICS: Duration = Duration::from_secs(5);

/// What the database does not say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the database is.
    pub remote: Remote,
    /// The folder of sockets that have no path of their own.
    pub run: PathBuf,
    /// Workers, sockets, limits: everything but bridges and ports.
    pub base: State,
    /// The clock.
    pub time: Time,
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
///     run: "/run/openvswitch".into(),
///     base: State::default(),
///     time: Default::default(),
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
    client: Client,
    settings: Settings,
    /// Whether the database may say something else than what the switch is.
    is_stale: bool,
    content: Option<Content>,
    problems: Problems,
    /// Interfaces that the system does not have.
    absent: Vec<String>,
    numbers: BTreeMap<String, Numbers>,
    /// Whether clients wait to be told what has come of their change.
    is_awaited: bool,
    /// The transaction under way: there is one at a time.
    under_way: Option<TransactionId>,
    looked: Instant,
    counted: Instant,
    /// Whether another process's lock was told of.
    told: bool,
}

impl Agent {
    /// One that connects with the first [`run`](Self::run).
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let now = settings.time.now();
        let client = Client::new(settings.remote.clone(), wanted(), now);
        Self {
            client,
            settings,
            is_stale: false,
            content: None,
            problems: Problems::new(),
            absent: Vec::new(),
            numbers: BTreeMap::new(),
            is_awaited: false,
            under_way: None,
            looked: now,
            counted: now,
            told: false,
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
        let look = self.is_in_charge().then(|| later(self.looked, LOOK));
        let due = self.client.due().into_iter().chain(look).min()?;
        self.settings.time.until(due)
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

    /// Takes what the database says, and tells it what has come of it. Never waits.
    pub fn run(&mut self, daemon: &mut Daemon) {
        let now = self.settings.time.now();
        for event in self.client.run(now) {
            self.take(&event);
        }
        if !self.is_in_charge() {
            return self.tell_who_is();
        }
        let is_time = now >= later(self.looked, LOOK);
        self.is_stale |= is_time && self.absent.iter().any(|name| exists(name));
        if std::mem::take(&mut self.is_stale) {
            self.reconfigure(daemon);
            self.is_awaited = true;
        }
        if (is_time || self.is_awaited) && self.under_way.is_none() {
            self.looked = now;
            self.is_awaited = false;
            let counts = now >= later(self.counted, self.statistics_interval());
            if counts {
                self.counted = now;
            }
            self.report(daemon, counts);
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Online | Event::Changed(_) | Event::Locked(true) => self.is_stale = true,
            Event::Locked(false) => self.told = false,
            Event::Ended(id, outcome) if self.under_way == Some(*id) => {
                self.under_way = None;
                if !matches!(outcome, Outcome::Done(_)) {
                    tracing::warn!("cannot write to the database: {outcome}");
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
            tracing::error!(
                "another process is the switch of this database (it has the lock ovs_vswitchd); \
                 waiting until it ends"
            );
        }
    }

    /// Makes the switch what the database says.
    fn reconfigure(&mut self, daemon: &mut Daemon) {
        let Some(content) = Content::read(self.client.cache()) else { return };
        let places = Places { run: &self.settings.run, exists: &exists };
        let mut desired = Desired::new(&content, &self.settings.base, places);
        while let Err(error) = daemon.apply(desired.state.clone(), Missing::Retry) {
            if !desired.leave_out(&error, daemon.state()) {
                tracing::error!("what the database says cannot be done: {error}");
                break;
            }
        }
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
        self.problems = desired.problems;
        self.absent = desired.absent;
        self.content = Some(content);
    }

    /// Writes what is different from what the database has; with statistics, if `counts`.
    fn report(&mut self, daemon: &Daemon, counts: bool) {
        let Some(content) = &self.content else { return };
        let cache = self.client.cache();
        let mut news = Transaction::default();
        let version = env!("CARGO_PKG_VERSION");
        let mut root = report::root_columns(version);
        root.push(report::taken(content.next_cfg));
        report::write(&mut news, cache, "Open_vSwitch", content.root, root);
        for bridge in content.bridges.values() {
            report::write(&mut news, cache, "Bridge", bridge.row, report::bridge_columns(bridge));
        }
        let reports: BTreeMap<String, PortReport> =
            daemon.switch().ports().into_iter().map(|port| (port.name.clone(), port)).collect();
        let bonds = daemon.switch().bonds();
        let ports = content.bridges.values().flat_map(|bridge| &bridge.ports);
        for (name, port) in ports.filter(|(_, port)| port.interfaces.len() > 1) {
            let bond = bonds.iter().find(|bond| bond.name == *name);
            let active = bond.and_then(|bond| reports.get(bond.active.as_ref()?));
            report::write(&mut news, cache, "Port", port.row, report::port_columns(active));
        }
        let waiting: BTreeMap<&str, &str> = daemon.waiting().collect();
        for (bridge, _, name, interface) in content.interfaces() {
            let problem = self.problems.get(&interface.row).map(String::as_str);
            let problem = problem.or_else(|| waiting.get(name).copied());
            let open = reports.get(name);
            let number = self.number(bridge, name);
            let mut columns = report::interface_columns(name, number, open, problem);
            columns.extend(open.filter(|_| counts).map(report::statistics));
            report::write(&mut news, cache, "Interface", interface.row, columns);
        }
        if !news.is_empty() {
            self.under_way = self.client.transact(news).ok();
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

/// Whether the system has an interface of this name.
fn exists(name: &str) -> bool {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    socket.and_then(|socket| netdevice::name_to_index(socket, name)).is_ok()
}
