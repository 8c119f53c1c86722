use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use openflow::Version;
use openflow::message::{Kind, Message};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use switch::{Switch, SwitchConfig, flow_queue};
use tls::Speaker;

use super::super::target::Target;
use super::*;
use crate::controller::in_band::InBandSpec;
use crate::export::IpfixCounts;

const ROW: Uuid = Uuid(1);
const OTHER: Uuid = Uuid(2);

fn spec(target: Target) -> ControllerSpec {
    ControllerSpec {
        is_service: target.listens(),
        target,
        max_backoff: Duration::from_secs(8),
        probe: None,
        manner: Default::default(),
        tls: None,
    }
}

/// One with a port that the system chooses.
fn listens() -> ControllerSpec {
    spec(Target::ListenSsl("127.0.0.1:0".parse().unwrap()))
}

fn bridge(controllers: impl IntoIterator<Item = (Uuid, ControllerSpec)>) -> BridgeSpec {
    BridgeSpec {
        settings: Settings::default(),
        ports: LiteMap::new(),
        queues: LiteMap::new(),
        marks: LiteMap::new(),
        controllers: controllers.into_iter().collect(),
        is_secure: false,
        has_lost: false,
        vlans: Default::default(),
        in_band: InBandSpec::default(),
    }
}

/// A bridge of a switch, which is kept.
fn serve(spec: BridgeSpec) -> (Served, Switch) {
    let switch = Switch::start(&SwitchConfig::default()).unwrap();
    let (inlet, packets) = flow_queue(1, || {});
    let forwarding = Forwarding::new(switch.sight(), "br0", inlet, IpfixCounts::default());
    (Served::new(spec, Sockets::default(), forwarding, packets), switch)
}

/// Somebody who has come.
fn comes(served: &mut Served, row: Option<Uuid>) -> UnixStream {
    let (far, near) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let id = served.bridge.connect(Origin::Service, ROOM);
    assert!(served.make_room(row));
    served.peers.push((Peer::new((near.into(), None), id, "ssl:test".to_owned(), None), row));
    far
}

fn status(served: &Served, row: Uuid) -> ControllerStatus {
    served.status().find(|(of, _)| *of == row).unwrap().1
}

/// Has the connection that is dialled in `row` be made with whoever listens.
fn dial(served: &mut Served, row: Uuid) {
    served.welcome(&[]).unwrap();
    let Way::Dial(dial) = &served.controllers.get(&row).unwrap().way else { panic!("no dial") };
    let fd = dial.fd().unwrap();
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::OUT)];
    rustix::event::poll(&mut fds, None).unwrap();
    served.welcome(&[Spot::Controller(row)]).unwrap();
}

#[test]
fn strangers_take_the_place_of_nobody_who_is_dialled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("controller");
    let listener = UnixListener::bind(&path).unwrap();
    let (mut served, _switch) =
        serve(bridge([(ROW, listens()), (OTHER, spec(Target::Unix(path)))]));
    let strangers: Vec<_> = (0..CONNECTIONS).map(|_| comes(&mut served, Some(ROW))).collect();
    // Programs of this machine and those who are dialled have room.
    let _own = comes(&mut served, None);
    dial(&mut served, OTHER);
    let _controller = listener.accept().unwrap();
    assert_eq!(served.peers.len(), CONNECTIONS + 2);
    assert_eq!(status(&served, OTHER).state, "ACTIVE");
    drop(strangers);
    served.serve(Instant::now());
    assert_eq!(served.peers.len(), 2);
}

/// Whether it was closed, where nothing was sent to it.
fn is_closed(far: &mut UnixStream) -> bool {
    far.set_nonblocking(true).unwrap();
    matches!(far.read(&mut [0]), Ok(0))
}

