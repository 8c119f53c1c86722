//! Two of us at the ends of one connection, through a worker that is a thread here.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use testkit::PATIENCE;

use crate::connection::{Connection, Outcome};
use crate::context::Context;
use crate::library::Functions;
use crate::order::{Manner, Order, Trust};
use crate::process;
use crate::session::{PIECE, Session};
use crate::worker::Worker;
use crate::{Identity, Settings, Side, Speaker, Tunnel};

/// An authority, of which all certificates are but the foreign one.
const CA: &str = include_str!("tests/ca.pem");
const PEER: &str = include_str!("tests/peer.pem");
const EXPIRED: &str = include_str!("tests/expired.pem");
const FOREIGN: &str = include_str!("tests/foreign.pem");
const KEY: &str = include_str!("tests/peer-key.pem");
/// One by RSA with 512 bits, which OpenSSL takes at none of its levels but the lowest.
const SMALL: &str = include_str!("tests/small.pem");

/// Whether there is the library, without which these tests do; but not with `CI=true`.
fn has_library() -> bool {
    let is_needed = std::env::var_os("CI").is_some_and(|value| value == "true");
    let library = Functions::load().map(drop);
    assert!(library.is_ok() || !is_needed, "{library:?}");
    library.is_ok()
}

/// Two sockets that keep messages apart.
fn messages() -> (OwnedFd, OwnedFd) {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    socketpair(AddressFamily::UNIX, kind, flags, None).unwrap()
}

/// A worker, and files for those who have it.
struct Stage {
    dir: tempfile::TempDir,
    speaker: Arc<Speaker>,
}

impl Stage {
    fn new() -> Option<Self> {
        Self::with(|_| ())
    }

    /// One with a worker in which something is changed.
    fn with(change: impl FnOnce(&mut Worker) + Send + 'static) -> Option<Self> {
        has_library().then(|| {
            let (ours, theirs) = messages();
            std::thread::spawn(move || {
                let mut worker = Worker::new().unwrap();
                change(&mut worker);
                worker.serve(&theirs).unwrap();
            });
            Self::of(ours)
        })
    }

    /// One with whoever has the other end for a worker.
    fn of(socket: OwnedFd) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stage = Self { dir, speaker: Arc::new(Speaker::of(socket)) };
        for (name, text) in [("ca", CA), ("peer", PEER), ("key", KEY)] {
            stage.put(name, text);
        }
        for (name, text) in [("expired", EXPIRED), ("foreign", FOREIGN)] {
            stage.put(name, text);
        }
        stage
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn settings(&self, certificate: &str) -> Settings {
        let file = |name| Some(self.dir.path().join(name));
        Settings {
            private_key: file("key"),
            certificate: file(certificate),
            ca_cert: file("ca"),
            ..Settings::default()
        }
    }

    fn identity(&self, settings: Settings) -> Identity {
        Identity::new(Arc::clone(&self.speaker), settings)
    }

    /// Both ends of a connection: of who begins, and of the other.
    fn pair(&self, client: Settings, server: Settings) -> [End; 2] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let client = self.identity(client).wrap(&ours.into(), Side::Client).unwrap();
        let server = self.identity(server).wrap(&theirs.into(), Side::Server).unwrap();
        [client, server].map(End::new)
    }

    /// What both say at the end of a connection with these certificates.
    fn end_of(&self, client: &str, server: &str) -> [Option<String>; 2] {
        let ends = self.pair(self.settings(client), self.settings(server));
        ends.map(|mut end| {
            let _ = end.plain.read_to_end(&mut Vec::new());
            end.words()
        })
    }
}

/// One end of a connection.
struct End {
    plain: UnixStream,
    verdict: crate::Verdict,
}

impl End {
    fn new(tunnel: Tunnel) -> Self {
        let plain = UnixStream::from(tunnel.plain);
        plain.set_nonblocking(false).unwrap();
        plain.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { plain, verdict: tunnel.verdict }
    }

    fn hears(&mut self, text: &str) {
        let mut heard = vec![0; text.len()];
        self.plain.read_exact(&mut heard).unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), text);
    }

    fn words(&self) -> Option<String> {
        self.verdict.words()
    }
}

