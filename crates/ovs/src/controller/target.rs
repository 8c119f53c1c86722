//! Where controllers are, in the words of Open vSwitch (ovs-vswitchd.conf.db(5),
//! `Controller.target`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use tls::Side;

/// The port of OpenFlow where none is said.
const PORT: u16 = 6653;

/// Where a controller is, or where it comes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// It listens at a Unix socket: `unix:PATH`.
    Unix(PathBuf),
    /// It listens at an address: `tcp:HOST[:PORT]`.
    Tcp(SocketAddr),
    /// The same by TLS: `ssl:HOST[:PORT]`.
    Ssl(SocketAddr),
    /// It connects to a Unix socket of ours: `punix:PATH`.
    ListenUnix(PathBuf),
    /// It connects to an address of ours: `ptcp:[PORT][:HOST]`.
    ListenTcp(SocketAddr),
    /// The same by TLS: `pssl:[PORT][:HOST]`.
    ListenSsl(SocketAddr),
}

impl Target {
    /// Whether it connects to us.
    #[must_use]
    pub const fn listens(&self) -> bool {
        matches!(self, Self::ListenUnix(_) | Self::ListenTcp(_) | Self::ListenSsl(_))
    }

    /// Who begins with the handshake, if what is said is secured.
    #[must_use]
    pub const fn secured(&self) -> Option<Side> {
        match self {
            Self::Ssl(_) => Some(Side::Client),
            Self::ListenSsl(_) => Some(Side::Server),
            _ => None,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Ssl(address) => write!(f, "ssl:{address}"),
            Self::ListenUnix(path) => write!(f, "punix:{}", path.display()),
            Self::ListenTcp(address) => write!(f, "ptcp:{}:{}", address.port(), address.ip()),
            Self::ListenSsl(address) => write!(f, "pssl:{}:{}", address.port(), address.ip()),
        }
    }
}

/// A target that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTarget(String);

impl std::fmt::Display for BadTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(text) = self;
        write!(
            f,
            "controller '{text}': expected tcp:ADDRESS[:PORT], unix:PATH, ptcp:[PORT][:ADDRESS], punix:PATH, \
             or ssl: or pssl: in place of tcp: or ptcp:, with addresses in digits"
        )
    }
}

impl std::error::Error for BadTarget {}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        let path = || if rest.is_empty() { Err(bad()) } else { Ok(PathBuf::from(rest)) };
        match kind {
            "unix" => path().map(Self::Unix),
            "punix" => path().map(Self::ListenUnix),
            "tcp" => active(rest).map(Self::Tcp).ok_or_else(bad),
            "ptcp" => passive(rest).map(Self::ListenTcp).ok_or_else(bad),
            "ssl" => active(rest).map(Self::Ssl).ok_or_else(bad),
            "pssl" => passive(rest).map(Self::ListenSsl).ok_or_else(bad),
            _ => Err(bad()),
        }
    }
}

/// `ADDRESS[:PORT]`, of version 6 in brackets.
fn active(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, PORT));
    }
    text.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
}

/// `[PORT][:ADDRESS]`; port 0: any that is free.
fn passive(text: &str) -> Option<SocketAddr> {
    let (port, address) = text.split_once(':').unwrap_or((text, ""));
    let port = if port.is_empty() { PORT } else { port.parse().ok()? };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let address = if address.is_empty() { any } else { address.parse().ok()? };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let tcp = |text: &str| Target::Tcp(text.parse().unwrap());
        let ptcp = |text: &str| Target::ListenTcp(text.parse().unwrap());
        let ssl = |text: &str| Target::Ssl(text.parse().unwrap());
        let pssl = |text: &str| Target::ListenSsl(text.parse().unwrap());
        for (text, target) in [
            ("tcp:127.0.0.1:6633", tcp("127.0.0.1:6633")),
            ("tcp:10.0.0.1", tcp("10.0.0.1:6653")),
            ("tcp:[::1]:6633", tcp("[::1]:6633")),
            ("tcp:[::1]", tcp("[::1]:6653")),
            ("ptcp:", ptcp("0.0.0.0:6653")),
            ("ptcp:6633", ptcp("0.0.0.0:6633")),
            ("ptcp:0:127.0.0.1", ptcp("127.0.0.1:0")),
            ("ptcp:6633:[::]", ptcp("[::]:6633")),
            ("ssl:10.0.0.1", ssl("10.0.0.1:6653")),
            ("ssl:[::1]:6654", ssl("[::1]:6654")),
            ("pssl:", pssl("0.0.0.0:6653")),
            ("pssl:0:127.0.0.1", pssl("127.0.0.1:0")),
            ("unix:/run/a.sock", Target::Unix("/run/a.sock".into())),
            ("punix:b", Target::ListenUnix("b".into())),
        ] {
            assert_eq!(text.parse(), Ok(target.clone()), "{text}");
            assert_eq!(target.to_string().parse(), Ok(target), "{text}");
        }
        for wrong in
            ["", "tcp", "tcp:", "unix:", "punix:", "ssl:", "ssl:host:1", "tcp:host:1", "ptcp:x"]
        {
            let error = wrong.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("expected tcp:ADDRESS"), "{error}");
        }
    }
}
