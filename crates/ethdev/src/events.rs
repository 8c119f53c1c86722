//! How a port tells that its link changed or that it is gone.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Something that happened to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortEvent {
    /// The link went up or down: [`PortControl::link`](crate::PortControl::link) has its state.
    LinkChanged,
    /// The device is gone for good: the port carries nothing any more and can only be closed.
    Removed,
}

type Listener = Arc<dyn Fn(PortEvent) + Send + Sync>;

/// Where a driver announces the events of one port. Clones announce for the same port.
#[derive(Clone, Default)]
pub struct PortEvents(Arc<Mutex<Option<Listener>>>);

impl PortEvents {
    /// Announces to nobody, for now.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls the listener. For a driver, after the new state can be seen through the port.
    pub fn announce(&self, event: PortEvent) {
        // The listener runs without the lock, so it may itself call `listen`.
        let listener = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listener) = listener {
            listener(event);
        }
    }

    /// Makes `listener` the one that is called from now on.
    pub fn listen(&self, listener: impl Fn(PortEvent) + Send + Sync + 'static) {
        let listener: Listener = Arc::new(listener);
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(listener);
        // Dropped without the lock: its drop is the application's code.
        drop(before);
    }
}

impl fmt::Debug for PortEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortEvents").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn events_reach_the_last_listener() {
        let events = PortEvents::new();
        events.announce(PortEvent::LinkChanged);
        let (first, first_got) = mpsc::channel();
        let (second, second_got) = mpsc::channel();
        events.listen(move |event| first.send(event).unwrap());
        events.clone().announce(PortEvent::LinkChanged);
        events.listen(move |event| second.send(event).unwrap());
        events.announce(PortEvent::Removed);
        // The first sender was dropped with its listener, so both iterations end.
        assert_eq!(first_got.iter().collect::<Vec<_>>(), [PortEvent::LinkChanged]);
        drop(events);
        assert_eq!(second_got.iter().collect::<Vec<_>>(), [PortEvent::Removed]);
    }

    #[test]
    fn a_listener_may_replace_itself() {
        let events = PortEvents::new();
        let (sender, got) = mpsc::channel();
        let again = events.clone();
        events.listen(move |_| {
            let sender = sender.clone();
            again.listen(move |event| sender.send(event).unwrap());
        });
        events.announce(PortEvent::LinkChanged);
        events.announce(PortEvent::Removed);
        assert_eq!(got.try_iter().collect::<Vec<_>>(), [PortEvent::Removed]);
    }
}
