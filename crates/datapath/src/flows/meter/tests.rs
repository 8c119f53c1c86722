use openflow::message::meter::{Band, Meter as Desc, MeterCommand, MeterMod};
use proptest::prelude::*;

use super::*;

const HZ: u64 = 1_000;

fn meters(flags: u16, bands: Vec<Band>) -> flow::Meters {
    let mut tables = flow::Tables::default();
    let meter = Desc { id: 1, flags, bands };
    tables.change_meter(&MeterMod { command: MeterCommand::Add, meter }, 0).unwrap();
    tables.meters().clone()
}

#[test]
fn a_bucket_without_a_burst_lasts_a_second() {
    let band = |burst| Band { remark: None, rate: 1_000, burst };
    let sizes = [size(&band(0), false, HZ), size(&band(16), false, HZ)];
    assert_eq!(sizes.map(|size| size.burst), [125_000, 2_000]);
    assert_eq!((sizes[0].tokens, sizes[0].cycles), (1_000_000, 8_000));
    let packets = [size(&band(0), true, HZ), size(&band(16), true, HZ)];
    assert_eq!(packets.map(|size| (size.tokens, size.burst)), [(1_000, 1_000), (1_000, 16)]);
}

/// What bands have, by Open vSwitch's way: each takes tokens for each packet that it has enough for; of those
/// that have not, the first with the highest rate fires.
struct Model {
    bands: Vec<Band>,
    left: Vec<u64>,
    counts_packets: bool,
}

impl Model {
    fn most(&self, band: &Band) -> u64 {
        let burst = u64::from(band.burst);
        if self.counts_packets { burst } else { burst * 125 }
    }

    fn fill(&mut self, pause: u64) {
        for at in 0..self.bands.len() {
            let rate = u64::from(self.bands[at].rate) * pause;
            let come = if self.counts_packets { rate / HZ } else { rate * 125 / HZ };
            self.left[at] = (self.left[at] + come).min(self.most(&self.bands[at]));
        }
    }

    fn charge(&mut self, len: usize) -> Option<&Band> {
        let cost = if self.counts_packets { 1 } else { len as u64 };
        let mut fired: Option<&Band> = None;
        for (band, left) in self.bands.iter().zip(&mut self.left) {
            if *left >= cost {
                *left -= cost;
            } else if fired.is_none_or(|fired| band.rate > fired.rate) {
                fired = Some(band);
            }
        }
        fired
    }
}

proptest! {
    #[test]
    fn bands_fire_as_those_of_a_model(
        counts_packets: bool,
        // Such that only whole tokens come.
        bands in prop::collection::vec((1..16_u32, 1..300_u32, prop::option::of(1..4_u8)), 0..9),
        bursts in prop::collection::vec((0..25_u64, prop::collection::vec(20..1_500_usize, 0..32)), 1..20),
    ) {
        let band = |(rate, burst, remark)| Band { remark, rate: rate * 125, burst };
        let bands: Vec<Band> = bands.into_iter().take(MAX_BANDS).map(band).collect();
        let set = meters(if counts_packets { 2 } else { 1 }, bands.clone());
        let mut own = Meters::new(&Metering::default().of(&set, (1, HZ, 0)));
        let mut model = Model { left: Vec::new(), bands, counts_packets };
        model.left = model.bands.iter().map(|band| model.most(band)).collect();
        let bytes = vec![0; 1_500];
        let (mut now, mut seen, mut dropped) = (0, 0, 0);
        for (pause, lens) in bursts {
            now += pause * 8;
            model.fill(pause * 8);
            let frames: Vec<_> = lens.iter().map(|len| Frame::from_bytes(&bytes[..*len])).collect();
            let verdict = own.charge(1, (&frames, 0), now);
            for (at, len) in lens.iter().enumerate() {
                let bit = 1_u32 << at;
                let level = verdict.remarked.iter().find(|(mask, _)| mask & bit != 0);
                let expected = model.charge(*len).map(|band| band.remark);
                let is_dropped = verdict.dropped & bit != 0;
                prop_assert_eq!(is_dropped, expected == Some(None));
                prop_assert_eq!(level.map(|(_, level)| *level), expected.flatten());
                seen += 1;
                dropped += u64::from(is_dropped);
            }
        }
        own.flush(0);
        let stats = &set.get(1).unwrap().stats;
        prop_assert_eq!(stats.seen.packets(), seen);
        let fired = stats.bands.iter().zip(&model.bands).filter(|(_, band)| band.remark.is_none());
        prop_assert_eq!(fired.map(|(stats, _)| stats.packets()).sum::<u64>(), dropped);
    }
}

