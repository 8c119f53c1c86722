//! Keys on the command line, by the names that all programs of Open vSwitch have for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tls::{Identity, Settings, Speaker, Watch};

/// Keys, certificates, and what is spoken by them.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// For ssl: the file of our private key.
    #[arg(short, long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,

    /// The file of its certificate.
    #[arg(short, long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,

    /// The file of the authorities by which peers have to be certified; none: any peer is believed.
    #[arg(short = 'C', long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,

    /// The same; where it is not there, it is made of what the first peer has.
    #[arg(long, value_name = "FILE", conflicts_with = "ca_cert")]
    pub bootstrap_ca_cert: Option<PathBuf>,

    /// A file of certificates that peers are sent beside ours.
    #[arg(long, value_name = "FILE")]
    pub peer_ca_cert: Option<PathBuf>,

    /// Versions that are spoken, as in TLSv1.2,TLSv1.3 or TLSv1.2+ [default: TLSv1.2+].
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true)]
    pub ssl_protocols: String,

    /// Ciphers up to TLS 1.2, as in openssl-ciphers(1).
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true)]
    pub ssl_ciphers: String,

    /// Ciphers of TLS 1.3.
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true)]
    pub ssl_ciphersuites: String,
}

impl TlsArgs {
    /// Has files be meant that are seen from here: a process in the background is somewhere else.
    pub fn make_absolute(&mut self) {
        let Self { private_key, certificate, ca_cert, bootstrap_ca_cert, peer_ca_cert, .. } = self;
        let all = [private_key, certificate, ca_cert, bootstrap_ca_cert, peer_ca_cert];
        for path in all.into_iter().flatten().filter(|path| *path != Path::new("none")) {
            if let Ok(absolute) = std::path::absolute(&*path) {
                *path = absolute;
            }
        }
    }

    /// Who we are by this, with the processes that speak TLS, which are started; and what is heard of them.
    pub fn identity(&self) -> Option<(Identity, Watch)> {
        match Speaker::start() {
            Ok((speaker, watch)) => {
                Some((Identity::new(Arc::new(speaker), self.settings()), watch))
            }
            Err(error) => {
                tracing::warn!("no ssl: the process that speaks TLS cannot be started: {error}");
                None
            }
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            private_key: self.private_key.clone(),
            certificate: self.certificate.clone(),
            ca_cert: self.bootstrap_ca_cert.clone().or_else(|| self.ca_cert.clone()),
            peer_ca_cert: self.peer_ca_cert.clone(),
            bootstrap: self.bootstrap_ca_cert.is_some(),
            protocols: self.ssl_protocols.clone(),
            ciphers: self.ssl_ciphers.clone(),
            ciphersuites: self.ssl_ciphersuites.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::ovs::args::OvsArgs;

    #[test]
    fn keys_are_those_of_the_command_line() {
        let line = "ovs-vswitchd ssl:127.0.0.1:6640 --private-key=/k -c cert.pem \
                    --bootstrap-ca-cert=/ca --ssl-protocols=TLSv1.3";
        let mut args = OvsArgs::parse_from(line.split(' '));
        args.tls.make_absolute();
        let settings = args.tls.settings();
        assert_eq!(settings.private_key, Some("/k".into()));
        assert!(settings.certificate.unwrap().is_absolute());
        assert_eq!((settings.ca_cert, settings.bootstrap), (Some("/ca".into()), true));
        assert_eq!((settings.protocols.as_str(), settings.ciphers.as_str()), ("TLSv1.3", ""));
        let mut args = OvsArgs::parse_from(["ovs-vswitchd", "-C", "none"]);
        args.tls.make_absolute();
        assert_eq!(args.tls.settings().ca_cert, Some("none".into()));
    }
}
