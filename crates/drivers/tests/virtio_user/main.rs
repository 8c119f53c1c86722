//! virtio-user against Ringway's own back-end, over a real socket and real shared memory.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod offload;

use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ethdev::{DropReason, OpenPort, PortEvent};
use packet::{BURST, Frame, LINK_HEADERS, MacAddr};
use rustix::event::{PollFd, PollFlags, Timespec};
use tempfile::TempDir;

use drivers::{Drivers, open};

/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    folder: TempDir,
    drivers: Drivers,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), drivers: Drivers::new() }
    }

    fn path(&self) -> String {
        self.folder.path().join("sock").to_str().unwrap().to_owned()
    }

    fn open(&self, driver: &str, options: &str) -> OpenPort {
        open(driver, &format!("{driver}:{}{options}", self.path()), &self.drivers).unwrap()
    }

    /// A back-end and a front-end whose links are up.
    fn pair(&self, back: &str, front: &str) -> (OpenPort, OpenPort) {
        // The back-end edits its rings a moment after it has answered a command, and drops what
        // is sent then; so commands only where a test is about them.
        let control = ["mac=", "vlans=", "ctrl_vq="].iter().any(|option| front.contains(option));
        let front = &format!("{front}{}", if control { "" } else { ",ctrl_vq=off" });
        let server = front.contains("server=on");
        let (back, front) = if server {
            let front = self.open("virtio-user", front);
            (self.open("vhost-user", back), front)
        } else {
            let back = self.open("vhost-user", back);
            (back, self.open("virtio-user", front))
        };
        wait_for_link(&front, true);
        wait_for_link(&back, true);
        (back, front)
    }
}

/// Waits for the events of a port until its link is as wanted.
fn wait_for_link(port: &OpenPort, up: bool) {
    let (sender, events) = mpsc::channel();
    port.port.control().events().unwrap().listen(move |event| {
        let _ = sender.send(event);
    });
    let deadline = Instant::now() + PATIENCE;
    while port.port.control().link().up != up {
        let rest = deadline.saturating_duration_since(Instant::now());
        assert_eq!(events.recv_timeout(rest), Ok(PortEvent::LinkChanged), "link up: {up}");
    }
}

/// A frame that is different for each number, in length and contents.
fn frame(number: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..len).map(|at| (at ^ number ^ (at >> 8)).to_le_bytes()[0]).collect();
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    bytes[12..14].copy_from_slice(&[0x88, 0xB5]);
    bytes
}

/// Sends frames of the given lengths over queue `queue` and checks what arrives.
fn transfer(from: &mut OpenPort, to: &mut OpenPort, queue: usize, lens: &[usize]) {
    let frames: Vec<Vec<u8>> =
        lens.iter().enumerate().map(|(number, len)| frame(number, *len)).collect();
    let dropped = |from: &OpenPort, to: &OpenPort| {
        from.port.tx_queue_stats()[queue].dropped() + to.port.rx_queue_stats()[queue].dropped()
    };
    let dropped_before = dropped(from, to);
    let (mut sent, mut received) = (0, 0);
    let deadline = Instant::now() + PATIENCE;
    while received < frames.len() {
        let burst: Vec<Frame<'_>> =
            frames[sent..].iter().take(BURST).map(|bytes| Frame::from_bytes(bytes)).collect();
        sent += from.tx[queue].tx_burst(&burst);
        for frame in to.rx[queue].rx_burst(BURST).frames() {
            assert_eq!(frame.to_vec(), frames[received], "frame {received}");
            received += 1;
        }
        assert!(Instant::now() < deadline, "{received} of {} frames came", frames.len());
    }
    assert_eq!(sent, frames.len());
    assert_eq!(dropped(from, to), dropped_before);
}

fn transfer_both_ways(back: &mut OpenPort, front: &mut OpenPort, lens: &[usize]) {
    for queue in 0..front.tx.len() {
        transfer(front, back, queue, lens);
        transfer(back, front, queue, lens);
    }
}

