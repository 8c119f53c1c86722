use std::time::{Duration, Instant};

use packet::MacAddr;
use proptest::prelude::*;

use super::frame::{MAX_LEN, Packet, is_for, parse};
use super::session::Session;
use super::*;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// A link with two sessions, which can be cut in each direction.
struct Link {
    sessions: [Option<Session>; 2],
    now: Instant,
    is_cut: [bool; 2],
    /// Frames that have come in at each end.
    frames: [u64; 2],
}

impl Link {
    fn new(settings: [Bfd; 2]) -> Self {
        let now = Instant::now();
        let sessions = settings.map(|settings| Some(Session::new(settings, 0, now)));
        Self { sessions, now, is_cut: [false; 2], frames: [0; 2] }
    }

    /// Lets so many milliseconds pass, a hundred at a time.
    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 100 {
            self.now += Duration::from_millis(100);
            self.settle();
        }
    }

    /// All that is due at this moment, and what follows from it.
    fn settle(&mut self) {
        for _ in 0..10 {
            let mut is_silent = true;
            for at in 0..2 {
                let frames = self.frames[at];
                let Some(session) = &mut self.sessions[at] else { continue };
                let Some((packet, port)) = session.run(frames, self.now) else { continue };
                is_silent = false;
                let frame = packet.frame(session.settings(), OWN, port);
                let Some(other) = self.sessions[1 - at].as_mut() else { continue };
                if !self.is_cut[at] {
                    assert!(is_for(&frame, 0, other.settings()));
                    self.frames[1 - at] += 1;
                    other.hear(&frame, self.now).unwrap();
                }
            }
            if is_silent {
                return;
            }
        }
        panic!("they never stop talking");
    }

    fn report(&mut self, at: usize) -> BfdReport {
        self.sessions[at].as_mut().unwrap().report(self.now)
    }

    /// Whether the link does, and the states of both sides.
    fn seen(&mut self, at: usize) -> (bool, BfdState, &'static str, BfdState, &'static str) {
        let BfdReport { is_forwarding, local, remote, .. } = self.report(at);
        (is_forwarding, local.state, local.diag.name(), remote.state, remote.diag.name())
    }

    /// How often packets go out and come, as agreed and as each side says.
    fn times(&mut self, at: usize) -> [[u32; 3]; 2] {
        let BfdReport { intervals: [tx, rx], local, remote, .. } = self.report(at);
        [[tx, local.min_tx, remote.min_tx], [rx, local.min_rx, remote.min_rx]]
    }

    fn set(&mut self, at: usize, settings: Bfd) {
        let now = self.now;
        self.sessions[at].as_mut().unwrap().set(settings, now);
        self.settle();
    }
}

const NONE: &str = "No Diagnostic";
const EXPIRED: &str = "Control Detection Time Expired";
const UP: (bool, BfdState, &str, BfdState, &str) = (true, BfdState::Up, NONE, BfdState::Up, NONE);

fn bfd(min_tx: u32, min_rx: u32) -> Bfd {
    Bfd { min_tx, min_rx, ..Bfd::default() }
}

#[test]
fn both_hear_each_other_until_one_is_gone() {
    let mut link = Link::new([Bfd::default(), Bfd::default()]);
    assert_eq!(link.seen(0), (false, BfdState::Down, NONE, BfdState::Down, NONE));
    link.pass(4_100);
    assert_eq!((link.seen(0), link.seen(1)), (UP, UP));
    link.sessions[0] = None;
    link.pass(4_100);
    assert_eq!(link.seen(1), (false, BfdState::Down, EXPIRED, BfdState::Down, NONE));
    link.sessions[0] = Some(Session::new(Bfd::default(), 0, link.now));
    link.pass(4_100);
    assert_eq!(link.seen(1), (true, BfdState::Up, EXPIRED, BfdState::Up, NONE));
    assert_eq!(link.seen(0), (true, BfdState::Up, NONE, BfdState::Up, EXPIRED));
    assert_eq!(link.report(1).flaps, 3);
}

#[test]
fn who_is_not_heard_is_told_so() {
    let mut link = Link::new([Bfd::default(), Bfd::default()]);
    link.pass(4_100);
    link.is_cut[0] = true;
    link.pass(8_200);
    assert_eq!(link.seen(1), (false, BfdState::Down, EXPIRED, BfdState::Down, NONE));
    let told = "Neighbor Signaled Session Down";
    assert_eq!(link.seen(0), (false, BfdState::Init, told, BfdState::Down, EXPIRED));
}

