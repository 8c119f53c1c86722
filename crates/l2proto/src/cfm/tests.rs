use std::time::{Duration, Instant};

use packet::MacAddr;
use proptest::prelude::*;

use super::frame::{MAX_LEN, Message, is_message, parse};
use super::session::Session;
use super::*;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// A link with two maintenance points, which can be cut.
struct Link {
    points: [Session; 2],
    now: Instant,
    is_cut: bool,
    /// Other frames that have come in at both.
    frames: u64,
}

impl Link {
    fn new(settings: Cfm) -> Self {
        let now = Instant::now();
        let points = [1, 2].map(|mpid| Session::new(Cfm { mpid, ..settings }, 0, now));
        Self { points, now, is_cut: false, frames: 0 }
    }

    /// Lets so many milliseconds pass, a hundred at a time.
    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 100 {
            self.now += Duration::from_millis(100);
            for at in 0..2 {
                let is_extended = self.points[at].settings().extended;
                let Some(message) = self.points[at].run(self.frames, self.now) else { continue };
                if !self.is_cut {
                    let frame = message.frame(OWN, is_extended, None);
                    self.points[1 - at].hear(&frame, self.now);
                }
            }
        }
    }

    fn reports(&self) -> [CfmReport; 2] {
        [0, 1].map(|at| self.points[at].report(self.now))
    }

    fn faults(&self) -> [String; 2] {
        self.reports().map(|report| report.faults.names().collect::<Vec<_>>().join(" "))
    }
}

fn extended(interval: u32) -> Cfm {
    Cfm { interval, extended: true, ..Cfm::new(1) }
}

#[test]
fn points_hear_each_other_until_the_link_is_cut() {
    for settings in [Cfm { interval: 100, ..Cfm::new(1) }, extended(300)] {
        let mut link = Link::new(settings);
        link.pass(10_100);
        let [one, other] = link.reports();
        assert!(one.is_good() && other.is_good());
        assert_eq!((one.reached, other.reached), (vec![2], vec![1]));
        assert_eq!((one.health, one.flaps), (Some(100), 0));
        link.is_cut = true;
        link.pass(2_500);
        assert_eq!(link.faults(), ["recv", "recv"]);
        assert_eq!(link.reports()[0].flaps, 1);
        link.is_cut = false;
        link.pass(3_000);
        assert_eq!(link.faults(), ["", ""]);
        assert_eq!(link.reports()[0].flaps, 2);
    }
}

#[test]
fn who_hears_nobody_says_so() {
    let now = Instant::now();
    let mut alone = Session::new(extended(300), 0, now);
    assert!(!alone.run(0, now).unwrap().hears_nobody, "it has not listened yet");
    let later = now + Duration::from_millis(1_100);
    assert!(!alone.run(0, later).unwrap().hears_nobody);
    let later = later + Duration::from_millis(300);
    let message = alone.run(0, later).unwrap();
    assert!(message.hears_nobody);
    let mut other = Session::new(Cfm { mpid: 2, ..extended(300) }, 0, now);
    other.hear(&message.frame(OWN, true, None), later);
    other.run(0, later);
    assert_eq!(other.report(later).faults, Faults::RDI);
}

#[test]
fn one_that_is_out_of_operation_is_no_good_though_it_is_heard() {
    let mut link = Link::new(extended(300));
    let settings = *link.points[1].settings();
    link.points[1].set(Cfm { down: true, ..settings }, link.now);
    link.pass(3_000);
    let [one, other] = link.reports();
    assert!(one.faults.is_empty() && !one.is_good() && other.is_good());
}

#[test]
fn frames_of_any_kind_do_on_demand_for_a_while() {
    let mut link = Link::new(Cfm { demand: true, ..extended(300) });
    link.pass(20_100);
    assert!(link.points[0].is_good());
    link.is_cut = true;
    for _ in 0..200 {
        link.frames += 1;
        link.pass(100);
    }
    assert!(link.points[0].is_good());
    for _ in 0..200 {
        link.frames += 1;
        link.pass(100);
    }
    assert_eq!(link.faults(), ["recv", "recv"]);
}

