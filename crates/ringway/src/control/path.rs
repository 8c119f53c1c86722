//! Where the control socket is.

use std::path::PathBuf;

/// The control socket of the service, as packages set it up.
pub const SERVICE: &str = "/run/ringway-switch/control.sock";

/// The control socket when no `--control` is given: `ringway.sock` in `$XDG_RUNTIME_DIR`, in
/// `/run` for root, and in the directory for temporary files, with the user's number in its
/// name, when there is neither.
pub fn default_path() -> PathBuf {
    let user = rustix::process::geteuid();
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        return PathBuf::from(runtime).join("ringway.sock");
    }
    if user.is_root() {
        return PathBuf::from("/run/ringway.sock");
    }
    std::env::temp_dir().join(format!("ringway-{}.sock", user.as_raw()))
}

/// The variable that stands for `--control`.
pub const VARIABLE: &str = "RINGWAY_CONTROL";

/// The socket that a switch makes: the one given, by the command line or a file, else that of the
/// environment, else the default.
pub fn resolve(given: Option<PathBuf>) -> PathBuf {
    named(given).unwrap_or_else(default_path)
}

/// Where a command looks for a running switch, in turn: at the socket that is named, else at the
/// default and then at that of the service.
pub fn candidates(given: Option<PathBuf>) -> Vec<PathBuf> {
    named(given).map_or_else(|| vec![default_path(), SERVICE.into()], |path| vec![path])
}

fn named(given: Option<PathBuf>) -> Option<PathBuf> {
    let variable = || std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    given.or_else(variable)
}