#[test]
fn frames_pass_unchanged_with_every_set_of_features() {
    let small: Vec<usize> = (0..700).map(|number| 14 + number * 31 % 1500).collect();
    let large: Vec<usize> = (0..300).map(|number| 14 + number * 977 % 9000).collect();
    for (options, jumbo) in [
        ("", true),
        (",queues=2", true),
        (",event_idx=on", true),
        (",indirect=off", true),
        (",indirect=off,event_idx=on,queue_size=64", true),
        (",mrg_rxbuf=off", true),
        (",mrg_rxbuf=off,version_1=off", true),
        (",mrg_rxbuf=off,version_1=off,indirect=off", false),
        (",version_1=off", true),
        (",server=on", false),
        (",queue_size=4", false),
        (",packed=on", true),
        (",packed=on,queues=2", true),
        (",packed=on,in_order=on,queue_size=255", true),
        (",packed=on,in_order=on,event_idx=on,mrg_rxbuf=off,queue_size=100", true),
        (",packed=on,event_idx=on,indirect=off,queue_size=67", true),
        (",packed=on,queue_size=5", false),
        (",iommu=on", true),
        (",packed=on,in_order=on,iommu=on,queues=2", true),
        (",inband=on", false),
        (",packed=on,event_idx=on,inband=on,iommu=on", false),
    ] {
        let bench = Bench::new();
        let mtu = if jumbo { ",mtu=9000" } else { "" };
        let back_options = match options {
            _ if options.contains(",queues=2") => ",queues=2,mtu=9000",
            ",server=on" => ",client=on",
            _ => mtu,
        };
        let extras = [",iommu=on", ",inband=on"].into_iter().filter(|it| options.contains(it));
        let back_options = [&[back_options], &extras.collect::<Vec<_>>()[..]].concat().concat();
        let (mut back, mut front) = bench.pair(&back_options, &format!("{options}{mtu}"));
        transfer_both_ways(&mut back, &mut front, &small);
        if jumbo {
            transfer_both_ways(&mut back, &mut front, &large);
        }
    }
}

#[test]
fn the_largest_frame_passes() {
    let bench = Bench::new();
    let (mut back, mut front) = bench.pair(",mtu=65521", ",mtu=65521");
    transfer_both_ways(&mut back, &mut front, &[65_535, 60, 65_535, 65_534, 14]);
}

#[test]
fn what_cannot_be_sent_is_dropped_with_a_reason() {
    let bench = Bench::new();
    let (_back, mut front) = bench.pair("", ",mtu=1000");
    let longest = 1000 + LINK_HEADERS;
    let frames = [frame(0, longest + 1), frame(1, longest), vec![0; 13]];
    let burst = [0, 1, 2].map(|index| Frame::from_bytes(&frames[index]));
    assert_eq!(front.tx[0].tx_burst(&burst), 3);
    let stats = front.port.tx_queue_stats()[0];
    assert_eq!((stats.packets, stats.bytes), (1, longest as u64));
    assert_eq!(stats.drops[DropReason::TooLong as usize], 1);
    assert_eq!(stats.drops[DropReason::TooShort as usize], 1);

    front.port.control_mut().set_mtu(1001).unwrap();
    assert_eq!(front.tx[0].tx_burst(&burst[..1]), 1);
    assert_eq!(front.port.tx_queue_stats()[0].packets, 2);
}

#[test]
fn a_full_ring_takes_no_more() {
    let bench = Bench::new();
    let (mut back, mut front) = bench.pair("", ",queue_size=16");
    let bytes = frame(0, 64);
    let burst = [Frame::from_bytes(&bytes); BURST];
    assert_eq!(front.tx[0].tx_burst(&burst), 16);
    assert_eq!(front.tx[0].tx_burst(&burst), 0);
    assert_eq!(back.rx[0].rx_burst(BURST).frames().len(), 16);
    assert_eq!(front.tx[0].tx_burst(&burst[..5]), 5);
}