#[test]
fn an_operator_has_the_last_word() {
    let mut link = Link::new(extended(300));
    link.pass(3_000);
    link.points[0].tell(Some(true));
    assert_eq!(link.faults(), ["override", ""]);
    assert!(link.reports()[0].is_overridden && !link.points[0].is_good());
    link.points[0].tell(None);
    assert_eq!(link.faults(), ["", ""]);
}

#[test]
fn what_should_not_come_is_a_fault_of_the_link() {
    let now = Instant::now();
    let fault = |message: Message| {
        let mut session = Session::new(extended(300), 0, now);
        session.hear(&message.frame(OWN, true, None), now);
        let later = now + Duration::from_millis(1_050);
        session.run(0, later);
        session.report(later).faults
    };
    let good = Message { mpid: 9, is_ours: true, ..Message::default() };
    assert_eq!(fault(good), Faults::default());
    assert_eq!(fault(Message { mpid: 1, ..good }), Faults::LOOPBACK);
    let mut session = Session::new(extended(300), 0, now);
    let mut frame = good.frame(OWN, true, None);
    frame[14 + 10] ^= 1;
    session.hear(&frame, now);
    for mpid in 2..=258 {
        session.hear(&Message { mpid, ..good }.frame(OWN, true, None), now);
    }
    let later = now + Duration::from_millis(1_050);
    session.run(0, later);
    let names: Vec<_> = session.report(later).faults.names().collect();
    assert_eq!(names, ["maid", "overflow"]);
    assert_eq!(session.report(later).remotes.len(), 256);
}

#[test]
fn intervals_are_those_of_the_standard_unless_they_are_extended() {
    let interval = |interval, is_extended| {
        let settings = Cfm { interval, extended: is_extended, ..Cfm::new(1) };
        let now = Instant::now();
        let message = Session::new(settings, 0, now).run(0, now).unwrap();
        (message.interval_code, message.interval)
    };
    assert_eq!((interval(100, false), interval(100, true)), ((3, 0), (3, 0)));
    assert_eq!((interval(300, false), interval(300, true)), ((3, 0), (0, 300)));
    assert_eq!((interval(1, false), interval(1, true)), ((1, 0), (0, 1)));
    assert_eq!(interval(u32::MAX, true), (0, u16::MAX));
}

#[test]
fn settings_out_of_range_are_named() {
    let wrong = |settings: Cfm| settings.check().unwrap_err();
    assert_eq!(wrong(Cfm::new(0)), "mpid 0: expected 1 to 8191");
    assert!(wrong(Cfm { interval: 0, ..Cfm::new(1) }).starts_with("interval 0"));
    assert!(wrong(Cfm { vlan: Some(4_096), ..Cfm::new(1) }).starts_with("vlan 4096"));
    assert!(wrong(Cfm { priority: 8, ..Cfm::new(1) }).starts_with("priority 8"));
    assert!(extended(300).check().is_ok());
}

proptest! {
    #[test]
    fn messages_are_read_as_they_are_written(
        (sequence, mpid, interval_code, interval) in any::<(u32, u64, u8, u16)>(),
        (hears_nobody, is_down, is_extended) in any::<(bool, bool, bool)>(),
        tag in any::<Option<u16>>(),
    ) {
        let mpid = if is_extended { mpid } else { mpid & 0x1FFF };
        let is_down = is_down && is_extended;
        let interval_code = interval_code & 7;
        let message = Message {
            sequence, mpid, interval_code, interval, hears_nobody, is_down, is_ours: true,
        };
        let frame = message.frame(OWN, is_extended, tag);
        prop_assert!(frame.len() <= MAX_LEN && is_message(&frame, is_extended));
        prop_assert!(!is_message(&frame, !is_extended));
        prop_assert_eq!(parse(&frame, is_extended), Some(message));
        prop_assert_eq!(parse(&frame[..frame.len() - 2], is_extended), None);
    }

    #[test]
    fn nonsense_harms_nobody(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        let now = Instant::now();
        let mut session = Session::new(extended(300), 0, now);
        session.hear(&bytes, now);
        session.run(0, now);
    }
}