#[test]
fn what_is_said_is_heard() {
    let Some(stage) = Stage::new() else { return };
    let [mut client, mut server] = stage.pair(stage.settings("peer"), stage.settings("peer"));
    client.plain.write_all(b"who is there?").unwrap();
    server.plain.write_all(b"a bridge").unwrap();
    client.hears("a bridge");
    server.hears("who is there?");
    // What was said before somebody went is still heard.
    client.plain.write_all(b"good night").unwrap();
    drop(client);
    let mut rest = Vec::new();
    server.plain.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"good night");
    assert_eq!(server.words(), None);
}

#[test]
fn more_than_anybody_keeps_passes_both_ways_at_once() {
    let Some(stage) = Stage::new() else { return };
    let ends = stage.pair(stage.settings("peer"), stage.settings("peer"));
    let all: Vec<u8> = (0_u32..1 << 20).flat_map(u32::to_le_bytes).collect();
    let (ends, all) = (&ends, &all);
    std::thread::scope(|scope| {
        for End { plain, .. } in ends {
            let (mut reads, mut writes) = (plain, plain);
            scope.spawn(move || writes.write_all(all).unwrap());
            scope.spawn(move || {
                let mut heard = vec![0; all.len()];
                reads.read_exact(&mut heard).unwrap();
                assert!(heard == *all);
            });
        }
    });
}

#[test]
fn who_is_certified_by_nobody_that_is_known_is_refused() {
    let Some(stage) = Stage::new() else { return };
    for (wrong, reason) in
        [("expired", "certificate has expired"), ("foreign", "issuer certificate")]
    {
        let [client, server] = stage.end_of("peer", wrong);
        let words = client.unwrap();
        assert!(words.starts_with("the peer's certificate is refused: "), "{words}");
        assert!(words.contains(reason), "{words}");
        // The other one is told by the protocol.
        assert!(server.unwrap().starts_with("TLS: "));
        let [client, server] = stage.end_of(wrong, "peer");
        let words = server.unwrap();
        assert!(words.contains(reason), "{words}");
        assert!(client.unwrap().starts_with("TLS: "));
    }
}

#[test]
fn who_is_believed_without_a_certificate_is_so_by_request_only() {
    let Some(stage) = Stage::new() else { return };
    let mut credulous = stage.settings("peer");
    credulous.ca_cert = Some("none".into());
    let [mut client, mut server] = stage.pair(credulous, stage.settings("peer"));
    client.plain.write_all(b"hello").unwrap();
    server.hears("hello");
}

#[test]
fn files_that_change_are_read_again() {
    let Some(stage) = Stage::new() else { return };
    stage.put("own", FOREIGN);
    assert!(stage.end_of("peer", "own")[0].is_some());
    stage.put("own", PEER);
    let [mut client, mut server] = stage.pair(stage.settings("peer"), stage.settings("own"));
    server.plain.write_all(b"again").unwrap();
    client.hears("again");
    // Those that are there go on, whatever becomes of the files.
    stage.put("own", "");
    server.plain.write_all(b"still").unwrap();
    client.hears("still");
    let [_, server] = stage.end_of("peer", "own");
    assert!(server.unwrap().starts_with("certificate: "));
}

#[test]
fn the_first_authority_is_kept_and_then_believed() {
    let Some(stage) = Stage::new() else { return };
    let mut settings = stage.settings("peer");
    (settings.ca_cert, settings.bootstrap) = (Some(stage.dir.path().join("found")), true);
    let connect = |server: Settings| {
        let [mut client, _server] = stage.pair(settings.clone(), server);
        let _ = client.plain.read_to_end(&mut Vec::new());
        client.words().unwrap()
    };
    // The authority has to come along, as it does where the other side has it.
    let mut lonely = stage.settings("peer");
    lonely.ca_cert = Some("none".into());
    let words = connect(lonely);
    assert!(words.contains("do not end with one that is signed by itself"), "{words}");
    assert!(!stage.dir.path().join("found").exists());
    let words = connect(stage.settings("peer"));
    assert!(words.contains("/found' and believed from now on"), "{words}");
    let found = std::fs::read_to_string(stage.dir.path().join("found")).unwrap();
    assert_eq!(found.trim(), CA.trim());
    assert!(connect(stage.settings("foreign")).contains("refused"));
    let [mut client, mut server] = stage.pair(settings.clone(), stage.settings("peer"));
    server.plain.write_all(b"known").unwrap();
    client.hears("known");
}

