//! All connections, in one loop: who has something to do is found by epoll(7), and the others cost nothing.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::connection::Connection;
use crate::context::Context;
use crate::library::Functions;
use crate::order::{Order, Received, Side, Trust, receive};
use crate::session::{PIECE, REFUSED, Session, tell};

/// Connections at a time; further ones are closed. A bridge has 128 at most.
const SESSIONS: usize = 1_024;

/// One in so many of them is not for those who come by themselves: however many come to however many bridges, the
/// database and controllers that are dialled have this share.
const SHARES: usize = 8;

/// Open files of a connection, and those that are not of connections: what one more comes with is among these, so
/// that it can be told why it is not taken.
const FILES: usize = 3;
const OTHER_FILES: usize = 32;

/// Orders that are taken in one turn.
const ORDERS: usize = 16;

/// Sockets of which is told at once that they have something to do.
const EVENTS: usize = 64;

/// What the socket for orders is watched as. Two numbers are of each connection: of the peer's side and of ours.
const NEW: u64 = u64::MAX;

/// What serves.
pub struct Worker {
    /// The library; or why there is none, which is then told for each connection.
    library: Result<&'static Functions, String>,
    contexts: Vec<Context>,
    epoll: OwnedFd,
    /// Connections keep their place; those that are free are taken again.
    places: Vec<Option<Place>>,
    /// How many there may be.
    pub most: usize,
    /// Who goes on without anything coming.
    busy: Vec<usize>,
    /// When somebody may have waited for too long: not later than the first has.
    due: Option<Instant>,
    piece: Vec<u8>,
}

/// A connection, and what its sockets are watched for.
struct Place {
    session: Session,
    side: Side,
    watched: [Option<EventFlags>; 2],
}

impl Place {
    /// Has the sockets be watched for what can be done now. The system tells of the end of whatever is watched, so
    /// one for which nothing can be done is not.
    fn watch(&mut self, epoll: &OwnedFd, at: usize) -> Result<(), Errno> {
        let wanted = self.session.interests();
        for ((side, now), wanted) in (0..).zip(&mut self.watched).zip(wanted) {
            let data = EventData::new_u64((at as u64) << 1 | side);
            let fd = self.session.fd(side == 1);
            match (*now, wanted) {
                (None, Some(flags)) => epoll::add(epoll, fd, data, flags)?,
                (Some(old), Some(flags)) if old != flags => epoll::modify(epoll, fd, data, flags)?,
                (Some(_), None) => epoll::delete(epoll, fd)?,
                _ => {}
            }
            *now = wanted;
        }
        Ok(())
    }

    /// Has nothing be watched any more: others may have the same sockets open.
    fn forget(&self, epoll: &OwnedFd) {
        for (at, _) in self.watched.iter().enumerate().filter(|(_, flags)| flags.is_some()) {
            let _ = epoll::delete(epoll, self.session.fd(at == 1));
        }
    }
}

impl Worker {
    /// One without connections, and with the library, if there is one.
    pub fn new() -> std::io::Result<Self> {
        let library = Functions::load().map(|library| &*Box::leak(Box::new(library)));
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
        Ok(Self {
            library,
            contexts: Vec::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            places: Vec::new(),
            most: SESSIONS.min(files.saturating_sub(OTHER_FILES) / FILES),
            busy: Vec::new(),
            due: None,
            piece: vec![0; PIECE],
        })
    }

    /// Serves those that are handed over at `orders`, until nobody hands over any more.
    pub fn serve(mut self, orders: &OwnedFd) -> std::io::Result<()> {
        epoll::add(&self.epoll, orders, EventData::new_u64(NEW), EventFlags::IN)?;
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, self.timeout().as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let now = Instant::now();
            self.go_on(&events, now);
            let is_new = |event: &Event| event.data.u64() == NEW;
            for _ in 0..if events.iter().any(is_new) { ORDERS } else { 0 } {
                match receive(orders)? {
                    Received::Nothing => break,
                    Received::End => return Ok(()),
                    Received::Order(order, files) => self.take(&order, files, now),
                }
            }
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        if !self.busy.is_empty() {
            return Some(Timespec::default());
        }
        Timespec::try_from(self.due?.saturating_duration_since(Instant::now())).ok()
    }

