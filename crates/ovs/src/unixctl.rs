//! The socket of `ovs-appctl`: JSON-RPC 1.0, of which a request has a command's name as method and
//! its arguments, texts, as parameters (ovs-appctl(8), unixctl).
//!
//! A client has one answer under way: while it does not read, nothing more is read from it.
//!
//! What cannot be answered at once is asked again each time that the server is [run](Server::run).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use eal::unix::Listener;
use ovsdb::Splitter;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde_json::{Value, json};

/// Clients at a time; one more takes the place of the one that came first.
const CLIENTS: usize = 16;

/// The most bytes of a request: the largest known is a packet in hexadecimal digits.
const REQUEST: usize = 1 << 20;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// What a command answers: a text, or what is wrong with it.
pub type Answer = Result<String, String>;

/// The server.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    clients: Vec<Client>,
}

impl Server {
    /// One that serves those who connect to `listener`.
    #[must_use]
    pub const fn new(listener: Listener) -> Self {
        Self { listener, clients: Vec::new() }
    }

    /// What is to be polled, and for what.
    pub fn files(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let clients = self.clients.iter().map(|client| (client.socket.as_fd(), client.interest()));
        std::iter::once((self.listener.as_fd(), PollFlags::IN)).chain(clients)
    }

    /// Whether no answer is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.clients.iter().all(|client| client.output.is_empty())
    }

    /// Serves what has come, without waiting: `answer` is given commands and their arguments, and again
    /// the next time those to which it gives `None`.
    pub fn run(&mut self, mut answer: impl FnMut(&str, &[String]) -> Option<Answer>) {
        // One each time: others have their turn.
        if let Ok(Some(socket)) = self.listener.accept() {
            if self.clients.len() >= CLIENTS {
                self.clients.remove(0);
            }
            self.clients.push(Client {
                socket,
                input: Splitter::default(),
                taken: 0,
                request: None,
                output: Vec::new(),
            });
        }
        self.clients.retain_mut(|client| match client.step(&mut answer) {
            Ok(()) => true,
            Err(reason) => {
                tracing::debug!("control socket of ovs-appctl: {reason}");
                false
            }
        });
    }
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    input: Splitter,
    /// Bytes of the request under way.
    taken: usize,
    /// The request that could not be answered yet.
    request: Option<Value>,
    output: Vec<u8>,
}

impl Client {
    const fn interest(&self) -> PollFlags {
        if self.output.is_empty() { PollFlags::IN } else { PollFlags::OUT }
    }

    /// One read, one request, one write; an error ends the connection.
    fn step(
        &mut self,
        answer: &mut impl FnMut(&str, &[String]) -> Option<Answer>,
    ) -> Result<(), String> {
        if self.output.is_empty() {
            self.read()?;
            if let Some(request) = self.next()? {
                match respond(&request, answer) {
                    Some(response) => self.output = response.to_string().into_bytes(),
                    None => self.request = Some(request),
                }
            }
        }
        self.write()
    }

    /// The request that is to be answered next.
    fn next(&mut self) -> Result<Option<Value>, String> {
        if let Some(request) = self.request.take() {
            return Ok(Some(request));
        }
        let request = self.input.next().map_err(|error| error.to_string())?;
        if request.is_some() {
            self.taken = 0;
        }
        Ok(request)
    }

    fn read(&mut self) -> Result<(), String> {
        let mut chunk = [0; CHUNK];
        match recv(&self.socket, chunk.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err("it has ended".to_owned()),
            Ok((_, count)) => {
                self.taken = self.taken.saturating_add(count);
                if self.taken > REQUEST {
                    return Err(format!("a request of more than {REQUEST} bytes"));
                }
                self.input.push(chunk.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).to_string()),
        }
    }

    fn write(&mut self) -> Result<(), String> {
        if self.output.is_empty() {
            return Ok(());
        }
        match send(&self.socket, &self.output, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => {
                self.output.drain(..count.min(self.output.len()));
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).to_string()),
        }
    }
}

/// The response to a request, if there is one yet.
fn respond(
    request: &Value,
    answer: &mut impl FnMut(&str, &[String]) -> Option<Answer>,
) -> Option<Value> {
    let id = request.get("id").cloned().unwrap_or_default();
    let answered = match arguments(request) {
        Ok((command, arguments)) => answer(command, &arguments)?,
        Err(error) => Err(error),
    };
    // What people read ends with a newline.
    let line =
        |text: String| if text.is_empty() || text.ends_with('\n') { text } else { text + "\n" };
    Some(match answered {
        Ok(text) => json!({"id": id, "result": line(text), "error": null}),
        Err(text) => json!({"id": id, "result": null, "error": line(text)}),
    })
}

fn arguments(request: &Value) -> Result<(&str, Vec<String>), String> {
    let expected = || "expected a method and a list of texts as params".to_owned();
    let command = request.get("method").and_then(Value::as_str).ok_or_else(expected)?;
    let params = request.get("params").and_then(Value::as_array).ok_or_else(expected)?;
    let texts = params.iter().map(|param| param.as_str().map(str::to_owned));
    Ok((command, texts.collect::<Option<_>>().ok_or_else(expected)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_answered_with_text_or_error() {
        let mut answer = |command: &str, arguments: &[String]| match command {
            "echo" => Some(Ok(arguments.join(" "))),
            "later" => None,
            other => Some(Err(format!("\"{other}\" is not a valid command"))),
        };
        let good = json!({"id": 0, "method": "echo", "params": ["a", "b"]});
        let response = json!({"id": 0, "result": "a b\n", "error": null});
        assert_eq!(respond(&good, &mut answer), Some(response));
        assert_eq!(respond(&json!({"method": "later", "params": []}), &mut answer), None);
        let mut respond = |request: &Value| respond(request, &mut answer).unwrap();
        let unknown = json!({"id": 1, "method": "nil", "params": []});
        let error = "\"nil\" is not a valid command\n";
        assert_eq!(respond(&unknown)["error"], error);
        for wrong in
            [json!({}), json!({"method": "echo"}), json!({"method": "echo", "params": [1]})]
        {
            assert!(respond(&wrong)["error"].as_str().unwrap().contains("expected"));
        }
    }
}
