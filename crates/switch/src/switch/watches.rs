//! How links are watched from end to end, as control threads see it: maintenance points (CFM) and sessions
//! of BFD on ports. A link that does not do is as good as down for bonds, and for controllers.

use std::time::Instant;

use datapath::trap::Watched;
use l2proto::cfm::frame::is_message;
use l2proto::{Bfd, BfdReport, BfdSession, Cfm, CfmReport, CfmSession};
use litemap::LiteMap;
use packet::MacAddr;

use super::traps::Line;
use super::{Control, Switch};
use crate::ports::Entry;

/// The port's tag control information with this VLAN and priority.
fn tag(settings: &Cfm) -> Option<u16> {
    let tag = settings.vlan.unwrap_or(0) | u16::from(settings.priority) << 13;
    (tag != 0).then_some(tag)
}

/// The ports whose links are watched, by name.
#[derive(Debug, Default)]
pub(super) struct Watches {
    ports: LiteMap<String, Watch>,
    /// How often something has changed that is worth telling.
    changes: u64,
}

impl Watches {
    /// Whether a port's link does, as far as that is watched.
    pub(super) fn carries(&self, name: &str) -> bool {
        self.ports.get(name).is_none_or(Watch::carries)
    }

    /// Has port `number` be looked at soon, if its link is watched: something may have been heard there.
    pub(super) fn ask(&mut self, number: u16) {
        let watch = self.ports.iter_mut().find(|(_, watch)| watch.number == number);
        watch.into_iter().for_each(|(_, watch)| watch.is_asked = true);
    }
}

/// A port whose link is watched.
#[derive(Debug)]
struct Watch {
    number: u16,
    cfm: Option<CfmSession>,
    bfd: Option<BfdSession>,
    /// Whether there is something to do though nothing is due.
    is_asked: bool,
    /// Whether the link did, as was told.
    carried: bool,
    /// What was told of it.
    told: Option<(Option<CfmReport>, Option<BfdReport>)>,
}

impl Watch {
    const fn new(number: u16) -> Self {
        Self { number, cfm: None, bfd: None, is_asked: true, carried: true, told: None }
    }

    /// Whether it is watched by these already.
    fn is_set_to(&self, (cfm, bfd): (Option<&Cfm>, Option<&Bfd>)) -> bool {
        self.cfm.as_ref().map(CfmSession::settings) == cfm
            && self.bfd.as_ref().map(BfdSession::settings) == bfd
    }

    /// Whether the link does. Where it is watched by both, one that finds so is enough, as in Open vSwitch.
    fn carries(&self) -> bool {
        let is_watched = self.cfm.is_some() || self.bfd.is_some();
        !is_watched
            || self.cfm.as_ref().is_some_and(CfmSession::is_good)
            || self.bfd.as_ref().is_some_and(BfdSession::is_forwarding)
    }

    /// Has it watch by these from `now` on, when so many frames have come in.
    fn set(&mut self, (cfm, bfd): (Option<Cfm>, Option<Bfd>), frames: u64, now: Instant) {
        self.cfm = cfm.map(|settings| match self.cfm.take() {
            Some(mut session) => {
                session.set(settings, now);
                session
            }
            None => CfmSession::new(settings, frames, now),
        });
        self.bfd = bfd.map(|settings| match self.bfd.take() {
            Some(mut session) => {
                session.set(settings, now);
                session
            }
            None => BfdSession::new(settings, frames, now),
        });
    }

