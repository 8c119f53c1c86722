//! `ringway vdpa`: attaches devices to sockets, and keeps them there.

use std::io::IsTerminal as _;

use daemon::{Hub, Vdpa};
use eal::sandbox::{CapabilitySet, Needs, Reach};
use eal::signals::Signals;
use eal::time::Time;
use ethdev::DeviceSpec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::args::{VdpaAction, VdpaArgs};
use super::input::{Input, Lines};
use super::prompt::{self, Outcome};
use super::report;
use crate::exit::Failure;
use crate::output;
use crate::sandbox::Sandbox;
use crate::table::colour_stdout;

/// `ringway vdpa`.
pub fn run(args: &VdpaArgs) -> Result<(), Failure> {
    if let Some(VdpaAction::List { json }) = &args.action {
        let found = vdpa::find();
        if *json {
            output::json_pretty(&report::found_json(&found));
        } else {
            output::text(&report::list(&found, &[], colour_stdout()));
        }
        return Ok(());
    }
    let signals = Signals::install().map_err(Failure::runtime)?;
    let wanted = wanted(args)?;
    // Before there are threads, which inherit it.
    let sandbox = Sandbox::enter_for(args.confine.sandbox, &[], needs(args, &wanted)?)?;
    let mut hub = Hub::new(args.sockets.access(), Time::system());
    if args.iface.is_some() {
        attach(&mut hub, &wanted, args)?;
    }
    ready(&hub);
    serve(&signals, &mut hub, &sandbox, args)?;
    tracing::info!("ending");
    Ok(())
}

/// The devices that were named, or whatever can be used, and their sockets, by which they are
/// called.
fn wanted(args: &VdpaArgs) -> Result<Vec<(String, Vdpa)>, Failure> {
    let Some(prefix) = &args.iface else { return Ok(Vec::new()) };
    let devices = if args.device.is_empty() { usable() } else { args.device.clone() };
    if devices.is_empty() && !args.interactive {
        return Err(Failure::runtime(
            "no vDPA device can be used now; 'ringway vdpa list' tells why, and docs/vdpa.md what \
             can be one",
        ));
    }
    // All strings first: a mistake in one starts nothing.
    for device in &devices {
        device.parse::<DeviceSpec>()?;
    }
    let place = |(number, device)| {
        let name = format!("{prefix}{number}");
        let socket = (&name).into();
        (name, Vdpa { device, socket, client: args.client, group: None, mode: None })
    };
    Ok(devices.into_iter().enumerate().map(place).collect())
}

/// What they need, and what commands may need later.
fn needs(args: &VdpaArgs, wanted: &[(String, Vdpa)]) -> Result<Needs, Failure> {
    let mut needs = Needs::new();
    for (_, vdpa) in wanted {
        needs = needs.and(vdpa.needs()?);
    }
    if args.sockets.access().group.is_some() {
        needs = needs.wish(CapabilitySet::CHOWN);
    }
    if args.interactive {
        needs = needs.path("/sys", Reach::READ);
        for device in usable() {
            needs = needs.and(vdpa::needs(&device.parse()?)?);
        }
        for path in &args.allow_path {
            needs = needs.path(path, Reach::SOCKETS);
        }
    }
    Ok(needs)
}

/// Attaches the devices: all that were named, or those that can be opened.
fn attach(hub: &mut Hub, wanted: &[(String, Vdpa)], args: &VdpaArgs) -> Result<(), Failure> {
    let named = !args.device.is_empty();
    for (name, vdpa) in wanted {
        match hub.open(name, vdpa) {
            Ok(()) => {}
            Err(error) if named => return Err(error.into()),
            Err(error) => tracing::error!("{error}; going on without it"),
        }
    }
    if hub.is_empty() && !args.interactive {
        return Err(Failure::runtime("none of the vDPA devices could be opened; see the log"));
    }
    Ok(())
}

/// The devices that nothing is known to be in the way of.
fn usable() -> Vec<String> {
    let found = vdpa::find().into_iter();
    found.filter(|found| found.obstacle.is_none()).map(|found| found.device).collect()
}

/// What tests and service managers wait for, and where each device is.
fn ready(hub: &Hub) {
    let devices = report::devices(hub);
    let plural = if devices.len() == 1 { "" } else { "s" };
    let mut text = format!("ringway vdpa ready: {} device{plural}\n", devices.len());
    for device in devices {
        text.push_str(&format!("{}  {}\n", device.socket, device.device));
    }
    output::text(&text);
}

/// Waits for a signal, and meanwhile carries commands out if there are to be any.
fn serve(
    signals: &Signals,
    hub: &mut Hub,
    sandbox: &Sandbox,
    args: &VdpaArgs,
) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    let prompt = if stdin.is_terminal() { prompt::PROMPT } else { "" };
    let mut lines = Lines::default();
    if args.interactive {
        output::text(prompt);
    }
    loop {
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if args.interactive {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::runtime(format!("cannot wait: {error}"))),
        }
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        if is_ready(0) {
            return Ok(());
        }
        if is_ready(1) {
            let Input::Lines(lines) = lines.read(&stdin) else { return Ok(()) };
            for line in lines {
                match prompt::execute(&line, hub, sandbox, args.client, colour_stdout()) {
                    Outcome::Say(text) => output::text(&format!("{text}{prompt}")),
                    Outcome::Failed(why) => output::text(&format!("error: {why}\n{prompt}")),
                    Outcome::Quit => return Ok(()),
                }
            }
        }
    }
}
