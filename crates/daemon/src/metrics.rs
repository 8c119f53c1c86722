//! Section `[metrics]`: where programs that watch a switch read its figures.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use eal::Access;
use serde::{Deserialize, Serialize};

use crate::text;

/// Section `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Metrics {
    /// Where they are read; nowhere when absent.
    #[serde(with = "text::endpoint", skip_serializing_if = "Option::is_none")]
    pub address: Option<Endpoint>,
    /// Group whose processes may connect, where it is a socket in the file system.
    #[serde(with = "text::group", skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Permissions of that socket.
    #[serde(with = "text::mode", skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

impl Metrics {
    /// What is said here, and for the rest what `base` says.
    #[must_use]
    pub fn over(self, base: Self) -> Self {
        let Access { group, mode } = self.access().or(base.access());
        Self { address: self.address.or(base.address), group, mode }
    }

    /// Who may connect, where it is a socket in the file system.
    #[must_use]
    pub const fn access(&self) -> Access {
        Access { group: self.group, mode: self.mode }
    }
}

/// Where something listens: a Unix socket, or an address of TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// At this path.
    Unix(PathBuf),
    /// At this address and port.
    Tcp(SocketAddr),
}

impl FromStr for Endpoint {
    type Err = String;

    /// `unix:PATH`, a path with a slash in it, or an IP address with a port. Names are not looked
    /// up: who answers that may decide who can read.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) =
            text.strip_prefix("unix:").or_else(|| text.contains('/').then_some(text))
        {
            let path = PathBuf::from(path);
            return match eal::unix::check_path(&path) {
                Ok(()) => Ok(Self::Unix(path)),
                Err(error) => Err(error.to_string()),
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!(
                "'{text}': expected the path of a socket, as in /run/ringway/metrics.sock, or an IP \
                 address and a port, as in 127.0.0.1:9477 or [::1]:9477"
            )
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_path_or_an_address() {
        let unix = |path: &str| Endpoint::Unix(path.into());
        for (text, expected) in [
            ("/run/m.sock", unix("/run/m.sock")),
            ("./m.sock", unix("./m.sock")),
            ("unix:m.sock", unix("m.sock")),
            ("127.0.0.1:9477", Endpoint::Tcp(([127, 0, 0, 1], 9477).into())),
            ("[::1]:0", Endpoint::Tcp("[::1]:0".parse().unwrap())),
        ] {
            let parsed: Endpoint = text.parse().unwrap();
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
        for wrong in ["", "unix:", "localhost:9477", ":9477", "127.0.0.1", "1.2.3.4:70000"] {
            let error = wrong.parse::<Endpoint>().unwrap_err();
            assert!(error.contains("expected the path") || error.contains("is empty"), "{error}");
        }
        let long = format!("/{}", "x".repeat(200));
        assert!(long.parse::<Endpoint>().unwrap_err().contains("at most 107"));
    }
}
