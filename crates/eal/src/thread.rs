//! Starting a thread: the standard library has a copy of all that this takes for each kind of work, and here
//! it is one, since the work is in a box.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread that does `work`.
///
/// # Errors
/// There can be no more threads.
pub fn spawn(builder: Builder, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    spawn_boxed(builder, Box::new(work))
}

fn spawn_boxed(builder: Builder, work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    builder.spawn(work)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_thread_has_its_name_and_does_its_work() {
        let (sender, name) = channel();
        let work = move || sender.send(std::thread::current().name().map(str::to_owned)).unwrap();
        let thread = spawn(Builder::new().name("its".to_owned()), work).unwrap();
        thread.join().unwrap();
        assert_eq!(name.recv().unwrap().as_deref(), Some("its"));
    }
}
