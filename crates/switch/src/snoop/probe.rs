//! A bridge that hears whatever comes, for the fuzz target.

use std::time::{Duration, Instant};

use datapath::snoop::kind::{Kind, is_reported};
use datapath::snoop::message::{Message, parse};
use eal::time::Time;
use packet::Frame;

use super::snooper::Snooper;
use super::table::ROUTER;
use super::{McastSnooping, PortSnooping};

/// The bridge.
#[derive(Debug)]
pub struct Probe {
    snooper: Snooper,
    settings: McastSnooping,
    ports: [PortSnooping; 4],
    now: Instant,
}

impl Probe {
    /// One with four ports.
    #[must_use]
    pub fn new(settings: McastSnooping, ports: [PortSnooping; 4]) -> Self {
        Self { snooper: Snooper::new(&settings), settings, ports, now: Time::stopped().now() }
    }

    /// A frame comes in on a port, in a VLAN.
    ///
    /// # Panics
    /// Where a promise is broken.
    pub fn hear(&mut self, port: u16, vlan: u16, bytes: &[u8]) {
        let Some(settings) = self.ports.get(usize::from(port)) else { return };
        let kind = Kind::of(&Frame::from_bytes(bytes));
        let message = parse(bytes, false);
        if let Kind::Data(group) = kind {
            assert!(is_reported(group), "{group}");
        }
        if let Some(Message::Report(records)) = message.clone() {
            assert!(records.clone().count() <= bytes.len() / 8 + 1);
            assert!(records.into_iter().all(|(group, _)| is_reported(group)));
        }
        // What workers take for one thing control threads do not take for another.
        match kind {
            Kind::Report => assert!(matches!(message, Some(Message::Report(_)) | None)),
            Kind::FromRouter => assert!(!matches!(message, Some(Message::Report(_)))),
            Kind::Data(_) | Kind::Other => return,
        }
        self.snooper.hear(message, (port, vlan), settings, self.now);
    }

    /// Some time passes.
    ///
    /// # Panics
    /// Where a promise is broken.
    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        let Self { snooper, settings, ports, now } = self;
        snooper.set(settings, (0..).zip(ports.iter()), *now);
        let outcome = snooper.run(*now);
        assert!(outcome.asks.len() <= 4 * 4096, "{}", outcome.asks.len());
        assert!(snooper.due().is_none_or(|due| due > *now), "everything due is done");
        let (groups, members) = snooper.table.len();
        assert!(groups <= settings.table_size && members <= groups * ports.len());
        assert!(snooper.table.routers().count() <= settings.table_size);
        assert!(snooper.table.routers().all(|(_, _, heard)| heard + ROUTER > *now));
        for (port, settings) in (0..).zip(ports.iter()) {
            let has = snooper.table.groups().filter(|(_, members)| members.contains_key(&port));
            assert!(settings.max_groups.is_none_or(|most| has.count() <= most as usize));
        }
    }
}