#[test]
fn who_says_nonsense_or_nothing_holds_nobody_up() {
    let Some(stage) = Stage::new() else { return };
    let identity = stage.identity(stage.settings("peer"));
    let mut silent = Vec::new();
    for _ in 0..20 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        silent.push((ours, End::new(identity.wrap(&theirs.into(), Side::Server).unwrap())));
    }
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut end = End::new(identity.wrap(&theirs.into(), Side::Server).unwrap());
    ours.write_all(&[0x16, 3, 1, 0xff, 0xff]).unwrap();
    ours.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(end.plain.read(&mut [0; 9]).unwrap(), 0);
    assert!(end.words().unwrap().starts_with("TLS: "));
    let [mut client, mut server] = stage.pair(stage.settings("peer"), stage.settings("peer"));
    client.plain.write_all(b"hello").unwrap();
    server.hears("hello");
    for (ours, mut end) in silent {
        ours.shutdown(Shutdown::Both).unwrap();
        assert_eq!(end.plain.read(&mut [0; 9]).unwrap(), 0);
        assert_eq!(end.words().unwrap(), "closed during the handshake");
    }
}

#[test]
fn whoever_comes_leaves_room_for_those_who_are_dialled() {
    let Some(stage) = Stage::with(|worker| worker.most = 16) else { return };
    let Some(other) = Stage::new() else { return };
    let identity = stage.identity(stage.settings("peer"));
    let come = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, End::new(identity.wrap(&theirs.into(), Side::Server).unwrap()))
    };
    let strangers: Vec<_> = (0..14).map(|_| come()).collect();
    let (_ours, mut end) = come();
    assert_eq!(end.plain.read(&mut [0; 9]).unwrap(), 0);
    let words = end.words().unwrap();
    assert_eq!(words, "there are 14 connections with TLS of those who came already");
    // One by this worker, and whoever is dialled by another.
    let dial = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let far = other.identity(stage.settings("peer")).wrap(&theirs.into(), Side::Server);
        [identity.wrap(&ours.into(), Side::Client), far].map(|end| End::new(end.unwrap()))
    };
    let dialled = [(); 2].map(|()| {
        let [mut ours, mut far] = dial();
        far.plain.write_all(b"hello").unwrap();
        ours.hears("hello");
        [ours, far]
    });
    let [mut ours, _far] = dial();
    assert_eq!(ours.plain.read(&mut [0; 9]).unwrap(), 0);
    assert_eq!(ours.words().unwrap(), "there are 16 connections with TLS already");
    // Places of those who go are taken again, and nothing of them is left.
    for (ours, mut end) in strangers {
        drop(ours);
        assert_eq!(end.plain.read(&mut [0; 9]).unwrap(), 0);
    }
    let again: Vec<_> = (0..14).map(|_| come()).collect();
    for [mut ours, mut far] in dialled {
        ours.plain.write_all(b"still").unwrap();
        far.hears("still");
    }
    drop(again);
}