#[test]
fn the_link_follows_the_back_end_and_traffic_returns() {
    let bench = Bench::new();
    let (mut back, mut front) = bench.pair("", "");
    let bytes = frame(0, 500);
    for round in 1..=3 {
        transfer_both_ways(&mut back, &mut front, &[60; 400]);
        // Frames are on the way, and some of them held by a worker, when the back-end goes.
        assert_eq!(back.tx[0].tx_burst(&[Frame::from_bytes(&bytes); 8]), 8);
        assert_eq!(front.tx[0].tx_burst(&[Frame::from_bytes(&bytes); 8]), 8);
        let held = front.rx[0].rx_burst(4);
        drop(back);
        assert_eq!(held.frames().len(), 4);
        assert!(held.frames().iter().all(|frame| frame.to_vec() == bytes));
        drop(held);
        wait_for_link(&front, false);
        assert!(!front.tx[0].is_ready());
        assert_eq!(front.tx[0].tx_burst(&[Frame::from_bytes(&bytes); 2]), 2);
        let drops = front.port.tx_queue_stats()[0].drops[DropReason::LinkDown as usize];
        assert_eq!(drops, 2 * round);
        assert_eq!(front.rx[0].rx_burst(BURST).frames().len(), 0);

        back = bench.open("vhost-user", "");
        wait_for_link(&front, true);
        wait_for_link(&back, true);
        assert_eq!(front.port.control().link().changes, 1 + 2 * round);
        // What the rings held comes now.
        receive(&mut back, &[&bytes[..]; 8]);
        receive(&mut front, &[&bytes[..]; 4]);
    }
    transfer_both_ways(&mut back, &mut front, &[64, 1500, 60]);
}

/// Receives `expected`, in this order, and nothing else that is there.
fn receive(port: &mut OpenPort, expected: &[&[u8]]) {
    let (mut count, deadline) = (0, Instant::now() + PATIENCE);
    while count < expected.len() {
        for frame in port.rx[0].rx_burst(BURST).frames() {
            assert_eq!(frame.to_vec(), expected[count], "frame {count}");
            count += 1;
        }
        assert!(Instant::now() < deadline, "{count} of {} frames came", expected.len());
    }
    assert_eq!(port.rx[0].rx_burst(BURST).frames().len(), 0, "more than were sent");
}

#[test]
fn what_the_rings_hold_comes_once_when_the_back_end_is_another() {
    for options in [
        "",
        ",indirect=off,event_idx=on",
        ",mrg_rxbuf=off",
        ",server=on",
        ",packed=on",
        ",packed=on,in_order=on,queue_size=99",
        ",packed=on,in_order=on,indirect=off,event_idx=on",
        ",packed=on,in_order=on,ctrl_vq=on,queues=2,mac=02:00:00:00:00:09",
    ] {
        let bench = Bench::new();
        let back_options = match options {
            ",server=on" => ",client=on",
            _ if options.contains("queues=2") => ",queues=2",
            _ => "",
        };
        let (mut back, mut front) = bench.pair(back_options, options);
        let mut number = 0;
        for round in 0..5 {
            let mut frames = |count: usize| -> Vec<Vec<u8>> {
                number += count;
                (number - count..number).map(|number| frame(number, 60 + number)).collect()
            };
            let (to_back, to_front) = (frames(20 + 3 * round), frames(25));
            let send = |port: &mut OpenPort, frames: &[Vec<u8>]| {
                let burst: Vec<_> = frames.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
                assert_eq!(port.tx[0].tx_burst(&burst), burst.len(), "{options}");
            };
            send(&mut front, &to_back);
            send(&mut back, &to_front);
            // Some are taken, and the rest is what the rings hold.
            let taken = back.rx[0].rx_burst(7).frames().len();
            assert_eq!(taken, 7);
            drop(back);
            wait_for_link(&front, false);
            back = bench.open("vhost-user", back_options);
            wait_for_link(&front, true);
            wait_for_link(&back, true);
            let slices = |frames| <[Vec<u8>]>::iter(frames).map(Vec::as_slice).collect::<Vec<_>>();
            receive(&mut back, &slices(&to_back[taken..]));
            receive(&mut front, &slices(&to_front));
            let details = front.port.control().details();
            let kept = ("records_of_chains_in_flight".to_owned(), "kept".to_owned());
            assert!(details.contains(&kept), "{details:?}");
        }
        transfer_both_ways(&mut back, &mut front, &[64; 300]);
    }
}