    /// Goes on with those of which is told, those that were busy, and those that wait for too long.
    fn go_on(&mut self, events: &[Event], now: Instant) {
        let gone = EventFlags::HUP | EventFlags::ERR;
        let busy = std::mem::take(&mut self.busy);
        for event in events {
            let (number, flags) = (event.data.u64(), event.flags);
            let Ok(at) = usize::try_from(number >> 1) else { continue };
            self.step(at, number & 1 == 1 && flags.intersects(gone), now);
        }
        for at in busy {
            self.step(at, false, now);
        }
        if self.due.is_some_and(|due| now >= due) {
            self.end_late(now);
        }
    }

    /// Goes on with those whose time is over, and finds out whose is next.
    fn end_late(&mut self, now: Instant) {
        self.due = None;
        for at in 0..self.places.len() {
            match self.places.get(at).and_then(Option::as_ref).and_then(|one| one.session.due()) {
                Some(due) if due <= now => self.step(at, false, now),
                due => self.due = self.due.into_iter().chain(due).min(),
            }
        }
    }

    /// Goes on with a connection; of those that are gone nothing is to be done.
    fn step(&mut self, at: usize, plain_ended: bool, now: Instant) {
        let Some(slot) = self.places.get_mut(at) else { return };
        let Some(place) = slot else { return };
        let mut is_there = place.session.step(plain_ended, &mut self.piece, now);
        if is_there && let Err(error) = place.watch(&self.epoll, at) {
            place.session.refuse(&format!("it cannot be waited for ({error})"));
            is_there = false;
        }
        if !is_there {
            place.forget(&self.epoll);
            *slot = None;
            return;
        }
        if place.session.is_busy() && !self.busy.contains(&at) {
            self.busy.push(at);
        }
        self.due = self.due.into_iter().chain(place.session.due()).min();
    }

    /// Begins with a connection, or tells why not.
    fn take(&mut self, order: &Result<Order, &str>, files: Vec<OwnedFd>, now: Instant) {
        let mut files = files.into_iter();
        // Without it, there is nobody to be told; and it is told before the others are closed.
        let Some(verdict) = files.next() else { return };
        let (socket, plain) = (files.next(), files.next());
        let files = files.map(File::from).collect::<Vec<_>>();
        match self.connection(order, socket, &files) {
            Ok((connection, order)) => {
                let Some(plain) = plain else { return };
                let asks = order.trust == Trust::First;
                let session = Session::new(connection, plain, verdict, asks, now);
                self.put(Place { session, side: order.side, watched: [None; 2] }, now);
            }
            Err(reason) => tell(&verdict, REFUSED, reason.as_bytes()),
        }
    }

    fn connection<'o>(
        &mut self,
        order: &'o Result<Order, &str>,
        socket: Option<OwnedFd>,
        files: &[File],
    ) -> Result<(Connection, &'o Order), String> {
        let order = order.as_ref().map_err(|reason| (*reason).to_owned())?;
        let library = self.library.clone()?;
        self.check_room(order.side)?;
        let socket = socket.ok_or("an order without its files")?;
        let context = Context::get(&mut self.contexts, library, order, files)?;
        Ok((Connection::new(context, socket, order.side)?, order))
    }

    /// Whether there is room for one more of those who come like this.
    fn check_room(&self, side: Side) -> Result<(), String> {
        let all = || self.places.iter().flatten();
        let strangers = || all().filter(|place| place.side == Side::Server).count();
        if all().count() >= self.most {
            return Err(format!("there are {} connections with TLS already", self.most));
        }
        let most = self.most - self.most / SHARES;
        if side == Side::Server && strangers() >= most {
            return Err(format!("there are {most} connections with TLS of those who came already"));
        }
        Ok(())
    }

    /// Gives a connection a place, and has it begin.
    fn put(&mut self, place: Place, now: Instant) {
        let at = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        match self.places.get_mut(at) {
            Some(free) => *free = Some(place),
            None => self.places.push(Some(place)),
        }
        self.step(at, false, now);
    }
}