#[test]
fn a_way_that_is_broken_further_on_is_told() {
    let mut link = Link::new([Bfd::default(), Bfd::default()]);
    link.pass(4_100);
    link.set(0, Bfd { cpath_down: true, ..Bfd::default() });
    link.pass(2_000);
    assert_eq!(link.seen(1), (false, BfdState::Up, NONE, BfdState::Up, "Concatenated Path Down"));
}

#[test]
fn intervals_change_by_polls_and_are_those_of_the_slower_side() {
    let mut link = Link::new([Bfd::default(), Bfd::default()]);
    link.pass(3_100);
    link.set(0, bfd(200, 1_000));
    link.pass(2_100);
    assert_eq!(link.times(0)[0], [1_000, 200, 100]);
    assert_eq!(link.times(1)[0], [1_000, 100, 200]);
    link.set(1, bfd(100, 300));
    link.pass(2_100);
    assert_eq!(link.times(1)[1], [300, 300, 1_000]);
    assert_eq!(link.times(0)[1], [1_000, 1_000, 300]);
    let flags = link.report(0).local.flags;
    assert_eq!(flags.to_string(), "none");
}

#[test]
fn where_nothing_else_comes_less_often_does() {
    let mut link = Link::new([bfd(300, 300), bfd(500, 500)]);
    link.pass(10_000);
    assert_eq!(link.times(0)[1], [500, 300, 500]);
    link.set(0, Bfd { decay_min_rx: 3_000, ..bfd(300, 300) });
    link.pass(7_000);
    assert_eq!((link.times(0)[1], link.seen(0)), ([3_000, 3_000, 500], UP));
    for _ in 0..70 {
        link.frames[0] += 1;
        link.pass(100);
    }
    assert_eq!(link.times(0)[1], [500, 300, 500], "there is traffic");
    link.set(0, bfd(300, 300));
    link.pass(10_000);
    assert_eq!((link.times(0)[1], link.seen(0)), ([500, 300, 500], UP));
}

#[test]
fn frames_of_any_kind_do_for_a_while_if_they_may() {
    let both = Bfd { forwarding_if_rx: true, ..bfd(300, 300) };
    let mut link = Link::new([both, bfd(500, 500)]);
    link.frames[0] = 7;
    link.pass(500);
    assert!(!link.report(0).is_forwarding || link.report(0).local.state == BfdState::Up);
    link.pass(9_500);
    link.is_cut = [true; 2];
    for _ in 0..40 {
        link.frames[0] += 1;
        link.pass(100);
    }
    assert_eq!(link.seen(0), (true, BfdState::Down, EXPIRED, BfdState::Down, NONE));
    for _ in 0..300 {
        link.frames[0] += 1;
        link.pass(100);
    }
    assert!(!link.report(0).is_forwarding, "the neighbour itself has said nothing for too long");
    assert_eq!(link.report(0).flaps, 2);
}

/// What is due is done by being run once: whoever waits for it never finds it still to do. `None` if it would
/// be so again at the same moment.
fn run_when_due(session: &mut Session, frames: u64, end: Instant) -> Option<usize> {
    let mut runs = 0;
    let mut now = session.due();
    while now < end {
        session.run(frames, now);
        runs += 1;
        // Packets and polls are due at once, one after the other; there are no more than a few.
        let next = session.due();
        if next <= now {
            return None;
        }
        now = next;
    }
    Some(runs)
}

#[test]
fn what_is_due_is_never_due_again_at_once() {
    let alone = Bfd { forwarding_if_rx: true, ..bfd(10_000, 1_000) };
    let silent = Bfd { forwarding_if_rx: false, ..alone.clone() };
    let now = Instant::now();
    // Down, packets go out each 7.5 to 10 s, and frames are looked for each 500 ms.
    for (settings, few, most) in [(alone, 119, 130), (silent, 6, 9)] {
        let mut session = Session::new(settings, 0, now);
        let runs = run_when_due(&mut session, 0, now + Duration::from_secs(60));
        assert!(runs.is_some_and(|runs| (few..=most).contains(&runs)), "{runs:?}");
    }
    // Frames come, and so they do when it is up and the neighbour is gone.
    let both = Bfd { forwarding_if_rx: true, ..bfd(2_000, 2_000) };
    let mut link = Link::new([both.clone(), both]);
    link.pass(10_000);
    assert_eq!(link.seen(0), UP);
    let (end, frames) = (link.now + Duration::from_secs(60), link.frames[0] + 1);
    let session = link.sessions[0].as_mut().unwrap();
    let runs = run_when_due(session, frames, end);
    assert!(runs.is_some_and(|runs| runs < 250), "{runs:?}");
    assert_eq!(session.state().0, BfdState::Down);
}

