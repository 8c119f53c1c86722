//! Controllers of bridges: OpenFlow on the socket `BRIDGE.mgmt` of each bridge, and where the
//! database says.
//!
//! One thread serves all connections of all bridges, by polling; no lock that others wait for is
//! held while it works. What bridges are to be comes in by [`Service::update`]; what a controller
//! wants of the rest of the switch goes out as [`Wish`]es, which whoever has the switch takes and
//! answers.
//!
//! - [`alone`]: bridges whose controllers are not there
//! - [`bridge`](mod@bridge): one bridge, its sockets and connections
//! - [`datapath`]: the switch, as rules need it
//! - [`dial`]: controllers that we connect to
//! - [`flow_table`]: how tables of rules are to be set
//! - [`in_band`]: who is reached through bridges
//! - [`link`]: what the database and the switch have to do with it
//! - [`peer`]: a connection
//! - [`refusal`]: why who came last was refused
//! - [`row`]: what the database says of controllers
//! - [`server`]: the thread
//! - [`snooper`]: who listens to controllers
//! - [`sockets`]: listening and connecting
//! - [`target`]: where controllers are
//! - [`vconn`]: messages in the log

pub mod alone;
pub mod bridge;
pub mod datapath;
pub mod dial;
pub mod flow_table;
pub mod in_band;
pub mod link;
pub mod peer;
pub mod refusal;
pub mod row;
pub mod server;
pub mod snooper;
pub mod sockets;
pub mod target;
pub mod vconn;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use eal::EventFd;
use eal::channel::{Sender, channel};
use eal::time::Time;
use eal::unix::Listener;
use flow::VlanLimit;
use litemap::LiteMap;
use ofproto::{ConnectionId, Manner, Settings};
use openflow::message::role::Role;
use ordered::Gather as _;
use ovsdb::Uuid;
use switch::Sight;
use tls::{Identity, Verdict};

use self::in_band::InBandSpec;
use self::server::Server;
use self::target::Target;
use crate::export::IpfixCounts;

/// How long a controller may be silent, where nothing is said.
const PROBE: Duration = Duration::from_secs(5);

/// How long it is waited for that controllers are told.
const SETTLE: Duration = Duration::from_secs(5);

/// What a bridge is to be for controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeSpec {
    /// What controllers are told.
    pub settings: Settings,
    /// Numbers of ports, by name, and bits of their `config`.
    pub ports: LiteMap<String, (u16, u32)>,
    /// Numbers of queues of ports that have some, by name.
    pub queues: LiteMap<String, BTreeSet<u32>>,
    /// Classes of service that queues give packets, in the same way.
    pub marks: LiteMap<String, LiteMap<u32, u8>>,
    /// Controllers, by their rows.
    pub controllers: LiteMap<Uuid, ControllerSpec>,
    /// Whether it carries nothing as long as no controller says so (`fail_mode=secure`).
    pub is_secure: bool,
    /// Whether there are controllers beside these that decide, and are where nobody can be.
    pub has_lost: bool,
    /// How many tags its rules can match on.
    pub vlans: VlanLimit,
    /// Who is reached through it, whatever its rules say.
    pub in_band: InBandSpec,
}

/// A controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerSpec {
    /// Where it is.
    pub target: Target,
    /// The longest wait before it is tried again.
    pub max_backoff: Duration,
    /// How long it may be silent before it is asked whether it is there; `None`: for ever.
    pub probe: Option<Duration>,
    /// Whether it is one only on request, as a program on this machine.
    pub is_service: bool,
    /// What it is told at most, and unasked.
    pub manner: Manner,
    /// By which keys it is known, where what is said is secured.
    pub tls: Option<Identity>,
}

impl ControllerSpec {
    /// What is read and written in place of a connection, and how it ended, where it is to be secured.
    ///
    /// # Errors
    /// In words: there is no key, or nobody who secures it.
    fn secure(&self, socket: OwnedFd) -> Result<(OwnedFd, Option<Verdict>), String> {
        let Some(side) = self.target.secured() else { return Ok((socket, None)) };
        let nobody = "the process that speaks TLS could not be started: see the log of the start";
        let tunnel = self.tls.as_ref().ok_or(nobody)?.wrap(&socket, side)?;
        Ok((tunnel.plain, Some(tunnel.verdict)))
    }
}

/// What has become of a controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerStatus {
    /// Which part it has, once there is a connection of which the version is agreed on.
    pub role: Option<Role>,
    /// What is done for it, in the words of Open vSwitch.
    pub state: &'static str,
    /// Why there was no connection the last time.
    pub last_error: Option<String>,
}

/// What a controller wants of the rest of the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The bridge.
    pub bridge: String,
    /// Who wants it.
    pub connection: ConnectionId,
    /// What.
    pub job: ofproto::Job,
}

/// Bridges as they are to be, with their sockets.
type Bridges = LiteMap<String, (BridgeSpec, Sockets)>;

/// Sockets of a bridge, as far as they can be had.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    /// Where it is asked.
    management: Option<Arc<Listener>>,
    /// Where others listen to what it says to controllers.
    snoop: Option<Arc<Listener>>,
}

