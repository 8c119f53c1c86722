//! A switch gives up what its ports do not need, before there are any.

use std::path::PathBuf;
use std::sync::Arc;

use drivers::vhost_user::wants_pagers;
use eal::sandbox::{self, CapabilitySet, Entered, Missing, Needs, Reach};
use vhost::postcopy::Pagers;

use crate::config::Config;
use crate::exit::Failure;
use crate::vdpa::placement::{Placement, is_vdpa};

/// Settings of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// Whether anything is given up.
    pub enabled: bool,
    /// Kinds of ports that may be added later, beside those that there are.
    pub ports: Vec<String>,
    /// Folders, or files, that ports which are added later may use.
    pub paths: Vec<PathBuf>,
}

/// What a switch has given up, if anything.
#[derive(Debug)]
pub struct Sandbox {
    entered: Option<Entered>,
    /// Processes for post-copy, which cannot be started any more, until the ports have them.
    _pagers: Option<Arc<Pagers>>,
}

impl Sandbox {
    /// Gives up what a switch of `config` does not need. There are no other threads yet.
    pub fn enter(config: &Config) -> Result<Self, Failure> {
        if !config.sandbox.enabled {
            tracing::warn!("the sandbox is off: the switch keeps all its privileges");
            return Ok(Self { entered: None, _pagers: None });
        }
        let wanted = config.ports.iter().any(|port| wants_pagers(&port.device));
        // A port that wants them says why there are none.
        let pagers = wanted.then(Pagers::shared).and_then(Result::ok);
        let entered = sandbox::enter(needs(config)?).map_err(|error| {
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

    /// Whether a port on `device` can be added by now.
    ///
    /// # Errors
    /// When it needs what was given up; says what to set.
    pub fn check(&self, device: &str) -> Result<(), String> {
        let Some(entered) = &self.entered else { return Ok(()) };
        // A device string that is wrong is for whoever opens it to tell.
        let Ok(needs) = needs_of(device) else { return Ok(()) };
        entered.permits(&needs).map_err(|missing| {
            let set = match &missing {
                Missing::Path(path) => format!("--allow-path {}", path.display()),
                _ => format!("--allow-port {}", kind(device)),
            };
            format!(
                "'{device}' needs {missing}, which the switch gave up at its start (sandbox); start it \
                 with {set}, or have the port in its configuration"
            )
        })
    }
}

fn needs(config: &Config) -> Result<Needs, Failure> {
    let mut needs = sandbox::any_process().folder_of(&config.control, Reach::SOCKETS);
    for port in &config.ports {
        // What is wrong with a device is told when it is opened.
        needs = needs.and(needs_of(&port.device).unwrap_or_default());
    }
    for kind in &config.sandbox.ports {
        let of_kind = drivers::needs(&format!("{kind}:")).map_err(|error| {
            Failure::usage(format!("kind of port '{kind}' for the sandbox: {error}"))
        })?;
        needs = needs.and(of_kind);
    }
    let reach = Reach::READ | Reach::WRITE | Reach::SOCKETS | Reach::FILES;
    for path in &config.sandbox.paths {
        needs = needs.path(path, reach);
    }
    Ok(match config.sockets.group {
        Some(_) => needs.wish(CapabilitySet::CHOWN),
        None => needs,
    })
}

/// What a port, or vDPA device, on `device` needs.
fn needs_of(device: &str) -> Result<Needs, ethdev::Error> {
    if !is_vdpa(device) {
        drivers::open::check(device)?;
        return drivers::needs(device);
    }
    let placement = Placement::parse(device)?;
    let socket = Needs::of_socket(&placement.socket, placement.client);
    Ok(vdpa::needs(&placement.device)?.and(socket))
}

/// What a device string begins with.
fn kind(device: &str) -> &str {
    device.split_once(':').map_or(device, |(kind, _)| kind)
}
