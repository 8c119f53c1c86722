//! The state machines of one port (IEEE 802.1AX-2014 clause 6.4): receive, periodic transmission, mux
//! and transmit, or those that Open vSwitch has in their place. They read no clock and send nothing: whoever has a port tells it the time, and
//! sends what it asks for.

use std::time::{Duration, Instant};

use eal::time::later;

use super::pdu::{Flags, Info, Pdu};

/// Times of clause 6.4.4.
const FAST_PERIODIC: Duration = Duration::from_secs(1);
const SLOW_PERIODIC: Duration = Duration::from_secs(30);
const SHORT_TIMEOUT: Duration = Duration::from_secs(3);
const LONG_TIMEOUT: Duration = Duration::from_secs(90);
const AGGREGATE_WAIT: Duration = Duration::from_secs(2);

/// The most frames that are sent within [`FAST_PERIODIC`] (clause 6.4.16).
const MOST_AT_ONCE: u32 = 3;

/// What is known of the partner, by the receive machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Receive {
    /// The link is down.
    #[default]
    Disabled,
    /// It has not been heard for too long, or not yet.
    Expired,
    /// There is none that speaks the protocol.
    Defaulted,
    /// It has been heard.
    Current,
}

/// Whether the port is in use, by the mux machine with coupled control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mux {
    #[default]
    /// It is not chosen.
    Detached,
    /// It is chosen; others that belong to the same group may follow.
    Waiting(Instant),
    /// It is ready, and waits until the partner is.
    Attached,
    /// It collects and distributes.
    InUse,
}

/// Whose state machines a port follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Those of IEEE 802.1AX.
    #[default]
    Standard,
    /// Open vSwitch's: a port counts as chosen while its partner is still asked for, so it says so
    /// in its first frame, does not wait for others, and has no state of its own for a link that is
    /// down. With `falls_back` it may carry frames, too, once no partner has answered.
    OpenVswitch {
        /// Whether it is used without a partner.
        falls_back: bool,
    },
}

/// What a port is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What it says of itself, without its state.
    pub own: Info,
    /// Whether it may be one of several.
    pub aggregates: bool,
    /// Whether it speaks unasked.
    pub is_active: bool,
    /// Whether it wants to hear once a second.
    pub is_fast: bool,
    /// Whose state machines it follows.
    pub manner: Manner,
}

impl Settings {
    const fn is_standard(&self) -> bool {
        matches!(self.manner, Manner::Standard)
    }
}

/// What is counted of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames received that made no sense.
    pub bad: u64,
    /// Questions of the marker protocol received.
    pub markers: u64,
    /// How often the partner was not heard for too long.
    pub expired: u64,
    /// How often it was given up.
    pub defaulted: u64,
    /// How often the link went down or came up.
    pub links: u64,
}

/// One port.
#[derive(Clone, Debug)]
pub struct Port {
    settings: Settings,
    receive: Receive,
    mux: Mux,
    partner: Info,
    /// When the partner will not have been heard for too long.
    current_while: Option<Instant>,
    /// When the next frame is due without any news.
    periodic: Option<Instant>,
    /// There is news to send.
    need_to_transmit: bool,
    /// Frames sent since then.
    burst: (Option<Instant>, u32),
    is_up: bool,
    is_selected: bool,
    /// Whether a group was found at all.
    is_negotiated: bool,
    /// What is counted.
    pub counts: Counts,
}