    /// Hears a frame; gives what is wrong with it.
    fn hear(&mut self, frame: &[u8], now: Instant) -> Result<(), &'static str> {
        if let Some(session) = &mut self.cfm
            && is_message(frame, session.settings().extended)
        {
            session.hear(frame, now);
            return Ok(());
        }
        self.bfd.as_mut().map_or(Ok(()), |session| session.hear(frame, now))
    }

    /// Does what is due; gives the frames to be sent by a port with this address.
    fn run(&mut self, own: MacAddr, frames: u64, now: Instant) -> Vec<Vec<u8>> {
        let cfm = self.cfm.as_mut().and_then(|session| {
            let message = session.run(frames, now)?;
            let settings = session.settings();
            Some(message.frame(own, settings.extended, tag(settings)))
        });
        let bfd = self.bfd.as_mut().and_then(|session| {
            let (packet, port) = session.run(frames, now)?;
            Some(packet.frame(session.settings(), own, port))
        });
        cfm.into_iter().chain(bfd).collect()
    }

    fn due(&self) -> Option<Instant> {
        let cfm = self.cfm.as_ref().map(CfmSession::due);
        cfm.into_iter().chain(self.bfd.as_ref().map(BfdSession::due)).min()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.is_asked || self.due().is_some_and(|due| due <= now)
    }

    /// Whether something is other than when this was asked last. What only tells the time does not count.
    fn has_changed(&mut self, now: Instant) -> bool {
        let cfm = self.cfm.as_ref().map(|session| {
            let report = session.report(now);
            CfmReport { next: [0; 2], remotes: Vec::new(), ..report }
        });
        let bfd = self.bfd.as_mut().map(|session| {
            let report = session.report(now);
            BfdReport { times: [0; 3], ..report }
        });
        let now = Some((cfm, bfd));
        let has_changed = self.told.is_some() && self.told != now;
        self.told = now;
        has_changed
    }
}

impl Switch {
    /// What maintenance points of ports know, in the order of the ports' names.
    #[must_use]
    pub fn cfm(&self) -> Vec<(String, CfmReport)> {
        let control = self.control();
        let now = control.time.now();
        let report = |(name, watch): (&String, &Watch)| {
            Some((name.clone(), watch.cfm.as_ref()?.report(now)))
        };
        control.watches.ports.iter().filter_map(report).collect()
    }

    /// What sessions of BFD on ports are, in the order of the ports' names.
    #[must_use]
    pub fn bfd(&self) -> Vec<(String, BfdReport)> {
        let mut control = self.control();
        let now = control.time.now();
        let watches = control.watches.ports.iter_mut();
        let reports = watches
            .filter_map(|(name, watch)| Some((name.clone(), watch.bfd.as_mut()?.report(now))));
        reports.collect()
    }

    /// Has an operator say whether the maintenance point of port `name`, or of all ports, finds faults, or
    /// say nothing any more. Gives whether there is such a port.
    #[must_use]
    pub fn override_cfm(&self, name: Option<&str>, faults: Option<bool>) -> bool {
        self.control()
            .tell_watches(name, |watch| watch.cfm.as_mut().map(|session| session.tell(faults)))
    }

    /// The same of whether the link of a session of BFD does.
    #[must_use]
    pub fn override_bfd(&self, name: Option<&str>, forwards: Option<bool>) -> bool {
        self.control()
            .tell_watches(name, |watch| watch.bfd.as_mut().map(|session| session.tell(forwards)))
    }

    /// How often something has changed that is worth telling of what [`cfm`](Self::cfm) and
    /// [`bfd`](Self::bfd) tell.
    #[must_use]
    pub fn watch_changes(&self) -> u64 {
        self.control().watches.changes
    }
}

impl Control {
    fn tell_watches(
        &mut self,
        name: Option<&str>,
        tell: impl Fn(&mut Watch) -> Option<()>,
    ) -> bool {
        let of = |other: &String| name.is_none_or(|name| name == other);
        let watches = self.watches.ports.iter_mut().filter(|(name, _)| of(name));
        let asked = watches.filter_map(|(_, watch)| {
            tell(watch)?;
            watch.is_asked = true;
            Some(())
        });
        let told = asked.count();
        self.notes.ask();
        told > 0 || name.is_none()
    }

