//! Where the other end of a dummy port is, in the words of Open vSwitch.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use eal::sandbox::Needs;

/// Where the other end of a dummy port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It connects to this socket of ours, as may others.
    Listen(Address),
    /// It listens at this one.
    Dial(Address),
}

/// A socket's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Place {
    /// Of the values of `stream` and `pstream`.
    ///
    /// # Errors
    /// Both are given, or one makes no sense; the text is what was expected.
    pub(super) fn of(stream: Option<&str>, pstream: Option<&str>) -> Result<Option<Self>, String> {
        match (stream, pstream) {
            (None, None) => Ok(None),
            (Some(text), None) => active(text).map(|address| Some(Self::Dial(address))),
            (None, Some(text)) => passive(text).map(|address| Some(Self::Listen(address))),
            (Some(_), Some(_)) => {
                Err("stream and pstream: expected one of them, to connect or to listen".to_owned())
            }
        }
    }

    /// What it needs of the system.
    pub(super) fn needs(&self) -> Needs {
        match self {
            Self::Listen(Address::Unix(path)) => Needs::of_socket(path, false),
            Self::Dial(Address::Unix(path)) => Needs::of_socket(path, true),
            Self::Listen(Address::Tcp(_)) | Self::Dial(Address::Tcp(_)) => Needs::new().tcp(),
        }
    }
}

fn active(text: &str) -> Result<Address, String> {
    let address = match text.split_once(':') {
        Some(("unix", path)) => unix(path),
        Some(("tcp", rest)) => SocketAddr::from_str(rest).ok().map(Address::Tcp),
        _ => None,
    };
    address.ok_or_else(|| format!("stream={text}: expected unix:PATH or tcp:ADDRESS:PORT"))
}

fn passive(text: &str) -> Result<Address, String> {
    let address = match text.split_once(':') {
        Some(("punix", path)) => unix(path),
        Some(("ptcp", rest)) => tcp(rest),
        _ => None,
    };
    address.ok_or_else(|| format!("pstream={text}: expected punix:PATH or ptcp:PORT[:ADDRESS]"))
}

fn unix(path: &str) -> Option<Address> {
    eal::unix::check_path(Path::new(path)).ok().map(|()| Address::Unix(path.into()))
}

/// `PORT[:ADDRESS]`.
fn tcp(text: &str) -> Option<Address> {
    let (port, address) = text.split_once(':').unwrap_or((text, ""));
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let address = if address.is_empty() { any } else { address.parse().ok()? };
    Some(Address::Tcp(SocketAddr::new(address, port.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        let unix = || Address::Unix("/run/a".into());
        assert_eq!(Place::of(None, None), Ok(None));
        for (stream, place) in [
            ("unix:/run/a", unix()),
            ("tcp:1.2.3.4:5", tcp("1.2.3.4:5")),
            ("tcp:[::1]:5", tcp("[::1]:5")),
        ] {
            assert_eq!(Place::of(Some(stream), None), Ok(Some(Place::Dial(place))));
        }
        for (stream, place) in [
            ("punix:/run/a", unix()),
            ("ptcp:5", tcp("0.0.0.0:5")),
            ("ptcp:5:[::1]", tcp("[::1]:5")),
            ("ptcp:5:127.0.0.1", tcp("127.0.0.1:5")),
        ] {
            assert_eq!(Place::of(None, Some(stream)), Ok(Some(Place::Listen(place))));
        }
        assert!(Place::of(Some("unix:/a"), Some("punix:/b")).unwrap_err().contains("one of them"));
        for bad in ["", "unix:", "punix:/a", "tcp:1.2.3.4", "tcp:host:1"] {
            assert!(
                Place::of(Some(bad), None).unwrap_err().contains("expected unix:PATH"),
                "{bad}"
            );
        }
        for bad in ["", "punix:", "unix:/a", "ptcp:", "ptcp:x", "ptcp:1:host"] {
            assert!(
                Place::of(None, Some(bad)).unwrap_err().contains("expected punix:PATH"),
                "{bad}"
            );
        }
    }
}
