//! The thread that serves controllers.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eal::channel::Sender;
use eal::time::{Alarm, Time, later};
use litemap::LiteMap;
use ordered::Gather as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use switch::{Sight, flow_queue};

use super::bridge::{Served, Spot};
use super::datapath::Forwarding;
use super::{Shared, Wish};
use crate::export::IpfixCounts;

/// How often links are looked at as long as somebody is connected that may want to know.
const LOOK: Duration = Duration::from_millis(500);

/// How often links are looked at as long as groups go by which of them are up.
const LOOK_FAST: Duration = Duration::from_millis(100);

/// How often rules are looked at whose time may be over.
const SECOND: Duration = Duration::from_secs(1);

/// Packets that wait for controllers of a bridge at most.
const PACKETS: usize = 1_024;

/// How long no connection is accepted after the system refused one.
const PAUSE: Duration = Duration::from_millis(100);

/// All bridges and their connections.
pub(super) struct Server {
    shared: Arc<Shared>,
    sight: Sight,
    ipfix: IpfixCounts,
    time: Time,
    /// Tells when the clock was moved.
    alarm: Option<Alarm>,
    /// When rules were looked at last.
    expired: Instant,
    bridges: LiteMap<String, Served>,
    /// Until when no connection is accepted.
    paused: Option<Instant>,
    /// Whether ports are to be looked at once nothing holds that up.
    owes_look: bool,
    /// Told once there is nothing left to do for now.
    settles: Vec<Sender<()>>,
}

impl Server {
    pub fn new(shared: Arc<Shared>, sight: Sight, ipfix: IpfixCounts, time: Time) -> Self {
        let (alarm, expired) = (time.alarm().ok(), time.now());
        let (bridges, settles) = (LiteMap::new(), Vec::new());
        let (paused, owes_look) = (None, false);
        Self { shared, sight, ipfix, time, alarm, expired, bridges, paused, owes_look, settles }
    }

    /// Serves until it is told to end.
    pub fn run(mut self) {
        loop {
            let ready = self.wait();
            let Some(is_news) = self.take_news() else { return };
            for (name, served) in &mut self.bridges {
                let spots = ready.get(name).map(Vec::as_slice).unwrap_or_default();
                if let Err(error) = served.welcome(spots) {
                    tracing::warn!("bridge {name}: cannot accept a controller: {error}");
                    self.paused = Instant::now().checked_add(PAUSE);
                }
            }
            if is_news || self.owes_look || self.look_every().is_some() {
                self.look();
            }
            let now = self.time.now();
            if now >= later(self.expired, SECOND) {
                self.expired = now;
                self.bridges.iter_mut().for_each(|(_, served)| served.expire());
            }
            self.bridges.iter_mut().for_each(|(_, served)| served.serve(now));
            self.hand_over();
            if !self.bridges.values().any(Served::is_busy) {
                self.settles.drain(..).for_each(|settled| _ = settled.send(()));
            }
        }
    }

    /// Waits for something to do; gives where something is ready, by bridge.
    fn wait(&mut self) -> LiteMap<String, Vec<Spot>> {
        self.paused = self.paused.filter(|until| *until > Instant::now());
        let spots: Vec<_> = self
            .bridges
            .iter()
            .flat_map(|(name, served)| served.spots().into_iter().map(move |spot| (name, spot)))
            .filter(|(_, (spot, ..))| self.paused.is_none() || matches!(spot, Spot::Peer(_)))
            .collect();
        let mut fds = vec![PollFd::from_borrowed_fd(self.shared.inward.as_fd(), PollFlags::IN)];
        let moved = self.alarm.as_ref().and_then(Alarm::moved);
        let others = 1 + usize::from(moved.is_some());
        fds.extend(moved.map(|moved| PollFd::from_borrowed_fd(moved, PollFlags::IN)));
        fds.extend(spots.iter().map(|(_, (_, fd, flags))| PollFd::from_borrowed_fd(*fd, *flags)));
        let timeout = self.timeout().and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut ready: LiteMap<String, Vec<Spot>> = LiteMap::new();
        if poll(&mut fds, timeout.as_ref()).is_err() {
            // Interrupted, or without memory for a moment.
            return ready;
        }
        let events = fds.iter().skip(others).map(PollFd::revents);
        for ((name, (spot, ..)), events) in spots.iter().zip(events) {
            if !events.is_empty() {
                ready.entry((*name).clone()).or_default().push(*spot);
            }
        }
        drop(spots);
        if let Some(alarm) = &self.alarm {
            alarm.heed();
        }
        ready
    }

