//! One port of a tree: what the state machines of a port know (IEEE 802.1D-2004 clause 17.19), and the
//! order in which they run. None of them reads a clock; timers count seconds, which somebody else
//! tells.

use super::bpdu::{Bpdu, Config, Rapid, Teller};
use super::vector::{Times, Vector};

/// How long a port waits before it believes which protocol its neighbour speaks, and whether there is a
/// neighbour at all, in seconds (table 17-1).
pub(super) const MIGRATE_TIME: u8 = 3;

/// The part of a port in the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// None: its link is down.
    #[default]
    Disabled,
    /// The way to the root.
    Root,
    /// The way from the root, for all behind it.
    Designated,
    /// Another way to the root, which is not used.
    Alternate,
    /// Another way to what this bridge leads to by another port already.
    Backup,
}

impl Role {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::Disabled, Self::Root, Self::Designated, Self::Alternate, Self::Backup];

    /// Its name, as Open vSwitch has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Root => "root",
            Self::Designated => "designated",
            Self::Alternate => "alternate",
            Self::Backup => "backup",
        }
    }
}

/// What a port does with frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It drops them.
    #[default]
    Discarding,
    /// It learns where stations are, and drops them.
    Learning,
    /// It forwards them.
    Forwarding,
}

impl State {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Discarding, Self::Learning, Self::Forwarding];

    /// Its name, as Open vSwitch has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discarding => "discarding",
            Self::Learning => "learning",
            Self::Forwarding => "forwarding",
        }
    }
}

/// What a port is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its priority and number.
    pub id: u16,
    /// The cost of its link.
    pub cost: u32,
    /// Whether there is no bridge behind it, unless one is heard.
    pub admin_edge: bool,
    /// Whether that is found out.
    pub auto_edge: bool,
    /// Whether there is one neighbour at most.
    pub point_to_point: bool,
}

/// Where what is known of a port is from (clause 17.19.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Source {
    #[default]
    Disabled,
    Aged,
    Mine,
    Received,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages received.
    pub received: u64,
    /// Messages sent.
    pub sent: u64,
    /// Frames that made no sense.
    pub bad: u64,
    /// How often it began to forward.
    pub forwards: u64,
}

/// Timers, in seconds that are left (clause 17.17).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timers {
    pub(super) edge_delay: u8,
    pub(super) fd: u8,
    pub(super) hello: u8,
    pub(super) mdelay: u8,
    pub(super) rb: u8,
    pub(super) rcvd_info: u8,
    pub(super) rr: u8,
    pub(super) tc: u8,
}

/// A port. The names of its flags are those of the standard.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "the standard's own flags")]
pub struct Port {
    pub(super) settings: Settings,
    /// Whether its link is up (portEnabled).
    pub(super) is_up: bool,
    pub(super) timers: Timers,
    pub(super) tx_count: u8,
    pub(super) stage: super::roles::Stage,
    pub(super) information: super::information::Stage,
    pub(super) migration: super::migration::Stage,
    pub(super) change: super::change::Stage,
    pub(super) info_is: Source,
    pub(super) role: Role,
    pub(super) selected_role: Role,
    pub(super) state: State,
    /// What has come, and has not been looked at yet (rcvdBPDU).
    pub(super) heard: Option<Bpdu>,
    /// What is being looked at (rcvdMsg).
    pub(super) message: Option<Bpdu>,
    pub(super) agree: bool,
    pub(super) agreed: bool,
    pub(super) disputed: bool,
    pub(super) forward: bool,
    pub(super) learn: bool,
    pub(super) mcheck: bool,
    pub(super) new_info: bool,
    pub(super) oper_edge: bool,
    pub(super) proposed: bool,
    pub(super) proposing: bool,
    pub(super) rcvd_rstp: bool,
    pub(super) rcvd_stp: bool,
    pub(super) rcvd_tc: bool,
    pub(super) rcvd_tc_ack: bool,
    pub(super) rcvd_tcn: bool,
    pub(super) re_root: bool,
    pub(super) reselect: bool,
    pub(super) selected: bool,
    pub(super) send_rstp: bool,
    pub(super) sync: bool,
    pub(super) synced: bool,
    pub(super) tc_ack: bool,
    pub(super) tc_prop: bool,
    pub(super) updt_info: bool,
    pub(super) priority: Vector,
    pub(super) times: Times,
    pub(super) designated_priority: Vector,
    pub(super) designated_times: Times,
    /// What is counted.
    pub counts: Counts,
}

