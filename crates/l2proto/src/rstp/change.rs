//! Topology change (IEEE 802.1D-2004 clause 17.31): when a port begins to forward, stations may be behind
//! other ports than before, and all bridges have to forget where they were.

use super::port::{Port, Role, State, Wishes};

/// Where the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Inactive,
    Learning,
    Active,
}

impl Port {
    pub(super) fn notice_change(&mut self, wishes: &mut Wishes) -> bool {
        let leads = matches!(self.role, Role::Root | Role::Designated);
        match self.change {
            Stage::Inactive if self.learn => {
                self.forget_change();
                self.change = Stage::Learning;
            }
            Stage::Inactive => return false,
            Stage::Learning if leads && self.forward && !self.oper_edge => {
                self.begin_tc_while();
                wishes.tc_prop = true;
                self.new_info = true;
                self.change = Stage::Active;
            }
            Stage::Learning if self.has_heard_of_change() => self.forget_change(),
            Stage::Learning if !leads && !self.learn && self.state == State::Discarding => {
                wishes.flush = true;
                self.timers.tc = 0;
                self.tc_ack = false;
                self.change = Stage::Inactive;
            }
            Stage::Learning => return false,
            Stage::Active if !leads || self.oper_edge => {
                self.forget_change();
                self.change = Stage::Learning;
            }
            Stage::Active => return self.hear_of_change(wishes),
        }
        true
    }

    const fn has_heard_of_change(&self) -> bool {
        self.rcvd_tc || self.rcvd_tcn || self.rcvd_tc_ack || self.tc_prop
    }

    const fn forget_change(&mut self) {
        (self.rcvd_tc, self.rcvd_tcn, self.rcvd_tc_ack, self.tc_prop) =
            (false, false, false, false);
    }

    fn hear_of_change(&mut self, wishes: &mut Wishes) -> bool {
        if self.rcvd_tcn || self.rcvd_tc {
            if self.rcvd_tcn {
                self.begin_tc_while();
            }
            (self.rcvd_tcn, self.rcvd_tc) = (false, false);
            self.tc_ack |= self.role == Role::Designated;
            wishes.tc_prop = true;
        } else if self.tc_prop {
            self.begin_tc_while();
            wishes.flush = true;
            self.tc_prop = false;
        } else if self.rcvd_tc_ack {
            self.timers.tc = 0;
            self.rcvd_tc_ack = false;
        } else {
            return false;
        }
        true
    }

    /// Has neighbours be told for a while (newTcWhile).
    const fn begin_tc_while(&mut self) {
        if self.timers.tc != 0 {
            return;
        }
        if self.send_rstp {
            self.timers.tc = self.hello_time().saturating_add(1);
            self.new_info = true;
        } else {
            self.timers.tc = self.max_age().saturating_add(self.long_delay());
            // The old protocol tells the root at once (IEEE 802.1D-1998, clause 8.6.14.3), and not when
            // the hello time is over: until it knows, all others keep what is wrong.
            self.new_info |= matches!(self.role, Role::Root);
        }
    }
}
