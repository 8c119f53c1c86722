//! Random edits of the desired state, under traffic between two ports that none of them touches,
//! which are in different bridges.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use daemon::{Address, Bridge, Daemon, Missing, Options, Port, State, file};
use drivers::Drivers;
use ethdev::OpenPort;
use packet::{BURST, FrameBatch, MacAddr};
use switch::guard::BpduGuard;
use switch::limit::{Bits, Frames};
use switch::{BridgeOptions, Mirror, PortGuard, PortLimits};

/// How long a frame may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Edits of the state.
const EDITS: usize = 1000;

/// Between two rounds of sending and receiving.
const PACE: Duration = Duration::from_millis(1);

/// Frames under way at most, so that no ring is ever full.
const WINDOW: u32 = 16;

/// Frames that are sent at once.
const COUNT: u32 = 8;

/// A station at the other end of a vhost-user port.
struct Station {
    _drivers: Drivers,
    port: OpenPort,
    mac: MacAddr,
}

impl Station {
    fn connect(name: &str, socket: &Path, number: u8) -> Self {
        let drivers = Drivers::new();
        let device = format!("virtio-user:{}", socket.display());
        let port = drivers::open(name, &device, &drivers).unwrap();
        let mac = MacAddr([0x52, 0x54, 0, 0, 0xaa, number]);
        let station = Self { _drivers: drivers, port, mac };
        wait(|| station.port.tx[0].is_ready());
        station
    }

    /// Sends frames numbered from `first` on.
    fn send(&mut self, to: MacAddr, first: u32, count: u32) {
        let mut batch = FrameBatch::with_segments(0);
        for number in first..first + count {
            let mut frame = [0; 60];
            frame[..6].copy_from_slice(&to.0);
            frame[6..12].copy_from_slice(&self.mac.0);
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            frame[14..18].copy_from_slice(&number.to_be_bytes());
            assert!(batch.push_copy(&frame));
        }
        let mut sent = 0;
        wait(|| {
            sent += self.port.tx[0].tx_burst(&batch.frames()[sent..]);
            sent == batch.frames().len()
        });
        self.port.tx[0].flush();
    }

    /// The numbers of the frames that have come.
    fn receive(&mut self) -> Vec<u32> {
        let burst = self.port.rx[0].rx_burst(BURST);
        let number = |bytes: Vec<u8>| u32::from_be_bytes(bytes[14..18].try_into().unwrap());
        burst.frames().iter().map(|frame| number(frame.to_vec())).collect()
    }
}

fn wait(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it does not come about");
        std::thread::yield_now();
    }
}

/// Has the stations send to each other until told to stop, and sees to it that every frame comes,
/// once and in order; returns how many.
fn exchange(mut stations: [Station; 2], stop: Arc<AtomicBool>) -> JoinHandle<u32> {
    std::thread::spawn(move || {
        let macs = [stations[0].mac, stations[1].mac];
        let (mut sent, mut came) = ([0_u32; 2], [0_u32; 2]);
        let mut last = Instant::now();
        while !stop.load(Relaxed) || sent != came {
            for (from, to) in [(0, 1), (1, 0)] {
                if !stop.load(Relaxed) && sent[from] - came[from] <= WINDOW - COUNT {
                    stations[from].send(macs[to], sent[from], COUNT);
                    sent[from] += COUNT;
                }
                for number in stations[to].receive() {
                    assert_eq!(number, came[from], "a frame is lost or comes twice");
                    came[from] += 1;
                    last = Instant::now();
                }
            }
            assert!(last.elapsed() < PATIENCE, "no frame comes any more: {sent:?} {came:?}");
            // Frames are under way at any time, and the edits have a CPU, too.
            std::thread::sleep(PACE);
        }
        came[0] + came[1]
    })
}

/// Numbers by chance, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % sides
    }
}

