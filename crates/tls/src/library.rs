//! OpenSSL's library, as the system has it: loaded at run time, so that the program runs where it is not
//! installed.

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::ptr::NonNull;

/// The library of OpenSSL 3, by which `libcrypto.so.3` is had, too.
const NAME: &CStr = c"libssl.so.3";

/// Something of OpenSSL's of which the address alone is known here.
pub type Ptr = *mut c_void;

/// Asks for the password of a key.
pub type Password = unsafe extern "C" fn(*mut c_char, c_int, c_int, Ptr) -> c_int;

/// Declares what is called, by the types of `openssl/ssl.h` and its siblings, which are the same in all of
/// OpenSSL 3.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// What is called of it.
        #[allow(non_snake_case, reason = "OpenSSL's names")]
        pub struct Functions {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            fn find(library: NonNull<c_void>) -> Result<Self, String> {
                $(#[allow(non_snake_case, reason = "OpenSSL's names")]
                let $name = symbol(library, concat!(stringify!($name), "\0"))?;)*
                // SAFETY: none of the symbols is null, and the types are those of the header files.
                unsafe {
                    Ok(Self {
                        $($name: std::mem::transmute::<
                            Ptr,
                            unsafe extern "C" fn($($argument),*) $(-> $result)?,
                        >($name),)*
                    })
                }
            }
        }
    };
}

functions! {
    OPENSSL_init_ssl: fn(u64, Ptr) -> c_int;
    TLS_method: fn() -> *const c_void;
    SSL_CTX_new: fn(*const c_void) -> Ptr;
    SSL_CTX_free: fn(Ptr);
    SSL_CTX_ctrl: fn(Ptr, c_int, c_long, Ptr) -> c_long;
    SSL_CTX_set_options: fn(Ptr, u64) -> u64;
    SSL_CTX_set_verify: fn(Ptr, c_int, Ptr);
    SSL_CTX_set_cipher_list: fn(Ptr, *const c_char) -> c_int;
    SSL_CTX_set_ciphersuites: fn(Ptr, *const c_char) -> c_int;
    SSL_CTX_use_certificate: fn(Ptr, Ptr) -> c_int;
    SSL_CTX_use_PrivateKey: fn(Ptr, Ptr) -> c_int;
    SSL_CTX_check_private_key: fn(Ptr) -> c_int;
    SSL_CTX_get_cert_store: fn(Ptr) -> Ptr;
    SSL_CTX_add_client_CA: fn(Ptr, Ptr) -> c_int;
    X509_STORE_add_cert: fn(Ptr, Ptr) -> c_int;
    SSL_new: fn(Ptr) -> Ptr;
    SSL_free: fn(Ptr);
    SSL_set_fd: fn(Ptr, c_int) -> c_int;
    SSL_set_connect_state: fn(Ptr);
    SSL_set_accept_state: fn(Ptr);
    SSL_do_handshake: fn(Ptr) -> c_int;
    SSL_read: fn(Ptr, *mut u8, c_int) -> c_int;
    SSL_write: fn(Ptr, *const u8, c_int) -> c_int;
    SSL_shutdown: fn(Ptr) -> c_int;
    SSL_get_error: fn(Ptr, c_int) -> c_int;
    SSL_get_verify_result: fn(Ptr) -> c_long;
    SSL_get_peer_cert_chain: fn(Ptr) -> Ptr;
    OPENSSL_sk_num: fn(Ptr) -> c_int;
    OPENSSL_sk_value: fn(Ptr, c_int) -> Ptr;
    X509_check_issued: fn(Ptr, Ptr) -> c_int;
    X509_verify_cert_error_string: fn(c_long) -> *const c_char;
    X509_free: fn(Ptr);
    EVP_PKEY_free: fn(Ptr);
    BIO_new_mem_buf: fn(*const u8, c_int) -> Ptr;
    BIO_s_mem: fn() -> *const c_void;
    BIO_new: fn(*const c_void) -> Ptr;
    BIO_read: fn(Ptr, *mut u8, c_int) -> c_int;
    BIO_free: fn(Ptr) -> c_int;
    PEM_read_bio_X509: fn(Ptr, Ptr, Option<Password>, Ptr) -> Ptr;
    PEM_write_bio_X509: fn(Ptr, Ptr) -> c_int;
    PEM_read_bio_PrivateKey: fn(Ptr, Ptr, Option<Password>, Ptr) -> Ptr;
    ERR_get_error: fn() -> c_ulong;
    ERR_peek_last_error: fn() -> c_ulong;
    ERR_clear_error: fn();
    ERR_reason_error_string: fn(c_ulong) -> *const c_char;
}

impl Functions {
    /// Loads it.
    ///
    /// # Errors
    /// It is not there, in words for who wants to use it.
    pub fn load() -> Result<Self, String> {
        // SAFETY: the name ends with a zero byte. Loading runs the library's own start, which is trusted
        // as that of any library that the system gives.
        let library = NonNull::new(unsafe { libc::dlopen(NAME.as_ptr(), libc::RTLD_NOW) });
        let library = library.ok_or_else(missing)?;
        let functions = Self::find(library)?;
        // SAFETY: nothing is asked for but the start of the library, and the errors' texts are its own.
        unsafe { (functions.OPENSSL_init_ssl)(0, std::ptr::null_mut()) };
        Ok(functions)
    }

