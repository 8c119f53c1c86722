//! Captures of a running switch.

use std::sync::Arc;

use datapath::worker::Message;

use super::{Control, Switch};
use crate::capture::wanted::Seen;
use crate::capture::{Capture, CaptureReader};
use crate::error::Error;
use crate::ports::Entry;

impl Switch {
    /// Begins to capture. Ports that are removed and added again by the same name are captured
    /// again.
    ///
    /// ```
    /// use switch::{Capture, PortOptions, Switch, SwitchConfig};
    ///
    /// let switch = Switch::start(&SwitchConfig::default())?;
    /// switch.open_port("vm1", "null:", &PortOptions::default())?;
    /// let ports = Some(vec!["vm1".to_owned()]);
    /// let mut reader = switch.capture(&Capture { ports, ..Capture::default() })?;
    /// assert_eq!(reader.ports()[0].name, "vm1");
    /// assert_eq!(reader.read(|_| {}), 0);
    /// # Ok::<(), switch::Error>(())
    /// ```
    ///
    /// # Errors
    /// A number out of range, a port that is not there, or [`MAX_CAPTURES`](crate::MAX_CAPTURES)
    /// captures already.
    pub fn capture(&self, capture: &Capture) -> Result<CaptureReader, Error> {
        let control = &mut *self.control();
        for name in capture.ports.iter().flatten() {
            control.ports.get(name)?;
        }
        let (id, shared) = control.captures.add(capture, control.mailboxes.len())?;
        control.tell_captures(None);
        tracing::info!(id, "capture began");
        Ok(CaptureReader::new(id, Arc::downgrade(&self.control), &shared))
    }
}

impl Control {
    /// Ends a capture, if it goes on: nothing is captured any more when this returns.
    pub(crate) fn end_capture(&mut self, id: u64) {
        if self.captures.remove(id) {
            self.tell_captures(None);
            tracing::info!(id, "capture ended");
        }
    }

    /// As [`tell_captures`](Self::tell_captures), if there are any.
    pub(super) fn update_captures(&self, more: Option<(&str, &Entry)>) {
        if !self.captures.is_empty() {
            self.tell_captures(more);
        }
    }

    /// Tells workers of whom some are new all captures.
    pub(super) fn restart_captures(&mut self) {
        self.captures.restart(self.mailboxes.len());
        self.update_captures(None);
    }

    /// Tells the workers all captures, given the ports that there are and `more`.
    fn tell_captures(&self, more: Option<(&str, &Entry)>) {
        let ports = self.ports.iter().chain(more);
        let ports: Vec<(&str, String, u16)> =
            ports.map(|(name, entry)| (name, entry.device(), entry.number())).collect();
        let ports = ports.iter();
        let ports: Vec<Seen<'_>> =
            ports.map(|(name, device, number)| Seen { name, device, number: *number }).collect();
        for (index, worker) in self.mailboxes.iter().enumerate() {
            let captures = self.captures.captures(&ports, index);
            worker.ask(|done| Message::Capture(captures, done));
        }
    }
}
