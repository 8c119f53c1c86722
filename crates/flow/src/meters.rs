//! Meters: how much may pass of what rules send through them.
//!
//! What they have counted is here; who charges packets has buckets of tokens, which are not.

use std::sync::Arc;

use litemap::LiteMap;
use openflow::message::meter::{ALL_METERS, Band, Meter as Desc, MeterCommand, MeterMod};
use ordered::Gather as _;

use crate::rule::{Ended, Stats};
use crate::tables::{Outcome, Tables};
use crate::uses::Used;

/// The largest number of a meter that rules use (OpenFlow 1.3, A.3.4.4).
const MAX_METER: u32 = 0xFFFF_0000;

/// The meter for what goes through slow paths, of which there are none here.
const SLOW_PATH: u32 = 0xFFFF_FFFD;

/// The meter for what controllers get.
pub const CONTROLLER_METER: u32 = 0xFFFF_FFFE;

/// The most meters of a bridge.
pub const MAX_METERS: usize = 16_384;

/// The most bands of a meter, as in Open vSwitch.
pub const MAX_BANDS: usize = 8;

/// Flags that meters can have.
const FLAGS: u16 = 0xF;

/// Rates are in packets per second.
const PACKETS: u16 = 2;

/// What a meter has done.
#[derive(Debug, Default)]
pub struct MeterStats {
    /// What has come to it.
    pub seen: Stats,
    /// What its bands were for.
    pub bands: Box<[Stats]>,
}

/// A meter.
#[derive(Clone, Debug)]
pub struct Meter {
    /// As the controller has written it.
    pub desc: Desc,
    /// When it was made, in milliseconds.
    pub created: u64,
    /// What it has done since it was last changed.
    pub stats: Arc<MeterStats>,
}

impl Meter {
    fn new(desc: Desc, created: u64) -> Self {
        let bands = desc.bands.iter().map(|_| Stats::default()).collect();
        let stats = Arc::new(MeterStats { seen: Stats::default(), bands });
        Self { desc, created, stats }
    }

    /// Whether it counts packets, and not their bits.
    #[must_use]
    pub const fn counts_packets(&self) -> bool {
        self.desc.flags & PACKETS != 0
    }
}

/// All meters of a bridge.
#[derive(Clone, Debug, Default)]
pub struct Meters(Arc<LiteMap<u32, Arc<Meter>>>);

impl Meters {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The meter of this number.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&Arc<Meter>> {
        self.0.get(&id)
    }

    /// All meters, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Meter>> {
        self.0.values()
    }

    /// Whether these are the same, and nothing was changed in between.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Why a change of meters is refused. Nothing is changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeterRefusal {
    /// The number is none that meters have.
    #[error("meters are numbered 1 to {MAX_METER:#x}, beside those for controllers and slow paths")]
    BadNumber,
    /// There is one with this number.
    #[error("there is a meter {0} already; change it instead")]
    Exists(u32),
    /// There is none with this number.
    #[error("there is no meter {0}")]
    Unknown(u32),
    /// There are as many as there may be.
    #[error("there are {MAX_METERS} meters, as many as a bridge may have; delete some")]
    Full,
    /// It has more bands than it may.
    #[error("a meter has {MAX_BANDS} bands at most")]
    TooManyBands,
    /// It has flags that there are not.
    #[error("meters have no such flags")]
    BadFlags,
    /// A band lets nothing through.
    #[error("a band has rate 0: to drop all, do so without a meter")]
    BadRate,
}

impl Tables {
    /// Changes meters at `now`, in milliseconds. Rules that use meters that are deleted are deleted, too.
    ///
    /// # Errors
    /// As [`MeterRefusal`] tells. Nothing is changed then.
    pub fn change_meter(&mut self, change: &MeterMod, now: u64) -> Result<Outcome, MeterRefusal> {
        let id = change.meter.id;
        if change.command == MeterCommand::Delete {
            return Ok(self.delete_meters(id));
        }
        check(&change.meter)?;
        let before = self.meters.get(id);
        let created = match (change.command, before) {
            (MeterCommand::Add, Some(_)) => return Err(MeterRefusal::Exists(id)),
            (MeterCommand::Add, None) if self.meters.0.len() >= MAX_METERS => {
                return Err(MeterRefusal::Full);
            }
            (MeterCommand::Add, None) => now,
            (_, Some(before)) => before.created,
            (_, None) => return Err(MeterRefusal::Unknown(id)),
        };
        let meter = Arc::new(Meter::new(change.meter.clone(), created));
        Arc::make_mut(&mut self.meters.0).insert(id, meter);
        self.touch();
        Ok(Outcome::default())
    }

