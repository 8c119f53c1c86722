//! Network namespaces for tests against the host kernel.
//!
//! What a port has closed may be there for a moment longer: a program that another test is just starting
//! has all descriptors of this process until it runs. So tests wait for that.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use eal::time::Time;
use ethdev::{DeviceSpec, Error, OpenPort, PortEvent, RxQueue};
use packet::{BURST, Frame, MacAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{
    LinkNameSpaceType, UnshareFlags, gettid, move_into_link_name_space, unshare_unsafe,
};

pub(crate) use testkit::{PATIENCE, wait_for};

use crate::{af_packet, af_xdp, tap};

/// Runs `test` in a new network namespace.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        // SAFETY: only the network namespace of this thread changes; nobody else relies on it.
        match unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
            Ok(()) => test(),
            Err(cause) => println!("skipped: no network namespace ({cause}); run as root"),
        }
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs ip(8), here in the thread's namespace.
pub(crate) fn ip(command: &str) -> String {
    let output = Command::new("ip").args(command.split(' ')).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a pair of virtual Ethernet interfaces, `rw0` and `rw1`, both switched on, with a link. The
/// kernel sends nothing of its own there.
pub(crate) fn veth_pair(mtu: u16) {
    veth_pair_of_queues(mtu, 1);
}

/// As [`veth_pair`], with several queues.
pub(crate) fn veth_pair_of_queues(mtu: u16, queues: usize) {
    let queues = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(&format!("link add rw0 mtu {mtu} {queues} type veth peer name rw1 mtu {mtu} {queues}"));
    for name in ["rw0", "rw1"] {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        // Where there is no IPv6, it need not be disabled.
        let _ = std::fs::write(path, "1");
        ip(&format!("link set {name} addrgenmode none"));
        ip(&format!("link set {name} up"));
    }
    // The kernel notes that they are when it has the time.
    for name in ["rw0", "rw1"] {
        wait_for("a link", || ip(&format!("-o link show {name}")).contains("state UP"));
    }
}

/// Opens port `p0`.
pub(crate) fn open(device: &str) -> Result<OpenPort, Error> {
    let (spec, time) = (device.parse::<DeviceSpec>()?, &Time::system());
    match spec.driver() {
        "af-packet" => af_packet::open("p0", spec, time),
        "af-xdp" => af_xdp::open("p0", spec, time),
        "tap" => tap::open("p0", spec, time),
        other => panic!("{other} is no interface of the host"),
    }
}

pub(crate) fn open_port(device: &str) -> OpenPort {
    open(device).unwrap()
}

/// The same, of an interface that has a link or is about to.
pub(crate) fn open_port_with_link(device: &str) -> OpenPort {
    let port = open_port(device);
    wait_for("a link", || port.port.control().link().up);
    port
}

pub(crate) fn refusal(device: &str) -> String {
    open(device).unwrap_err().to_string()
}

/// A frame of an experimental EtherType (IEEE 802, 0x88B5) whose payload depends on `seed`.
pub(crate) fn frame(seed: usize, len: usize) -> Vec<u8> {
    let mut bytes = [[0x02, 0, 0, 0, 0, 1], [0x02, 0, 0, 0, 0, 2]].concat();
    bytes.extend([0x88, 0xB5]);
    bytes.extend((0..).map(|at: usize| (seed * 31 + at * 7 + at / 256).to_le_bytes()[0]).take(len));
    bytes.truncate(len);
    bytes
}

/// Whether something can be read from the queue's descriptor within `time`.
pub(crate) fn is_readable_within(queue: &RxQueue, time: Duration) -> bool {
    let fd = queue.wait_fd().unwrap();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::try_from(time).unwrap())).unwrap() > 0
}

/// Receives, sleeping while there is nothing, until `count` frames have come that `wanted` likes.
pub(crate) fn receive_where(
    queue: &mut RxQueue,
    count: usize,
    wanted: impl Fn(&Frame<'_>) -> bool,
) -> Vec<Vec<u8>> {
    let mut received = Vec::new();
    while received.len() < count {
        let burst = queue.rx_burst(BURST);
        let idle = burst.frames().is_empty();
        let likes = burst.frames().iter().filter(|frame| wanted(frame));
        received.extend(likes.map(Frame::to_vec));
        drop(burst);
        if idle && queue.arm() {
            assert!(is_readable_within(queue, PATIENCE), "only {} of {count} came", received.len());
            queue.disarm();
        }
    }
    received
}

/// The station at 10.9.0.2 that hosts believe in.
pub(crate) const PEER: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x99]);

