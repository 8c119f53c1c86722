//! What OpenSSL does for one connection. Nothing of it waits.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::event::epoll::EventFlags;

use crate::context::{Bio, Context};
use crate::library::{Functions, count, error, length};
use crate::order::Side;

/// More bytes than the text of a certificate has.
const CERTIFICATE: usize = 64 << 10;

/// What an operation has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// So many bytes.
    Done(usize),
    /// It goes on once the socket is ready for this.
    Wants(EventFlags),
    /// The peer has nothing more to say.
    Closed,
    /// It is over, and why.
    Failed(String),
}

/// `SSL`, at its socket.
pub struct Connection {
    library: &'static Functions,
    pub at: NonNull<c_void>,
    socket: OwnedFd,
}

impl Connection {
    /// One by `socket`, which does not block from now on.
    pub fn new(context: &Context, socket: OwnedFd, side: Side) -> Result<Self, String> {
        let library = context.library;
        rustix::io::ioctl_fionbio(&socket, true).map_err(|error| error.to_string())?;
        // SAFETY: the context is there.
        let at = NonNull::new(unsafe { (library.SSL_new)(context.at.as_ptr()) });
        let connection = Self { library, at: at.ok_or("no memory")?, socket };
        let (at, socket) = (connection.at.as_ptr(), connection.socket.as_raw_fd());
        // SAFETY: the connection is there, and the socket as long as it.
        unsafe {
            if (library.SSL_set_fd)(at, socket) != 1 {
                return Err("no memory".to_owned());
            }
            match side {
                Side::Client => (library.SSL_set_connect_state)(at),
                Side::Server => (library.SSL_set_accept_state)(at),
            }
        }
        Ok(connection)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Goes on with the handshake.
    pub fn shake_hands(&mut self) -> Outcome {
        self.library.forget_errors();
        // SAFETY: the connection is there.
        let result = unsafe { (self.library.SSL_do_handshake)(self.at.as_ptr()) };
        match self.outcome(result) {
            Outcome::Closed => Outcome::Failed("closed during the handshake".to_owned()),
            Outcome::Failed(reason) => Outcome::Failed(self.why_refused().unwrap_or(reason)),
            other => other,
        }
    }

    /// Why the peer's certificate is refused, if it is.
    fn why_refused(&self) -> Option<String> {
        // SAFETY: the connection is there.
        let code = unsafe { (self.library.SSL_get_verify_result)(self.at.as_ptr()) };
        let refused =
            || format!("the peer's certificate is refused: {}", self.library.verdict(code));
        (code != 0).then(refused)
    }

    /// Reads what was said into the begin of `bytes`.
    pub fn read(&mut self, bytes: &mut [u8]) -> Outcome {
        self.library.forget_errors();
        let (into, len) = (bytes.as_mut_ptr(), length(bytes));
        // SAFETY: the connection is there, and `len` bytes may be written there.
        let result = unsafe { (self.library.SSL_read)(self.at.as_ptr(), into, len) };
        self.outcome(result)
    }

    /// Says what is at the begin of `bytes`, which are not empty.
    pub fn write(&mut self, bytes: &[u8]) -> Outcome {
        self.library.forget_errors();
        let (from, len) = (bytes.as_ptr(), length(bytes));
        // SAFETY: the connection is there, and `len` bytes may be read there.
        let result = unsafe { (self.library.SSL_write)(self.at.as_ptr(), from, len) };
        self.outcome(result)
    }

    /// Tells the peer that nothing more is said.
    pub fn shut_down(&mut self) {
        self.library.forget_errors();
        // SAFETY: the connection is there.
        unsafe { (self.library.SSL_shutdown)(self.at.as_ptr()) };
    }

    /// What a result means. Nothing else was called since.
    fn outcome(&self, result: c_int) -> Outcome {
        if result > 0 {
            return Outcome::Done(count(result));
        }
        let system = std::io::Error::last_os_error();
        // SAFETY: the connection is there, and the result is that of its last call.
        match unsafe { (self.library.SSL_get_error)(self.at.as_ptr(), result) } {
            error::WANT_READ => Outcome::Wants(EventFlags::IN),
            error::WANT_WRITE => Outcome::Wants(EventFlags::OUT),
            error::ZERO_RETURN => Outcome::Closed,
            error::SYSCALL if system.raw_os_error() == Some(0) => Outcome::Closed,
            error::SYSCALL => Outcome::Failed(system.to_string()),
            _ => {
                let reason = self.library.reason().unwrap_or_else(|| "unknown error".to_owned());
                Outcome::Failed(format!("TLS: {reason}"))
            }
        }
    }

    /// The certificate of the authority that the peer's certificates end with, as text.
    ///
    /// # Errors
    /// There is none among them.
    pub fn authority(&self) -> Result<Vec<u8>, String> {
        let library = self.library;
        // SAFETY: the connection is there; the chain is its own, and outlives what is done here.
        let last = unsafe {
            let chain = (library.SSL_get_peer_cert_chain)(self.at.as_ptr());
            let last = (library.OPENSSL_sk_num)(chain).saturating_sub(1);
            NonNull::new((library.OPENSSL_sk_value)(chain, last))
        };
        let last = last.ok_or("the peer has no certificate")?.as_ptr();
        // SAFETY: the certificate is there.
        if unsafe { (library.X509_check_issued)(last, last) } != 0 {
            return Err("the peer's certificates do not end with one that is signed by itself, which could \
                        be taken for the CA certificate"
                .to_owned());
        }
        let bio = Bio::new(library)?;
        let mut text = vec![0; CERTIFICATE];
        // SAFETY: all of them are there, and so many bytes may be written.
        let len = unsafe {
            (library.PEM_write_bio_X509)(bio.at.as_ptr(), last);
            (library.BIO_read)(bio.at.as_ptr(), text.as_mut_ptr(), length(&text))
        };
        text.truncate(count(len));
        Ok(text)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: it is there, and nobody else has it. The socket is closed afterwards.
        unsafe { (self.library.SSL_free)(self.at.as_ptr()) };
    }
}
