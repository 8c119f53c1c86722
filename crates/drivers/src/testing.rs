//! Network namespaces for tests against the host kernel.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ethdev::{PortEvent, RxQueue};
use packet::{BURST, Frame, MacAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::open::{Drivers, OpenPort, open};

/// How long the kernel may take for anything on a machine that is busy with other tests. It tells
/// of a link that comes or goes after up to a second.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

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

/// Makes a pair of virtual Ethernet interfaces, `rw0` and `rw1`, both switched on. The kernel
/// sends nothing of its own there.
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
}

pub(crate) fn open_port(device: &str) -> OpenPort {
    open("p0", device, &Drivers::new()).unwrap()
}

pub(crate) fn refusal(device: &str) -> String {
    open("p0", device, &Drivers::new()).unwrap_err().to_string()
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

/// Deletes the interface of `device`, `rw0`, while a worker sleeps on its port: that is announced
/// once, and lets the worker sleep again.
pub(crate) fn check_deleted_interface(device: &str) {
    let mut port = open_port(device);
    let (sender, events) = mpsc::channel();
    assert!(port.port.on_event(move |event| sender.send(event).unwrap()));
    assert!(port.rx[0].arm());
    ip("link delete rw0");
    let removed = |event: &PortEvent| *event == PortEvent::Removed;
    let deadline = Instant::now() + PATIENCE;
    while !events.recv_timeout(PATIENCE).is_ok_and(|event| removed(&event)) {
        assert!(Instant::now() < deadline);
    }
    for queue in &mut port.rx {
        queue.disarm();
        assert!(queue.rx_burst(BURST).frames().is_empty());
        assert!(queue.arm() && !is_readable_within(queue, Duration::ZERO));
    }
    assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&[0; 60])]), 0);
    assert!(!port.tx[0].is_ready() && !port.port.control().link().up);
    assert!(!events.try_iter().any(|event| removed(&event)), "once");
}

/// Whether it is a frame such as [`frame`] makes.
pub(crate) fn is_experimental(frame: &Frame<'_>) -> bool {
    frame.head().get(12..14) == Some(&[0x88, 0xB5])
}

/// Sends frames of all `lengths`, many times over, and checks that they arrive as they are.
pub(crate) fn send_and_compare(from: &mut OpenPort, to: &mut OpenPort, lengths: &[usize]) {
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
