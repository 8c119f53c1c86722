//! The switch and its main loop.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use daemon::state::Sandbox as Limits;
use daemon::{Daemon, Options, State};
use drivers::open;
use eal::Access;
use eal::sandbox::{CapabilitySet, Needs};
use eal::signals::Signals;
use eal::time::Time;
use eal::unix::Listener;
use ovs::device::Dummies;
use ovs::pmd::Cores;
use ovs::unixctl::Server as Unixctl;
use ovs::{Agent, Settings};
use rustix::event::PollFlags;
use serde_json::Value;
use tls::Watch;
use tracing::level_filters::LevelFilter;

use super::args::OvsArgs;
use super::commands::{Appctl, Baseline};
use super::detach;
use super::flows::{self, PathFlows};
use super::pidfile::PidFile;
use super::underlay::{self, Underlay};
use crate::answer::Control;
use crate::config::Source;
use crate::control::event::Topic;
use crate::control::listener::listen;
use crate::control::protocol::Request;
use crate::control::refusal::{Code, Refusal};
use crate::control::server::{self, Serve, Server, Takeover};
use crate::exit::Failure;
use crate::log;
use crate::metrics;
use crate::notify::Notifier;
use crate::output;
use crate::sandbox::Sandbox;
use crate::serve::{identity, raise_file_limit, shut_down};

/// Connections of `ovs-appctl` that wait to be accepted.
const BACKLOG: i32 = 64;

/// Only the user of this process may connect.
const OWNER: Access = Access { group: None, mode: Some(0o600) };

/// Runs it with these arguments, its name first.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let mut args = OvsArgs::parse_from(arguments);
    args.tls.make_absolute();
    let ended = if args.detach && !detach::is_detached() {
        detach::start(arguments)
    } else {
        run(&args).map(|()| ExitCode::SUCCESS)
    };
    ended.unwrap_or_else(|failure| {
        log::last_words(&failure);
        failure.code()
    })
}

fn run(args: &OvsArgs) -> Result<(), Failure> {
    eal::clock::begin();
    start_log(args)?;
    if detach::is_detached() {
        detach::settle(args.no_chdir)?;
    }
    let pid_file = args.pid_path();
    let _pid_file =
        pid_file.map(|path| PidFile::create(&path, args.overwrite_pidfile)).transpose()?;
    let signals = Signals::install().map_err(Failure::runtime)?;
    let notifier = Notifier::of_environment();
    raise_file_limit();
    let (listener, control_path) = control_socket(args)?;
    let unixctl = Listener::bind(&args.unixctl_path(), OWNER, BACKLOG);
    let unixctl = Unixctl::new(unixctl.map_err(Failure::runtime)?);

    let state = base(args, &control_path);
    let cores = cores(args);
    let metrics = metrics::listener::Listener::bind(&state.metrics)?;
    let is_test = args.dummies() != Dummies::None;
    let time = if is_test { Time::adjustable() } else { Time::system() };
    let alarm = time.alarm().map_err(Failure::runtime)?;
    // Once privileges are given up, no process can be started.
    let (tls, tls_watch) = args.tls.identity().unzip();
    let daemon = confined(&state, &control_path, &time)?;
    tracing::info!("ovs-vswitchd (Ringway) {}", env!("CARGO_PKG_VERSION"));
    let agent = Agent::new(Settings { tls, ..settings(args, &state, &time, cores) });
    let source = Source::of_state(state);
    let control = Control::new(daemon, signals, source, notifier, time.clone());
    let served = Vswitchd {
        control: control.with_metrics(metrics),
        baseline: Baseline::new(time.now()),
        time,
        log_file: args.log_path(),
        agent,
        flows: PathFlows::new(is_test),
        underlay: Underlay::new(args.disable_system_route),
        tls: tls_watch,
        unixctl,
        ends: false,
        is_ready: false,
        waits: detach::is_detached().then_some(args.log_path().is_some()),
    };
    let mut server = Server::new(listener, server::Limits::default(), alarm, served);
    let ended = server.run(signals.as_fd(), signals.hung_up().as_fd());
    let mut served = server.into_served();
    served.appctl().0.end_exports();
    shut_down(ended, served.control)
}

fn start_log(args: &OvsArgs) -> Result<(), Failure> {
    args.log_path().map_or(Ok(()), |path| detach::log_to(&path))?;
    log::start_lines(args.level().parse().unwrap_or(LevelFilter::INFO));
    Ok(())
}

