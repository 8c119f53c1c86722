use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;

use daemon::metrics::{Endpoint, Metrics};
use rustix::event::{PollFd, Timespec, poll};

use super::*;

const GET: &str = "GET /metrics HTTP/1.1\r\n\r\n";

/// A server on a thread of its own, whose page says the how manieth it is.
struct Running {
    path: PathBuf,
    address: Option<std::net::SocketAddr>,
    time: Time,
    ends: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(tcp: bool, size: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.sock");
        let endpoint = match tcp {
            true => "127.0.0.1:0".parse().unwrap(),
            false => Endpoint::Unix(path.clone()),
        };
        let metrics = Metrics { address: Some(endpoint), ..Metrics::default() };
        let listener = Listener::bind(&metrics).unwrap().unwrap();
        let address = match &listener {
            Listener::Tcp(listener) => Some(listener.local_addr().unwrap()),
            Listener::Unix(_) => None,
        };
        let time = Time::stopped();
        let mut server = Server::new(listener, time.clone());
        let (ends, connections) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let (end, count) = (Arc::clone(&ends), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            let mut pages = 0;
            while !end.load(SeqCst) {
                let files: Vec<_> = server.files().collect();
                let mut files: Vec<PollFd<'_>> = files
                    .iter()
                    .map(|(file, flags)| PollFd::from_borrowed_fd(*file, *flags))
                    .collect();
                let tick = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
                poll(&mut files, Some(&tick)).unwrap();
                server.turn(|_| {
                    pages += 1;
                    format!("{pages}{}", "x".repeat(size))
                });
                count.store(server.clients.len() as u64, SeqCst);
            }
        });
        Self { path, address, time, ends, connections, thread: Some(thread), _dir: dir }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn wait_for(&self, connections: u64) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.connections.load(SeqCst) != connections {
            assert!(Instant::now() < end, "{} connections", self.connections.load(SeqCst));
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ends.store(true, SeqCst);
        let joined = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || joined.is_some_and(|joined| joined.is_ok()));
    }
}

/// One answer: its head, and as much of a body as that says.
fn answer(stream: &mut impl std::io::Read) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn pages_are_read_one_after_the_other_on_one_connection() {
    let server = Running::start(false, 0);
    let mut client = server.connect();
    for number in 1..=2 {
        client.write_all(GET.as_bytes()).unwrap();
        let (head, body) = answer(&mut client);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
        assert_eq!(body, number.to_string());
    }
    // Two at once, the second of which is the last.
    let other = "GET /x HTTP/1.1\r\nConnection: close\r\n\r\n";
    client.write_all(format!("{GET}{other}").as_bytes()).unwrap();
    assert_eq!(answer(&mut client).1, "3");
    let (head, body) = answer(&mut client);
    assert!(head.starts_with("HTTP/1.1 404 ") && body.contains("/metrics"), "{head}{body}");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn tcp_serves_the_same_and_only_for_reading() {
    let server = Running::start(true, 3 << 20);
    let ask = |text: &str| {
        let mut client = TcpStream::connect(server.address.unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(text.as_bytes()).unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).unwrap();
        all
    };
    let page = ask("GET /metrics HTTP/1.0\r\n\r\n");
    assert!(page.len() > 3 << 20 && page.ends_with('x'));
    let refused = ask("DELETE /metrics HTTP/1.1\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("\r\nAllow: GET, HEAD\r\n"));
    let head = ask("HEAD /metrics HTTP/1.0\r\n\r\n");
    assert!(head.contains("Content-Length: 3145729\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(ask("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn slow_clients_are_cut_off_although_they_get_on_a_little() {
    let server = Running::start(false, 4 << 20);
    let mut half = server.connect();
    half.write_all(b"GET /met").unwrap();
    let mut deaf = server.connect();
    deaf.write_all(GET.as_bytes()).unwrap();
    let mut silent = server.connect();
    server.wait_for(3);
    server.time.warp(PATIENCE - Duration::from_millis(1));
    half.write_all(b"r").unwrap();
    let mut part = [0; 1000];
    deaf.read_exact(&mut part).unwrap();
    server.time.warp(Duration::from_millis(1));
    server.wait_for(0);
    for (client, most) in [(&mut half, 0), (&mut deaf, 4 << 20), (&mut silent, 0)] {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.len() <= most);
    }
}

#[test]
fn a_connection_that_waits_makes_room_and_one_that_is_served_does_not() {
    let server = Running::start(false, 4 << 20);
    // All places are taken by answers that nobody reads.
    let mut deaf: Vec<UnixStream> = (0..CLIENTS).map(|_| server.connect()).collect();
    for client in &mut deaf {
        client.write_all(GET.as_bytes()).unwrap();
    }
    server.wait_for(CLIENTS as u64);
    let mut late = server.connect();
    late.write_all(GET.as_bytes()).unwrap();
    // They are still served, and the one that has had its answer gives its place to the late one.
    for client in deaf.iter_mut().rev() {
        assert_eq!(answer(client).1.len(), (4 << 20) + 1);
    }
    assert_eq!(answer(&mut late).1.len(), (4 << 20) + 1);
    server.wait_for(CLIENTS as u64);
    deaf.iter().for_each(|client| client.set_nonblocking(true).unwrap());
    // Its file is closed on a thread of its own.
    let end = Instant::now() + Duration::from_secs(30);
    let gone = loop {
        let gone: Vec<usize> =
            deaf.iter_mut().filter_map(|client| client.read(&mut [0]).ok()).collect();
        if !gone.is_empty() || end < Instant::now() {
            break gone;
        }
        std::thread::yield_now();
    };
    assert_eq!(gone, [0], "one has made room");
}

#[test]
fn whoever_sends_files_is_cut_off() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};
    let server = Running::start(false, 0);
    let mut client = server.connect();
    server.wait_for(1);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let files = [theirs.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    let bytes = [std::io::IoSlice::new(GET.as_bytes())];
    rustix::net::sendmsg(&client, &bytes, &mut control, SendFlags::empty()).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(theirs);
    // It is closed there, too.
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!((&ours).read(&mut [0]).unwrap(), 0);
    server.wait_for(0);
}

#[test]
fn who_asks_in_the_same_turn_gets_the_same_page() {
    let (mut pages, mut written) = (Pages::default(), 0);
    let mut write = |format: Format| {
        written += 1;
        format!("{format:?}")
    };
    for format in [Format::OpenMetrics, Format::Prometheus, Format::OpenMetrics] {
        assert_eq!(*pages.get(format, &mut write), format!("{format:?}"));
    }
    assert_eq!(written, 2);
}
