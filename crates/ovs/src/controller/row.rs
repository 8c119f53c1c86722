//! Rows of `Controller`, `Manager` and `SSL`.

use ovsdb::{Cache, Row};

/// A row of `Controller`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controller {
    /// Where it is.
    pub target: String,
    /// Whether it is a `primary` or a `service` one, where that is said.
    pub kind: Option<String>,
    /// The longest wait before it is tried again, in milliseconds.
    pub max_backoff: Option<i64>,
    /// How long it may be silent before it is asked whether it is there, in milliseconds; 0: for ever.
    pub inactivity_probe: Option<i64>,
    /// How many packets it is told of in a second.
    pub rate_limit: Option<i64>,
    /// How many at once.
    pub burst_limit: Option<i64>,
    /// Whether it is told nothing unasked until it says what it wants.
    pub is_silent: bool,
    /// Whether it is reached by another network than the bridge's.
    pub is_out_of_band: bool,
}

/// Whether a controller or a manager is reached by another network than bridges'.
fn is_out_of_band(row: &Row) -> bool {
    row.get("connection_mode").string() == Some("out-of-band")
}

/// Where managers are that are reached through bridges.
pub fn managers(cache: &Cache, root: &Row) -> Vec<String> {
    let rows = root.get("manager_options").uuids().filter_map(|row| cache.row("Manager", row));
    let in_band = rows.filter(|row| !is_out_of_band(row));
    in_band.filter_map(|row| Some(row.get("target").string()?.to_owned())).collect()
}

/// The keys that are used for `ssl:`. Columns that a database does not have say nothing, and what none says is
/// as on the command line.
pub fn ssl(cache: &Cache, root: &Row) -> Option<tls::Settings> {
    let row = cache.row("SSL", root.get("ssl").uuids().next()?)?;
    let text = |column: &str| row.get(column).string().unwrap_or_default().to_owned();
    let file = |column: &str| Some(text(column)).filter(|file| !file.is_empty()).map(Into::into);
    Some(tls::Settings {
        private_key: file("private_key"),
        certificate: file("certificate"),
        ca_cert: file("ca_cert"),
        peer_ca_cert: None,
        bootstrap: row.get("bootstrap_ca_cert").boolean() == Some(true),
        protocols: text("ssl_protocols"),
        ciphers: text("ssl_ciphers"),
        ciphersuites: text("ssl_ciphersuites"),
    })
}

impl Controller {
    /// What a row says.
    #[must_use]
    pub fn read(controller: &Row) -> Self {
        Self {
            target: controller.get("target").string().unwrap_or_default().to_owned(),
            kind: controller.get("type").string().map(str::to_owned),
            max_backoff: controller.get("max_backoff").integer(),
            inactivity_probe: controller.get("inactivity_probe").integer(),
            rate_limit: controller.get("controller_rate_limit").integer(),
            burst_limit: controller.get("controller_burst_limit").integer(),
            is_silent: controller.get("enable_async_messages").boolean() == Some(false),
            is_out_of_band: is_out_of_band(controller),
        }
    }
}
