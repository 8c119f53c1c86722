//! Messages in the log, in Open vSwitch's words: `ovs-appctl vlog/set vconn:dbg`. They are looked at only
//! where the log wants them.

use openflow::message::hello::Hello;
use openflow::{Version, VersionSet, framing, print};
use tracing::Level;

/// Whether the log wants them.
fn is_wanted() -> bool {
    tracing::enabled!(target: "vconn", Level::DEBUG)
}

/// A message that has come.
pub fn received(name: &str, message: &[u8]) {
    if is_wanted() {
        tracing::debug!(target: "vconn", "{name}: received: {}", print::message(message));
    }
}

/// A message that was sent, or the begin of it; or that cannot be sent, and why.
pub fn sent(name: &str, message: &[u8], failure: Option<rustix::io::Errno>) {
    if is_wanted() {
        let what = failure.map_or_else(|| "Success".to_owned(), |failure| failure.to_string());
        tracing::debug!(target: "vconn", "{name}: sent ({what}): {}", print::message(message));
    }
}

/// The version that is spoken since this HELLO.
pub fn negotiated(name: &str, version: Version, ours: VersionSet, hello: &[u8]) {
    if is_wanted() {
        let body = hello.get(framing::HEADER..).unwrap_or_default();
        let theirs = Hello::decode(hello.first().copied().unwrap_or(0), body).versions;
        tracing::debug!(
            target: "vconn",
            "{name}: negotiated OpenFlow version {:#04x} (we support {ours}, peer supports {theirs})",
            version.wire()
        );
    }
}