/// Changes something of a bridge; may leave ports without one.
fn edit_bridge(state: &mut State, dice: &mut Dice) {
    let name = ["red", "blue"][dice.roll(2)];
    let Some(bridge) = state.bridges.get_mut(name) else {
        return state.add_bridge(name, Bridge::default()).unwrap();
    };
    match dice.roll(7) {
        0 => _ = state.bridges.shift_remove(name),
        1 => bridge.fdb.ageing = [None, Some(10 + dice.roll(300) as u64)][dice.roll(2)],
        2 => bridge.fdb.size = [None, Some(1), Some(500)][dice.roll(3)],
        3 => bridge.mcast_snooping.enabled = [None, Some(true)][dice.roll(2)],
        5 => bridge.any_source = [None, Some(true)][dice.roll(2)],
        4 => bridge.vlan_aware = [None, Some(true)][dice.roll(2)],
        _ => bridge.group_fwd_mask = [None, Some(0x4000)][dice.roll(2)],
    }
}

/// Makes or removes a pair of patch ports, or moves one end; may make a state that is wrong.
fn edit_patch(state: &mut State, dice: &mut Dice) {
    let pair = dice.roll(2);
    let ends = [format!("p{pair}"), format!("q{pair}")];
    let bridge = ["default", "red", "blue"][dice.roll(3)];
    if !state.has(&ends[0]) {
        return state.add_patch(&ends[0], Port::patch(&ends[1]), bridge).unwrap();
    }
    match dice.roll(3) {
        0 => state.remove(&ends[dice.roll(2)]).unwrap(),
        1 => state.port_mut(&ends[1]).unwrap().enabled ^= true,
        _ => state.port_mut(&ends[dice.roll(2)]).unwrap().bridge = Some(bridge.to_owned()),
    }
}

/// Changes something; may make a state that is wrong.
fn edit(state: &mut State, dice: &mut Dice, dir: &Path) {
    match dice.roll(6) {
        0 => return edit_bridge(state, dice),
        1 => return edit_patch(state, dice),
        _ => {}
    }
    if dice.roll(10) == 0 {
        return edit_mirror(state, dice);
    }
    let name = format!("c{}", dice.roll(6));
    let device = match dice.roll(3) {
        0 => "null:".to_owned(),
        1 => format!("null:,queues={}", 1 + dice.roll(3)),
        _ => format!("vhost-user:{}", dir.join(&name).display()),
    };
    let number = u8::try_from(dice.roll(4)).unwrap();
    let address = Address::new(MacAddr([2, 0, 0, 0, 0, number]), 7 * u16::from(number)).unwrap();
    let Some(port) = state.ports.get_mut(&name) else {
        state.add_port(&name, Port::new(device)).unwrap();
        return;
    };
    match dice.roll(17) {
        0 => state.remove(&name).unwrap(),
        1 => port.device = device,
        2 => port.mtu = [None, Some(1400), Some(9000), Some(3)][dice.roll(4)],
        3 => port.workers = [vec![], vec![0], vec![1, 0], vec![2]][dice.roll(4)].clone(),
        4 => port.tx_retries = u32::try_from(dice.roll(5)).unwrap(),
        5 => port.enabled = !port.enabled,
        6 => _ = state.add_address(address, &name).unwrap(),
        7 => _ = port.addresses.remove(&address),
        8 => state.idle_after = Some(dice.roll(200) as u64),
        9 | 10 => {
            port.bridge = [None, Some("red".into()), Some("blue".into())][dice.roll(3)].clone();
        }
        11 => state.workers = Some(1 + dice.roll(3)),
        12 | 13 => port.limits = limits(dice),
        14 | 15 => port.guard = guard(dice),
        _ => state.fdb.ageing = Some(10 + dice.roll(300) as u64),
    }
}

