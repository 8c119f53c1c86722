//! What kinds of bridges do with a burst beside learning and looking addresses up.
//!
//! The data path is made for each kind: what a bridge does not use, its frames do not pass.

use ethdev::DropReason;
use packet::{Edit, Frame};

use crate::bond::way::Bonds;
use crate::bridge::VlanTable;
use crate::datapath::Source;
use crate::gate::Doors;
use crate::header::Addresses;
use crate::vlan::policy::Policy;
use crate::vlan::tags::{Glance, Meta, Tags};

/// The choices that a kind of bridge leaves open. Asked once per run of frames, or per run and
/// port where it goes out.
pub(crate) trait Stage {
    /// What, beside its addresses, makes a frame another than the one before.
    type Key: Copy + PartialEq + Default;
    /// By what most frames that have the key of the one before are seen to have it; the default is like
    /// no frame's, unless no key is another's.
    type Glance: Copy + Default;
    /// What is known of a run's frames, and travels beside them.
    type Meta: Copy + PartialEq;

    /// Reads the key of a frame.
    fn read(frame: &Frame<'_>) -> (Self::Key, Self::Glance);

    /// Whether a frame has these addresses, and the key of the one that `glance` was read from. It may
    /// have them all the same where this says no.
    fn is_alike(frame: &Frame<'_>, addresses: Addresses, glance: &Self::Glance) -> bool;

    /// The same of the key alone.
    fn has_key_of(frame: &Frame<'_>, glance: &Self::Glance) -> bool;

    /// Which bits of the eight bytes behind the addresses say that a frame has the key of the one that
    /// `glance` was read from, in the order of memory.
    fn telling(glance: &Self::Glance) -> u64;

    /// Lets a run in, or tells why not.
    fn admit(&self, key: Self::Key) -> Result<Self::Meta, DropReason>;

    /// The VLAN in which addresses are learnt and looked up.
    fn vlan(meta: &Self::Meta) -> u16;

    /// How the frames of a run go out on a port; `None` where they do not.
    fn edit(&self, port: u16, meta: &Self::Meta) -> Option<Edit>;

    /// Why frames do not go out on a port. Asked apart: a reason beside each edit costs more than all
    /// else that is done for VLANs.
    fn refusal(&self, _port: u16) -> DropReason {
        DropReason::WrongVlan
    }

    /// Whether anything is forwarded; otherwise stations are learnt, and that is all.
    #[inline]
    fn forwards(&self) -> bool {
        true
    }

    /// Whether the frames of a run, which go to a group, are for a port at all.
    #[inline]
    fn reaches(_port: u16, _meta: &Self::Meta) -> bool {
        true
    }

    /// Whether the frames of a run, where they are for no port in particular, go to all that carry them.
    #[inline]
    fn is_for_all(_meta: &Self::Meta) -> bool {
        true
    }

    /// Whether the frames of a run, which are for no port in particular, flood to a port.
    #[inline]
    fn floods(&self, _port: u16, _meta: &Self::Meta, _bonds: &Bonds) -> bool {
        true
    }

    /// Why the frames of a run are dropped that go to a group, and to no port.
    #[inline]
    fn lost(_meta: &Self::Meta) -> DropReason {
        DropReason::LinkDown
    }

    /// Hears what the frames of a run say to the bridge itself; returns those among them that are
    /// dropped since there is too much of it.
    #[inline]
    fn hear(
        &self,
        _frames: &[Frame<'_>],
        _mask: u32,
        _meta: &Self::Meta,
        _source: &Source<'_>,
    ) -> u32 {
        0
    }
}

/// A bridge that does not look at tags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain;

impl Stage for Plain {
    type Key = ();
    type Glance = ();
    type Meta = ();

    #[inline]
    fn read(_frame: &Frame<'_>) -> ((), ()) {
        ((), ())
    }

    #[inline(always)]
    fn is_alike(frame: &Frame<'_>, addresses: Addresses, (): &()) -> bool {
        Addresses::of(frame) == Some(addresses)
    }

    #[inline(always)]
    fn has_key_of(_frame: &Frame<'_>, (): &()) -> bool {
        true
    }

    #[inline(always)]
    fn telling((): &()) -> u64 {
        0
    }

    #[inline]
    fn admit(&self, (): ()) -> Result<(), DropReason> {
        Ok(())
    }

    #[inline]
    fn vlan((): &()) -> u16 {
        0
    }

    #[inline]
    fn edit(&self, _port: u16, (): &()) -> Option<Edit> {
        Some(Edit::NONE)
    }
}

/// A bridge where ports have VLANs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vlans<'b> {
    table: &'b VlanTable,
    /// That of the port where the burst came in.
    input: &'b Policy,
}

impl<'b> Vlans<'b> {
    /// For a burst from `port`.
    #[inline]
    pub(crate) fn new(table: &'b VlanTable, port: u16) -> Self {
        Self { table, input: table.of(port) }
    }
}

impl Stage for Vlans<'_> {
    type Key = Tags;
    type Glance = Glance;
    type Meta = Meta;

    #[inline]
    fn read(frame: &Frame<'_>) -> (Tags, Glance) {
        let tags = Tags::of(frame);
        (tags, Glance::of(tags, frame))
    }

    #[inline(always)]
    fn is_alike(frame: &Frame<'_>, addresses: Addresses, glance: &Glance) -> bool {
        glance.is_alike(frame, addresses)
    }

    #[inline(always)]
    fn has_key_of(frame: &Frame<'_>, glance: &Glance) -> bool {
        glance.has_tags_of(frame)
    }

    #[inline(always)]
    fn telling(glance: &Glance) -> u64 {
        glance.mask()
    }

    #[inline]
    fn admit(&self, tags: Tags) -> Result<Meta, DropReason> {
        self.input.admit(tags)
    }

    #[inline]
    fn vlan(meta: &Meta) -> u16 {
        meta.vlan
    }

    #[inline]
    fn edit(&self, port: u16, meta: &Meta) -> Option<Edit> {
        self.table.of(port).edit(meta)
    }
}

/// A bridge of another kind, where not all ports forward, or do all that ports do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gated<'b, S> {
    inner: S,
    doors: &'b Doors,
    /// Whether the port where the burst came in does.
    forwards: bool,
}

impl<'b, S> Gated<'b, S> {
    /// For a burst from `port`, on which it is learnt at least.
    pub(crate) fn new(inner: S, doors: &'b Doors, port: u16) -> Self {
        Self { inner, doors, forwards: doors.forwards(port) }
    }
}

impl<S: Stage> Stage for Gated<'_, S> {
    type Key = S::Key;
    type Glance = S::Glance;
    type Meta = S::Meta;

