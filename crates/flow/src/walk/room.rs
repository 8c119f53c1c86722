//! Memory of walks, for the next one.

use super::trace::Tracer;
use super::{USUAL_OPS, USUAL_RULES};
use crate::path::{Op, Passed, Way};

/// What ways that are longer need is given back.
const MAX_KEPT: usize = 1024;

/// What a walk has taken that is over.
#[derive(Debug, Default)]
pub(crate) struct Room {
    ops: Vec<Op>,
    visits: Vec<Passed<'static>>,
    tracer: Option<Box<Tracer>>,
}

impl Room {
    /// For operations and visits of a walk.
    pub(super) fn lists<'w>(&mut self) -> (Vec<Op>, Vec<Passed<'w>>) {
        let (mut ops, mut visits) =
            (std::mem::take(&mut self.ops), std::mem::take(&mut self.visits));
        ops.reserve(USUAL_OPS);
        visits.reserve(USUAL_RULES);
        (ops, visits)
    }

    /// For what its packet is.
    pub(super) fn tracer(&mut self) -> Box<Tracer> {
        self.tracer.take().unwrap_or_default()
    }

    /// What was noted of the packet of the last walk.
    pub(crate) const fn last(&mut self) -> Option<&mut Box<Tracer>> {
        self.tracer.as_mut()
    }

    /// A way is not needed any more.
    pub(crate) fn take_back(&mut self, way: Way<'_>) {
        let Way { mut ops, mut visits, tracer, .. } = way;
        ops.clear();
        visits.clear();
        if ops.capacity().max(visits.capacity()) <= MAX_KEPT {
            self.ops = ops;
            // It is empty, and so has nothing of what it was for: the memory stays.
            self.visits = visits.into_iter().map_while(|_| None).collect();
        }
        if let Some(tracer) = tracer {
            self.tracer = Some(tracer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::pipeline::Pipeline;
    use crate::walk::{Start, find_way};

    #[test]
    fn the_next_walk_has_the_memory_of_the_last() {
        let (pipeline, mut room) = (Pipeline::default(), Room::default());
        let mut places = Vec::new();
        for _ in 0..2 {
            let way = find_way(&pipeline, &Key::default(), &Start::Table, (true, None), &mut room);
            let tracer = way.tracer.as_deref().map(std::ptr::from_ref);
            places.push((way.ops.as_ptr(), way.visits.as_ptr().addr(), tracer));
            room.take_back(way);
        }
        assert_eq!(places[0], places[1]);
        let mut way = find_way(&pipeline, &Key::default(), &Start::Table, (false, None), &mut room);
        way.visits.reserve(MAX_KEPT + 1);
        room.take_back(way);
        assert_eq!((room.ops.capacity(), room.visits.capacity()), (0, 0));
        assert!(room.last().is_some());
    }
}