/// A socket of the host at 10.9.0.1, which believes that 10.9.0.2 is [`PEER`] and behind
/// `interface`.
pub(crate) fn host_socket(interface: &str) -> UdpSocket {
    ip(&format!("addr add 10.9.0.1/24 dev {interface}"));
    ip(&format!("neigh add 10.9.0.2 lladdr {PEER} dev {interface} nud permanent"));
    let socket = UdpSocket::bind("10.9.0.1:4000").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Whether it is a UDP datagram over IPv4.
pub(crate) fn is_udp(frame: &Frame<'_>) -> bool {
    frame.head().get(12..14) == Some(&[8, 0]) && frame.head().get(23) == Some(&17)
}

/// A network namespace that nobody is in; it goes away with this value.
pub(crate) struct Elsewhere(OwnedFd);

impl Elsewhere {
    pub(crate) fn new() -> Self {
        let thread = thread::spawn(|| {
            // SAFETY: only the network namespace of this thread changes.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            File::open("/proc/thread-self/ns/net").unwrap().into()
        });
        Self(thread.join().unwrap())
    }

    /// A name that ip(8) takes for it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs ip(8) there.
    pub(crate) fn ip(&self, command: &str) -> String {
        let path = self.path();
        thread::spawn({
            let (fd, command) = (File::open(path).unwrap(), command.to_owned());
            move || {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(fd.as_fd(), kind).unwrap();
                ip(&command)
            }
        })
        .join()
        .unwrap()
    }
}

/// Has the events of a port sent to the test.
pub(crate) fn events_of(port: &OpenPort) -> Receiver<PortEvent> {
    let (sender, events) = mpsc::channel();
    assert!(port.port.on_event(move |event| sender.send(event).unwrap()));
    events
}

/// Waits until the link of a port is up, or down, by its events.
pub(crate) fn wait_for_link(port: &OpenPort, events: &Receiver<PortEvent>, up: bool) {
    let deadline = Instant::now() + PATIENCE;
    while port.port.control().link().up != up {
        assert!(Instant::now() < deadline, "the link does not change");
        // One that came before the link was asked for is as good as none.
        let _ = events.recv_timeout(PATIENCE);
    }
}

/// A fact about a port.
pub(crate) fn detail(port: &OpenPort, name: &str) -> String {
    let details = port.port.control().details();
    details.into_iter().find(|(other, _)| other == name).unwrap().1
}

/// That a port waits for `rw0`: it carries nothing and wakes nobody.
fn check_waiting(port: &mut OpenPort) {
    // It may have been seen to be down before it was gone.
    wait_for("the port waits", || {
        detail(port, "interface").starts_with("waiting for 'rw0': there is no such interface")
    });
    port.rx.iter_mut().for_each(check_quiet);
    assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&[0; 60])]), 0);
    assert!(!port.tx[0].is_ready() && !port.port.control().link().up);
}

/// That nothing comes, and that whoever sleeps is not woken for ever: once it may be, to see that the
/// interface has gone.
pub(crate) fn check_quiet(queue: &mut RxQueue) {
    wait_for("nobody is woken any more", || {
        queue.disarm();
        assert!(queue.rx_burst(BURST).frames().is_empty());
        queue.arm() && !is_readable_within(queue, Duration::ZERO)
    });
}

