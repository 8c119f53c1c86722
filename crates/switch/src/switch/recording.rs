//! Packets that have come in, by what they are.

use datapath::record::{Recorded, Recording};
use datapath::worker::Message;

use super::{Control, Switch};

impl Switch {
    /// Has all packets be recorded that come in from now on, by all that rules can match on, or no more:
    /// what was recorded is forgotten then. Each packet is looked up in a table of such keys while this
    /// goes on, and bridges go the long way.
    pub fn record(&self, is_on: bool) {
        self.control().record(is_on);
    }

    /// Takes what was recorded since this was called last. Workers hand it over between two bursts, each
    /// 8,192 kinds of packets at most: how many packets of others there were is told, too.
    ///
    /// ```
    /// use switch::{PortOptions, Switch, SwitchConfig};
    ///
    /// let switch = Switch::start(&SwitchConfig::default())?;
    /// switch.open_port("a", "null:", &PortOptions::default())?;
    /// switch.record(true);
    /// switch.receive("a", &[vec![0; 60], vec![0; 60]])?;
    /// let recording = switch.take_recording();
    /// assert_eq!((recording.kinds.len(), recording.kinds[0].packets), (1, 2));
    /// # Ok::<(), switch::Error>(())
    /// ```
    #[must_use]
    pub fn take_recording(&self) -> Recording {
        let control = self.control();
        let mut all = Recording::default();
        if control.records {
            for worker in &control.mailboxes {
                let (own, again) = worker.ask(Message::TakeRecording).unwrap_or_default();
                let name = |id| control.bridges.name_of(id).unwrap_or_default().to_owned();
                let again = again.into_iter().map(|(id, own)| (name(id), own));
                for (bridge, own) in [(String::new(), own)].into_iter().chain(again) {
                    let kinds = own.kinds.into_iter();
                    all.kinds.extend(kinds.map(|kind| Recorded { bridge: bridge.clone(), ..kind }));
                    all.missed = all.missed.saturating_add(own.missed);
                }
            }
        }
        all
    }
}

impl Control {
    fn record(&mut self, is_on: bool) {
        self.records = is_on;
        for worker in &self.mailboxes {
            worker.ask(|done| Message::Record(is_on, done));
        }
    }
}
