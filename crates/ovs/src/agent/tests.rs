//! An agent with a database that the test plays.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};

use daemon::Options;
use rustix::event::{PollFd, poll};
use serde_json::{Value, json};

use super::*;

/// A database, and the switch whose agent asks it.
struct Stage {
    agent: Agent,
    daemon: Daemon,
    listener: UnixListener,
    server: Option<UnixStream>,
    /// What came and was not looked at yet.
    received: Vec<Value>,
}

impl Stage {
    fn new(dir: &tempfile::TempDir) -> Self {
        let socket = dir.path().join("db.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let settings = Settings {
            remote: Remote::Unix(socket),
            other_remotes: Vec::new(),
            run: dir.path().to_owned(),
            base: State::default(),
            dummies: Dummies::default(),
            time: Time::system(),
            cores: Cores::default(),
            tls: None,
        };
        let daemon = Daemon::start(State::default(), Options::default()).unwrap();
        let agent = Agent::new(settings);
        Self { agent, daemon, listener, server: None, received: Vec::new() }
    }

    /// Has the agent do what there is to do.
    fn run(&mut self) {
        self.agent.run(&mut self.daemon);
    }

    /// The next question of this method, for which the others wait.
    fn question(&mut self, method: &str) -> Value {
        loop {
            let is_it = |message: &Value| message["method"] == method;
            if let Some(at) = self.received.iter().position(is_it) {
                return self.received.remove(at);
            }
            self.run();
            let server = self.server.get_or_insert_with(|| self.listener.accept().unwrap().0);
            let mut bytes = vec![0; 1 << 16];
            let count = server.read(&mut bytes).unwrap();
            let messages = serde_json::Deserializer::from_slice(&bytes[..count]).into_iter();
            self.received.extend(messages.map(Result::unwrap));
        }
    }

    /// Tells the agent something, which it has heard then.
    fn say(&mut self, message: &Value) {
        let server = self.server.as_mut().unwrap();
        server.write_all(message.to_string().as_bytes()).unwrap();
        let fd = self.agent.fd().unwrap();
        poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None).unwrap();
        self.run();
    }

    fn answer(&mut self, question: &Value, result: &Value) {
        self.say(&json!({"id": question["id"], "result": result, "error": null}));
    }

    /// Answers all up to the content of an empty database; the lock is another process's, or not.
    fn open(&mut self, has_lock: bool) {
        let question = self.question("get_schema");
        self.say(&json!({"id": question["id"], "result": null, "error": "unknown method"}));
        let question = self.question("get_schema");
        let schema = json!({"name": "Open_vSwitch", "version": "8.3.1", "tables": {}});
        self.answer(&question, &schema);
        let question = self.question("lock");
        self.answer(&question, &json!({"locked": has_lock}));
        let question = self.question("monitor_cond_since");
        self.answer(&question, &json!([false, "00000000-0000-0000-0000-000000000001", {}]));
    }
}

/// A database server notices that a client was killed only when it looks at its connection.
#[test]
fn it_waits_for_the_lock_of_one_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(&dir);
    stage.open(false);
    assert!(stage.agent.client().session().is_online(), "all was answered");
    assert!(!stage.agent.is_settled(), "another process is the switch");
    stage.say(&json!({"id": null, "method": "locked", "params": ["ovs_vswitchd"]}));
    assert!(stage.agent.is_settled());
    stage.daemon.shutdown();
}

#[test]
fn it_is_settled_at_once_where_nobody_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(&dir);
    assert!(!stage.agent.is_settled());
    stage.open(true);
    assert!(stage.agent.is_settled());
    stage.daemon.shutdown();
}
