//! Port role transitions (IEEE 802.1D-2004 clause 17.29): how a port comes to do what its role is, without
//! a loop in between.

use super::port::{Around, Port, Role, State, Wishes};

/// Where the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has to stop forwarding before it has no role.
    #[default]
    Disabling,
    Disabled,
    Root,
    Designated,
    /// The same before it stands by.
    Blocking,
    Blocked,
}

impl Port {
    pub(super) fn change_role(&mut self, around: &Around, wishes: &mut Wishes) -> bool {
        if !self.selected || self.updt_info {
            return false;
        }
        if self.role != self.selected_role {
            self.take_role();
            return true;
        }
        match self.stage {
            Stage::Disabling | Stage::Blocking => self.rest(around),
            Stage::Disabled => self.stay_disabled(around),
            Stage::Root => self.be_root(around, wishes),
            Stage::Designated => self.be_designated(),
            Stage::Blocked => self.stand_by(around, wishes),
        }
    }

    fn take_role(&mut self) {
        self.role = self.selected_role;
        match self.role {
            Role::Root => {
                self.stage = Stage::Root;
                self.timers.rr = self.long_delay();
            }
            Role::Designated => self.stage = Stage::Designated,
            Role::Disabled => {
                self.stage = Stage::Disabling;
                (self.learn, self.forward) = (false, false);
            }
            Role::Alternate | Role::Backup => {
                self.stage = Stage::Blocking;
                (self.learn, self.forward) = (false, false);
            }
        }
    }

    /// Goes on once no frame passes any more.
    fn rest(&mut self, around: &Around) -> bool {
        if self.state != State::Discarding {
            return false;
        }
        if self.stage == Stage::Disabling {
            self.stage = Stage::Disabled;
            self.timers.fd = self.first_delay(around.is_rapid);
        } else {
            self.stage = Stage::Blocked;
            self.timers.fd = self.forward_delay();
        }
        self.settle();
        true
    }

    const fn settle(&mut self) {
        self.synced = true;
        self.timers.rr = 0;
        (self.sync, self.re_root) = (false, false);
    }

    fn stay_disabled(&mut self, around: &Around) -> bool {
        let is_settled = !self.sync && !self.re_root && self.synced;
        let delay = self.first_delay(around.is_rapid);
        if self.timers.fd == delay && is_settled {
            return false;
        }
        self.timers.fd = delay;
        self.settle();
        true
    }

    fn be_root(&mut self, around: &Around, wishes: &mut Wishes) -> bool {
        let is_safe =
            self.timers.fd == 0 || (around.re_rooted && self.timers.rb == 0 && around.is_rapid);
        if self.proposed && !self.agree {
            wishes.sync = true;
            self.proposed = false;
        } else if (around.all_synced && !self.agree) || (self.proposed && self.agree) {
            (self.proposed, self.sync) = (false, false);
            (self.agree, self.new_info) = (true, true);
        } else if !self.forward && !self.re_root {
            wishes.re_root = true;
        } else if self.re_root && self.forward {
            self.re_root = false;
        } else if is_safe && !self.learn {
            self.timers.fd = self.forward_delay();
            self.learn = true;
        } else if is_safe && !self.forward {
            self.timers.fd = 0;
            self.forward = true;
        } else if self.timers.rr != self.long_delay() {
            self.timers.rr = self.long_delay();
        } else {
            return false;
        }
        true
    }

    fn be_designated(&mut self) -> bool {
        let was_root = self.re_root && self.timers.rr != 0;
        let is_safe =
            (self.timers.fd == 0 || self.agreed || self.oper_edge) && !was_root && !self.sync;
        let has_to_stop = (self.sync && !self.synced) || was_root || self.disputed;
        let is_quiet = self.state == State::Discarding && !self.learn && !self.forward;
        if !self.forward && !self.agreed && !self.proposing && !self.oper_edge {
            self.proposing = true;
            self.timers.edge_delay = self.edge_delay();
            self.new_info = true;
        } else if ((is_quiet || self.agreed || self.oper_edge) && !self.synced)
            || (self.sync && self.synced)
        {
            self.timers.rr = 0;
            (self.synced, self.sync) = (true, false);
        } else if self.timers.rr == 0 && self.re_root {
            self.re_root = false;
        } else if has_to_stop && !self.oper_edge && (self.learn || self.forward) {
            (self.learn, self.forward, self.disputed) = (false, false, false);
            self.timers.fd = self.forward_delay();
        } else if is_safe && !self.learn {
            self.learn = true;
            self.timers.fd = self.forward_delay();
        } else if is_safe && !self.forward {
            self.forward = true;
            self.timers.fd = 0;
            self.agreed = self.send_rstp;
        } else {
            return false;
        }
        true
    }

    /// An alternate or backup port.
    fn stand_by(&mut self, around: &Around, wishes: &mut Wishes) -> bool {
        let is_settled = !self.sync && !self.re_root && self.synced;
        let long = self.hello_time().saturating_mul(2);
        if self.proposed && !self.agree {
            wishes.sync = true;
            self.proposed = false;
        } else if (around.all_synced && !self.agree) || (self.proposed && self.agree) {
            self.proposed = false;
            (self.agree, self.new_info) = (true, true);
        } else if self.timers.rb != long && self.role == Role::Backup {
            self.timers.rb = long;
        } else if self.timers.fd != self.forward_delay() || !is_settled {
            self.timers.fd = self.forward_delay();
            self.settle();
        } else {
            return false;
        }
        true
    }
}