#[test]
fn an_operator_has_the_last_word() {
    let mut link = Link::new([Bfd::default(), Bfd::default()]);
    let session = link.sessions[0].as_mut().unwrap();
    session.tell(Some(true));
    assert!(session.is_forwarding());
    session.tell(None);
    assert!(!session.is_forwarding());
}

#[test]
fn packets_that_nobody_should_send_are_not_taken() {
    let now = Instant::now();
    let good = Packet { mult: 3, own: 7, state: BfdState::Down, ..Packet::new() };
    let heard = |packet: Packet| {
        let frame = packet.frame(&Bfd::default(), OWN, 49_152);
        Session::new(Bfd::default(), 0, now).hear(&frame, now)
    };
    assert_eq!(heard(good), Ok(()));
    let wrong = [
        Packet { version: 0, ..good },
        Packet { flags: BfdFlags::AUTH, ..good },
        Packet { flags: BfdFlags::MULTIPOINT, ..good },
        Packet { len: 23, ..good },
        Packet { mult: 0, ..good },
        Packet { own: 0, ..good },
        Packet { state: BfdState::Up, ..good },
    ];
    assert!(wrong.into_iter().all(|packet| heard(packet).is_err()));
    let mut routed = good.frame(&Bfd::default(), OWN, 49_152);
    routed[14 + 8] = 254;
    assert_eq!(parse(&routed), None);
}

#[test]
fn frames_are_for_a_session_by_its_addresses() {
    let frame = Packet::new().frame(&Bfd::default(), OWN, 49_152);
    let is = |settings: &Bfd| is_for(&frame, 0, settings);
    assert!(is(&Bfd::default()));
    assert!(!is(&Bfd { remote_dst_mac: Some(OWN), ..Bfd::default() }));
    assert!(is(&Bfd { remote_dst_mac: Some(frame::NEIGHBOUR), ..Bfd::default() }));
    assert!(is(&Bfd { src_ip: DESTINATION, ..Bfd::default() }));
    let checked = Bfd { check_tnl_key: true, ..Bfd::default() };
    assert!(is(&checked) && is_for(&frame, 7, &Bfd::default()));
    assert!(!is_for(&frame, 7, &checked), "of those whom the tunnel is for");
    assert!(!is(&Bfd { src_ip: Ipv4Addr::new(10, 0, 0, 1), ..Bfd::default() }));
    let mut other = frame.clone();
    other[14 + 20 + 3] ^= 1;
    assert!(!is_for(&other, 0, &Bfd::default()), "another port");
    let mut later = frame;
    later[14 + 7] = 1;
    assert!(!is_for(&later, 0, &Bfd::default()), "a later fragment");
}

#[test]
fn settings_are_written_as_they_are_read_and_checked() {
    let text = r#"{"min-rx":300,"local-dst-mac":"02:00:00:00:00:01","src-ip":"10.0.0.1"}"#;
    let read: Bfd = serde_json::from_str(text).unwrap();
    assert_eq!((read.min_rx, read.local_dst_mac, read.mult), (300, Some(OWN), 3));
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    let wrong = |settings: Bfd| settings.check().unwrap_err();
    assert!(wrong(bfd(0, 1)).starts_with("min-tx 0: expected 1 to"));
    assert!(wrong(bfd(1, 4_294_968)).starts_with("min-rx 4294968"));
    assert!(wrong(Bfd { decay_min_rx: 999, ..Bfd::default() }).starts_with("decay-min-rx 999"));
}

proptest! {
    #[test]
    fn packets_are_read_as_they_are_written(
        (diag, flags, mult, own) in any::<(u8, u8, u8, u32)>(),
        (other, min_tx, min_rx) in any::<(u32, u32, u32)>(),
        state in prop::sample::select(vec![
            BfdState::AdminDown, BfdState::Down, BfdState::Init, BfdState::Up,
        ]),
    ) {
        let (diag, flags) = (BfdDiag(diag & 0x1F), BfdFlags(flags & 0x3F));
        let packet =
            Packet { diag, state, flags, mult, own, other, min_tx, min_rx, ..Packet::new() };
        let frame = packet.frame(&Bfd::default(), OWN, 50_000);
        prop_assert!(frame.len() <= MAX_LEN);
        prop_assert_eq!(parse(&frame), Some(packet));
        prop_assert_eq!(parse(&frame[..frame.len() - 1]), None);
    }

    #[test]
    fn nonsense_harms_nobody(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        let now = Instant::now();
        let mut session = Session::new(Bfd::default(), 0, now);
        let _ = (session.hear(&bytes, now), is_for(&bytes, 0, session.settings()));
        session.run(0, now);
    }
}
