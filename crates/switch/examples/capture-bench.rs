//! What captures cost, of ports that are captured and of those that are not.
//!
//! `cargo run --release -p ringway-switch --example capture-bench [CASE BURSTS]`
//!
//! Frames of 64 bytes go from port 0 to port 1 in bursts of 32, through the data path of a worker, and
//! are swallowed; port 2 has no part in it. With a case and a number of bursts only those go, for
//! `valgrind --tool=callgrind`, which counts instructions.

#![allow(clippy::cast_precision_loss, reason = "means for people")]

use std::error::Error;
use std::sync::Arc;

use capture::bpf::{Instruction, Program};
use eal::clock;
use ethdev::{QueueStats, Sent, TxDriver, TxQueue};
use packet::{BURST, Burst, Frame};
use switch::bench::Bench;
use switch::fdb::Fdb;
use switch::{Capture, CaptureReader};

const ROUNDS: usize = 7;
const BURSTS: u64 = 20_000;

/// What is captured.
const CASES: [&str; 6] = ["nothing", "another", "in-none", "out-none", "in", "out"];

struct Sink;

impl TxDriver for Sink {
    fn transmit(&mut self, frames: &[Frame<'_>], _stats: &QueueStats) -> Sent {
        Sent::first(frames.len())
    }
}

/// Takes no frame of those that there are: `udp port 53`, as libpcap has it, without IPv6.
fn no_frame() -> Result<Arc<Program>, Box<dyn Error>> {
    let op = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let program = [
        op(0x28, 0, 0, 12),
        op(0x15, 0, 10, 0x0800),
        op(0x30, 0, 0, 23),
        op(0x15, 0, 8, 17),
        op(0x28, 0, 0, 20),
        op(0x45, 6, 0, 0x1FFF),
        op(0xB1, 0, 0, 14),
        op(0x48, 0, 0, 14),
        op(0x15, 2, 0, 53),
        op(0x48, 0, 0, 16),
        op(0x15, 0, 1, 53),
        op(0x06, 0, 0, 262_144),
        op(0x06, 0, 0, 0),
    ];
    Ok(Arc::new(Program::new(&program)?))
}

/// A bridge of three ports, and its capture.
fn bench(case: &str) -> Result<(Bench, Option<CaptureReader>), Box<dyn Error>> {
    let fdb = Arc::new(Fdb::new(1024, 4, 0));
    let sink = |_| TxQueue::new(Box::new(Sink), Arc::default());
    let mut bench = Bench::new(fdb, (0..3).map(sink).collect());
    bench.forward(Burst::new(&[Frame::from_bytes(&frame(0xFF, 2))]), 1);
    bench.forward(Burst::new(&[Frame::from_bytes(&frame(0xFF, 1))]), 0);
    let filter = if case.ends_with("-none") { Some(no_frame()?) } else { None };
    let port = match case {
        "nothing" => return Ok((bench, None)),
        "in" | "in-none" => 0,
        "out" | "out-none" => 1,
        _ => 2,
    };
    let capture = Capture { filter, ..Capture::default() };
    let reader = switch::bench::capture(&mut bench, &capture, port)?;
    Ok((bench, Some(reader)))
}

/// A UDP datagram from one station to another.
fn frame(to: u8, from: u8) -> [u8; 64] {
    let mut frame = [0; 64];
    let address = |last: u8| if last == 0xFF { [0xFF; 6] } else { [2, 0, 0, 0, 0, last] };
    let rest = [8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17];
    let header = address(to).into_iter().chain(address(from)).chain(rest);
    frame.iter_mut().zip(header).for_each(|(place, byte)| *place = byte);
    frame
}

/// Cycles per frame of so many bursts; what is captured is read now and then, by nobody's clock.
fn run(case: &str, bursts: u64) -> Result<f64, Box<dyn Error>> {
    let (mut bench, mut reader) = bench(case)?;
    let bytes = frame(2, 1);
    let frames = [Frame::from_bytes(&bytes); BURST];
    let mut cycles = 0;
    for burst in 0..bursts {
        let start = clock::now();
        bench.forward(Burst::new(&frames).compared(), 0);
        cycles += clock::now().saturating_sub(start);
        if burst % 128 == 0
            && let Some(reader) = &mut reader
        {
            reader.read(|_| {});
        }
    }
    Ok(cycles as f64 / (bursts as f64 * BURST as f64))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    if let (Some(case), Some(bursts)) = (words.next(), words.next()) {
        run(&case, bursts.parse()?)?;
        return Ok(());
    }
    println!("{:>10} {:>14}", "captured", "cycles/frame");
    for case in CASES {
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            best = best.min(run(case, BURSTS)?);
        }
        println!("{case:>10} {best:>14.1}");
    }
    Ok(())
}
