//! Commands give up what their ports do not need, before there are any.

use std::path::Path;
use std::sync::Arc;

use daemon::metrics::Endpoint;
use daemon::{Device, State, Vdpa};
use drivers::vhost_user::wants_pagers;
use eal::sandbox::{self, CapabilitySet, Entered, Missing, Needs, Reach};
use vhost::postcopy::Pagers;

use crate::exit::Failure;

/// What was given up, if anything.
#[derive(Debug)]
pub struct Sandbox {
    entered: Option<Entered>,
    /// Processes for post-copy, which cannot be started any more, until the ports have them.
    _pagers: Option<Arc<Pagers>>,
}

impl Sandbox {
    /// Gives up what a switch of this state does not need, which reads `file` again when it is told
    /// to. There are no other threads yet.
    pub fn enter(state: &State, file: Option<&Path>) -> Result<Self, Failure> {
        Self::enter_and(state, file, Needs::new())
    }

    /// The same where there is `more` to do than the state says.
    pub fn enter_and(state: &State, file: Option<&Path>, more: Needs) -> Result<Self, Failure> {
        if state.sandbox.enabled == Some(false) {
            return Ok(Self::off());
        }
        let devices = state.ports.values().map(|port| port.device.as_str());
        let sandbox = Self::enter_with(devices, || Ok(needs(state, file)?.and(more)))?;
        for missing in sandbox.missing_from_kernel() {
            tracing::warn!("sandbox: this kernel has no {missing}");
        }
        Ok(sandbox)
    }

    /// Gives up what a command does not need that has no other ports than on `devices`, and needs
    /// `more` beside them, unless it was told not to (`wanted`). There are no other threads yet.
    pub fn enter_for(wanted: Option<bool>, devices: &[&str], more: Needs) -> Result<Self, Failure> {
        if wanted == Some(false) {
            return Ok(Self::off());
        }
        let ports = devices.iter().map(|device| Device::Port(device));
        let needs = || Ok(sandbox::any_process().and(more).and(of_devices(ports)));
        let sandbox = Self::enter_with(devices.iter().copied(), needs)?;
        for missing in sandbox.missing_from_kernel() {
            tracing::info!("sandbox: this kernel has no {missing}");
        }
        Ok(sandbox)
    }

    /// Nothing is given up, which the log tells.
    pub fn off() -> Self {
        tracing::warn!("the sandbox is off: all privileges are kept");
        Self { entered: None, _pagers: None }
    }