impl Port {
    /// One whose link is down, and that knows nothing of a partner.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            receive: Receive::Disabled,
            mux: Mux::Detached,
            partner: Info::default(),
            current_while: None,
            periodic: None,
            need_to_transmit: false,
            burst: (None, 0),
            is_up: false,
            is_selected: false,
            is_negotiated: false,
            counts: Counts::default(),
        }
    }

    /// Gives it other settings; the partner is told.
    pub fn set(&mut self, settings: Settings) {
        if settings != self.settings {
            self.settings = settings;
            self.need_to_transmit = true;
        }
    }

    /// What is known of the partner.
    pub const fn receive(&self) -> Receive {
        self.receive
    }

    /// Where its mux machine is.
    #[cfg(test)]
    pub const fn mux(&self) -> Mux {
        self.mux
    }

    /// What is known of the partner.
    pub const fn partner(&self) -> &Info {
        &self.partner
    }

    /// Whether it may carry frames.
    pub fn is_in_use(&self) -> bool {
        self.mux == Mux::InUse
    }

    /// What it is set to.
    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it is chosen to be in the group.
    pub(super) const fn is_selected(&self) -> bool {
        self.is_selected
    }

    /// Whether it is chosen to be in the group, and whether there is one.
    pub fn select(&mut self, is_selected: bool, is_negotiated: bool) {
        (self.is_selected, self.is_negotiated) = (is_selected, is_negotiated);
    }

    /// What it says of itself now.
    pub fn actor(&self) -> Info {
        let Settings { own, aggregates, is_active, is_fast, .. } = self.settings;
        let is_in = self.is_in();
        let carries = match self.settings.manner {
            Manner::Standard => self.is_in_use(),
            Manner::OpenVswitch { .. } => is_in || !self.is_negotiated,
        };
        let flags = [
            (Flags::ACTIVITY, is_active),
            (Flags::SHORT_TIMEOUT, is_fast),
            (Flags::AGGREGATION, aggregates),
            (Flags::SYNCHRONIZATION, is_in),
            (Flags::COLLECTING, carries),
            (Flags::DISTRIBUTING, carries),
            (Flags::DEFAULTED, self.receive == Receive::Defaulted),
            (Flags::EXPIRED, self.receive == Receive::Expired),
        ];
        let flags = flags.into_iter().fold(Flags(0), |all, (bit, set)| all.with(bit, set));
        Info { flags, ..own }
    }

    const fn is_in(&self) -> bool {
        matches!(self.mux, Mux::Attached | Mux::InUse)
    }

    /// A frame of the partner has come.
    pub fn hear(&mut self, pdu: &Pdu, now: Instant) {
        self.counts.received = self.counts.received.saturating_add(1);
        if !self.is_up || self.receive == Receive::Disabled {
            return;
        }
        // A frame of our own that came back is no partner.
        let own = self.actor();
        if self.settings.is_standard()
            && pdu.actor.system == own.system
            && pdu.actor.port == own.port
        {
            return;
        }
        // What the partner does not know of us, it is to be told (update_NTT).
        let told = Flags(0x0F);
        let known = |info: &Info| Info { flags: Flags(info.flags.0 & told.0), ..*info };
        if known(&pdu.partner) != known(&own) {
            self.need_to_transmit = true;
        }
        self.partner = match self.settings.manner {
            Manner::Standard => recorded(pdu, &own, self.settings.is_active),
            Manner::OpenVswitch { .. } => pdu.actor,
        };
        self.receive = Receive::Current;
        self.current_while = Some(later(now, self.timeout()));
    }

    const fn timeout(&self) -> Duration {
        if self.settings.is_fast { SHORT_TIMEOUT } else { LONG_TIMEOUT }
    }

    /// Finds out what is known of the partner at `now`, which decides who is chosen.
    pub fn look(&mut self, is_up: bool, now: Instant) {
        if is_up != self.is_up {
            self.is_up = is_up;
            self.counts.links = self.counts.links.saturating_add(1);
            self.change_link(now);
        }
        if self.current_while.is_none_or(|due| due > now) {
            return;
        }
        match self.receive {
            Receive::Current => {
                self.counts.expired = self.counts.expired.saturating_add(1);
                self.expire(now);
            }
            Receive::Expired => {
                self.counts.defaulted = self.counts.defaulted.saturating_add(1);
                self.give_up();
            }
            Receive::Disabled | Receive::Defaulted => self.current_while = None,
        }
    }

    /// Does what is due at `now`, and returns what is to be sent.
    pub fn run(&mut self, now: Instant) -> Option<Pdu> {
        self.run_mux(now);
        self.run_periodic(now);
        self.transmit(now)
    }

    /// The link has come up or gone down.
    fn change_link(&mut self, now: Instant) {
        let Settings { is_active, manner, .. } = self.settings;
        match manner {
            Manner::Standard if self.is_up => self.expire(now),
            Manner::Standard => {
                self.receive = Receive::Disabled;
                self.partner.flags = self.partner.flags.with(Flags::SYNCHRONIZATION, false);
                self.current_while = None;
            }
            Manner::OpenVswitch { .. } if is_active || self.receive == Receive::Current => {
                self.expire(now);
            }
            Manner::OpenVswitch { .. } if self.receive == Receive::Disabled => self.give_up(),
            Manner::OpenVswitch { .. } => {}
        }
    }

    /// There is no partner that speaks the protocol.
    fn give_up(&mut self) {
        self.receive = Receive::Defaulted;
        self.partner = Info::default();
        self.current_while = None;
    }

    /// The partner is asked to speak fast, and given up if it does not.
    fn expire(&mut self, now: Instant) {
        self.receive = Receive::Expired;
        let flags = self.partner.flags.with(Flags::SYNCHRONIZATION, false);
        self.partner.flags = flags.with(Flags::SHORT_TIMEOUT, true);
        self.current_while = Some(later(now, SHORT_TIMEOUT));
        self.need_to_transmit = true;
    }

    fn run_mux(&mut self, now: Instant) {
        let (before, was_in) = (self.mux, self.is_in());
        let in_sync = self.partner.flags.has(Flags::SYNCHRONIZATION);
        self.need_to_transmit |= match self.settings.manner {
            Manner::Standard => {
                // Each step is taken at once, and there are but three.
                for _ in 0..3 {
                    self.mux = self.next_mux(in_sync, now);
                }
                let is_news = std::mem::discriminant(&before) != std::mem::discriminant(&self.mux);
                is_news && !matches!(self.mux, Mux::Waiting(_))
            }
            Manner::OpenVswitch { falls_back } => {
                let stands_in = falls_back && self.receive == Receive::Defaulted;
                self.mux = match self.is_selected {
                    false => Mux::Detached,
                    true if in_sync || stands_in => Mux::InUse,
                    true => Mux::Attached,
                };
                was_in != self.is_in()
            }
        };
    }

    fn next_mux(&self, in_sync: bool, now: Instant) -> Mux {
        match self.mux {
            _ if !self.is_selected || self.receive == Receive::Disabled => Mux::Detached,
            Mux::Detached => Mux::Waiting(later(now, AGGREGATE_WAIT)),
            Mux::Waiting(due) if due <= now => Mux::Attached,
            Mux::Attached if in_sync => Mux::InUse,
            Mux::InUse if !in_sync => Mux::Attached,
            same => same,
        }
    }

    /// Whether frames are sent without any news: one of both sides has to speak unasked, or for Open
    /// vSwitch, to have spoken at all.
    fn speaks(&self) -> bool {
        let is_answering = match self.settings.manner {
            Manner::Standard => self.partner.flags.has(Flags::ACTIVITY),
            Manner::OpenVswitch { .. } => self.receive != Receive::Defaulted,
        };
        self.is_up && (self.settings.is_active || is_answering)
    }

    fn run_periodic(&mut self, now: Instant) {
        if !self.speaks() {
            self.periodic = None;
            return;
        }
        let is_fast = self.partner.flags.has(Flags::SHORT_TIMEOUT);
        let period = if is_fast { FAST_PERIODIC } else { SLOW_PERIODIC };
        let next = later(now, period);
        match self.periodic {
            Some(due) if due <= now => {
                self.need_to_transmit = true;
                self.periodic = Some(next);
            }
            due => self.periodic = Some(due.map_or(next, |due| due.min(next))),
        }
    }

    /// The frame to send, if there is news and not too much was sent.
    fn transmit(&mut self, now: Instant) -> Option<Pdu> {
        // Whoever is passive answers, and says nothing unasked.
        if !self.speaks() {
            self.need_to_transmit = false;
        }
        if !self.need_to_transmit {
            return None;
        }
        let (since, count) = self.burst;
        match since.filter(|since| now < later(*since, FAST_PERIODIC)) {
            Some(_) if count >= MOST_AT_ONCE => return None,
            Some(since) => self.burst = (Some(since), count.saturating_add(1)),
            None => self.burst = (Some(now), 1),
        }
        self.need_to_transmit = false;
        self.counts.sent = self.counts.sent.saturating_add(1);
        Some(Pdu { actor: self.actor(), partner: self.partner })
    }

    /// When there is something to do next.
    pub fn due(&self) -> Option<Instant> {
        let waiting = match self.mux {
            Mux::Waiting(due) => Some(due),
            _ => None,
        };
        let (since, _) = self.burst;
        let held_back = since.filter(|_| self.need_to_transmit);
        let held_back = held_back.map(|since| later(since, FAST_PERIODIC));
        [self.current_while, self.periodic, waiting, held_back].into_iter().flatten().min()
    }
}

/// What is known of a partner from what it says (recordPDU): it counts as in our group if it knows us, or
/// is alone.
fn recorded(pdu: &Pdu, own: &Info, is_active: bool) -> Info {
    let knows_us = pdu.partner.is_same(own) || !pdu.actor.flags.has(Flags::AGGREGATION);
    let speaks = pdu.actor.flags.has(Flags::ACTIVITY)
        || (is_active && pdu.partner.flags.has(Flags::ACTIVITY));
    let in_sync = pdu.actor.flags.has(Flags::SYNCHRONIZATION) && knows_us && speaks;
    Info { flags: pdu.actor.flags.with(Flags::SYNCHRONIZATION, in_sync), ..pdu.actor }
}
