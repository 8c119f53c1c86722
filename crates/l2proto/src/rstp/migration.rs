//! Port protocol migration (IEEE 802.1D-2004 clause 17.24): a neighbour that speaks the old protocol is
//! spoken to in the old protocol.

use super::port::{Around, MIGRATE_TIME, Port};

/// Where the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// The rapid protocol is spoken for a while, whatever is heard.
    #[default]
    CheckingRstp,
    /// The same of the old one.
    SelectingStp,
    /// The neighbour decides.
    Sensing,
}

impl Port {
    pub(super) fn migrate(&mut self, around: &Around) -> bool {
        let next = match self.migration {
            Stage::CheckingRstp if !self.is_up => {
                let waits = self.timers.mdelay != MIGRATE_TIME;
                self.check_rstp(around);
                return waits;
            }
            Stage::CheckingRstp if self.timers.mdelay == 0 => Stage::Sensing,
            Stage::SelectingStp if self.timers.mdelay == 0 || !self.is_up || self.mcheck => {
                Stage::Sensing
            }
            Stage::Sensing if self.is_to_check(around) => Stage::CheckingRstp,
            Stage::Sensing if self.send_rstp && self.rcvd_stp => Stage::SelectingStp,
            _ => return false,
        };
        self.migration = next;
        match next {
            Stage::CheckingRstp => self.check_rstp(around),
            Stage::SelectingStp => {
                self.send_rstp = false;
                self.timers.mdelay = MIGRATE_TIME;
            }
            Stage::Sensing => (self.rcvd_rstp, self.rcvd_stp) = (false, false),
        }
        true
    }

    const fn is_to_check(&self, around: &Around) -> bool {
        !self.is_up || self.mcheck || (around.is_rapid && !self.send_rstp && self.rcvd_rstp)
    }

    const fn check_rstp(&mut self, around: &Around) {
        self.mcheck = false;
        self.send_rstp = around.is_rapid;
        self.timers.mdelay = MIGRATE_TIME;
    }
}
