//! A switch gives up what its ports do not need, before there are any.

use std::path::Path;
use std::sync::Arc;

use daemon::{Device, State};
use drivers::vhost_user::wants_pagers;
use eal::sandbox::{self, CapabilitySet, Entered, Missing, Needs, Reach};
use vhost::postcopy::Pagers;

use crate::exit::Failure;

/// What a switch has given up, if anything.
#[derive(Debug)]
pub struct Sandbox {
    entered: Option<Entered>,
    /// Processes for post-copy, which cannot be started any more, until the ports have them.
    _pagers: Option<Arc<Pagers>>,
}

impl Sandbox {
    /// Gives up what a switch of this state does not need. There are no other threads yet.
    pub fn enter(state: &State) -> Result<Self, Failure> {
        if state.sandbox.enabled == Some(false) {
            tracing::warn!("the sandbox is off: the switch keeps all its privileges");
            return Ok(Self { entered: None, _pagers: None });
        }
        let wanted = state.ports.values().any(|port| wants_pagers(&port.device));
        // A port that wants them says why there are none.
        let pagers = wanted.then(Pagers::shared).and_then(Result::ok);
        let entered = sandbox::enter(needs(state)?).map_err(|error| {
            Failure::runtime(format!("{error}; '--sandbox off' starts the switch without it"))
        })?;
        let capabilities = entered.capabilities();
        tracing::info!(%capabilities, files = entered.files, calls = entered.calls, "sandbox");
        if !entered.files {
            tracing::warn!("sandbox: this kernel has no Landlock; all files stay in reach");
        }
        if !entered.calls {
            tracing::warn!("sandbox: this kernel has no seccomp; all system calls stay allowed");
        }
        Ok(Self { entered: Some(entered), _pagers: pagers })
    }

    /// Whether `device` can be opened by now.
    ///
    /// # Errors
    /// When it needs what was given up; says what to set.
    pub fn check(&self, device: Device<'_>) -> Result<(), String> {
        let Some(entered) = &self.entered else { return Ok(()) };
        // A device string that is wrong is for whoever opens it to tell.
        let Ok(needs) = needs_of(device) else { return Ok(()) };
        let (text, kind) = match device {
            Device::Port(text) => (text, text.split_once(':').map_or(text, |(kind, _)| kind)),
            Device::Vdpa(vdpa) => (vdpa.device.as_str(), "vdpa"),
        };
        entered.permits(&needs).map_err(|missing| {
            let set = match &missing {
                Missing::Path(path) => format!("--allow-path {}", path.display()),
                _ => format!("--allow-port {kind}"),
            };
            format!(
                "'{text}' needs {missing}, which the switch gave up at its start (sandbox); start it \
                 with {set}, or have the port in its configuration"
            )
        })
    }
}

fn needs(state: &State) -> Result<Needs, Failure> {
    let control = state.control.as_deref().unwrap_or(Path::new("/"));
    let mut needs = sandbox::any_process().folder_of(control, Reach::SOCKETS);
    let ports = state.ports.values().map(|port| Device::Port(&port.device));
    for device in ports.chain(state.vdpa.values().map(Device::Vdpa)) {
        // What is wrong with a device is told when it is opened.
        needs = needs.and(needs_of(device).unwrap_or_default());
    }
    for kind in &state.sandbox.ports {
        let of_kind = drivers::needs(&format!("{kind}:")).map_err(|error| {
            Failure::usage(format!("kind of port '{kind}' for the sandbox: {error}"))
        })?;
        needs = needs.and(of_kind);
    }
    let reach = Reach::READ | Reach::WRITE | Reach::SOCKETS | Reach::FILES;
    for path in &state.sandbox.paths {
        needs = needs.path(path, reach);
    }
    Ok(match state.sockets.group {
        Some(_) => needs.wish(CapabilitySet::CHOWN),
        None => needs,
    })
}

/// What a port, or vDPA device, needs.
fn needs_of(device: Device<'_>) -> Result<Needs, ethdev::Error> {
    match device {
        Device::Vdpa(vdpa) => vdpa.needs(),
        Device::Port(text) => {
            drivers::open::check(text)?;
            drivers::needs(text)
        }
    }
}
