//! Paths that a single packet takes: what becomes of them when rules change.
//!
//! Of such a path it is known of which packet it is the way. So it is found out anew without that packet, and put
//! in the place of what it was: entries that have its number, and what it has counted, stay.

use super::{Known, Paths, Verdict, place, standing};
use packet::prefetch::prefetch_read;

use crate::cache::changes::Pointed;
use crate::cache::effort::Effort;
use crate::key::Key;
use crate::path::{Extent, Path, Renewal};
use crate::pipeline::Pipeline;
use crate::walk::guide::Gone;
use crate::walk::room::Room;

/// Which rules of a path are gone, or other ones.
#[derive(Debug)]
pub(super) enum Lacks {
    Nothing,
    One(Gone),
    Several,
}

impl Lacks {
    /// Whether all are there.
    pub(super) const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// One more is gone, or another one.
    fn add(&mut self, gone: Gone) {
        match self {
            Self::One(before) if before.rule != gone.rule => *self = Self::Several,
            // What has become of it last is what it is; the path has what it was at first.
            Self::One(before) => before.heir = gone.heir,
            Self::Nothing => *self = Self::One(gone),
            Self::Several => {}
        }
    }
}

/// So many paths are between the one that is pointed at and the one that memory is asked for.
const AHEAD: usize = 8;

/// What has become of a path that was asked for.
#[derive(Debug)]
pub(in super::super) enum Renewed {
    /// Packets take the path of this number.
    Stands(u32),
    /// It is to be mended.
    Breaks,
    /// There is none.
    Gone,
}

/// A path that is to be mended.
#[derive(Debug)]
pub(in super::super) struct Broken<'p> {
    pub(in super::super) path: &'p Path,
    /// The packet that takes it, as that came in.
    pub(in super::super) key: &'p Key,
    /// Whether it has come round.
    pub(super) comes_round: bool,
    /// The only rule that is not known to be the one that the packet finds where it found it, as long as it is what
    /// it was.
    pub(in super::super) gone: Option<&'p Gone>,
}

impl Paths {
    /// Another pipeline decides from now on. Returns whether it is known what is different.
    pub(in super::super) fn update(&mut self, pipeline: &Pipeline, before: &Pipeline) -> bool {
        let is_known = self.changes.add(pipeline, before);
        let mut pointed = std::mem::take(&mut self.changes.pointed);
        let mut ids = std::mem::take(&mut self.pointed);
        ids.clear();
        ids.extend(pointed.iter().map(|pointed| pointed.path));
        // What is known of a path is asked for some steps ahead.
        let mut ahead = ids.iter();
        ahead.by_ref().take(AHEAD).for_each(|id| self.fetch_known(*id));
        for pointed in pointed.drain(..) {
            ahead.next().into_iter().for_each(|id| self.fetch_known(*id));
            self.point(pointed);
        }
        (self.pointed, self.changes.pointed) = (ids, pointed);
        is_known
    }

    /// A path found a rule that is gone.
    fn point(&mut self, Pointed { path, gone }: Pointed) {
        let Some(known) = self.known_mut(path) else { return };
        known.lacks.add(gone);
        if let Some(own) = self.standing.get_mut(place(path)) {
            *own = 0;
        }
    }

    /// Whether a single packet takes a path.
    pub(super) fn is_alone(&self, id: u32) -> bool {
        self.known(id).is_some_and(|known| known.only.is_some() && !known.is_left)
    }

    /// Finds out what has become of a path that a single packet takes.
    pub(super) fn renew_alone(&mut self, id: u32) -> Renewed {
        if self.check_alone(id) == Some(Verdict::Holds) {
            self.renewed += 1;
            Renewed::Stands(id)
        } else {
            Renewed::Breaks
        }
    }

    /// Whether the packet takes the same way still. Nothing is changed if not.
    pub(super) fn check_alone(&mut self, id: u32) -> Option<Verdict> {
        let known = self.known(id)?;
        let (only, trace) = (known.only.as_deref()?, known.path.trace.as_ref());
        let (now, since) = (self.changes.now(), known.checked);
        let is_told = since.era == now.era || trace.is_some_and(|of| self.changes.is_told_by(of));
        if !known.lacks.is_nothing() || !is_told {
            return Some(Verdict::Over);
        }
        let effort = &mut Effort::of_path();
        let verdict = self.changes.judge(&known.path, since, Some(only), effort);
        if verdict == Verdict::Holds {
            if since.era != now.era {
                self.note_again(id);
            }
            self.stand(id);
        }
        Some(verdict)
    }

    /// In another era, it is noted what the packet of a path is, and what rules that found.
    fn note_again(&mut self, id: u32) {
        let Self { places, changes, .. } = self;
        let Some(known) = places.get(place(id)) else { return };
        if let Some(only) = &known.only {
            changes.note(only, known.path.trace.as_ref());
        }
        changes.note_path(&known.path, id, &|other| has(places, other));
    }