/// Adds or removes a mirror; it may be wrong, or about all ports of a bridge.
fn edit_mirror(state: &mut State, dice: &mut Dice) {
    let name = format!("m{}", dice.roll(2));
    if state.mirrors.shift_remove(&name).is_some() {
        return;
    }
    let mut port = || format!("c{}", dice.roll(6));
    let output_port = Some(port());
    let mut mirror = Mirror { output_port, ..Mirror::default() };
    match dice.roll(3) {
        0 => mirror.select_all = true,
        1 => _ = mirror.select_src_port.insert(format!("c{}", dice.roll(6))),
        _ => _ = mirror.select_dst_port.insert(format!("c{}", dice.roll(6))),
    }
    state.add_mirror(&name, mirror).unwrap();
}

/// Limits of a port; may be wrong.
fn limits(dice: &mut Dice) -> PortLimits {
    let rate = [None, Some(Bits(1_000_000)), Some(Bits(3))][dice.roll(3)];
    let frames = [None, Some(Frames(1))][dice.roll(2)];
    let storm = [None, Some(Frames(10)), Some(Frames(0))][dice.roll(3)];
    PortLimits {
        rx_rate: rate,
        tx_packet_rate: frames,
        broadcast_packet_rate: storm,
        ..PortLimits::default()
    }
}

/// What a port may send; may be wrong.
fn guard(dice: &mut Dice) -> PortGuard {
    let mac = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]), MacAddr::BROADCAST];
    let ip = ["192.0.2.0/24", "2001:db8::7"][dice.roll(2)].parse().unwrap();
    PortGuard {
        allowed_macs: mac.into_iter().take(dice.roll(4)).collect(),
        allowed_ips: (0..dice.roll(2)).map(|_| ip).collect(),
        ra_guard: [None, Some(true)][dice.roll(2)],
        isolated: dice.roll(2) == 0,
        bpdu_guard: BpduGuard::ALL[dice.roll(3)],
        max_addresses: [None, Some(1), Some(0)][dice.roll(3)],
        ..PortGuard::default()
    }
}

/// What can be seen of a port: device, bridge, MTU, whether it is disabled, and static addresses.
type Seen = (String, String, u16, bool, BTreeSet<String>);

/// What can be seen of a bridge: its settings and ports.
type SeenBridge = (BridgeOptions, BTreeSet<String>);

/// What can be seen of all.
type All = (BTreeMap<String, SeenBridge>, BTreeMap<String, Seen>);

/// What runs.
fn observed(daemon: &Daemon) -> All {
    let switch = daemon.switch();
    let mirrors: BTreeMap<_, _> =
        switch.mirrors().into_iter().map(|report| (report.name, report.mirror)).collect();
    assert!(
        mirrors.iter().eq(daemon
            .state()
            .mirrors
            .clone()
            .into_iter()
            .collect::<BTreeMap<_, _>>()
            .iter())
    );
    let mut ports: BTreeMap<String, Seen> = BTreeMap::new();
    for port in switch.ports() {
        let wanted = &daemon.state().ports[&port.name].workers;
        if !wanted.is_empty() {
            let workers: Vec<usize> =
                wanted.iter().copied().cycle().take(port.rx_workers.len()).collect();
            assert_eq!(port.rx_workers, workers);
        }
        assert_eq!(port.limits, daemon.state().ports[&port.name].limits);
        assert_eq!(port.guard, daemon.state().ports[&port.name].guard);
        if let Some(peer) = daemon.state().peer_of(&port.name) {
            let ports = [port.name.as_str(), peer].map(|name| &daemon.state().ports[name]);
            assert_eq!(port.link.up, ports.iter().all(|port| port.enabled));
        }
        let seen = (port.device, port.bridge, port.mtu, port.disabled, BTreeSet::new());
        ports.insert(port.name, seen);
    }
    for entry in switch.fdb().into_iter().filter(|entry| entry.is_static) {
        let address = Address::new(entry.mac, entry.vlan).unwrap().to_string();
        let port = ports.get_mut(&entry.port).unwrap();
        assert!(port.1 == entry.bridge && port.4.insert(address));
    }
    let bridges = switch.bridges().into_iter().map(|bridge| {
        assert_eq!(u64::from(bridge.fdb.ageing), bridge.options.ageing.as_secs());
        assert_eq!(bridge.fdb.limit, bridge.options.fdb_limit);
        (bridge.name, (bridge.options, bridge.ports.into_iter().collect()))
    });
    (bridges.collect(), ports)
}