    /// Forgets what went wrong before.
    pub fn forget_errors(&self) {
        // SAFETY: it takes nothing; the queue is this thread's.
        unsafe { (self.ERR_clear_error)() };
    }

    /// What went wrong first since the errors were forgotten.
    pub fn reason(&self) -> Option<String> {
        // SAFETY: as above; the text is the library's own and is never freed.
        let text = unsafe { (self.ERR_reason_error_string)((self.ERR_get_error)()) };
        text_at(text)
    }

    /// Whether what went wrong last is that a file has no further part: its end, for who reads all of them.
    pub fn is_without_start_line(&self) -> bool {
        // `ERR_LIB_PEM` and `PEM_R_NO_START_LINE`, as an error's number has them.
        const NO_START_LINE: c_ulong = 9 << 23 | 108;
        // SAFETY: it takes nothing; the queue is this thread's.
        unsafe { (self.ERR_peek_last_error)() == NO_START_LINE }
    }

    /// Why a certificate is refused.
    pub fn verdict(&self, code: c_long) -> String {
        // SAFETY: a number is passed; the text is the library's own.
        let text = unsafe { (self.X509_verify_cert_error_string)(code) };
        text_at(text).unwrap_or_else(|| format!("error {code}"))
    }
}

fn text_at(text: *const c_char) -> Option<String> {
    let text = NonNull::new(text.cast_mut())?;
    // SAFETY: it is not null, and what OpenSSL says ends with a zero byte.
    Some(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
}

/// One of its functions; `name` ends with a zero byte.
fn symbol(library: NonNull<c_void>, name: &str) -> Result<Ptr, String> {
    let name = CStr::from_bytes_with_nul(name.as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: the library was loaded and is never unloaded; the name ends with a zero byte.
    let symbol = NonNull::new(unsafe { libc::dlsym(library.as_ptr(), name.as_ptr()) });
    symbol.map(NonNull::as_ptr).ok_or_else(missing)
}

fn missing() -> String {
    // SAFETY: it returns null or text that ends with a zero byte, which is copied at once.
    let reason = text_at(unsafe { libc::dlerror() }).unwrap_or_default();
    format!(
        "TLS needs the library of OpenSSL 3, which cannot be loaded ({reason}): install it (Debian: \
         libssl3, Fedora: openssl-libs)"
    )
}

/// The length of `bytes`, or of the begin that can be told.
pub fn length(bytes: &[u8]) -> c_int {
    c_int::try_from(bytes.len()).unwrap_or(c_int::MAX)
}

/// A count that is none below zero.
pub fn count(value: c_int) -> usize {
    usize::try_from(value).unwrap_or(0)
}

/// For `password`: there is none, and nobody is asked at a terminal.
pub unsafe extern "C" fn no_password(_: *mut c_char, _: c_int, _: c_int, _: Ptr) -> c_int {
    -1
}

/// `SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT`.
pub const VERIFY: c_int = 1 | 2;

/// Numbers of `SSL_CTX_ctrl`.
pub mod ctrl {
    use super::c_int;
    pub const EXTRA_CHAIN_CERT: c_int = 14;
    pub const MODE: c_int = 33;
    pub const SESSION_CACHE_MODE: c_int = 44;
    pub const CLEAR_MODE: c_int = 78;
    pub const MIN_PROTO_VERSION: c_int = 123;
}

/// `SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS`.
pub const MODES: c_long = 1 | 2 | 0x10;

/// `SSL_MODE_AUTO_RETRY`, which is on by itself: one call takes whatever comes until it is something that was said.
/// A peer that renews its keys without end would never let it return.
pub const AUTO_RETRY: c_long = 4;

/// Bits of `SSL_CTX_set_options`.
pub mod option {
    pub const IGNORE_UNEXPECTED_EOF: u64 = 1 << 7;
    pub const NO_TICKET: u64 = 1 << 14;
    pub const NO_COMPRESSION: u64 = 1 << 17;
    pub const NO_SSL3: u64 = 1 << 25;
    pub const NO_TLS1: u64 = 1 << 26;
    pub const NO_TLS1_2: u64 = 1 << 27;
    pub const NO_TLS1_1: u64 = 1 << 28;
    pub const NO_TLS1_3: u64 = 1 << 29;
    pub const NO_RENEGOTIATION: u64 = 1 << 30;
}

/// What `SSL_get_error` says.
pub mod error {
    use super::c_int;
    pub const WANT_READ: c_int = 2;
    pub const WANT_WRITE: c_int = 3;
    pub const SYSCALL: c_int = 5;
    pub const ZERO_RETURN: c_int = 6;
}

/// `TLS1_2_VERSION`.
pub const TLS1_2: c_uint = 0x0303;