    /// It is noted which rules a path has found that is going to have this number.
    pub(super) fn note_rules(&mut self, path: &Path, id: u32) {
        let Self { places, changes, .. } = self;
        changes.note_path(path, id, &|other| other == id || has(places, other));
    }

    /// A path holds by now.
    pub(super) fn stand(&mut self, id: u32) {
        let (now, loud) = (self.changes.now(), self.changes.loud());
        let Some(known) = self.known_mut(id) else { return };
        (known.checked, known.lacks) = (now, Lacks::Nothing);
        if let Some(own) = self.standing.get_mut(place(id)) {
            *own = standing(id, loud);
        }
    }

    /// What is known of a path is going to be looked at.
    fn fetch_known(&self, id: u32) {
        const LINE: usize = 64;
        let Some(known) = self.places.get(place(id)) else { return };
        let start = std::ptr::from_ref(known).cast::<u8>();
        (0..size_of::<Known>()).step_by(LINE).for_each(|at| prefetch_read(start.wrapping_add(at)));
    }

    /// A path is going to be mended: the memory that it takes is asked for together.
    pub(super) fn fetch(&self, id: u32) {
        if let Some(known) = self.known(id) {
            known.path.fetch();
        }
    }

    /// The same where its packet goes through the tables, too.
    pub(in super::super) fn fetch_all(&self, id: u32) {
        let Some(known) = self.known(id) else { return };
        known.path.fetch();
        if let Some(key) = &known.only {
            let lines = key.words().iter().step_by(8);
            lines.for_each(|word| prefetch_read(std::ptr::from_ref(word).cast()));
        }
        if let Lacks::One(Gone { heir: Some(rule), .. }) = &known.lacks {
            rule.fetch();
        }
    }

    /// A path that a single packet takes, and that is to be mended.
    pub(in super::super) fn broken(&self, id: u32, effort: &mut Effort) -> Option<Broken<'_>> {
        let (changes, known) = (&self.changes, self.known(id)?);
        let (path, key) = (&known.path, known.only.as_deref()?);
        let gone = match &known.lacks {
            Lacks::One(gone) if known.checked.era == changes.now().era => {
                let verdict = changes.judge(path, known.checked, Some(key), effort);
                (verdict == Verdict::Holds).then_some(gone)
            }
            _ => None,
        };
        Some(Broken { path, key, gone, comes_round: known.comes_round })
    }

    /// Has it be what it is by now. Returns the path that the packet takes: another one if that is the same.
    pub(in super::super) fn mend(
        &mut self,
        id: u32,
        renewal: Renewal,
        room: &mut Room,
    ) -> Option<u32> {
        if renewal.has_other_counts() {
            self.tell(id);
        }
        let now = self.changes.now();
        let known = self.known_mut(id)?;
        let (weight, is_of_era) = (known.path.weight(), known.checked.era == now.era);
        // It is nobody's heir any more.
        known.is_mended = true;
        let (renewed, hash) = renewal.apply(&mut known.path, room);
        let more = known.path.weight();
        known.weight = known.weight.saturating_add(more).saturating_sub(weight);
        self.weight = self.weight.saturating_add(more).saturating_sub(weight);
        if let Some(other) = hash.and_then(|hash| self.list_as(id, hash)) {
            self.join(id, other);
            return Some(other);
        }
        match renewed {
            _ if !is_of_era => self.note_again(id),
            Extent::Rules => {}
            Extent::Values => self.note_values(id),
            Extent::All => self.note_again(id),
        }
        self.stand(id);
        Some(id)
    }

    /// Packets of a path have had other values on their way.
    pub(super) fn note_values(&mut self, id: u32) {
        let Self { places, changes, .. } = self;
        if let Some(known) = places.get(place(id)) {
            changes.note_values(known.path.trace.as_ref());
        }
    }

    /// Has a path be found by another hash; returns another path that is the same, if there is one.
    fn list_as(&mut self, id: u32, hash: u64) -> Option<u32> {
        if self.known(id)?.hash == hash {
            return None;
        }
        self.unlist(id);
        let own = self.get(id);
        let other = self.same(hash, |other| self.get(other) == own);
        if let Some(other) = other
            && self.check(other) == Some(Verdict::Holds)
        {
            return Some(other);
        }
        self.list(id, hash);
        None
    }

    /// The packet of a path goes on with another one, which is the same.
    fn join(&mut self, id: u32, other: u32) {
        let Some(known) = self.known_mut(id) else { return };
        let (trace, only) = (known.path.trace.take(), known.only.take());
        let Some(key) = only else { return };
        self.changes.note(&key, trace.as_ref());
        if let Some(known) = self.known_mut(other) {
            match (&mut known.path.trace, &trace) {
                (Some(own), Some(trace)) => own.join(trace),
                // Nothing is known of all of them.
                (own, _) => *own = None,
            }
        }
        self.share(other, &key);
        self.remove(id);
    }
}

fn has(places: &[Known], id: u32) -> bool {
    places.get(place(id)).is_some_and(|known| known.id == id)
}