    /// Watches the links of those ports that say so, since ports have come, gone or changed.
    pub(super) fn update_watches(&mut self) {
        let wants = |entry: &Entry| {
            let options = entry.options();
            (options.cfm.is_some() || options.bfd.is_some()) && entry.bundle().is_none()
        };
        let ports = self.ports.iter().filter(|(_, entry)| wants(entry));
        let wanted: Vec<(String, u16)> =
            ports.map(|(name, entry)| (name.to_owned(), entry.number())).collect();
        self.end_watches(&wanted);
        for (name, number) in &wanted {
            self.set_watch(name, *number);
        }
        if self.run_watches().is_some() {
            self.notes.ask();
        }
    }

    /// Does what is due, on those ports where something is; returns when there is something to do next.
    pub(super) fn run_watches(&mut self) -> Option<Instant> {
        let now = self.time.now();
        let due = self.watches.ports.iter().filter(|(_, watch)| watch.is_due(now));
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in &due {
            self.run_watch(name, now);
        }
        self.watches.ports.values().filter_map(Watch::due).min()
    }

    /// Watches no more where nothing says so.
    fn end_watches(&mut self, wanted: &[(String, u16)]) {
        // Both are in the order of their names.
        let stays = |name: &String, watch: &Watch| {
            let found = wanted.binary_search_by(|(other, _)| other.cmp(name)).ok();
            found.and_then(|at| wanted.get(at)).is_some_and(|(_, number)| *number == watch.number)
        };
        let all = self.watches.ports.iter().filter(|(name, watch)| !stays(name, watch));
        let gone: Vec<(String, u16)> =
            all.map(|(name, watch)| (name.clone(), watch.number)).collect();
        for (name, number) in gone {
            self.watches.ports.remove(&name);
            self.watches.changes = self.watches.changes.wrapping_add(1);
            self.listen_for_watch(number, None);
        }
    }

    /// Has a port's link be watched as its options say.
    fn set_watch(&mut self, name: &str, number: u16) {
        let Ok(entry) = self.ports.get(name) else { return };
        let (cfm, bfd) = (entry.options().cfm, entry.options().bfd.clone());
        let frames = entry.stats_of_all().rx_total().packets;
        let extended = cfm.map(|settings| settings.extended);
        self.listen_for_watch(number, Some(Watched { extended, bfd: bfd.clone() }));
        let watch = self.watches.ports.entry(name.to_owned());
        let watch = watch.or_insert_with(|| Watch::new(number));
        if !watch.is_set_to((cfm.as_ref(), bfd.as_ref())) {
            watch.set((cfm, bfd), frames, self.time.now());
            watch.is_asked = true;
        }
    }

    /// Hears what has come on a port, and does what is due.
    fn run_watch(&mut self, name: &str, now: Instant) {
        let Ok(entry) = self.ports.get(name) else { return };
        let Some(watch) = self.watches.ports.get_mut(name) else { return };
        let (is_there, own) = (entry.is_in_service(), entry.control().mac());
        let frames = entry.stats_of_all().rx_total().packets;
        let number = watch.number;
        watch.is_asked = false;
        let line = self.ears.watch(number);
        for heard in line.into_iter().flat_map(Line::heard) {
            if let Err(flaw) = watch.hear(heard.bytes(), now) {
                tracing::debug!(port = name, flaw, "a BFD packet is not taken");
            }
        }
        let sent = watch.run(own, frames, now);
        let (carries, has_changed) = (watch.carries(), watch.has_changed(now));
        let carried = std::mem::replace(&mut watch.carried, carries);
        if has_changed {
            self.watches.changes = self.watches.changes.wrapping_add(1);
        }
        if carries != carried {
            let what = if carries { "does" } else { "does not do" };
            tracing::info!(port = name, "its link {what}, as CFM and BFD find");
            self.tell_links();
        }
        if is_there && !sent.is_empty() {
            self.send_own(number, &sent);
        }
    }
}
