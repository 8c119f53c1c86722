//! The interface that a device string names.

use std::io;

use crate::interfaces::{Interfaces, says_gone};
use ethdev::hint;

/// An interface that exists.
#[derive(Debug)]
pub(crate) struct Interface<'a> {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) asker: &'a Interfaces,
}

/// Why an interface cannot be used.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// It is not there, or not any more.
    Gone,
    /// It is there, and this is the reason.
    Refused(String),
}

impl From<String> for NotOpened {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl<'a> Interface<'a> {
    /// Finds it in the asker's network namespace.
    pub(crate) fn find(name: &str, asker: &'a Interfaces) -> Result<Self, NotOpened> {
        match asker.index(name) {
            Ok(index) => Ok(Self { name: name.to_owned(), index, asker }),
            Err(cause) if says_gone(&cause) => Err(NotOpened::Gone),
            Err(cause) => Err(NotOpened::Refused(format!("cannot look it up: {cause}"))),
        }
    }

    /// Switches it on if it is off, and returns whether it was off.
    pub(crate) fn switch_on(&self) -> Result<bool, String> {
        let is_on = self.asker.flags(&self.name).is_ok_and(|flags| flags & libc::IFF_UP != 0);
        if is_on {
            return Ok(false);
        }
        let on = self.asker.by_name(self.index, |name| self.asker.set_up(name));
        let name = &self.name;
        on.map(|()| true).map_err(|cause| {
            format!("cannot switch it on: {cause}; run as root: ip link set {name} up")
        })
    }
}

/// Has an interface leave VLAN tags in received frames, until this is dropped. A program at the
/// XDP hook sees only what is in the frame.
#[derive(Debug)]
pub(crate) struct TagsKept {
    asker: Interfaces,
    index: u32,
}

impl TagsKept {
    /// `None` when the interface leaves them in anyway, or will not.
    pub(crate) fn new(interface: &Interface<'_>) -> Option<Self> {
        let name = &interface.name;
        if !interface.asker.strips_tags(name).unwrap_or(false) {
            return None;
        }
        let index = interface.index;
        let kept = Interfaces::new().and_then(|asker| {
            asker.by_name(index, |name| asker.strip_tags(name, false)).map(|()| asker)
        });
        match kept {
            Ok(asker) => Some(Self { asker, index }),
            Err(cause) => {
                tracing::warn!(
                    "interface '{name}' takes VLAN tags out of frames ({cause}), so an AF_XDP port \
                     receives them without; run as root: ethtool -K {name} rxvlan off"
                );
                None
            }
        }
    }
}

impl Drop for TagsKept {
    fn drop(&mut self) {
        // It may be gone.
        let _ = self.asker.by_name(self.index, |name| self.asker.strip_tags(name, true));
    }
}

/// That there is no interface `name` among `names`, with what may have been meant.
pub(crate) fn missing(name: &str, names: &[String]) -> String {
    let hint = hint(name, names.iter().map(String::as_str));
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!("there is no such interface, only {known}{hint}")
}

/// What to do when a socket cannot be opened.
pub(crate) fn socket_refused(cause: &io::Error, family: &str, rights: &str) -> String {
    match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            format!("no permission to open an {family} socket; run as root, or with {rights}")
        }
        Some(libc::EAFNOSUPPORT) => {
            format!("this kernel has no {family} sockets")
        }
        _ => format!("cannot open an {family} socket: {cause}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_interface_gets_a_hint() {
        let names = || ["lo", "eth0", "uplink0"].map(str::to_owned).to_vec();
        let text = missing("uplnk0", &names());
        assert_eq!(
            text,
            "there is no such interface, only lo, eth0, uplink0; did you mean 'uplink0'?"
        );
        assert!(!missing("wlan7", &names()).contains("did you mean"));
        assert!(missing("x", &[]).ends_with("only none"));
    }
}
