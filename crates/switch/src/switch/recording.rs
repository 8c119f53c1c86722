//! Packets that have come in, by what they are.

use datapath::record::{Record, Recorded, Recording};
use datapath::worker::Message;

use super::{Control, Switch};

impl Switch {
    /// Has packets be recorded that come in from now on, by all that rules can match on. Each packet is looked
    /// up in a table of such keys while all are, and bridges go the long way. If it is done sparingly, packets
    /// of the last ten to twenty seconds are there when somebody asks, all of them where little comes in. If
    /// nothing is recorded any more, what was is forgotten.
    pub fn record(&self, record: Record) {
        self.control().record(record);
    }

    /// Takes what was recorded since this was called last. Workers hand it over between two bursts, each
    /// 8,192 kinds of packets at most: how many packets of others there were is told, too.
    ///
    /// ```
    /// use switch::{PortOptions, Record, Switch, SwitchConfig};
    ///
    /// let switch = Switch::start(&SwitchConfig::default())?;
    /// switch.open_port("a", "null:", &PortOptions::default())?;
    /// switch.record(Record::All);
    /// switch.receive("a", &[vec![0; 60], vec![0; 60]])?;
    /// let recording = switch.take_recording();
    /// assert_eq!((recording.kinds.len(), recording.kinds[0].packets), (1, 2));
    /// # Ok::<(), switch::Error>(())
    /// ```
    #[must_use]
    pub fn take_recording(&self) -> Recording {
        let control = self.control();
        let mut all = Recording::default();
        if control.records != Record::Nothing {
            for (worker, mailbox) in (0..).zip(&control.mailboxes) {
                let (own, again) = mailbox.ask(Message::TakeRecording).unwrap_or_default();
                let name = |id| control.bridges.name_of(id).unwrap_or_default().to_owned();
                let again = again.into_iter().map(|(id, own)| (name(id), own));
                for (bridge, own) in [(String::new(), own)].into_iter().chain(again) {
                    let kinds = own.kinds.into_iter();
                    let bridge = &bridge;
                    all.kinds.extend(kinds.map(|kind| Recorded {
                        bridge: bridge.clone(),
                        worker,
                        ..kind
                    }));
                    all.missed = all.missed.saturating_add(own.missed);
                    all.passed = all.passed.max(own.passed);
                }
            }
        }
        all
    }
}

impl Control {
    fn record(&mut self, record: Record) {
        self.records = record;
        for worker in &self.mailboxes {
            worker.ask(|done| Message::Record(record, done));
        }
    }

    /// A second is over: workers that find no time to sleep record some frames more.
    pub(super) fn go_on_recording(&self) {
        if self.records == Record::Sparingly {
            for worker in self.mailboxes.iter().filter(|worker| !worker.counters.asleep.is_now()) {
                worker.ask(|done| Message::Record(Record::Sparingly, done));
            }
        }
    }
}