    #[inline]
    fn read(frame: &Frame<'_>) -> (S::Key, S::Glance) {
        S::read(frame)
    }

    #[inline(always)]
    fn is_alike(frame: &Frame<'_>, addresses: Addresses, glance: &S::Glance) -> bool {
        S::is_alike(frame, addresses, glance)
    }

    #[inline(always)]
    fn has_key_of(frame: &Frame<'_>, glance: &S::Glance) -> bool {
        S::has_key_of(frame, glance)
    }

    #[inline(always)]
    fn telling(glance: &S::Glance) -> u64 {
        S::telling(glance)
    }

    #[inline]
    fn admit(&self, key: S::Key) -> Result<S::Meta, DropReason> {
        self.inner.admit(key)
    }

    #[inline]
    fn vlan(meta: &S::Meta) -> u16 {
        S::vlan(meta)
    }

    #[inline]
    fn edit(&self, port: u16, meta: &S::Meta) -> Option<Edit> {
        if self.doors.sends(port) { self.inner.edit(port, meta) } else { None }
    }

    fn refusal(&self, port: u16) -> DropReason {
        match (self.doors.forwards(port), self.doors.sends(port)) {
            (true, true) => self.inner.refusal(port),
            (true, false) => DropReason::FlowDrop,
            (false, _) => DropReason::SpanningTree,
        }
    }

    #[inline]
    fn forwards(&self) -> bool {
        self.forwards
    }

    #[inline]
    fn reaches(port: u16, meta: &S::Meta) -> bool {
        S::reaches(port, meta)
    }

    #[inline]
    fn is_for_all(meta: &S::Meta) -> bool {
        S::is_for_all(meta)
    }

    fn floods(&self, port: u16, meta: &S::Meta, bonds: &Bonds) -> bool {
        !S::is_for_all(meta) || self.doors.floods(port, bonds)
    }

    #[inline]
    fn lost(meta: &S::Meta) -> DropReason {
        S::lost(meta)
    }

    #[inline]
    fn hear(&self, frames: &[Frame<'_>], mask: u32, meta: &S::Meta, source: &Source<'_>) -> u32 {
        self.inner.hear(frames, mask, meta, source)
    }
}
