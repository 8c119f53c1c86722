//! Which entries belong to which port, in order of age: what fair eviction and flushing need.

use crate::usage::Usage;

/// No entry.
const NIL: u32 = u32::MAX;

/// How many of a port's entries are looked at to find an old one to evict. For ports with no
/// more entries than that the choice is exact.
const SAMPLE: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

/// One doubly linked list of slot numbers per port, all in memory that is allocated at the
/// start. New entries go to the end, so that older ones tend to be in front.
#[derive(Debug)]
pub(super) struct Lists {
    links: Box<[Link]>,
    lists: Box<[List]>,
    /// Their lengths.
    usage: Usage,
}

impl Lists {
    /// Lists for slot numbers below `slots` and port numbers below `ports`.
    pub(super) fn new(slots: usize, ports: usize) -> Self {
        Self {
            links: vec![Link { before: NIL, after: NIL }; slots].into_boxed_slice(),
            lists: vec![List { head: NIL, tail: NIL }; ports].into_boxed_slice(),
            usage: Usage::new(ports),
        }
    }

    /// Number of entries of `port`.
    pub(super) fn len(&self, port: u16) -> usize {
        self.usage.count(port) as usize
    }

    /// The first entry of `port`.
    pub(super) fn first(&self, port: u16) -> Option<u32> {
        self.lists.get(usize::from(port)).map(|list| list.head).filter(|head| *head != NIL)
    }

    /// Whether there can be a list for `port`.
    pub(super) fn has(&self, port: u16) -> bool {
        usize::from(port) < self.lists.len()
    }

    /// Adds `slot` at the end of the list of `port`.
    pub(super) fn push(&mut self, port: u16, slot: u32) {
        self.usage.add(port);
        self.link(port, slot);
    }

    /// Takes `slot` out of the list of `port`, where it must be.
    pub(super) fn remove(&mut self, port: u16, slot: u32) {
        self.usage.take(port);
        self.unlink(port, slot);
    }

    fn link(&mut self, port: u16, slot: u32) {
        let Some(list) = self.lists.get_mut(usize::from(port)) else { return };
        let before = std::mem::replace(&mut list.tail, slot);
        if before == NIL {
            list.head = slot;
        } else {
            set(&mut self.links, before, |link| link.after = slot);
        }
        set(&mut self.links, slot, |link| *link = Link { before, after: NIL });
    }

    fn unlink(&mut self, port: u16, slot: u32) {
        let Some(list) = self.lists.get_mut(usize::from(port)) else { return };
        let Some(Link { before, after }) = self.links.get(slot as usize).copied() else { return };
        if before == NIL {
            list.head = after;
        } else {
            set(&mut self.links, before, |link| link.after = after);
        }
        if after == NIL {
            list.tail = before;
        } else {
            set(&mut self.links, after, |link| link.before = before);
        }
    }

    /// Puts slot `new` in the place of slot `old` in the list of `port`.
    pub(super) fn replace(&mut self, port: u16, old: u32, new: u32) {
        let Some(list) = self.lists.get_mut(usize::from(port)) else { return };
        let Some(link) = self.links.get(old as usize).copied() else { return };
        set(&mut self.links, new, |to| *to = link);
        if link.before == NIL {
            list.head = new;
        } else {
            set(&mut self.links, link.before, |before| before.after = new);
        }
        if link.after == NIL {
            list.tail = new;
        } else {
            set(&mut self.links, link.after, |after| after.before = new);
        }
    }

    /// The port with the most entries.
    pub(super) fn largest(&self) -> Option<u16> {
        self.usage.largest()
    }

    /// An entry of `port` that was not seen for long, by what `seen` tells of a slot: the oldest
    /// of the first few. Younger ones before it move to the end, so that the next search looks
    /// at others.
    pub(super) fn oldest(&mut self, port: u16, seen: impl Fn(u32) -> u32) -> Option<u32> {
        let mut oldest = self.first(port)?;
        let mut time = seen(oldest);
        let mut slot = oldest;
        for _ in 1..SAMPLE {
            slot = self.after(slot).unwrap_or(NIL);
            if slot == NIL {
                break;
            }
            if seen(slot) < time {
                (oldest, time) = (slot, seen(slot));
            }
        }
        for _ in 1..SAMPLE {
            match self.first(port) {
                Some(first) if first != oldest => {
                    self.unlink(port, first);
                    self.link(port, first);
                }
                _ => break,
            }
        }
        Some(oldest)
    }

    fn after(&self, slot: u32) -> Option<u32> {
        self.links.get(slot as usize).map(|link| link.after)
    }
}

fn set(links: &mut [Link], slot: u32, change: impl FnOnce(&mut Link)) {
    if let Some(link) = links.get_mut(slot as usize) {
        change(link);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Lists {
        fn all(&self, port: u16) -> Vec<u32> {
            let mut all = Vec::new();
            let mut next = self.lists[usize::from(port)].head;
            while next != NIL {
                all.push(next);
                next = self.links[next as usize].after;
            }
            all
        }
    }

    #[test]
    fn the_oldest_goes_first_and_ties_go_in_order() {
        let mut lists = Lists::new(8, 2);
        let seen = [5, 3, 9, 3, 7];
        (0..5).for_each(|slot| lists.push(1, slot));
        assert_eq!(lists.oldest(1, |slot| seen[slot as usize]), Some(1));
        assert_eq!(lists.all(1), [1, 2, 3, 4, 0]);
        lists.remove(1, 1);
        assert_eq!(lists.oldest(1, |slot| seen[slot as usize]), Some(3));
        assert_eq!(lists.oldest(0, |_| 0), None);
    }

    proptest! {
        #[test]
        fn lists_behave_as_vectors(steps in prop::collection::vec((0..3_u8, 0..3_u16, 0..12_u32), 0..200)) {
            let mut lists = Lists::new(12, 3);
            let mut model: [Vec<u32>; 3] = Default::default();
            let number = |port: usize| u16::try_from(port).unwrap();
            for (step, port, slot) in steps {
                let owner = model.iter().position(|list| list.contains(&slot));
                match (step, owner) {
                    (0, None) => {
                        lists.push(port, slot);
                        model[usize::from(port)].push(slot);
                    }
                    (1, Some(owner)) => {
                        lists.remove(number(owner), slot);
                        model[owner].retain(|other| *other != slot);
                    }
                    (2, Some(owner)) => {
                        let free = (0..12).find(|new| !model.iter().flatten().any(|s| s == new));
                        if let Some(new) = free {
                            lists.replace(number(owner), slot, new);
                            let place = model[owner].iter_mut().find(|s| **s == slot).unwrap();
                            *place = new;
                        }
                    }
                    _ => {}
                }
                for port in 0..3_u16 {
                    prop_assert_eq!(&lists.all(port), &model[usize::from(port)]);
                    prop_assert_eq!(lists.len(port), model[usize::from(port)].len());
                }
            }
        }
    }
}
