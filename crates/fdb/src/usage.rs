//! Which port has the most entries, without looking at all of them.

/// Not in the heap.
const NOWHERE: u32 = u32::MAX;

/// Ports with entries, in a binary heap by how many they have. Of several with as many, whoever came to
/// that number first tends to be in front: none gives way to an equal one.
#[derive(Debug)]
pub(super) struct Usage {
    heap: Vec<u16>,
    /// Where each port is in it.
    places: Box<[u32]>,
    counts: Box<[u32]>,
}

impl Usage {
    /// For port numbers below `ports`.
    pub(super) fn new(ports: usize) -> Self {
        Self {
            heap: Vec::with_capacity(ports),
            places: vec![NOWHERE; ports].into_boxed_slice(),
            counts: vec![0; ports].into_boxed_slice(),
        }
    }

    /// The number of entries of a port.
    pub(super) fn count(&self, port: u16) -> u32 {
        self.counts.get(usize::from(port)).copied().unwrap_or(0)
    }

    /// The port with the most entries.
    pub(super) fn largest(&self) -> Option<u16> {
        self.heap.first().copied()
    }

    /// A port has one entry more.
    pub(super) fn add(&mut self, port: u16) {
        let Some(count) = self.counts.get_mut(usize::from(port)) else { return };
        *count = count.saturating_add(1);
        if *count == 1 {
            self.heap.push(port);
            self.note(self.heap.len() - 1);
        }
        if let Some(at) = self.place(port) {
            self.rise(at);
        }
    }

    /// A port that has entries has one less.
    pub(super) fn take(&mut self, port: u16) {
        let Some(count) = self.counts.get_mut(usize::from(port)) else { return };
        *count = count.saturating_sub(1);
        let is_gone = *count == 0;
        let Some(at) = self.place(port) else { return };
        if is_gone {
            self.remove(port, at);
        } else {
            self.sink(at);
        }
    }

    /// Takes a port out. The last one comes into its place.
    fn remove(&mut self, port: u16, at: usize) {
        self.heap.swap_remove(at);
        if let Some(place) = self.places.get_mut(usize::from(port)) {
            *place = NOWHERE;
        }
        if at < self.heap.len() {
            self.note(at);
            if !self.rise(at) {
                self.sink(at);
            }
        }
    }

    fn place(&self, port: u16) -> Option<usize> {
        let place = *self.places.get(usize::from(port))?;
        (place != NOWHERE).then_some(place as usize)
    }

    /// Notes where the port is that is at this place.
    fn note(&mut self, at: usize) {
        let place = self.heap.get(at).and_then(|port| self.places.get_mut(usize::from(*port)));
        if let (Some(place), Ok(at)) = (place, u32::try_from(at)) {
            *place = at;
        }
    }

    fn count_at(&self, at: usize) -> Option<u32> {
        self.heap.get(at).map(|port| self.count(*port))
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.note(one);
        self.note(other);
    }

    /// Moves the port at a place to the front as long as it has more than the one there; returns whether
    /// it has moved.
    fn rise(&mut self, mut at: usize) -> bool {
        let from = at;
        while at > 0 {
            let above = (at - 1) / 2;
            if self.count_at(above) >= self.count_at(at) {
                break;
            }
            self.swap(above, at);
            at = above;
        }
        at != from
    }

    /// Moves the port at a place back as long as one behind it has more.
    fn sink(&mut self, mut at: usize) {
        loop {
            let mut most = at;
            for below in [2 * at + 1, 2 * at + 2] {
                if self.count_at(below) > self.count_at(most) {
                    most = below;
                }
            }
            if most == at {
                return;
            }
            self.swap(most, at);
            at = most;
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_equal_ports_none_gives_way() {
        let mut usage = Usage::new(8);
        assert_eq!(usage.largest(), None);
        for port in [3, 5, 1] {
            usage.add(port);
            usage.add(port);
        }
        assert_eq!(usage.largest(), Some(3));
        usage.add(1);
        assert_eq!(usage.largest(), Some(1));
        usage.take(1);
        usage.take(1);
        usage.take(1);
        assert_eq!((usage.largest(), usage.count(1)), (Some(5), 0));
        usage.add(9);
        usage.take(9);
        assert_eq!(usage.count(9), 0, "there is no such port");
    }

    proptest! {
        #[test]
        fn the_first_has_most(steps in prop::collection::vec((any::<bool>(), 0..6_u16), 0..300)) {
            let mut usage = Usage::new(6);
            let mut model = [0_u32; 6];
            for (more, port) in steps {
                let count = &mut model[usize::from(port)];
                if more {
                    usage.add(port);
                    *count += 1;
                } else if *count > 0 {
                    usage.take(port);
                    *count -= 1;
                }
                let most = model.iter().max().copied().unwrap();
                let first = usage.largest();
                prop_assert_eq!(first.map_or(0, |port| model[usize::from(port)]), most);
                prop_assert_eq!(first.is_none(), most == 0);
                for port in 0..6 {
                    prop_assert_eq!(usage.count(port), model[usize::from(port)]);
                }
            }
        }
    }
}