/// That frames pass between a port on `rw0` and `rw1`; the first one wakes a sleeping worker.
fn check_passing(port: &mut OpenPort, round: usize) {
    let mut other = open_port_with_link("af-packet:rw1");
    let bytes = frame(round, 100);
    assert_eq!(other.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
    let woken = port.rx.iter().any(|queue| is_readable_within(queue, PATIENCE));
    assert!(woken, "a sleeping worker is not woken");
    let received = receive_where(&mut port.rx[0], 1, is_experimental);
    assert_eq!(received, std::slice::from_ref(&bytes));
    assert!(port.tx[0].is_ready());
    assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
    assert_eq!(receive_where(&mut other.rx[0], 1, is_experimental), [bytes]);
}

/// That a port on `rw0` takes its interface up whenever there is one: it is not there at the
/// start, is made, deleted, made anew, moves to another namespace and comes back, with the same
/// number, and is renamed. A worker sleeps on the port all the while.
pub(crate) fn check_interface_that_comes_and_goes(device: &str) {
    let mut port = open_port(&format!("{device},mtu=1400"));
    let events = events_of(&port);
    check_waiting(&mut port);
    let mut round = 0;
    let mut comes = |port: &mut OpenPort| {
        wait_for_link(port, &events, true);
        round += 1;
        assert_eq!(detail(port, "interface"), "rw0");
        assert_eq!(port.port.control().mtu(), 1400, "it gets what was asked for");
        // Where a socket is being closed while its interface moves to another namespace, the kernel may
        // leave what that one has asked for, too.
        wait_for("it is promiscuous", || !ip("-d -o link show rw0").contains("promiscuity 0"));
        check_passing(port, round);
        assert!(port.rx[0].arm());
    };
    let goes = |port: &mut OpenPort| {
        wait_for_link(port, &events, false);
        check_waiting(port);
    };
    for _ in 0..2 {
        veth_pair(1500);
        comes(&mut port);
        ip("link delete rw0");
        goes(&mut port);
    }
    veth_pair(1500);
    comes(&mut port);
    let elsewhere = Elsewhere::new();
    ip(&format!("link set rw0 netns {}", elsewhere.path()));
    goes(&mut port);
    wait_for("no program is left over", || !elsewhere.ip("-d -o link show rw0").contains("xdp"));
    elsewhere.ip(&format!("link set rw0 netns {}", namespace()));
    ip("link set rw0 addrgenmode none up");
    comes(&mut port);
    // A port stays with its interface, whatever that is called, and takes up none of another
    // name.
    ip("link set rw0 name rw2");
    assert_eq!(detail(&port, "interface"), "rw2");
    check_passing(&mut port, 9);
    ip("link delete rw2");
    goes(&mut port);
    veth_pair(1500);
    comes(&mut port);
    ip("link delete rw0");
    goes(&mut port);
    veth_pair(1500);
    ip("link set rw0 down");
    ip("link set rw0 name rw2");
    ip("link set rw2 name rw0 up");
    comes(&mut port);
    assert!(!events.try_iter().any(|event| event == PortEvent::Removed));
}

/// A name that ip(8) takes for the calling thread's network namespace.
pub(crate) fn namespace() -> String {
    format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid().as_raw_nonzero())
}

/// Whether it is a frame such as [`frame`] makes.
pub(crate) fn is_experimental(frame: &Frame<'_>) -> bool {
    frame.head().get(12..14) == Some(&[0x88, 0xB5])
}

/// Sends frames of all `lengths`, many times over, and checks that they arrive as they are.
pub(crate) fn send_and_compare(from: &mut OpenPort, to: &mut OpenPort, lengths: &[usize]) {
    for port in [&*from, &*to] {
        wait_for("a link", || port.port.control().link().up);
    }
    for round in 0..40 {
        let frames: Vec<Vec<u8>> = lengths.iter().map(|len| frame(round + len, *len)).collect();
        for chunk in frames.chunks(8) {
            let burst: Vec<Frame<'_>> =
                chunk.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
            assert_eq!(from.tx[0].tx_burst(&burst), burst.len());
            let received = receive_where(&mut to.rx[0], burst.len(), is_experimental);
            assert!(received == chunk, "round {round}: {:?}", lengths_of(&received));
        }
    }
    let sent = from.port.stats().tx_total();
    assert_eq!((sent.packets, sent.dropped()), (40 * lengths.len() as u64, 0));
    assert_eq!(to.port.stats().rx_total().dropped(), 0);
}

fn lengths_of(frames: &[Vec<u8>]) -> Vec<usize> {
    frames.iter().map(Vec::len).collect()
}