#[test]
fn keys_that_are_renewed_without_end_hold_nobody_up() {
    let Some(stage) = Stage::new() else { return };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut peer = connection(stage.dir.path(), theirs, Side::Client);
    let mut own = connection(stage.dir.path(), ours, Side::Server);
    let mut is_done = [false; 2];
    while is_done != [true; 2] {
        for (done, one) in is_done.iter_mut().zip([&mut peer, &mut own]) {
            match one.shake_hands() {
                Outcome::Done(_) => *done = true,
                Outcome::Wants(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    for _ in 0..3 {
        renew_keys(&mut peer);
    }
    assert_eq!(peer.write(b"hello"), Outcome::Done(5));
    // Each is a turn of its own, after which others have theirs.
    let mut heard = [0; 9];
    for _ in 0..3 {
        assert_eq!(own.read(&mut heard), Outcome::Wants(EventFlags::IN));
    }
    assert_eq!(own.read(&mut heard), Outcome::Done(5));
}

/// Has a connection say at once that it has other keys from now on.
fn renew_keys(connection: &mut Connection) {
    // SAFETY: the library is there already, the name ends with a zero byte, the type is that of `openssl/ssl.h`.
    let renewed = unsafe {
        let library = libc::dlopen(c"libssl.so.3".as_ptr(), libc::RTLD_NOW);
        let symbol = libc::dlsym(library, c"SSL_key_update".as_ptr());
        let key_update: unsafe extern "C" fn(*mut libc::c_void, libc::c_int) -> libc::c_int =
            std::mem::transmute(std::ptr::NonNull::new(symbol).unwrap());
        key_update(connection.at.as_ptr(), 0)
    };
    assert_eq!((renewed, connection.shake_hands()), (1, Outcome::Done(1)));
}

#[test]
fn what_cannot_be_spoken_is_named() {
    let Some(stage) = Stage::new() else { return };
    let refusal = |change: &dyn Fn(&mut Settings)| {
        let mut settings = stage.settings("peer");
        change(&mut settings);
        let [mut client, _server] = stage.pair(settings, stage.settings("peer"));
        let _ = client.plain.read_to_end(&mut Vec::new());
        client.words().unwrap()
    };
    let words = refusal(&|settings| settings.protocols = "SSLv3".to_owned());
    assert!(words.contains("protocol 'SSLv3': expected TLSv1"), "{words}");
    let words = refusal(&|settings| settings.ciphers = "nonsense".to_owned());
    assert!(words.starts_with("ciphers 'nonsense': "), "{words}");
    let words = refusal(&|settings| settings.ciphersuites = "nonsense".to_owned());
    assert!(words.starts_with("ciphersuites 'nonsense': "), "{words}");
    let words = refusal(&|settings| settings.private_key.clone_from(&settings.certificate));
    assert!(words.starts_with("private key: "), "{words}");
}

#[test]
fn what_is_wrong_with_a_certificate_is_told() {
    let Some(stage) = Stage::new() else { return };
    for (text, expected) in [
        ("", "certificate: no start line".to_owned()),
        (SMALL, "certificate: ee key too small".to_owned()),
        (&damaged(PEER), "certificate: bad base64 decode".to_owned()),
    ] {
        stage.put("own", text);
        assert_eq!(stage.end_of("own", "peer")[0], Some(expected));
    }
}

#[test]
fn a_file_of_certificates_is_taken_as_a_whole_or_not_at_all() {
    let Some(stage) = Stage::new() else { return };
    let words = |name: &str, text: String| {
        stage.put(name, &text);
        stage.end_of("peer", "peer")[0].take()
    };
    let cut = CA.get(..CA.len() / 2).unwrap();
    for second in [&damaged(CA), cut] {
        let chain = words("peer", format!("{PEER}{second}")).unwrap();
        assert!(chain.starts_with("certificate, number 2 of its file: "), "{chain}");
        stage.put("peer", PEER);
        let authorities = words("ca", format!("{CA}{second}")).unwrap();
        assert!(authorities.starts_with("CA certificate, number 2 of its file: "), "{authorities}");
        stage.put("ca", CA);
    }
    let many = words("ca", CA.repeat(1_001)).unwrap();
    assert_eq!(many, "CA certificate: its file has more than 1000 certificates");
    // What is there beside certificates, as in files with the key or with words, is passed over.
    stage.put("ca", &format!("first\n{CA}{KEY}second\n{FOREIGN}end\n"));
    let [mut client, mut server] = stage.pair(stage.settings("peer"), stage.settings("peer"));
    client.plain.write_all(b"whole").unwrap();
    server.hears("whole");
}

/// A certificate in which one letter is none of base 64.
fn damaged(certificate: &str) -> String {
    let (begin, rest) = certificate.split_at(certificate.find("MII").unwrap());
    format!("{begin}!{}", rest.get(1..).unwrap())
}

#[test]
fn ciphers_that_are_too_long_to_be_told_are_named() {
    let Some(stage) = Stage::new() else { return };
    let mut settings = stage.settings("peer");
    settings.ciphers = "HIGH:".repeat(1_000);
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let words = stage.identity(settings).wrap(&theirs.into(), Side::Client).unwrap_err();
    assert!(
        words.starts_with("protocols, ciphers and ciphersuites have more than 4096"),
        "{words}"
    );
}

/// A connection by `socket`.
fn connection(dir: &Path, socket: UnixStream, side: Side) -> Connection {
    let library: &'static Functions = Box::leak(Box::new(Functions::load().unwrap()));
    let manner = Manner::default();
    let order = Order { side, trust: Trust::File, has_more: false, manner };
    let files = ["key", "peer", "ca"].map(|name| std::fs::File::open(dir.join(name)).unwrap());
    let mut contexts = Vec::new();
    let context = Context::get(&mut contexts, library, &order, &files).unwrap();
    Connection::new(context, socket.into(), side).unwrap()
}

/// A session of which the peer and the switch have the other ends.
fn session(dir: &Path, now: Instant) -> (Session, UnixStream, UnixStream, OwnedFd) {
    let [(peer, theirs), (switch, plain)] = [(); 2].map(|()| UnixStream::pair().unwrap());
    let (said, verdict) = messages();
    let connection = connection(dir, theirs, Side::Server);
    (Session::new(connection, plain.into(), verdict, false, now), peer, switch, said)
}

#[test]
fn a_handshake_has_a_minute() {
    let Some(stage) = Stage::new() else { return };
    let (now, mut piece) = (Instant::now(), vec![0; PIECE]);
    let (mut session, _peer, _switch, said) = session(stage.dir.path(), now);
    assert!(session.step(false, &mut piece, now));
    assert_eq!(session.due(), now.checked_add(Duration::from_secs(60)));
    assert!(session.step(false, &mut piece, now + Duration::from_secs(59)));
    assert!(!session.step(false, &mut piece, now + Duration::from_secs(60)));
    let mut words = [0; 64];
    let len = rustix::io::read(&said, &mut words).unwrap();
    assert_eq!(&words[..len], b"-the TLS handshake takes too long");
}

#[test]
fn a_handshake_ends_with_the_one_who_wants_it() {
    let Some(stage) = Stage::new() else { return };
    let (now, mut piece) = (Instant::now(), vec![0; PIECE]);
    let (mut session, _peer, switch, _said) = session(stage.dir.path(), now);
    assert!(session.step(false, &mut piece, now));
    drop(switch);
    assert!(!session.step(true, &mut piece, now));
}

#[test]
fn a_worker_can_do_nothing_but_what_it_is_for() {
    if !has_library() {
        return;
    }
    let (ours, theirs) = messages();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["tests::serves_confined", "--exact", "--ignored", "--nocapture"]);
    let folder = tempfile::tempdir().unwrap();
    command.current_dir(&folder).stdin(theirs).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(command);
    let stage = Stage::of(ours);
    for round in 0..2 {
        let [mut client, mut server] = stage.pair(stage.settings("peer"), stage.settings("peer"));
        let text = "hello".repeat(10_000 * round + 1);
        let (writes, text) = (client.plain.try_clone().unwrap(), text.as_str());
        std::thread::scope(|scope| {
            scope.spawn(move || (&writes).write_all(text.as_bytes()).unwrap());
            server.hears(text);
        });
        server.plain.write_all(b"and you").unwrap();
        client.hears("and you");
    }
    assert!(stage.end_of("peer", "expired")[0].as_ref().unwrap().contains("has expired"));
    stage.put("peer", FOREIGN);
    assert!(stage.end_of("peer", "peer")[0].as_ref().unwrap().contains("refused"));
    drop(stage);
    let output = child.wait_with_output().unwrap();
    let [said, more] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{more}");
}

#[test]
#[ignore = "run by a_worker_can_do_nothing_but_what_it_is_for"]
fn serves_confined() {
    use rustix::process::{Signal, getppid, kill_process, test_kill_process};
    let orders = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let (address, parent) = ("socket", getppid().unwrap());
    let listener = std::os::unix::net::UnixListener::bind(address).unwrap();
    let address = rustix::net::SocketAddrUnix::new(address).unwrap();
    let worker = process::confined().unwrap();
    let refused = |done: Result<(), Errno>| assert_eq!(done, Err(Errno::PERM));
    refused(rustix::net::connect(&socket, &address));
    refused(rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).map(drop));
    let none = rustix::net::SendFlags::empty();
    refused(rustix::net::sendto(&socket, b"", none, &address).map(drop));
    refused(rustix::net::accept(&listener).map(drop));
    refused(test_kill_process(parent));
    refused(kill_process(parent, Signal::CONT));
    refused(rustix::io::fcntl_getfd(&socket).map(drop));
    let [null, ourselves] = ["/dev/null", "/proc/self/exe"];
    let read = rustix::fs::OFlags::RDONLY;
    refused(rustix::fs::open(null, read, rustix::fs::Mode::empty()).map(drop));
    refused(rustix::fs::stat(null).map(drop));
    assert!(Command::new(ourselves).spawn().is_err());
    worker.serve(&orders).unwrap();
}
