//! How often frames are sampled, and what finds no room.

use std::sync::Arc;

use openflow::action::SampleDirection;
use packet::Frame;

use super::room::{Onward, Room, Sample, SampleLoss};
use super::sampler::{Sampler, Samplers, Seen, SetSampler};
use super::{MAX_SAMPLE, Sampled, Sampling, Sides};

fn sampler(rate: u32, bytes: usize) -> (Sampler, Arc<Room>) {
    let room = Arc::<Room>::default();
    (Sampler::new((rate, Sides::IN), bytes, Arc::clone(&room), 7), room)
}

fn taken(room: &Room) -> Vec<Sample> {
    let (mut all, mut spare) = (Vec::new(), Vec::new());
    room.take(&mut spare, |sample| all.push(*sample));
    all
}

/// Has so many frames come in bursts of these lengths in turns; returns how many were sampled.
fn come(samplers: &Samplers, bursts: &[usize], frames: usize) -> usize {
    let (mut left, mut sampled) = (frames, 0);
    let bytes = [0; 60];
    for burst in bursts.iter().cycle() {
        let mut rest = left.min(*burst);
        left -= rest;
        while let Some(place) = samplers.next(rest) {
            rest -= place + 1;
            samplers.end(&samplers.begin((1, 0), &Frame::from_bytes(&bytes)), &Seen::default());
            sampled += 1;
        }
        if left == 0 {
            return sampled;
        }
    }
    sampled
}

#[test]
fn one_of_so_many_frames_is_sampled_however_bursts_are() {
    for rate in [1, 2, 3, 10, 100, 1_000] {
        let mut counts = Vec::new();
        for bursts in [&[1][..], &[32], &[3, 32, 1, 17]] {
            let (sampler, room) = sampler(rate, 60);
            let samplers = Samplers::new([sampler].into_iter());
            let frames = rate as usize * 500;
            let sampled = come(&samplers, bursts, frames);
            let all = taken(&room);
            assert_eq!((all.len(), room.lost()), (sampled, SampleLoss::default()));
            let stand_for: usize = all.iter().map(|sample| sample.stands_for as usize).sum();
            assert!((frames - 2 * rate as usize..=frames).contains(&stand_for), "{rate}");
            assert!(all.iter().all(|sample| (1..=2 * rate - 1).contains(&sample.stands_for)));
            counts.push(sampled);
        }
        // The same numbers are drawn each time, and what is drawn is about the rate.
        assert_eq!(counts, [counts[0]; 3]);
        assert!((450..=550).contains(&counts[0]), "{rate}: {}", counts[0]);
    }
}

#[test]
fn all_numbers_up_to_twice_the_rate_are_drawn_alike() {
    let (sampler, room) = sampler(5, 1);
    let samplers = Samplers::new([sampler].into_iter());
    let mut drawn = [0_u32; 10];
    for _ in 0..20 {
        come(&samplers, &[32], 2_500);
        taken(&room).iter().for_each(|sample| drawn[sample.stands_for as usize] += 1);
    }
    assert_eq!(drawn[0], 0);
    let each = drawn.iter().sum::<u32>() / 9;
    assert!(drawn[1..].iter().all(|count| count.abs_diff(each) < each / 5), "{drawn:?}");
}

#[test]
fn samplings_of_a_bridge_do_not_know_of_each_other() {
    let ((all, of_all), (some, of_some)) = (sampler(1, 60), sampler(3, 8));
    let samplers = Samplers::new([all, some].into_iter());
    assert_eq!(come(&samplers, &[5], 3_000 / 4), 750);
    let (all, some) = (taken(&of_all), taken(&of_some));
    assert!(
        all.len() == 750
            && all.iter().all(|sample| (sample.stands_for, sample.bytes().len()) == (1, 60))
    );
    assert!((200..300).contains(&some.len()), "{}", some.len());
    assert!(some.iter().all(|sample| sample.stands_for <= 5 && sample.bytes() == [0; 8]));
}

#[test]
fn what_finds_no_room_is_lost_and_counted() {
    let (sampler, room) = sampler(1, 60);
    let samplers = Samplers::new([sampler].into_iter());
    assert_eq!(come(&samplers, &[32], 2_000), 2_000);
    let count = taken(&room).len();
    let lost = SampleLoss { samples: 2_000 - 1_024, frames: 2_000 - 1_024 };
    assert_eq!((count, room.lost()), (1_024, lost));
    // There is room again, as often as it is read.
    for _ in 0..3 {
        assert_eq!(come(&samplers, &[32], 1_000), 1_000);
        assert_eq!(taken(&room).len(), 1_000);
    }
    assert_eq!(room.lost(), lost);
}

#[test]
fn frames_of_samples_that_are_lost_are_counted() {
    let (sampler, room) = sampler(10, 60);
    let samplers = Samplers::new([sampler].into_iter());
    come(&samplers, &[32], 30_000);
    let told: u64 = taken(&room).iter().map(|sample| u64::from(sample.stands_for)).sum();
    let SampleLoss { samples, frames } = room.lost();
    assert!(samples > 0 && (29_980..=30_000).contains(&(told + frames)), "{told} {frames}");
}

