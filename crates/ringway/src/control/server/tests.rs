use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::thread::JoinHandle;

use eal::time::Time;
use serde_json::json;

use super::super::listener::listen;
use super::*;

/// A server on a thread of its own; `stop` ends it.
struct Running {
    path: PathBuf,
    time: Time,
    stop: UnixStream,
    thread: Option<JoinHandle<usize>>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = listen(&path, eal::Access::default()).unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let quiet = eal::event::EventFd::new().unwrap();
        let time = Time::stopped();
        let alarm = time.alarm().unwrap();
        let thread = std::thread::spawn(move || {
            let mut server = Server::new(listener, limits, alarm, Answers::default());
            server.run(stopped.as_fd(), quiet.as_fd()).unwrap();
            server.connections()
        });
        Self { path, time, stop, thread: Some(thread), _dir: dir }
    }

    fn connect(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        BufReader::new(stream)
    }

    /// Has time go on until nothing more comes from `client`, and returns what did.
    fn outwait(&self, client: &mut BufReader<UnixStream>) -> Vec<u8> {
        let (mut all, mut part) = (Vec::new(), vec![0; 1 << 20]);
        client.get_ref().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            self.time.warp(Limits::default().patience);
            match client.read(&mut part) {
                Ok(0) => return all,
                Ok(count) => all.extend(&part[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        panic!("it is still there");
    }

    /// Ends it and returns how many connections there were.
    fn end(mut self) -> usize {
        self.stop.write_all(b"x").unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

#[derive(Default)]
struct Answers {
    /// For each subscriber what it is to be sent.
    events: BTreeMap<u64, String>,
}

impl Serve for Answers {
    fn handle(&mut self, request: Request) -> Result<Value, Refusal> {
        match request {
            Request::Info {} => Ok(json!({"version": "test"})),
            // A big answer: it does not fit into a socket's buffer.
            Request::ShowFdb {} => Ok(json!("x".repeat(4 << 20))),
            Request::FdbFlush { .. } => {
                self.events.values_mut().for_each(|lines| *lines += "{\"event\":1}\n");
                Ok(json!({}))
            }
            Request::ShowWorkers {} => Ok(json!(self.events.len())),
            other => Err(Refusal::new(Code::NotFound, format!("no {other:?}"))),
        }
    }

    fn subscribe(&mut self, client: u64, _: Vec<Topic>, size: u64) -> Result<Value, Refusal> {
        let lines = "x".repeat(usize::try_from(size).unwrap());
        self.events.insert(client, lines);
        Ok(json!({}))
    }

    fn unsubscribe(&mut self, client: u64) {
        assert!(self.events.remove(&client).is_some());
    }

    fn events(&mut self, client: u64) -> Option<String> {
        let lines = std::mem::take(self.events.get_mut(&client).unwrap());
        (!lines.is_empty()).then_some(lines)
    }

    fn notice(&mut self) {
        unreachable!()
    }

    fn next_turn(&self) -> Option<Duration> {
        None
    }

    fn turn(&mut self) {}
}

fn line(client: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

fn send(client: &mut BufReader<UnixStream>, bytes: &[u8]) {
    client.get_mut().write_all(bytes).unwrap();
}

#[test]
fn requests_are_answered_in_order() {
    let server = Running::start(Limits::default());
    let mut client = server.connect();
    send(&mut client, b"{\"command\":\"info\"}\n{\"command\":\"show-ports\"}\nnonsense\n{\"comm");
    assert_eq!(line(&mut client), "{\"ok\":{\"version\":\"test\"}}\n");
    assert_eq!(line(&mut client), "{\"error\":\"no ShowPorts\",\"code\":\"not-found\"}\n");
    assert!(line(&mut client).starts_with("{\"error\":\"bad request: "));
    send(&mut client, b"and\":\"info\"}\n");
    assert_eq!(line(&mut client), "{\"ok\":{\"version\":\"test\"}}\n");
    assert_eq!(server.end(), 1);
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_answers() {
    let server = Running::start(Limits::default());
    let mut client = server.connect();
    send(&mut client, b"{\"command\":\"show-fdb\"}\n{\"command\":\"info\"}\n");
    client.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(line(&mut client).len(), (4 << 20) + "{\"ok\":\"\"}\n".len());
    assert_eq!(line(&mut client), "{\"ok\":{\"version\":\"test\"}}\n");
    assert_eq!(line(&mut client), "");
}

#[test]
fn an_endless_line_ends_the_connection() {
    let server = Running::start(Limits { line: 1000, ..Limits::default() });
    let mut client = server.connect();
    send(&mut client, &[b' '; 1000]);
    assert_eq!(
        line(&mut client),
        "{\"error\":\"a request may have at most 1000 bytes\",\"code\":\"too-long\"}\n"
    );
    assert_eq!(line(&mut client), "");
    assert_eq!(server.end(), 0);
}

#[test]
fn slow_clients_are_cut_off_when_it_is_time_and_harm_nobody() {
    let server = Running::start(Limits::default());
    let mut half_line = server.connect();
    send(&mut half_line, b"{\"command\"");
    // This one does not read its answer.
    let mut deaf = server.connect();
    send(&mut deaf, b"{\"command\":\"show-fdb\"}\n");
    let mut quiet = server.connect();
    send(&mut quiet, b"{\"command\":\"info\"}\n");
    assert_eq!(line(&mut quiet), "{\"ok\":{\"version\":\"test\"}}\n");
    assert_eq!(server.outwait(&mut half_line), b"");
    // When this one's time is over, the deaf one's is, too; the quiet one may stay.
    let mut later = server.connect();
    send(&mut later, b"{\"command\":\"info\"}\n{");
    assert_eq!(line(&mut later), "{\"ok\":{\"version\":\"test\"}}\n");
    assert_eq!(server.outwait(&mut later), b"");
    let mut rest = Vec::new();
    deaf.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 4 << 20);
    send(&mut quiet, b"{\"command\":\"info\"}\n");
    assert_eq!(line(&mut quiet), "{\"ok\":{\"version\":\"test\"}}\n");
    assert_eq!(server.end(), 1);
}

#[test]
fn one_client_too_many_takes_the_place_of_the_quietest() {
    let server = Running::start(Limits { clients: 2, ..Limits::default() });
    let ask = |client: &mut BufReader<UnixStream>| {
        send(client, b"{\"command\":\"info\"}\n");
        line(client)
    };
    let mut first = server.connect();
    assert!(!ask(&mut first).is_empty());
    let mut second = server.connect();
    assert!(!ask(&mut second).is_empty());
    assert!(!ask(&mut first).is_empty());
    let mut third = server.connect();
    assert!(!ask(&mut third).is_empty());
    assert_eq!(line(&mut second), "");
    assert!(!ask(&mut first).is_empty());
    // Whoever says nothing, as a switch that only looks whether this one lives, harms nobody.
    let mut silent: Vec<_> = (0..3).map(|_| server.connect()).collect();
    assert_eq!(line(&mut silent[0]), "");
    assert!(!ask(&mut first).is_empty() && !ask(&mut third).is_empty());
    assert_eq!(server.end(), 4);
}

#[test]
fn subscribers_are_told_and_a_deaf_one_stays_and_harms_nobody() {
    let server = Running::start(Limits { clients: 2, ..Limits::default() });
    let ask = |client: &mut BufReader<UnixStream>, request: &str| {
        send(client, format!("{{\"command\":{request}}}\n").as_bytes());
        line(client)
    };
    // More than its socket takes, which it does not read.
    let mut deaf = server.connect();
    assert_eq!(ask(&mut deaf, "\"subscribe\",\"drop_rate\":4000000"), "{\"ok\":{}}\n");
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "\"subscribe\",\"drop_rate\":0"), "{\"ok\":{}}\n");
    assert_eq!(ask(&mut client, "\"fdb-flush\""), "{\"ok\":{}}\n");
    assert_eq!(line(&mut client), "{\"event\":1}\n");
    // It may take its time, and answers come between events.
    server.time.warp(Limits::default().patience * 10);
    assert_eq!(ask(&mut client, "\"show-workers\""), "{\"ok\":2}\n");
    // Who has not subscribed makes room first.
    let mut other = server.connect();
    assert_eq!(ask(&mut other, "\"show-workers\""), "{\"ok\":2}\n");
    assert_eq!(line(&mut other), "");
    let mut all = vec![0; 4_000_000];
    deaf.read_exact(&mut all).unwrap();
    assert_eq!(line(&mut deaf), "{\"event\":1}\n");
    drop(deaf);
    let end = Instant::now() + Duration::from_secs(20);
    while ask(&mut client, "\"show-workers\"") != "{\"ok\":1}\n" {
        assert!(Instant::now() < end, "it is still subscribed");
    }
    assert_eq!(server.end(), 1);
}