#[test]
fn all_workers_together_have_one_bucket_and_who_goes_leaves_his_share() {
    let band = Band { remark: None, rate: 1, burst: 1_000 };
    let set = meters(2, vec![band]);
    let metering = Metering::default().of(&set, (4, HZ, 0));
    let bytes = [0; 60];
    let frames = [Frame::from_bytes(&bytes); 32];
    let mut passed = 0_u32;
    for _ in 0..10 {
        // Each time another worker, who has tokens in advance when he goes.
        let mut own = Meters::new(&metering);
        passed += 32 - own.charge(1, (&frames, 0), 0).dropped.count_ones();
    }
    assert_eq!(passed, 320);
    let mut own: Vec<Meters> = (0..4).map(|_| Meters::new(&metering)).collect();
    for turn in 0..40 {
        passed += 32 - own[turn % 4].charge(1, (&frames, 0), 0).dropped.count_ones();
    }
    assert!((880..=1_000).contains(&passed), "{passed}");
}

#[test]
fn a_worker_keeps_its_part_in_meters_that_stay_the_same() {
    let mut tables = flow::Tables::default();
    let mut add = |id| {
        let meter = Desc { id, flags: 2, bands: vec![Band { remark: None, rate: 1, burst: 8 }] };
        tables.change_meter(&MeterMod { command: MeterCommand::Add, meter }, 0).unwrap();
        tables.meters().clone()
    };
    let bytes = [0; 60];
    let frames = [Frame::from_bytes(&bytes); 8];
    let dropped = |own: &mut Meters, id| own.charge(id, (&frames, 0), 0).dropped.count_ones();
    let before = Metering::default().of(&add(7), (1, HZ, 0));
    let mut own = Meters::new(&before);
    assert_eq!(dropped(&mut own, 5), 0, "there is none");
    assert_eq!([7, 7].map(|id| dropped(&mut own, id)), [0, 8]);
    // Others come in front of it and behind it.
    add(9);
    let after = before.of(&add(5), (1, HZ, 0));
    own.update(&after, 0);
    assert_eq!([7, 5, 5, 9, 9].map(|id| dropped(&mut own, id)), [8, 0, 8, 0, 8]);
    assert_eq!(
        after.all.get(&7).unwrap().meter.stats.seen.packets(),
        16,
        "the last are not told yet"
    );
    // Only that stays.
    own.update(&before, 0);
    assert_eq!([7, 5, 9].map(|id| dropped(&mut own, id)), [8, 0, 0]);
    own.update(&Metering::default(), 0);
    assert_eq!(dropped(&mut own, 7), 0);
}

#[test]
fn tokens_come_by_a_clock_that_tests_move() {
    let time = Time::stopped();
    let hz = eal::clock::hz();
    let set = meters(2, vec![Band { remark: None, rate: 1, burst: 1 }]);
    let metering = Metering::default().by(&time).of(&set, (1, hz, 0));
    let mut own = Meters::new(&metering);
    let bytes = [0; 60];
    let frames = [Frame::from_bytes(&bytes); 3];
    // Whatever the counter shows.
    let mut dropped = |now| own.charge(1, (&frames, 0), now).dropped;
    assert_eq!([dropped(0), dropped(100 * hz)], [0b110, 0b111]);
    time.warp(std::time::Duration::from_millis(999));
    assert_eq!(dropped(200 * hz), 0b111);
    time.warp(std::time::Duration::from_millis(1));
    assert_eq!(dropped(200 * hz), 0b110);
    // For another number of workers, buckets are full again, and fill by the same clock.
    let mut own = Meters::new(&metering.anew(&set, (2, hz, 0)));
    let mut dropped = |now| own.charge(1, (&frames, 0), now).dropped;
    assert_eq!([dropped(300 * hz), dropped(400 * hz)], [0b110, 0b111]);
}