/// What both sides see. Nobody holds the lock while working.
#[derive(Debug, Default)]
struct Exchange {
    /// Whether there is news of them.
    next: Option<Bridges>,
    wishes: Vec<Wish>,
    granted: Vec<(String, ConnectionId)>,
    status: LiteMap<Uuid, ControllerStatus>,
    /// Told once all that has come so far is dealt with.
    settles: Vec<Sender<()>>,
    /// Whether bridges and ports are on their way to what they are to be.
    is_held: bool,
    /// How often they were.
    holds: u64,
    ends: bool,
}

#[derive(Debug)]
struct Shared {
    exchange: Mutex<Exchange>,
    /// There is something for the thread.
    inward: EventFd,
    /// There is something for the others.
    outward: EventFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often bridges and ports were on their way to what they are to be; `None` while they are.
    fn holds(&self) -> Option<u64> {
        let exchange = self.lock();
        (!exchange.is_held).then_some(exchange.holds)
    }
}

/// The thread that serves controllers. Dropping it ends that, and removes the sockets.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Where bridges' sockets are.
    run: PathBuf,
    sockets: LiteMap<(String, &'static str), Weak<Listener>>,
    last: LiteMap<String, BridgeSpec>,
}

impl Service {
    /// Starts it without bridges. `time` is the clock by which ports' ages are told.
    ///
    /// # Errors
    /// No thread or file descriptor is left.
    pub fn start(
        run: &Path,
        sight: Sight,
        ipfix: IpfixCounts,
        time: Time,
    ) -> std::io::Result<Self> {
        let (inward, outward) = (EventFd::new()?, EventFd::new()?);
        let shared = Arc::new(Shared { exchange: Mutex::default(), inward, outward });
        let theirs = Arc::clone(&shared);
        let server = Server::new(theirs, sight, ipfix, time);
        let thread = std::thread::Builder::new().name("openflow".to_owned());
        let thread = eal::thread::spawn(thread, move || server.run())?;
        let (sockets, last) = Default::default();
        Ok(Self { shared, thread: Some(thread), run: run.to_owned(), sockets, last })
    }

    /// Has nobody be told what ports are from now on, until [`update`](Self::update) says what they
    /// are to be: what is taken out meanwhile and put in again has never gone.
    pub fn hold(&self) {
        let mut exchange = self.shared.lock();
        exchange.is_held = true;
        exchange.holds = exchange.holds.wrapping_add(1);
    }

    /// Has bridges be so. When this returns, a connection to a bridge's socket sees the bridge so. Gives
    /// whether they were otherwise: what workers go by is another then, once it has
    /// [settled](Self::settle).
    pub fn update(&mut self, bridges: &LiteMap<String, BridgeSpec>) -> bool {
        if *bridges == self.last {
            self.shared.lock().is_held = false;
            let _ = self.shared.inward.signal();
            return false;
        }
        self.last.clone_from(bridges);
        self.sockets.retain(|(name, _), _| bridges.contains_key(name));
        let next = bridges.iter().map(|(name, spec)| {
            let management = self.socket(name, "mgmt");
            let sockets = Sockets { management, snoop: self.socket(name, "snoop") };
            (name.clone(), (spec.clone(), sockets))
        });
        let next = next.gather();
        {
            let mut exchange = self.shared.lock();
            exchange.next = Some(next);
            exchange.is_held = false;
        }
        let _ = self.shared.inward.signal();
        true
    }

    /// A socket of a bridge.
    fn socket(&mut self, name: &str, kind: &'static str) -> Option<Arc<Listener>> {
        let key = (name.to_owned(), kind);
        if let Some(socket) = self.sockets.get(&key).and_then(Weak::upgrade) {
            return Some(socket);
        }
        match sockets::of_bridge(&self.run, name, kind) {
            Ok(socket) => {
                let socket = Arc::new(socket);
                self.sockets.insert(key, Arc::downgrade(&socket));
                Some(socket)
            }
            Err(error) => {
                tracing::warn!("bridge {name}: no OpenFlow at its socket {kind}: {error}");
                None
            }
        }
    }

    /// Readable when there are wishes, or controllers have come or gone.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.outward.as_fd()
    }

    /// Whether it was so since this was called last.
    pub fn heed(&self) -> bool {
        self.shared.outward.drain().unwrap_or(true)
    }

    /// What controllers want. Each has to be [granted](Self::grant), whatever comes of it.
    #[must_use]
    pub fn wishes(&self) -> Vec<Wish> {
        std::mem::take(&mut self.shared.lock().wishes)
    }

    /// Says that a wish is fulfilled: its connection goes on.
    pub fn grant(&self, wish: Wish) {
        self.shared.lock().granted.push((wish.bridge, wish.connection));
        let _ = self.shared.inward.signal();
    }

    /// Waits until controllers have been told of all packets that were for them by now: for tests, and
    /// for a moment at most.
    pub fn settle(&self) {
        let (settled, wait) = channel();
        self.shared.lock().settles.push(settled);
        if self.shared.inward.signal().is_ok() {
            let _ = wait.recv_timeout(SETTLE);
        }
    }

    /// What has become of controllers, by their rows.
    #[must_use]
    pub fn status(&self) -> LiteMap<Uuid, ControllerStatus> {
        self.shared.lock().status.clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        let _ = self.shared.inward.signal();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