#[test]
fn whoever_says_nothing_keeps_nobody_out() {
    let (mut served, _switch) =
        serve(bridge([(ROW, spec(Target::ListenTcp("127.0.0.1:0".parse().unwrap())))]));
    let (mut own, mut first) = (comes(&mut served, None), comes(&mut served, Some(ROW)));
    let mut silent: Vec<_> = (1..CONNECTIONS).map(|_| comes(&mut served, Some(ROW))).collect();
    let mut late = comes(&mut served, Some(ROW));
    assert_eq!(served.peers.len(), 1 + CONNECTIONS);
    assert!(is_closed(&mut first), "the one who was there longest gives way");
    assert!(!is_closed(&mut late) && !silent.iter_mut().any(is_closed) && !is_closed(&mut own));
    // Those who have said HELLO stay.
    let hello = Message::new(Version::V13, Kind::Hello, 1).finish();
    let (spoken, rest) = silent.split_at_mut(9);
    spoken.iter_mut().for_each(|far| far.write_all(&hello).unwrap());
    served.serve(Instant::now());
    let _later = comes(&mut served, Some(ROW));
    let has_ended = |far: &mut UnixStream| {
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes).is_ok()
    };
    assert!(has_ended(&mut rest[0]) && !rest[1..].iter_mut().any(has_ended));
    assert!(!spoken.iter_mut().any(has_ended));
}

#[test]
fn whoever_comes_is_closed_where_all_have_said_hello() {
    let (mut served, _switch) = serve(bridge([(ROW, listens())]));
    let mut all: Vec<_> = (0..CONNECTIONS).map(|_| comes(&mut served, Some(ROW))).collect();
    let hello = Message::new(Version::V13, Kind::Hello, 1).finish();
    all.iter_mut().for_each(|far| far.write_all(&hello).unwrap());
    served.serve(Instant::now());
    let (mut late, near) = UnixStream::pair().unwrap();
    served.add_peer(near.into(), "ssl:late".to_owned(), Some(ROW));
    assert!(is_closed(&mut late));
    assert_eq!(served.peers.len(), CONNECTIONS);
}

#[test]
fn what_strangers_do_is_forgotten_once_a_controller_comes() {
    let (mut served, _switch) = serve(bridge([(ROW, listens())]));
    let text = |text: &str| Some(text.to_owned());
    served.lose(Some(ROW), "ssl:test", "TLS: http request", true);
    let of = status(&served, ROW);
    assert_eq!((of.state, of.last_error), ("IDLE", text("TLS: http request")));
    let mut controller = comes(&mut served, Some(ROW));
    controller.write_all(&Message::new(Version::V13, Kind::Hello, 1).finish()).unwrap();
    served.serve(Instant::now());
    assert_eq!(status(&served, ROW).state, "ACTIVE");
    drop(controller);
    served.serve(Instant::now());
    let of = status(&served, ROW);
    assert_eq!((of.state, of.last_error), ("IDLE", None));
}

/// Keys in files of a folder, which are empty: nobody reads them here.
fn keys(speaker: &Arc<Speaker>, folder: &Path, key: &str) -> Option<Identity> {
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::write(&path, "").unwrap();
        Some(path)
    };
    let (private_key, certificate, ca_cert) = (file(key), file("certificate"), file("ca"));
    let settings = tls::Settings { private_key, certificate, ca_cert, ..Default::default() };
    Some(Identity::new(Arc::clone(speaker), settings))
}

#[test]
fn connections_that_are_there_go_on_with_their_keys() {
    let (ours, _worker) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let (speaker, folder) = (Arc::new(Speaker::of(ours)), tempfile::tempdir().unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::Ssl(listener.local_addr().unwrap());
    let with = |key: &str| {
        let tls = keys(&speaker, folder.path(), key);
        ControllerSpec { tls, ..spec(target.clone()) }
    };
    let (mut served, _switch) = serve(bridge([(ROW, with("first"))]));
    dial(&mut served, ROW);
    let id = served.peers[0].0.id;
    served.set(bridge([(ROW, with("second"))]));
    assert_eq!(served.peers[0].0.id, id);
    assert_eq!(served.controllers.get(&ROW).unwrap().spec, with("second"));
    // Whatever else is otherwise begins anew.
    let probe = Some(Duration::from_secs(1));
    served.set(bridge([(ROW, ControllerSpec { probe, ..with("second") })]));
    assert!(served.peers.is_empty());
    assert_eq!(status(&served, ROW).state, "CONNECTING");
}
