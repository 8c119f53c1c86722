//! What is told of one bridge by NetFlow.

use std::time::{SystemTime, UNIX_EPOCH};

use export::Tally;
use export::netflow::{Exporter, Key, Packets};

use super::collectors::Collectors;
use super::settings::NetflowSettings;

/// What is told of a bridge.
#[derive(Debug)]
pub(super) struct Netflow {
    settings: NetflowSettings,
    collectors: Collectors,
    exporter: Exporter,
}

impl Netflow {
    pub(super) fn new(settings: NetflowSettings) -> Self {
        let collectors = Collectors::new(&settings.targets);
        let exporter = Exporter::new(settings.flows);
        Self { settings, collectors, exporter }
    }

    /// Whether it tells this already.
    pub(super) fn is(&self, settings: &NetflowSettings) -> bool {
        self.settings == *settings
    }

    /// What has become of it.
    pub(super) const fn tally(&self) -> &Tally {
        self.collectors.tally()
    }

    /// Whether it is known since then where packets of a flow go.
    pub(super) fn knows(&self, key: &Key, since: u64) -> bool {
        self.exporter.knows(key, since)
    }

    /// Counts packets of a flow.
    pub(super) fn count(&mut self, key: Key, packets: &Packets) {
        self.exporter.count(key, packets);
    }

    /// Sends what is to be told by `now`, in milliseconds since the switch was started.
    pub(super) fn run(&mut self, now: u64) {
        self.exporter.expire(now);
        self.send(now);
    }

    /// Sends all that was not told yet, since there will be no more.
    pub(super) fn end(&mut self, now: u64) {
        self.exporter.end();
        self.send(now);
    }

    fn send(&mut self, now: u64) {
        self.collectors.tally().add_lost(self.exporter.take_lost());
        // That is for people alone.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for datagram in self.exporter.take(now, (wall.as_secs(), wall.subsec_nanos())) {
            self.collectors.send(&datagram.bytes, datagram.records.into());
        }
    }
}