/// What a port has to know of the others and of its bridge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    /// Whether the bridge speaks the rapid protocol (rstpVersion).
    pub(super) is_rapid: bool,
    /// The most messages at once (TxHoldCount).
    pub(super) hold_count: u8,
    /// Whether all ports agree (allSynced).
    pub(super) all_synced: bool,
    /// Whether no other port has been the root port lately (reRooted).
    pub(super) re_rooted: bool,
}

/// What a port has others do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    /// All ports are to agree (setSyncTree).
    pub(super) sync: bool,
    /// All that were the root port are to discard (setReRootTree).
    pub(super) re_root: bool,
    /// All others are told of a change (setTcPropTree).
    pub(super) tc_prop: bool,
    /// What was learnt behind this port is to be forgotten (fdbFlush).
    pub(super) flush: bool,
    /// What is to be sent.
    pub(super) send: Option<Bpdu>,
}

impl Port {
    pub(super) fn new(settings: Settings, times: Times, is_rapid: bool) -> Self {
        let mut port = Self {
            settings,
            is_up: false,
            timers: Timers { edge_delay: MIGRATE_TIME, mdelay: MIGRATE_TIME, ..Timers::default() },
            tx_count: 0,
            stage: super::roles::Stage::default(),
            information: super::information::Stage::default(),
            migration: super::migration::Stage::default(),
            change: super::change::Stage::default(),
            info_is: Source::Disabled,
            role: Role::Disabled,
            selected_role: Role::Disabled,
            state: State::Discarding,
            heard: None,
            message: None,
            agree: false,
            agreed: false,
            disputed: false,
            forward: false,
            learn: false,
            mcheck: false,
            new_info: true,
            oper_edge: settings.admin_edge,
            proposed: false,
            proposing: false,
            rcvd_rstp: false,
            rcvd_stp: false,
            rcvd_tc: false,
            rcvd_tc_ack: false,
            rcvd_tcn: false,
            re_root: true,
            reselect: true,
            selected: false,
            send_rstp: is_rapid,
            sync: true,
            synced: false,
            tc_ack: false,
            tc_prop: false,
            updt_info: false,
            priority: Vector::default(),
            times,
            designated_priority: Vector::default(),
            designated_times: times,
            counts: Counts::default(),
        };
        port.timers.rr = times.forward_delay;
        port.timers.fd = port.first_delay(is_rapid);
        port
    }

    /// Gives it other settings.
    pub(super) fn set(&mut self, settings: Settings) {
        if settings == self.settings {
            return;
        }
        if settings.admin_edge && !self.settings.admin_edge && !self.is_up {
            self.oper_edge = true;
        }
        self.settings = settings;
        (self.reselect, self.selected) = (true, false);
    }

    /// What it does with frames.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Its part in the tree.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Whether there is no bridge behind it.
    pub const fn is_edge(&self) -> bool {
        self.oper_edge
    }

    /// Whether it speaks the rapid protocol.
    pub const fn sends_rstp(&self) -> bool {
        self.send_rstp
    }

    /// What it is set to.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is known of who is designated behind it: itself, or who was heard.
    pub const fn known(&self) -> &Vector {
        &self.priority
    }

    /// Has it find out anew which protocol its neighbour speaks.
    pub(super) const fn check_protocol(&mut self) {
        self.mcheck = true;
    }

    /// A second is over (clause 17.22).
    pub(super) fn tick(&mut self) {
        let Timers { edge_delay, fd, hello, mdelay, rb, rcvd_info, rr, tc } = &mut self.timers;
        for timer in [edge_delay, fd, hello, mdelay, rb, rcvd_info, rr, tc, &mut self.tx_count] {
            *timer = timer.saturating_sub(1);
        }
    }

    /// Lets each machine make one step, if it can; returns whether any has.
    pub(super) fn step(&mut self, around: &Around, wishes: &mut Wishes) -> bool {
        let mut has_moved = self.receive();
        has_moved |= self.migrate(around);
        has_moved |= self.detect_edge();
        has_moved |= self.inform();
        has_moved |= self.change_role(around, wishes);
        has_moved |= self.change_state();
        has_moved |= self.notice_change(wishes);
        has_moved |= self.transmit(around, wishes);
        has_moved
    }

