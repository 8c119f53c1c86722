//! `ringway switch`: runs a switch and serves its control socket.

use std::os::fd::AsFd as _;
use std::path::Path;

use daemon::{Daemon, Options, State};
use eal::files;
use eal::machine::MachineId;
use eal::signals::Signals;
use eal::time::Time;
use switch::Identity;

use crate::answer::Control;
use crate::cli::SwitchArgs;
use crate::config::{Config, Source};
use crate::control::listener::listen;
use crate::control::path::resolve;
use crate::control::server::{Limits, Server};
use crate::exit::Failure;
use crate::metrics;
use crate::notify::Notifier;
use crate::output;
use crate::sandbox::Sandbox;

/// Open files of a switch without ports, with some to spare for what comes and goes.
const OWN_FILES: u64 = 40;

/// Open files of a guest: its sockets, what wakes its workers, its control queue.
const FILES_PER_GUEST: u64 = 8;

/// Open files of a pair of queues: kick, call and error files, and what the worker waits for.
const FILES_PER_PAIR: u64 = 6;

/// `ringway switch`.
pub fn run(args: &SwitchArgs) -> Result<(), Failure> {
    eal::clock::begin();
    let config = Config::load(args, args.control.control.clone())?;
    let source = Source::new(args, &config);
    let state = config.state;
    if args.check {
        output::line(&checked_line(&state));
        return Ok(());
    }
    let signals = Signals::install().map_err(Failure::runtime)?;
    raise_file_limit();
    let access = eal::Access { group: state.control_group, mode: state.control_mode };
    // What a service manager gives is in reach now, and perhaps not later.
    let notifier = Notifier::of_environment();
    let listener = listen(&resolve(state.control.clone()), access)?;
    let metrics = metrics::listener::Listener::bind(&state.metrics)?;
    let identity = identity(&resolve(state.control.clone()));
    // Before there are threads: each would have to give things up by itself.
    let sandbox = Sandbox::enter(&state, source.file())?;
    let permit = Box::new(move |device: daemon::Device<'_>| sandbox.check(device));
    let time = if args.control_time { Time::adjustable() } else { Time::system() };
    let alarm = time.alarm().map_err(Failure::runtime)?;
    let options = Options { permit: Some(permit), time: time.clone(), identity };
    let daemon = Daemon::start(state, options)?;
    check_ports(&daemon)?;
    output::line(&format!("ringway switch ready: {}", status(&daemon)));
    notifier.ready(&status(&daemon));
    let control = Control::new(daemon, signals, source, notifier, time).with_metrics(metrics);
    let mut server = Server::new(listener, Limits::default(), alarm, control);
    let served = server.run(signals.as_fd(), signals.hung_up().as_fd());
    tracing::info!("ending");
    shut_down(served, server.into_served())
}

/// Ends the switch that was served, with what has come of serving it.
pub fn shut_down(served: std::io::Result<()>, control: Control) -> Result<(), Failure> {
    let report = control.end().shutdown();
    for (worker, message) in &report.panics {
        tracing::error!(worker, "a worker had ended by a panic: {message}");
    }
    served.map_err(|error| Failure::runtime(format!("control socket: {error}")))?;
    if report.panics.is_empty() {
        Ok(())
    } else {
        Err(Failure::runtime("a worker had ended by a panic; see the log"))
    }
}

/// By what the bonds of a switch are known that has this control socket: none other on the machine has.
/// To be called before anything is given up.
pub fn identity(control: &Path) -> Identity {
    let instance = control.as_os_str().to_string_lossy();
    MachineId::read().map_or_else(Identity::default, |id| Identity::new(id, instance))
}

/// Allows as many open files as the administrator does, and says how many guests will fit.
pub fn raise_file_limit() {
    let limit = files::raise_limit().unwrap_or_else(|error| {
        let limit = files::limit();
        tracing::warn!("cannot allow more open files than {limit}: {error}");
        limit
    });
    let guests = limit.saturating_sub(OWN_FILES) / (FILES_PER_GUEST + FILES_PER_PAIR);
    tracing::info!(
        limit,
        "a guest takes {FILES_PER_GUEST} open files and {FILES_PER_PAIR} for each pair of queues: \
         there is room for {guests} guests with one pair"
    );
}

/// One port that cannot be opened does not keep the others from working; but a switch that has
/// none of its ports is of no use.
fn check_ports(daemon: &Daemon) -> Result<(), Failure> {
    let State { ports, vdpa, .. } = daemon.state();
    let wanted = ports.len() + vdpa.len();
    if wanted > 0 && daemon.waiting().count() == wanted {
        return Err(Failure::runtime(
            "none of the ports could be opened, so the switch ends; see the log",
        ));
    }
    Ok(())
}

/// What a configuration that is good has.
pub fn checked_line(state: &State) -> String {
    let names: Vec<&str> =
        state.ports.keys().chain(state.vdpa.keys()).map(String::as_str).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!("the configuration is good; ports: {names}; nothing was opened")
}

/// What the switch has, in a line: for tests that wait for it, service managers and people.
pub fn status(daemon: &Daemon) -> String {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let state = daemon.state();
    let opened = daemon.switch().ports().len();
    let ports = match state.ports.len() {
        all if all == opened => format!("{opened} port{}", plural(opened)),
        all => format!("{opened} of {all} ports"),
    };
    let workers = match &state.cores {
        None => {
            let count = state.switch().workers;
            format!("{count} worker{}", plural(count))
        }
        Some(cores) => {
            let many = plural(cores.len());
            format!("worker{many} on core{many} {cores}")
        }
    };
    let devices = match daemon.hub().len() {
        0 => String::new(),
        count => format!(", {count} vDPA device{}", plural(count)),
    };
    let control = resolve(state.control.clone());
    let control = control.display();
    format!("{ports}{devices}, {workers}, control socket {control}")
}