#[test]
fn a_larger_mtu_makes_new_rings_for_the_next_back_end() {
    let bench = Bench::new();
    let (back, mut front) = bench.pair(",mtu=9000", ",mtu=1500,mrg_rxbuf=off");
    let bytes = frame(0, 200);
    assert_eq!(front.tx[0].tx_burst(&[Frame::from_bytes(&bytes); 8]), 8);
    drop(back);
    wait_for_link(&front, false);
    front.port.control_mut().set_mtu(9000).unwrap();
    let mut back = bench.open("vhost-user", ",mtu=9000");
    wait_for_link(&front, true);
    wait_for_link(&back, true);
    transfer_both_ways(&mut back, &mut front, &[9000, 60]);
}

#[test]
fn a_worker_may_hold_frames_across_sessions() {
    let bench = Bench::new();
    let (mut back, mut front) = bench.pair("", ",queue_size=64");
    let bytes = frame(3, 700);
    assert_eq!(back.tx[0].tx_burst(&[Frame::from_bytes(&bytes); 8]), 8);
    let mut rx = front.rx.remove(0);
    let held = rx.rx_burst(BURST);
    drop(back);
    wait_for_link(&front, false);
    let back = bench.open("vhost-user", "");
    wait_for_link(&front, true);
    wait_for_link(&back, true);
    assert!(held.frames().iter().all(|frame| frame.to_vec() == bytes), "their memory is kept");
    drop(held);
    front.rx.push(rx);
    // Buffers of the old session do not turn up in the new one: all 64 are there, once.
    let (mut back, mut front) = (back, front);
    for _ in 0..3 {
        let burst = [Frame::from_bytes(&bytes); BURST];
        assert_eq!(back.tx[0].tx_burst(&burst) + back.tx[0].tx_burst(&burst), 64);
        assert_eq!(back.tx[0].tx_burst(&burst), 0);
        let received = (0..3).map(|_| front.rx[0].rx_burst(BURST).frames().len());
        assert_eq!(received.sum::<usize>(), 64);
    }
}

/// Checks which frames of a burst the front-end receives: those whose byte `at` is in `expected`.
fn expect_of(
    back: &mut OpenPort,
    front: &mut OpenPort,
    at: usize,
    burst: &[Frame<'_>],
    expected: &[u8],
) {
    // The back-end may answer a command a moment before its workers heed it.
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert_eq!(back.tx[0].tx_burst(burst), burst.len());
        let got = front.rx[0].rx_burst(BURST);
        let got: Vec<u8> = got.frames().iter().map(|frame| frame.head()[at]).collect();
        if got == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{got:?} came, not {expected:?}");
    }
}

#[test]
fn the_control_queue_changes_what_is_received() {
    for packed in ["", ",packed=on"] {
        commands_change_what_is_received(packed);
    }
}

fn commands_change_what_is_received(packed: &str) {
    let bench = Bench::new();
    let (mut back, mut front) = bench.pair("", &format!(",mac=02:00:00:00:00:01{packed}"));
    let mine = frame(0, 60);
    let mut other = mine.clone();
    other[5] = 9;
    let burst = [Frame::from_bytes(&other), Frame::from_bytes(&mine)];
    expect_of(&mut back, &mut front, 5, &burst, &[9, 1]);
    front.port.control_mut().set_promiscuous(false).unwrap();
    assert!(!front.port.control().promiscuous());
    expect_of(&mut back, &mut front, 5, &burst, &[1]);
    front.port.control_mut().set_mac(MacAddr([2, 0, 0, 0, 0, 9])).unwrap();
    expect_of(&mut back, &mut front, 5, &burst, &[9]);
    front.port.control_mut().set_promiscuous(true).unwrap();
    expect_of(&mut back, &mut front, 5, &burst, &[9, 1]);
}