    fn timeout(&self) -> Option<Duration> {
        if self.bridges.values().any(Served::is_busy) {
            return Some(Duration::ZERO);
        }
        let due = self.bridges.values().filter_map(Served::due).chain(self.paused).min();
        let due = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timed = self.bridges.values().any(Served::has_timed);
        let expiry = timed.then(|| self.time.until(later(self.expired, SECOND))).flatten();
        due.into_iter().chain(expiry).chain(self.look_every()).min()
    }

    /// How often links are looked at, if they are.
    fn look_every(&self) -> Option<Duration> {
        let goes_by_links = self.bridges.values().any(Served::goes_by_links);
        let is_watched = self.bridges.values().any(Served::is_watched);
        goes_by_links.then_some(LOOK_FAST).or(is_watched.then_some(LOOK))
    }

    /// Takes what others have for us: whether bridges are to be otherwise; `None` if this is to
    /// end.
    fn take_news(&mut self) -> Option<bool> {
        let _ = self.shared.inward.drain();
        let (next, granted) = {
            let mut exchange = self.shared.lock();
            if exchange.ends {
                return None;
            }
            self.settles.append(&mut exchange.settles);
            (exchange.next.take(), std::mem::take(&mut exchange.granted))
        };
        let is_news = next.is_some();
        if let Some(next) = next {
            self.bridges.retain(|name, _| next.contains_key(name));
            for (name, (spec, sockets)) in next {
                match self.bridges.get_mut(&name) {
                    Some(served) => served.set(spec),
                    None => {
                        let shared = Arc::clone(&self.shared);
                        let notify = move || _ = shared.inward.signal();
                        let (inlet, packets) = flow_queue(PACKETS, notify);
                        let forwarding =
                            Forwarding::new(self.sight.clone(), &name, inlet, self.ipfix.clone());
                        let served = Served::new(spec, sockets, forwarding, packets);
                        self.bridges.insert(name, served);
                    }
                }
            }
        }
        for (name, id) in granted {
            if let Some(served) = self.bridges.get_mut(&name) {
                served.grant(id);
            }
        }
        Some(is_news)
    }

    /// Looks at all ports, once for all who may ask in this turn; later if they are on their way to
    /// what they are to be.
    fn look(&mut self) {
        self.owes_look = true;
        let Some(holds) = self.shared.holds() else { return };
        let reports = self.sight.ports();
        if self.shared.holds() != Some(holds) {
            return;
        }
        self.owes_look = false;
        let reports: LiteMap<_, _> =
            reports.iter().map(|report| (report.name.as_str(), report)).gather();
        let now = self.time.now();
        self.bridges.iter_mut().for_each(|(_, served)| served.look(&reports, now));
    }

    /// Hands over what others have to do, and what has become of controllers.
    fn hand_over(&mut self) {
        let mut wishes = Vec::new();
        for (name, served) in &mut self.bridges {
            let jobs = served.take_jobs().into_iter();
            wishes.extend(jobs.map(|(connection, job)| Wish {
                bridge: name.clone(),
                connection,
                job,
            }));
        }
        let status = self.bridges.values().flat_map(Served::status).gather();
        let mut exchange = self.shared.lock();
        if wishes.is_empty() && exchange.status == status {
            return;
        }
        exchange.status = status;
        exchange.wishes.extend(wishes);
        drop(exchange);
        let _ = self.shared.outward.signal();
    }
}

#[cfg(test)]
mod tests {
    use eal::EventFd;
    use switch::{Switch, SwitchConfig};

    use super::super::Service;
    use super::*;

    #[test]
    fn nobody_is_told_of_ports_that_are_on_their_way() {
        let switch = Switch::start(&SwitchConfig::default()).unwrap();
        let (inward, outward) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        let shared = Arc::new(Shared { exchange: Default::default(), inward, outward });
        let mut server = Server::new(
            Arc::clone(&shared),
            switch.sight(),
            IpfixCounts::default(),
            Time::system(),
        );
        let (run, sockets, last) = Default::default();
        let mut service = Service { shared, thread: None, run, sockets, last };
        server.look();
        assert!(!server.owes_look);
        service.hold();
        server.look();
        assert!(server.owes_look);
        // The thread is woken, and looks then.
        assert!(!service.update(&LiteMap::new()) && service.shared.inward.drain().unwrap());
        server.look();
        assert!(!server.owes_look);
        // What was looked at before ports were on their way says nothing afterwards.
        let before = service.shared.holds();
        service.hold();
        assert_eq!(service.shared.holds(), None);
        service.update(&LiteMap::new());
        assert!(service.shared.holds().is_some() && service.shared.holds() != before);
    }
}