    /// Port receive (clause 17.23).
    fn receive(&mut self) -> bool {
        if !self.is_up {
            let had = self.heard.take().is_some() || self.timers.edge_delay != MIGRATE_TIME;
            (self.rcvd_rstp, self.rcvd_stp, self.message) = (false, false, None);
            self.timers.edge_delay = MIGRATE_TIME;
            return had;
        }
        if self.message.is_some() {
            return false;
        }
        let Some(bpdu) = self.heard.take() else { return false };
        match bpdu {
            Bpdu::Rst(..) => self.rcvd_rstp = true,
            Bpdu::Config(_) | Bpdu::Tcn => self.rcvd_stp = true,
        }
        self.oper_edge = false;
        self.message = Some(bpdu);
        self.timers.edge_delay = MIGRATE_TIME;
        true
    }

    /// Bridge detection (clause 17.25).
    fn detect_edge(&mut self) -> bool {
        let Settings { admin_edge, auto_edge, .. } = self.settings;
        let before = self.oper_edge;
        let is_alone = self.timers.edge_delay == 0 && auto_edge && self.send_rstp && self.proposing;
        if !self.is_up {
            self.oper_edge = admin_edge;
        } else if is_alone {
            self.oper_edge = true;
        }
        before != self.oper_edge
    }

    /// Port state transition (clause 17.30). Whoever owns the tree has frames treated accordingly before
    /// anything is sent.
    fn change_state(&mut self) -> bool {
        let next = match self.state {
            State::Discarding if self.learn => State::Learning,
            State::Learning if !self.learn => State::Discarding,
            State::Learning if self.forward => State::Forwarding,
            State::Forwarding if !self.forward => State::Discarding,
            state => state,
        };
        if next == State::Forwarding && self.state != next {
            self.counts.forwards = self.counts.forwards.saturating_add(1);
        }
        let has_moved = next != self.state;
        self.state = next;
        has_moved
    }

    /// Port transmit (clause 17.26).
    fn transmit(&mut self, around: &Around, wishes: &mut Wishes) -> bool {
        if !self.selected || self.updt_info || !self.is_up {
            return false;
        }
        if self.timers.hello == 0 {
            self.timers.hello = self.hello_time();
            self.new_info |=
                self.role == Role::Designated || (self.role == Role::Root && self.timers.tc != 0);
            return true;
        }
        if !self.new_info || self.tx_count >= around.hold_count || wishes.send.is_some() {
            return false;
        }
        let bpdu = match (self.send_rstp, self.role) {
            (true, _) => Bpdu::Rst(self.config(), self.rapid()),
            (false, Role::Designated) => {
                Bpdu::Config(Config { acknowledgement: self.tc_ack, ..self.config() })
            }
            (false, Role::Root) => Bpdu::Tcn,
            (false, _) => return false,
        };
        self.new_info = false;
        self.tc_ack &= bpdu == Bpdu::Tcn;
        self.tx_count = self.tx_count.saturating_add(1);
        self.timers.hello = self.hello_time();
        self.counts.sent = self.counts.sent.saturating_add(1);
        wishes.send = Some(bpdu);
        true
    }

    const fn config(&self) -> Config {
        Config {
            priority: self.designated_priority,
            times: self.designated_times,
            topology_change: self.timers.tc != 0,
            acknowledgement: false,
        }
    }

    const fn rapid(&self) -> Rapid {
        Rapid {
            teller: match self.role {
                Role::Root => Teller::Root,
                Role::Designated => Teller::Designated,
                Role::Disabled | Role::Alternate | Role::Backup => Teller::Blocked,
            },
            proposal: self.proposing,
            agreement: self.agree,
            learning: !matches!(self.state, State::Discarding),
            forwarding: matches!(self.state, State::Forwarding),
        }
    }

    /// Times as the standard's procedures give them (clause 17.20).
    pub(super) const fn hello_time(&self) -> u8 {
        self.designated_times.hello
    }

    pub(super) const fn max_age(&self) -> u8 {
        self.designated_times.max_age
    }

    /// FwdDelay.
    pub(super) const fn long_delay(&self) -> u8 {
        self.designated_times.forward_delay
    }

    /// forwardDelay.
    pub(super) const fn forward_delay(&self) -> u8 {
        if self.send_rstp { self.hello_time() } else { self.long_delay() }
    }

    /// How long a port without a link waits before it learns, once it has one: as long as it listens by the
    /// old protocol (IEEE 802.1D-1998 clause 8.4.2).
    pub(super) const fn first_delay(&self, is_rapid: bool) -> u8 {
        if is_rapid { self.max_age() } else { self.long_delay() }
    }

    /// `EdgeDelay`.
    pub(super) const fn edge_delay(&self) -> u8 {
        if self.settings.point_to_point { MIGRATE_TIME } else { self.max_age() }
    }
}