    fn enter_with<'d>(
        devices: impl IntoIterator<Item = &'d str>,
        needs: impl FnOnce() -> Result<Needs, Failure>,
    ) -> Result<Self, Failure> {
        let wanted = devices.into_iter().any(wants_pagers);
        // A port that wants them says why there are none.
        let pagers = wanted.then(Pagers::shared).and_then(Result::ok);
        let entered = sandbox::enter(needs()?).map_err(|error| {
            Failure::runtime(format!("{error}; '--sandbox off' starts without it"))
        })?;
        let capabilities = entered.capabilities();
        tracing::info!(%capabilities, files = entered.files, calls = entered.calls, "sandbox");
        Ok(Self { entered: Some(entered), _pagers: pagers })
    }

    /// What cannot be given up here.
    fn missing_from_kernel(&self) -> impl Iterator<Item = &'static str> {
        let entered = self.entered.as_ref();
        let files = entered.is_some_and(|entered| !entered.files);
        let calls = entered.is_some_and(|entered| !entered.calls);
        let files = files.then_some("Landlock; all files stay in reach");
        files.into_iter().chain(calls.then_some("seccomp; all system calls stay allowed"))
    }

    /// Whether a switch can open `device` by now.
    ///
    /// # Errors
    /// When it needs what was given up; says what to set.
    pub fn check(&self, device: Device<'_>) -> Result<(), String> {
        // A device string that is wrong is for whoever opens it to tell.
        let Ok(needs) = needs_of(device) else { return Ok(()) };
        let (text, kind) = match device {
            Device::Port(text) => (text, text.split_once(':').map_or(text, |(kind, _)| kind)),
            Device::Vdpa(vdpa) => (vdpa.device.as_str(), "vdpa"),
            Device::File(file) => (&*file.to_string_lossy(), "file"),
        };
        self.permits(&needs).map_err(|missing| {
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

    /// Whether `ringway vdpa` can open a device by now.
    ///
    /// # Errors
    /// As there.
    pub fn check_vdpa(&self, vdpa: &Vdpa) -> Result<(), String> {
        let Ok(needs) = vdpa.needs() else { return Ok(()) };
        self.permits(&needs).map_err(|missing| {
            let set = match &missing {
                Missing::Path(path) => format!("--allow-path {}", path.display()),
                _ => "the device there, or with --sandbox off".to_owned(),
            };
            format!(
                "'{}' at {} needs {missing}, which was given up at the start (sandbox); start \
                 'ringway vdpa' with {set}",
                vdpa.device,
                vdpa.socket.display()
            )
        })
    }

    fn permits(&self, needs: &Needs) -> Result<(), Missing> {
        self.entered.as_ref().map_or(Ok(()), |entered| entered.permits(needs))
    }
}

/// Folders of which a switch need not see more than its own file.
const SHARED: [&str; 5] = ["/", "/etc", "/root", "/tmp", "/home"];

/// The configuration file, whoever has written it anew: whoever does puts another file in its
/// place, so that the right to read the one that is there now would not be enough.
fn reach_of(file: &Path) -> &Path {
    let folder =
        file.parent().filter(|folder| !SHARED.iter().any(|shared| *folder == Path::new(shared)));
    folder.unwrap_or(file)
}

fn needs(state: &State, file: Option<&Path>) -> Result<Needs, Failure> {
    let control = state.control.as_deref().unwrap_or(Path::new("/"));
    let mut needs = sandbox::any_process().folder_of(control, Reach::SOCKETS);
    if let Some(file) = file {
        needs = needs.path(reach_of(file), Reach::READ);
    }
    if let Some(Endpoint::Unix(path)) = &state.metrics.address {
        needs = needs.folder_of(path, Reach::SOCKETS);
    }
    let ports = state.ports.values().map(|port| Device::Port(&port.device));
    let files = state.mirrors.values().filter_map(|mirror| mirror.output_file.as_deref());
    let devices = ports.chain(state.vdpa.values().map(Device::Vdpa));
    needs = needs.and(of_devices(devices.chain(files.map(Device::File))));
    for kind in &state.sandbox.ports {
        let of_kind = drivers::needs(&format!("{kind}:")).map_err(|error| {
            Failure::usage(format!("kind of port '{kind}' for the sandbox: {error}"))
        })?;
        needs = needs.and(of_kind);
    }
    let reach = Reach::READ | Reach::WRITE | Reach::SOCKETS | Reach::FILES | Reach::REMOVE;
    for path in &state.sandbox.paths {
        needs = needs.path(path, reach);
    }
    Ok(match state.sockets.group {
        Some(_) => needs.wish(CapabilitySet::CHOWN),
        None => needs,
    })
}

fn of_devices<'d>(devices: impl IntoIterator<Item = Device<'d>>) -> Needs {
    // What is wrong with a device is told when it is opened.
    let needs = devices.into_iter().map(|device| needs_of(device).unwrap_or_default());
    needs.fold(Needs::new(), Needs::and)
}

/// What a port, or vDPA device, needs.
fn needs_of(device: Device<'_>) -> Result<Needs, ethdev::Error> {
    match device {
        Device::Vdpa(vdpa) => vdpa.needs(),
        // Those that were written before are looked for, and the oldest ones removed.
        Device::File(file) => {
            Ok(Needs::new().folder_of(file, Reach::READ | Reach::FILES | Reach::REMOVE))
        }
        Device::Port(text) => {
            drivers::open::check(text)?;
            drivers::needs(text)
        }
    }
}
