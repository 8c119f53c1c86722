//! Keys, certificates, and what is spoken, as the administrator has set it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::order::{Manner, Order, Side, Trust};

/// How to be known, and by whom (ovs-vswitchd.conf.db(5), table `SSL`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The file of the private key.
    pub private_key: Option<PathBuf>,
    /// The file of its certificate, and of those between it and the peers' authority.
    pub certificate: Option<PathBuf>,
    /// The file of the authorities that peers' certificates are by; `none`: anybody is believed.
    pub ca_cert: Option<PathBuf>,
    /// The file of certificates that peers are sent beside ours.
    pub peer_ca_cert: Option<PathBuf>,
    /// Whether the file of authorities is made with the first connection, if it is not there.
    pub bootstrap: bool,
    /// Versions: `TLSv1.2`, `TLSv1.3`, with commas or blanks between them; `TLSv1.2+` has later ones, too.
    pub protocols: String,
    /// Ciphers, for versions up to TLS 1.2, as in openssl-ciphers(1).
    pub ciphers: String,
    /// Those of TLS 1.3.
    pub ciphersuites: String,
}

/// An order with the files that it is about.
#[derive(Debug)]
pub(crate) struct Opened {
    pub order: Order,
    pub files: Vec<File>,
    /// The file that is to be made of the peer's authority.
    pub bootstrap: Option<PathBuf>,
}

impl Settings {
    /// The same, and what is not said of what is spoken, and sent beside the certificate, as in `usual`.
    #[must_use]
    pub(crate) fn or(self, usual: &Self) -> Self {
        let or = |own: String, usual: &str| if own.is_empty() { usual.to_owned() } else { own };
        Self {
            peer_ca_cert: self.peer_ca_cert.or_else(|| usual.peer_ca_cert.clone()),
            protocols: or(self.protocols, &usual.protocols),
            ciphers: or(self.ciphers, &usual.ciphers),
            ciphersuites: or(self.ciphersuites, &usual.ciphersuites),
            ..self
        }
    }

    /// Opens what is to be read: it is the worker that reads it.
    pub(crate) fn open(&self, side: Side) -> Result<Opened, String> {
        let key = needed(self.private_key.as_deref(), "private key")?;
        let certificate = needed(self.certificate.as_deref(), "certificate")?;
        let ca_cert = needed(self.ca_cert.as_deref(), "CA certificate")?;
        let mut files = vec![open(key, "private key")?, open(certificate, "certificate")?];
        let may_begin = self.bootstrap && side == Side::Client;
        let trust = match open(ca_cert, "CA certificate") {
            _ if ca_cert == Path::new("none") => Trust::Anybody,
            Ok(file) => {
                files.push(file);
                Trust::File
            }
            Err(_) if may_begin && is_missing(ca_cert) => Trust::First,
            Err(error) => return Err(error),
        };
        if let Some(more) = &self.peer_ca_cert {
            files.push(open(more, "certificate for peers")?);
        }
        let manner = Manner {
            protocols: self.protocols.clone(),
            ciphers: self.ciphers.clone(),
            ciphersuites: self.ciphersuites.clone(),
        };
        let order = Order { side, trust, has_more: self.peer_ca_cert.is_some(), manner };
        let bootstrap = (trust == Trust::First).then(|| ca_cert.to_owned());
        Ok(Opened { order, files, bootstrap })
    }
}

fn needed<'p>(path: Option<&'p Path>, what: &str) -> Result<&'p Path, String> {
    path.ok_or_else(|| {
        format!("no {what} is set: use 'ovs-vsctl set-ssl KEY CERTIFICATE CA-CERTIFICATE'")
    })
}

fn is_missing(path: &Path) -> bool {
    matches!(path.symlink_metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// A file to be read. Nobody is waited for: it may be named by somebody who may write into the database.
fn open(path: &Path, what: &str) -> Result<File, String> {
    let told = |error: &dyn std::fmt::Display| format!("{what} '{}': {error}", path.display());
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| told(&error))?;
    match file.metadata() {
        Ok(about) if about.is_file() => Ok(file),
        Ok(_) => Err(told(&"it is no file")),
        Err(error) => Err(told(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(dir.path().join(name));
        let error = |settings: &Settings| settings.open(Side::Client).unwrap_err();
        let mut settings = Settings::default();
        assert!(error(&settings).starts_with("no private key is set: use 'ovs-vsctl set-ssl"));
        settings.private_key = path("key.pem");
        assert!(error(&settings).starts_with("no certificate is set"));
        (settings.certificate, settings.ca_cert) = (path("cert.pem"), path("ca.pem"));
        let text = error(&settings);
        assert!(text.starts_with("private key '") && text.contains("key.pem': No such"), "{text}");
        std::fs::write(settings.private_key.as_ref().unwrap(), "").unwrap();
        std::fs::create_dir(settings.certificate.as_ref().unwrap()).unwrap();
        assert!(error(&settings).ends_with("cert.pem': it is no file"));
    }

    #[test]
    fn keys_are_taken_together_and_the_rest_one_by_one() {
        let usual = Settings {
            ca_cert: Some("usual-ca".into()),
            peer_ca_cert: Some("more".into()),
            bootstrap: true,
            protocols: "TLSv1.3".to_owned(),
            ciphers: "HIGH".to_owned(),
            ..Settings::default()
        };
        let (ca_cert, ciphers) = (Some("ca".into()), "LOW".to_owned());
        let own = Settings { ca_cert, ciphers, ..Settings::default() };
        let both = own.clone().or(&usual);
        assert_eq!((&both.ca_cert, both.bootstrap), (&own.ca_cert, false));
        assert_eq!((both.peer_ca_cert, both.protocols), (usual.peer_ca_cert, usual.protocols));
        assert_eq!((both.ciphers, both.ciphersuites), (own.ciphers, String::new()));
    }

    #[test]
    fn whom_to_believe_is_as_it_was_set() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(dir.path().join(name));
        let mut settings = Settings {
            private_key: path("key.pem"),
            certificate: path("key.pem"),
            ca_cert: path("ca.pem"),
            ..Settings::default()
        };
        std::fs::write(settings.private_key.as_ref().unwrap(), "").unwrap();
        assert!(settings.open(Side::Client).unwrap_err().starts_with("CA certificate '"));
        settings.bootstrap = true;
        let opened = settings.open(Side::Client).unwrap();
        assert_eq!((opened.order.trust, opened.bootstrap), (Trust::First, path("ca.pem")));
        // Not from whoever comes.
        assert!(settings.open(Side::Server).is_err());
        std::fs::write(settings.ca_cert.as_ref().unwrap(), "").unwrap();
        let opened = settings.open(Side::Client).unwrap();
        assert_eq!((opened.order.trust, opened.files.len()), (Trust::File, 3));
        settings.ca_cert = Some("none".into());
        assert_eq!(settings.open(Side::Server).unwrap().order.trust, Trust::Anybody);
    }
}