    fn delete_meters(&mut self, id: u32) -> Outcome {
        let ids: Vec<u32> = match id {
            ALL_METERS => self.meters.0.keys().copied().collect(),
            id => self.meters.get(id).map(|meter| meter.desc.id).into_iter().collect(),
        };
        if ids.is_empty() {
            return Outcome::default();
        }
        let all = Arc::make_mut(&mut self.meters.0);
        ids.iter().for_each(|id| drop(all.remove(id)));
        self.touch();
        self.remove_users(&ids.into_iter().map(Used::Meter).gather(), Ended::MeterDeleted)
    }
}

fn check(meter: &Desc) -> Result<(), MeterRefusal> {
    let is_special = [SLOW_PATH, CONTROLLER_METER].contains(&meter.id);
    if !is_special && !(1..=MAX_METER).contains(&meter.id) {
        return Err(MeterRefusal::BadNumber);
    }
    if meter.bands.len() > MAX_BANDS {
        return Err(MeterRefusal::TooManyBands);
    }
    if meter.flags & !FLAGS != 0 {
        return Err(MeterRefusal::BadFlags);
    }
    if meter.bands.iter().any(|band: &Band| band.rate == 0) {
        return Err(MeterRefusal::BadRate);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use openflow::{Action, Instructions, Match};

    use super::*;
    use crate::tables::{Change, Refusal};

    fn change(command: MeterCommand, id: u32, rates: &[u32]) -> MeterMod {
        let band = |rate: &u32| Band { remark: None, rate: *rate, burst: 0 };
        MeterMod { command, meter: Desc { id, flags: 1, bands: rates.iter().map(band).collect() } }
    }

    fn uses(ids: &[u32]) -> Instructions {
        Instructions::apply(ids.iter().map(|id| Action::Meter(*id)).collect())
    }

    #[test]
    fn what_cannot_be_is_refused_as_by_open_vswitch() {
        let mut tables = Tables::default();
        let mut refused = |change: &MeterMod| tables.change_meter(change, 0).err();
        let add = |id, rates: &[u32]| change(MeterCommand::Add, id, rates);
        for id in [1, MAX_METER, SLOW_PATH, CONTROLLER_METER] {
            assert_eq!(refused(&add(id, &[5])), None);
        }
        for id in [0, MAX_METER + 1, ALL_METERS] {
            assert_eq!(refused(&add(id, &[5])), Some(MeterRefusal::BadNumber));
        }
        assert_eq!(refused(&add(1, &[5])), Some(MeterRefusal::Exists(1)));
        assert_eq!(refused(&add(2, &[1; 9])), Some(MeterRefusal::TooManyBands));
        assert_eq!(refused(&add(2, &[1, 0])), Some(MeterRefusal::BadRate));
        let mut flags = add(2, &[1]);
        flags.meter.flags = 0x10;
        assert_eq!(refused(&flags), Some(MeterRefusal::BadFlags));
        let modify = |id| change(MeterCommand::Modify, id, &[]);
        assert_eq!(
            (refused(&modify(1)), refused(&modify(2))),
            (None, Some(MeterRefusal::Unknown(2)))
        );
        // Who deletes what is not there has what he wants.
        assert_eq!([0, 2, 1].map(|id| refused(&change(MeterCommand::Delete, id, &[]))), [None; 3]);
        for id in 1..=u32::try_from(MAX_METERS).unwrap() - 3 {
            assert_eq!(refused(&add(id, &[])), None);
        }
        assert_eq!(refused(&add(100_000, &[])), Some(MeterRefusal::Full));
    }

    #[test]
    fn rules_use_meters_that_are_there_and_go_with_them() {
        let mut tables = Tables::default();
        let rule = Change::add(0, Match::new(), uses(&[3, 3, 4]));
        assert_eq!(tables.change(&rule, 0).unwrap_err(), Refusal::NoMeter(3));
        for id in [3, 4] {
            tables.change_meter(&change(MeterCommand::Add, id, &[8]), 7).unwrap();
        }
        tables.change(&rule, 0).unwrap();
        assert_eq!([3, 4, 5].map(|id| tables.meter_uses(id)), [1, 1, 0]);
        // A meter that is changed is as old, and counts anew.
        tables.meters().get(3).unwrap().stats.seen.add(1, 60, 0);
        tables.change_meter(&change(MeterCommand::Modify, 3, &[8, 9]), 9).unwrap();
        let meter = tables.meters().get(3).unwrap();
        let seen = (meter.created, meter.stats.seen.packets(), meter.stats.bands.len());
        assert_eq!(seen, (7, 0, 2));
        let gone = tables.change_meter(&change(MeterCommand::Delete, ALL_METERS, &[]), 0).unwrap();
        assert_eq!(gone.removed[0].1, Ended::MeterDeleted);
        assert!(tables.is_empty() && tables.meters().is_empty());
    }
}
