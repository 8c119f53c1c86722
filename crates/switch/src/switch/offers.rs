//! Frames that come in on no wire: for tests, and to see where frames go.

use datapath::flows::NOWHERE;
use datapath::worker::{Mailbox, Message};

use super::Switch;
use crate::error::Error;
use crate::report::{Decided, Traced};

impl Switch {
    /// Takes frames, 32 at most, for what has come in on a port: they are counted, and go wherever
    /// such frames go. When this returns, they have.
    ///
    /// # Errors
    /// There is no such port, or none that is polled: it has no device of its own, or is disabled.
    pub fn receive(&self, port: &str, frames: &[Vec<u8>]) -> Result<(), Error> {
        self.receive_at((port, 0), frames)
    }

    /// The same at one of the port's receive queues; at the first where there is no such queue.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    pub fn receive_at(
        &self,
        (port, queue): (&str, usize),
        frames: &[Vec<u8>],
    ) -> Result<(), Error> {
        let control = self.control();
        let entry = control.ports.get(port)?;
        let queue = if queue < entry.rx_count() { queue } else { 0 };
        let input = (entry.number(), queue);
        let receives = |worker: &Mailbox| {
            worker.ask(|done| Message::Receive(input, frames.to_vec(), done)) == Some(true)
        };
        let taken = control.mailboxes.iter().any(receives);
        if taken { Ok(()) } else { Err(not_polled(port)) }
    }

    /// Tells what would become of a frame that comes in on a port, and does nothing else: nothing is
    /// sent or counted. Limits and guards, which remember what they let through, are not asked. Its
    /// source address is learnt if `learns`.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    pub fn trace(&self, port: &str, frame: &[u8], learns: bool) -> Result<Traced, Error> {
        let control = self.control();
        let entry = control.ports.get(port)?;
        if entry.is_shut() {
            return Err(not_polled(port));
        }
        let number = entry.number();
        let traced = control.mailboxes.iter().find_map(|worker| {
            worker.ask(|done| Message::Trace(number, frame.to_vec(), learns, done)).flatten()
        });
        let traced = traced.ok_or_else(|| not_polled(port))?;
        let name = |number| control.ports.name_of(number).unwrap_or_default().to_owned();
        Ok(Traced {
            entered: traced
                .entered
                .into_iter()
                .map(|(port, visits)| (name(port), visits))
                .collect(),
            outputs: traced.outputs.into_iter().map(|(to, frame)| (name(to), frame)).collect(),
            dropped: traced.reason,
        })
    }

    /// Tells what a plain bridge does with a frame that comes in on a port, or on none, whatever the
    /// bridge's rules say: nothing is sent or counted. Its source address is learnt if `learns`.
    ///
    /// # Errors
    /// There is no such bridge or port, or all workers have ended.
    pub fn decide(
        &self,
        bridge: &str,
        port: Option<&str>,
        frame: &[u8],
        learns: bool,
    ) -> Result<Decided, Error> {
        let control = self.control();
        let id = control.bridges.get(bridge)?.id();
        let number = port.map_or(Ok(NOWHERE), |port| control.port_number(port))?;
        let learns = learns && port.is_some();
        let worker = control.any_worker()?;
        let decided = worker.ask(|done| Message::Decide(id, number, frame.to_vec(), learns, done));
        let decided = decided.ok_or(Error::NoWorker)?;
        let name = |number| control.ports.name_of(number).unwrap_or_default().to_owned();
        Ok(Decided {
            outputs: decided.outputs.into_iter().map(|(to, frame)| (name(to), frame)).collect(),
            is_flooded: decided.is_flooded,
            dropped: decided.reason,
        })
    }
}

impl Switch {
    /// Tells which copies a mirror makes of a frame that has come in on a port of its bridge, or on none,
    /// where it copies it: nothing is sent or counted. They are not cut.
    ///
    /// # Errors
    /// There is no such port, or all workers have ended.
    pub fn copies(
        &self,
        mirror: &str,
        port: Option<&str>,
        frame: &[u8],
    ) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let control = self.control();
        let number = port.map_or(Ok(NOWHERE), |port| control.port_number(port))?;
        let Some((id, index)) = control.mirror_place(mirror) else { return Ok(Vec::new()) };
        let worker = control.any_worker()?;
        let copies = worker.ask(|done| Message::Copies(id, number, index, frame.to_vec(), done));
        let copies = copies.ok_or(Error::NoWorker)?;
        let name = |number| control.ports.name_of(number).unwrap_or_default().to_owned();
        Ok(copies.into_iter().map(|(to, frame)| (name(to), frame)).collect())
    }
}

fn not_polled(port: &str) -> Error {
    Error::NotPolled { name: port.to_owned() }
}
