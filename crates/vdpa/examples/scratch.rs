//! Scratch.
use std::time::Duration;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let device = vdpa::open(&args[1]).unwrap_or_else(|e| panic!("{e}"));
    println!(
        "pairs {} features {:?}",
        device.queue_pairs(),
        virtio::Features::from_bits_retain(device.features())
    );
    let control = vhost::ControlThread::start().unwrap();
    let attached =
        vdpa::attach(&control, &args[2], vdpa::AttachOptions::default(), device).unwrap();
    let mut last = None;
    loop {
        let now = Some((attached.state(), attached.rings(), attached.statistics()));
        if now != last {
            println!("{now:?}");
            last = now;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
