//! What a `virtio-user` and a `vhost-user` port cost together: bursts go from the one to the other
//! and back, in this thread, over a real socket and shared memory. Under `valgrind
//! --tool=callgrind` it counts instructions; the difference of two numbers of bursts leaves out
//! the start.
//!
//! Usage: `loop-cost OPTIONS [BURSTS [LENGTH]]`, where `OPTIONS` are those of the `virtio-user`
//! port, such as `packed=on,in_order=on`, or `-` for none.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measuring tool that trusts itself"
)]

use ethdev::OpenPort;
use std::time::{Duration, Instant};

use drivers::Drivers;
use eal::clock;
use packet::{BURST, Frame};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: usize| {
        arguments.get(index).map_or(default, |text| text.parse().unwrap())
    };
    let options = match arguments.first().map(String::as_str) {
        None | Some("-") => String::new(),
        Some(options) => format!(",{options}"),
    };
    let (bursts, len) = (number(1, 100_000), number(2, 60));

    let socket = std::env::temp_dir().join(format!("loop-cost-{}", std::process::id()));
    let socket = socket.display();
    let env = Drivers::new();
    let mut back = drivers::open("back", &format!("vhost-user:{socket}"), &env).unwrap();
    let device = format!("virtio-user:{socket},ctrl_vq=off{options}");
    let mut front = drivers::open("front", &device, &env).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !(back.port.control().link().up && front.port.control().link().up) {
        assert!(Instant::now() < deadline, "no link");
        std::thread::sleep(Duration::from_millis(1));
    }

    let bytes = vec![0x5A; len];
    let burst = [Frame::from_bytes(&bytes); BURST];
    let start = clock::now();
    for _ in 0..bursts {
        pass(&mut front, &mut back, &burst);
        pass(&mut back, &mut front, &burst);
    }
    let packets = bursts * BURST * 2;
    let cycles = (clock::now() - start) as f64 / packets as f64;
    println!("{len} bytes: {cycles:.1} cycles for a packet from one port to the other{options}");
}

/// Sends a burst and takes it at the other end.
fn pass(from: &mut OpenPort, to: &mut OpenPort, burst: &[Frame<'_>]) {
    let sent: usize = from.tx.iter_mut().take(1).map(|queue| queue.tx_burst(burst)).sum();
    let taken = |queue: &mut ethdev::RxQueue| queue.rx_burst(BURST).frames().len();
    let received: usize = to.rx.iter_mut().take(1).map(taken).sum();
    assert_eq!((sent, received), (burst.len(), burst.len()), "frames sent and received");
}
