//! Port information (IEEE 802.1D-2004 clause 17.27): what is known of the tree behind a port, and since
//! when.

use super::bpdu::{Bpdu, Config, Rapid, Teller};
use super::port::{Port, Source};
use super::vector::{Times, Vector};

/// Where the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Disabled,
    Aged,
    Current,
}

/// What a message is worth (rcvInfo, clause 17.21.8).
enum Worth {
    Superior(Config, Option<Rapid>),
    Repeated(Config, Option<Rapid>),
    Inferior(Option<Rapid>),
    /// From a port that is not designated.
    Answer(Config, Rapid),
    Other,
}

impl Port {
    pub(super) fn inform(&mut self) -> bool {
        if !self.is_up {
            return self.disable();
        }
        match self.information {
            Stage::Disabled => self.age(),
            Stage::Aged if self.selected && self.updt_info => self.update(),
            Stage::Aged => return false,
            Stage::Current if self.selected && self.updt_info => self.update(),
            Stage::Current if self.updt_info => return false,
            Stage::Current => return self.look(),
        }
        true
    }

    fn look(&mut self) -> bool {
        if let Some(bpdu) = self.message.take() {
            self.hear(&bpdu);
        } else if self.info_is == Source::Received && self.timers.rcvd_info == 0 {
            self.age();
        } else {
            return false;
        }
        true
    }

    fn disable(&mut self) -> bool {
        let is_news = self.information != Stage::Disabled || self.message.is_some();
        self.message = None;
        if is_news {
            self.information = Stage::Disabled;
            (self.proposing, self.proposed, self.agree, self.agreed) = (false, false, false, false);
            self.timers.rcvd_info = 0;
            self.info_is = Source::Disabled;
            (self.reselect, self.selected) = (true, false);
        }
        is_news
    }

    const fn age(&mut self) {
        self.information = Stage::Aged;
        self.info_is = Source::Aged;
        (self.reselect, self.selected) = (true, false);
    }

    fn update(&mut self) {
        self.information = Stage::Current;
        (self.proposing, self.proposed) = (false, false);
        let is_as_good = self.info_is == Source::Mine && self.designated_priority <= self.priority;
        self.agreed &= is_as_good;
        self.synced &= self.agreed;
        self.priority = self.designated_priority;
        self.times = self.designated_times;
        self.updt_info = false;
        self.info_is = Source::Mine;
        self.new_info = true;
    }

    fn hear(&mut self, bpdu: &Bpdu) {
        match self.worth(bpdu) {
            Worth::Superior(config, rapid) => {
                (self.agreed, self.proposing) = (false, false);
                self.record_proposal(rapid);
                self.set_tc_flags(&config);
                let is_as_good =
                    self.info_is == Source::Received && config.priority <= self.priority;
                self.agree &= is_as_good;
                (self.priority, self.times) = (config.priority, config.times);
                self.update_rcvd_info_while();
                self.info_is = Source::Received;
                (self.reselect, self.selected) = (true, false);
            }
            Worth::Repeated(config, rapid) => {
                self.record_proposal(rapid);
                self.set_tc_flags(&config);
                self.update_rcvd_info_while();
            }
            Worth::Inferior(rapid) => {
                // It forwards, though it should not (recordDispute).
                if rapid.is_some_and(|rapid| rapid.learning) {
                    (self.disputed, self.agreed) = (true, false);
                }
            }
            Worth::Answer(config, rapid) => {
                self.record_agreement(rapid);
                self.set_tc_flags(&config);
            }
            Worth::Other => self.rcvd_tcn |= *bpdu == Bpdu::Tcn,
        }
    }

    fn worth(&self, bpdu: &Bpdu) -> Worth {
        let (config, rapid) = match *bpdu {
            Bpdu::Tcn => return Worth::Other,
            Bpdu::Config(config) => (config, None),
            Bpdu::Rst(config, rapid) => (config, Some(rapid)),
        };
        let Config { priority, times, .. } = config;
        let (known, known_times): (&Vector, Times) = (&self.priority, self.times);
        match rapid {
            Some(rapid) if rapid.teller != Teller::Designated => {
                if priority >= *known {
                    Worth::Answer(config, rapid)
                } else {
                    Worth::Other
                }
            }
            _ if priority == *known && times == known_times => Worth::Repeated(config, rapid),
            _ if priority.replaces(known) => Worth::Superior(config, rapid),
            _ => Worth::Inferior(rapid),
        }
    }

    const fn record_proposal(&mut self, rapid: Option<Rapid>) {
        if let Some(rapid) = rapid {
            self.proposed |= rapid.proposal;
        }
    }

    const fn record_agreement(&mut self, rapid: Rapid) {
        self.agreed = self.send_rstp && self.settings.point_to_point && rapid.agreement;
        self.proposing &= !self.agreed;
    }

    const fn set_tc_flags(&mut self, config: &Config) {
        self.rcvd_tc |= config.topology_change;
        self.rcvd_tc_ack |= config.acknowledgement;
    }

    const fn update_rcvd_info_while(&mut self) {
        let Times { message_age, max_age, hello, .. } = self.times;
        let holds = message_age.saturating_add(1) <= max_age;
        self.timers.rcvd_info = if holds { hello.saturating_mul(3) } else { 0 };
    }
}