/// The switch, after what it does not need was given up.
fn confined(state: &State, control: &Path, time: &Time) -> Result<Daemon, Failure> {
    let identity = identity(control);
    // Controllers and the database may be elsewhere. Sockets of guests are those of their VMM's user, as
    // libvirt's are, and which ones there will be is not known yet: root has to be able to connect.
    let needs = Needs::new().tcp().wish(CapabilitySet::DAC_OVERRIDE);
    let sandbox = Sandbox::enter_and(state, None, needs)?;
    let permit = Box::new(move |device: daemon::Device<'_>| sandbox.check(device));
    let options = Options { permit: Some(permit), time: time.clone(), identity };
    Ok(Daemon::start(state.clone(), options)?)
}

/// How the database is followed.
fn settings(args: &OvsArgs, base: &State, time: &Time, cores: Cores) -> Settings {
    let (remote, other_remotes) = args.remotes();
    Settings {
        remote,
        other_remotes,
        run: OvsArgs::run_dir(),
        base: base.clone(),
        dummies: args.dummies(),
        time: time.clone(),
        cores,
        tls: None,
    }
}

/// Our own control socket. Two of these processes may be at one database, of which one waits for the
/// other's end: where the usual place is taken, and no other was asked for, it has one of its own.
fn control_socket(args: &OvsArgs) -> Result<(Listener, PathBuf), Failure> {
    let usual = args.control_path();
    match listen(&usual, OWNER) {
        Err(_) if args.control.is_none() && usual.exists() => {
            let own = OvsArgs::run_dir().join(format!("ringway.{}.sock", std::process::id()));
            Ok((listen(&own, OWNER)?, own))
        }
        listener => Ok((listener?, usual)),
    }
}

/// The cores that workers can be on: for tests those that it says. The kernel is asked before the sandbox
/// keeps that from us.
fn cores(args: &OvsArgs) -> Cores {
    let dummy = args.dummy_numa.as_ref().filter(|_| args.dummies() != Dummies::None);
    let cores = dummy.map_or_else(Cores::of_system, |nodes| Cores::dummy(nodes));
    cores.tell();
    cores
}

/// What the command line says: everything but bridges and ports.
fn base(args: &OvsArgs, control: &Path) -> State {
    // Any kind of port may come, with its files anywhere, but those that no type of an interface is: a
    // module of the kernel would be looked for, which takes longer than the rest of the start.
    let kinds = open::list().map(|driver| driver.name).filter(|name| *name != "vduse");
    let kinds = kinds.map(str::to_owned).collect();
    let state = State {
        control: Some(control.to_owned()),
        metrics: args.metrics.section(),
        cores: args.cores.clone(),
        workers: args.workers,
        sandbox: Limits { enabled: None, ports: kinds, paths: vec!["/".into()] },
        mtu_is_wish: true,
        ..State::default()
    };
    state.resolved()
}

/// What is served.
struct Vswitchd {
    control: Control,
    agent: Agent,
    flows: PathFlows,
    underlay: Underlay,
    /// What is heard of the processes that speak TLS.
    tls: Option<Watch>,
    unixctl: Unixctl,
    time: Time,
    baseline: Baseline,
    log_file: Option<PathBuf>,
    /// `ovs-appctl exit`.
    ends: bool,
    /// Whether the switch was what the database says once.
    is_ready: bool,
    /// In the background: somebody waits for that; whether the log goes to a file.
    waits: Option<bool>,
}

impl Serve for Vswitchd {
    /// What the database decides is not for our own commands to change.
    fn handle(&mut self, request: Request) -> Result<Value, Refusal> {
        if request.changes_state() {
            let message = "ports and bridges of this switch are in Open vSwitch's database: use \
                           ovs-vsctl";
            return Err(Refusal::new(Code::NotPermitted, message));
        }
        self.control.handle(request)
    }

    fn subscribe(
        &mut self,
        client: u64,
        topics: Vec<Topic>,
        drop_rate: u64,
    ) -> Result<Value, Refusal> {
        self.control.subscribe(client, topics, drop_rate)
    }

    fn unsubscribe(&mut self, client: u64) {
        self.control.unsubscribe(client);
    }

    fn events(&mut self, client: u64) -> Option<String> {
        self.control.events(client)
    }

    fn takeover(&mut self) -> Option<Takeover> {
        self.control.takeover()
    }

    fn notice(&mut self) {
        let _ = self.control.signals().hung_up().drain();
    }

    fn next_turn(&self) -> Option<Duration> {
        let flows = self.flows.due(&self.time);
        let underlay = self.underlay.due(&self.agent, &self.time);
        let own = self.agent.due().into_iter().chain(flows).chain(underlay);
        self.control.next_turn().into_iter().chain(own).min()
    }

    fn turn(&mut self) {
        self.control.turn();
        if let Some(tls) = &mut self.tls {
            tls.look();
        }
        let (mut appctl, unixctl) = self.appctl();
        appctl.follow_database();
        flows::turn(&mut appctl);
        underlay::turn(&mut appctl);
        unixctl.run(|command, arguments| appctl.answer(command, arguments));
        if !self.is_ready && self.agent.is_settled() {
            self.is_ready = true;
            self.tell_ready();
        }
    }

    fn files(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let database = self.agent.fd().map(|fd| (fd, self.agent.interest()));
        let controllers = self.agent.controllers().map(|fd| (fd, PollFlags::IN));
        let routes = self.underlay.file().map(|fd| (fd, PollFlags::IN));
        let tls = self.tls.iter().flat_map(Watch::fds).map(|fd| (fd, PollFlags::IN));
        let others = database.into_iter().chain(controllers).chain(routes).chain(tls);
        self.unixctl.files().chain(others).chain(self.control.files()).collect()
    }

    fn is_done(&self) -> bool {
        self.ends && self.unixctl.is_idle()
    }
}

impl Vswitchd {
    /// What answers commands, and the sockets by which they come.
    fn appctl(&mut self) -> (Appctl<'_>, &mut Unixctl) {
        let Self { control, agent, flows, underlay, unixctl, ends, time, baseline, .. } = self;
        let (daemon, log_file) = (control.daemon_mut(), self.log_file.as_deref());
        let appctl =
            Appctl { daemon, agent, flows, underlay, time, baseline, log_file, waits: false, ends };
        (appctl, unixctl)
    }

    fn tell_ready(&mut self) {
        self.control.tell_ready();
        let told = match self.waits.take() {
            Some(logs_elsewhere) => detach::ready(logs_elsewhere),
            None => {
                output::line("ringway ovs-vswitchd ready: the switch is as the database says");
                Ok(())
            }
        };
        if let Err(error) = told {
            tracing::warn!("cannot tell that the switch is ready: {error}");
        }
    }
}