/// What the state says.
fn expected(state: &State) -> All {
    let port = |port: &Port| {
        let addresses = port.addresses.iter().map(ToString::to_string).collect();
        let bridge = port.bridge_name().to_owned();
        let own_mtu = if port.peer().is_some() { u16::MAX } else { 1500 };
        (port.device.clone(), bridge, port.mtu.unwrap_or(own_mtu), !port.enabled, addresses)
    };
    let ports = state.ports.iter().map(|(name, wanted)| (name.clone(), port(wanted)));
    let bridges = state.bridge_names().map(|name| {
        let ports = state.ports.iter().filter(|(_, port)| port.bridge_name() == name);
        let ports = ports.map(|(port, _)| port.clone()).collect();
        (name.to_owned(), (state.bridge(name).unwrap(), ports))
    });
    (bridges.collect(), ports.collect())
}

#[test]
fn a_thousand_edits_lose_no_frame_of_others_and_each_is_undone_by_its_opposite() {
    let dir = tempfile::tempdir().unwrap();
    let sockets: [PathBuf; 2] = ["a", "b"].map(|name| dir.path().join(name));
    let text = format!(
        "workers = 2\n[fdb]\nsize = 1000\n[bridges.green]\n\
         [ports.a]\ndevice = \"vhost-user:{}\"\n\
         [ports.b]\ndevice = \"vhost-user:{}\"\nbridge = \"green\"\n\
         [ports.out]\ndevice = \"patch:in\"\n\
         [ports.in]\ndevice = \"patch:out\"\nbridge = \"green\"\n",
        sockets[0].display(),
        sockets[1].display()
    );
    let mut daemon = Daemon::start(file::parse(&text).unwrap(), Options::default()).unwrap();
    let stations = [0, 1].map(|i| Station::connect("station", &sockets[usize::from(i)], i));
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = exchange(stations, Arc::clone(&stop));
    // Patch ports may come to make loops, where a frame that is flooded shows its sender elsewhere.
    wait(|| daemon.switch().fdb().len() == 4);
    let seed = RandomState::new().hash_one(0) | 1;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let (mut applied, mut refused) = (0, 0);
    for _ in 0..EDITS {
        let before = daemon.state().clone();
        let mut next = before.clone();
        for _ in 0..=dice.roll(4) {
            edit(&mut next, &mut dice, dir.path());
        }
        match daemon.apply(next.clone(), Missing::Refuse) {
            Err(_) => {
                refused += 1;
                assert_eq!(daemon.state(), &before);
                assert_eq!(observed(&daemon), expected(&before), "seed {seed}");
            }
            Ok(_) => {
                applied += 1;
                assert_eq!(observed(&daemon), expected(&next), "seed {seed}");
                daemon.apply(before.clone(), Missing::Refuse).unwrap();
                assert_eq!(observed(&daemon), expected(&before), "seed {seed}");
                daemon.apply(next, Missing::Refuse).unwrap();
            }
        }
        assert_eq!(daemon.waiting().count(), 0, "seed {seed}");
        assert!(!traffic.is_finished(), "seed {seed}");
    }
    assert!(applied > EDITS / 4 && refused > EDITS / 50, "{applied} {refused}");
    stop.store(true, Relaxed);
    let frames = traffic.join().unwrap();
    println!("{frames} frames, {applied} edits, {refused} refused");
    assert!(frames as usize > EDITS);
    for name in ["a", "b", "out", "in"] {
        let stats = daemon.switch().port(name).unwrap().stats;
        assert_eq!((stats.rx_total().dropped(), stats.tx_total().dropped()), (0, 0));
    }
}