#[test]
fn a_back_end_without_control_queue_cannot_leave_promiscuous_mode() {
    let bench = Bench::new();
    let (_back, mut front) = bench.pair("", ",ctrl_vq=off");
    let error = front.port.control_mut().set_promiscuous(false).unwrap_err().to_string();
    assert!(error.contains("no control queue"), "{error}");
    assert!(front.port.control().promiscuous());
}

#[test]
fn vlans_are_filtered_when_asked_for() {
    let bench = Bench::new();
    let (mut back, mut front) = bench.pair("", ",vlans=5+7");
    let tagged = |vlan: u8| {
        let mut bytes = frame(0, 68);
        bytes[12..16].copy_from_slice(&[0x81, 0, 0, vlan]);
        bytes
    };
    let frames = [tagged(5), tagged(6), tagged(7)];
    let burst = [0, 1, 2].map(|index| Frame::from_bytes(&frames[index]));
    expect_of(&mut back, &mut front, 15, &burst, &[5, 7]);
}

#[test]
fn a_larger_mtu_makes_larger_buffers() {
    let bench = Bench::new();
    let (mut back, mut front) = bench.pair(",mtu=9000", ",mrg_rxbuf=off");
    let changes = front.port.control().link().changes;
    front.port.control_mut().set_mtu(9000).unwrap();
    // The buffers were too small: there is a new session with larger ones.
    let deadline = Instant::now() + PATIENCE;
    while front.port.control().link().changes < changes + 2 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    wait_for_link(&front, true);
    wait_for_link(&back, true);
    transfer_both_ways(&mut back, &mut front, &[9014, 60, 9014]);
}

#[test]
fn a_worker_sleeps_until_frames_come() {
    let wait = |fd: std::os::fd::BorrowedFd<'_>, timeout: Duration| {
        let timeout = Timespec::try_from(timeout).unwrap();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0
    };
    for options in [",ctrl_vq=off", ",ctrl_vq=off,event_idx=on"] {
        let bench = Bench::new();
        let mut front = bench.open("virtio-user", options);
        let mut rx = front.rx.remove(0);
        let queue = &mut rx;
        // The link comes up while the worker sleeps.
        assert!(queue.arm());
        let mut back = bench.open("vhost-user", "");
        assert!(wait(queue.wait_fd().unwrap(), PATIENCE), "woken by the new session");
        queue.disarm();
        wait_for_link(&back, true);
        wait_for_link(&front, true);
        assert_eq!(queue.rx_burst(BURST).frames().len(), 0);
        for _ in 0..3 {
            assert!(queue.arm());
            assert!(!wait(queue.wait_fd().unwrap(), Duration::ZERO), "nothing came");
            let bytes = frame(0, 60);
            assert_eq!(back.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
            assert!(wait(queue.wait_fd().unwrap(), PATIENCE), "woken by a frame");
            assert!(!queue.arm(), "a frame waits");
            queue.disarm();
            assert_eq!(queue.rx_burst(BURST).frames().len(), 1);
            assert!(!wait(queue.wait_fd().unwrap(), Duration::ZERO), "cleared");
        }
    }
}