#[test]
fn what_was_counted_down_goes_on_with_other_samplers() {
    let room = Arc::<Room>::default();
    let mut samplers = Samplers::default();
    let (mut sampled, frames) = (0, 500 * 1_000);
    for seed in 0..frames / 100 {
        let next = Sampler::new((1_000, Sides::IN), 60, Arc::clone(&room), seed);
        let next = Samplers::new([next].into_iter());
        next.go_on_from(&samplers);
        samplers = next;
        sampled += come(&samplers, &[32], 100);
    }
    assert!((450..=550).contains(&sampled), "{sampled}");
    let stand_for: u64 = taken(&room).iter().map(|sample| u64::from(sample.stands_for)).sum();
    assert!((frames - 2_000..=frames).contains(&stand_for), "{stand_for}");
    // One of another sampling begins by itself.
    let (other, _) = sampler(1, 60);
    let other = Samplers::new([other].into_iter());
    other.go_on_from(&samplers);
    assert_eq!(come(&other, &[32], 10), 10);
}

#[test]
fn a_sample_has_the_first_bytes_of_its_frame() {
    let bytes: Vec<u8> = (0..=255).cycle().take(1_514).collect();
    let sample = Sample::new((3, 0), &Frame::from_bytes(&bytes), 1_000);
    assert_eq!((sample.port, sample.len, sample.bytes()), (3, 1_514, &bytes[..MAX_SAMPLE]));
    let told = sample.told(9, Onward { count: 2, port: 5, tci: 7 }, 20);
    assert_eq!((told.stands_for, told.onward.port, told.bytes()), (9, 5, &bytes[..20]));
    let short = Sample::new((3, 0), &Frame::from_bytes(&bytes[..14]), 128);
    assert_eq!((short.len, short.bytes()), (14, &bytes[..14]));
}

#[test]
fn of_several_ports_the_first_one_is_told() {
    let mut bytes = [0; 60];
    let mut seen = Seen::default();
    assert_eq!(seen.onward, Onward::default());
    bytes[12..16].copy_from_slice(&[0x81, 0, 0xa0, 5]);
    seen.note(4, &Frame::from_bytes(&bytes));
    seen.note(5, &Frame::from_bytes(&[0; 9]));
    assert_eq!(seen.onward, Onward { count: 2, port: 4, tci: 0xa005 });
    let mut untagged = Seen::default();
    untagged.note(5, &Frame::from_bytes(&[0x81; 13]));
    assert_eq!(untagged.onward, Onward { count: 1, port: 5, tci: 0 });
}

#[test]
fn a_frame_can_be_sampled_where_it_goes_out() {
    let room = Arc::<Room>::default();
    let sides = Sides { ingress: false, egress: true };
    let sampler = Sampler::new((1, sides), 20, Arc::clone(&room), 7);
    let samplers = Samplers::new([sampler].into_iter());
    let mut memory = Seen::default();
    for ports in [2, 0, 70_u16] {
        assert_eq!(samplers.next(1), Some(0));
        let draft = samplers.begin((1, 0), &Frame::from_bytes(&[1; 60]));
        assert_eq!(draft.bytes_out(), 20);
        let mut seen = Seen::new(draft.bytes_out(), memory);
        (0..ports).for_each(|port| seen.note(port + 2, &Frame::from_bytes(&[3; 64])));
        samplers.end(&draft, &seen);
        let all = taken(&room);
        // Of more ports than there is room for nothing is told, but that.
        assert_eq!(all.len(), usize::from(ports.min(64)));
        for (port, sample) in (2..).zip(&all) {
            assert_eq!((sample.port, sample.out, sample.len), (1, Some(port), 64));
            assert_eq!((sample.bytes(), sample.onward.count), (&[3; 20][..], 1));
        }
        memory = seen;
    }
    assert_eq!(room.lost(), SampleLoss { samples: 6, frames: 6 });
}

/// What a rule says that samples so many of 65,535.
fn rule(probability: u16, set: u32) -> flow::Sample {
    flow::Sample {
        probability,
        set,
        domain: 1,
        point: 2,
        port: None,
        direction: SampleDirection::Default,
    }
}

#[test]
fn rules_sample_as_many_frames_as_they_say() {
    let room = Arc::<Room>::default();
    let set = SetSampler::new(5, 60, Arc::clone(&room), 7);
    let samplers = Samplers::default().with_sets([set].into_iter());
    assert!(!samplers.has_any() && !samplers.is_empty());
    let burst = [Frame::from_bytes(&[0; 60]); 32];
    let took = |rule: &flow::Sample, bursts: usize| {
        let mut count = 0;
        for _ in 0..bursts {
            samplers.take(rule, &burst, (3, 0), false);
            let all = taken(&room);
            let is_right = |sample: &Sample| (sample.rule, sample.port) == (Some(*rule), 3);
            assert!(all.iter().all(is_right));
            count += all.len();
        }
        count
    };
    assert_eq!(took(&rule(u16::MAX, 5), 10), 320);
    assert_eq!(took(&rule(u16::MAX, 6), 10), 0, "nobody wants to know");
    // A quarter; the same numbers are drawn each time.
    let quarter = took(&rule(u16::MAX / 4, 5), 1_000);
    assert!((7_800..8_200).contains(&quarter), "{quarter}");
    let seldom = took(&rule(65, 5), 1_000);
    assert!((15..60).contains(&seldom), "{seldom}");
}

#[test]
fn numbers_have_limits() {
    let sampling = |rate, bytes| {
        let what = Sampled::Frames { rate, sides: Sides::IN };
        Sampling { bridge: String::new(), what, bytes }.check()
    };
    assert_eq!((sampling(1, 1), sampling(u32::MAX / 2, 256)), (Ok(()), Ok(())));
    for (rate, bytes) in [(0, 128), (u32::MAX, 128), (1, 0), (1, 257)] {
        let reason = sampling(rate, bytes).unwrap_err();
        assert!(reason.contains("expected 1 to"), "{reason}");
    }
}