#[test]
fn a_worker_is_woken_by_messages_too() {
    let bench = Bench::new();
    let (mut back, mut front) = bench.pair(",inband=on", ",inband=on");
    let mut rx = front.rx.remove(0);
    let bytes = frame(0, 60);
    for _ in 0..5 {
        while !rx.arm() {
            rx.disarm();
        }
        assert_eq!(back.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
        let deadline = Instant::now() + PATIENCE;
        while rx.arm() {
            let fd = rx.wait_fd().unwrap();
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            let rest = deadline.saturating_duration_since(Instant::now());
            let rest = Timespec::try_from(rest).unwrap();
            assert!(rustix::event::poll(&mut fds, Some(&rest)).unwrap() > 0, "not woken");
            rx.disarm();
        }
        rx.disarm();
        assert_eq!(rx.rx_burst(BURST).frames().len(), 1);
    }
}

#[test]
fn what_the_back_end_lacks_is_named_with_the_option() {
    for (option, missing) in [("iommu", "ACCESS_PLATFORM"), ("inband", "INBAND_NOTIFICATIONS")] {
        let bench = Bench::new();
        let _back = bench.open("vhost-user", "");
        let front = bench.open("virtio-user", &format!(",{option}=on"));
        let failures = || {
            let stats = front.port.control().extended_stats();
            stats.into_iter().find(|(name, _)| name == "session_failures").unwrap().1
        };
        let deadline = Instant::now() + PATIENCE;
        while failures() == 0 {
            assert!(Instant::now() < deadline, "{missing}");
            std::thread::yield_now();
        }
        assert!(!front.port.control().link().up);
    }
}

#[test]
fn workers_never_notice_sessions_that_come_and_go() {
    const SESSIONS: u64 = 30;
    let bench = Bench::new();
    let OpenPort { port, rx, tx } = bench.open("virtio-user", ",queue_size=32,ctrl_vq=off");
    let (mut rx, mut tx) = (rx, tx);
    let stop = AtomicBool::new(false);
    let bytes = frame(0, 300);
    let sessions = || {
        let stats = port.control().extended_stats();
        stats.into_iter().find(|(name, _)| name == "sessions").unwrap().1
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = tx[0].tx_burst(&[Frame::from_bytes(&bytes); 8]);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for frame in rx[0].rx_burst(BURST).frames() {
                    assert_eq!(frame.to_vec(), bytes);
                }
            }
        });
        for session in 1..=SESSIONS {
            let mut back = bench.open("vhost-user", "");
            wait_for_link(&back, true);
            let deadline = Instant::now() + PATIENCE;
            let sent_before = port.rx_queue_stats()[0].packets;
            // Frames pass a moment before the session counts as begun.
            while port.rx_queue_stats()[0].packets == sent_before || sessions() < session {
                let _ = back.tx[0].tx_burst(&[Frame::from_bytes(&bytes); 4]);
                for frame in back.rx[0].rx_burst(BURST).frames() {
                    assert_eq!(frame.to_vec(), bytes);
                }
                assert!(Instant::now() < deadline, "session {session}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let faults = port.control().extended_stats();
    assert!(faults.contains(&("ring_faults".to_owned(), 0)), "{faults:?}");
    assert!(faults.contains(&("sessions".to_owned(), SESSIONS)), "{faults:?}");
}

#[test]
fn a_back_end_that_never_answers_holds_nobody_up() {
    let bench = Bench::new();
    let listener = UnixListener::bind(bench.path()).unwrap();
    let closes_soon = (0..5).any(|_| {
        let mut front = bench.open("virtio-user", "");
        let (_stream, _) = listener.accept().unwrap();
        assert_eq!(front.rx[0].rx_burst(BURST).frames().len(), 0);
        assert!(!front.port.control().link().up);
        let begin = Instant::now();
        drop(front);
        // Less than it waits for an answer. Once in a few tries: what else the machine does may take
        // as long.
        begin.elapsed() < Duration::from_secs(2)
    });
    assert!(closes_soon);
}

#[test]
fn a_socket_that_a_live_process_has_is_not_taken() {
    let bench = Bench::new();
    let _listener = UnixListener::bind(bench.path()).unwrap();
    let device = format!("virtio-user:{},server=on", bench.path());
    let error = open("p", &device, &bench.drivers).unwrap_err().to_string();
    assert!(error.contains("a live process") && error.contains(&bench.path()), "{error}");
}
