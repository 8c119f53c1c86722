//! Filter expressions, as tcpdump has them, made into programs by the system's libpcap.
//!
//! The library is loaded when it is wanted: a program that never makes a filter runs without.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::ptr::NonNull;

use crate::bpf::{Instruction, MAX_INSTRUCTIONS};

/// Names of the library: Debian's, everybody else's, and that of the development package.
const NAMES: [&CStr; 3] = [c"libpcap.so.0.8", c"libpcap.so.1", c"libpcap.so"];

/// `DLT_EN10MB`: frames begin with an Ethernet header.
const ETHERNET: c_int = 1;

/// More bytes than a frame has.
const SNAPLEN: c_int = 262_144;

/// `PCAP_NETMASK_UNKNOWN`.
const NO_NETMASK: u32 = u32::MAX;

/// Why a filter cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The library is not there.
    #[error(
        "filters need libpcap, which cannot be loaded ({0}): install it (Debian: libpcap0.8, Fedora: \
         libpcap), or capture without a filter"
    )]
    Missing(String),
    /// It does not understand the expression.
    #[error("filter '{filter}': {reason}; see pcap-filter(7)")]
    Filter {
        /// The expression.
        filter: String,
        /// What libpcap says.
        reason: String,
    },
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawInstruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// `struct bpf_program`.
#[repr(C)]
struct RawProgram {
    len: c_uint,
    instructions: *mut RawInstruction,
}

/// `pcap_t`.
type Handle = c_void;

type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut Handle;
type Close = unsafe extern "C" fn(*mut Handle);
type Compile =
    unsafe extern "C" fn(*mut Handle, *mut RawProgram, *const c_char, c_int, u32) -> c_int;
type FreeCode = unsafe extern "C" fn(*mut RawProgram);
type GetError = unsafe extern "C" fn(*mut Handle) -> *mut c_char;

/// The library. It stays loaded to the end of the process.
#[derive(Clone, Copy)]
pub struct Libpcap {
    open_dead: OpenDead,
    close: Close,
    compile: Compile,
    free_code: FreeCode,
    get_error: GetError,
    #[cfg(test)]
    filter: unsafe extern "C" fn(*const RawInstruction, *const u8, c_uint, c_uint) -> c_uint,
}

impl fmt::Debug for Libpcap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libpcap").finish_non_exhaustive()
    }
}

impl Libpcap {
    /// Loads it.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn load() -> Result<Self, Error> {
        // SAFETY: the names end with a zero byte. Loading runs the library's own start, which is
        // trusted as that of any library that the system gives.
        let load =
            |name: &&CStr| NonNull::new(unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) });
        let library = NAMES.iter().find_map(load);
        let library = library.ok_or_else(|| Error::Missing(last_error()))?;
        let symbol = |name: &CStr| {
            // SAFETY: the library was loaded and is never unloaded; the name ends with a zero byte.
            let symbol = NonNull::new(unsafe { libc::dlsym(library.as_ptr(), name.as_ptr()) });
            symbol.map(NonNull::as_ptr).ok_or_else(|| Error::Missing(last_error()))
        };
        let open_dead = symbol(c"pcap_open_dead")?;
        let close = symbol(c"pcap_close")?;
        let compile = symbol(c"pcap_compile")?;
        let free_code = symbol(c"pcap_freecode")?;
        let get_error = symbol(c"pcap_geterr")?;
        #[cfg(test)]
        let filter = symbol(c"bpf_filter")?;
        // SAFETY: none of the symbols is null; the types are those of pcap/pcap.h and pcap/bpf.h,
        // which have been the same since libpcap 1.0.
        unsafe {
            Ok(Self {
                open_dead: std::mem::transmute::<*mut c_void, OpenDead>(open_dead),
                close: std::mem::transmute::<*mut c_void, Close>(close),
                compile: std::mem::transmute::<*mut c_void, Compile>(compile),
                free_code: std::mem::transmute::<*mut c_void, FreeCode>(free_code),
                get_error: std::mem::transmute::<*mut c_void, GetError>(get_error),
                #[cfg(test)]
                filter: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(
                        *const RawInstruction,
                        *const u8,
                        c_uint,
                        c_uint,
                    ) -> c_uint,
                >(filter),
            })
        }
    }

    /// Makes a program of an expression as in pcap-filter(7), for Ethernet frames. An empty one
    /// takes all frames.
    ///
    /// # Errors
    /// [`Error::Filter`].
    pub fn compile(&self, filter: &str) -> Result<Vec<Instruction>, Error> {
        let wrong = |reason: String| Error::Filter { filter: filter.to_owned(), reason };
        let text = CString::new(filter).map_err(|_| wrong("it has a zero byte".to_owned()))?;
        // SAFETY: numbers alone are passed.
        let handle = NonNull::new(unsafe { (self.open_dead)(ETHERNET, SNAPLEN) });
        let handle = handle.ok_or_else(|| wrong("no memory".to_owned()))?;
        let compiled = self.compile_on(handle, &text);
        // SAFETY: the handle came from `pcap_open_dead` and is not used any more.
        unsafe { (self.close)(handle.as_ptr()) };
        compiled.map_err(wrong)
    }

    fn compile_on(&self, handle: NonNull<Handle>, text: &CStr) -> Result<Vec<Instruction>, String> {
        let mut program = RawProgram { len: 0, instructions: std::ptr::null_mut() };
        // SAFETY: the handle is open, `program` is to be written, and the text ends with a zero byte.
        let status = unsafe {
            (self.compile)(handle.as_ptr(), &raw mut program, text.as_ptr(), 1, NO_NETMASK)
        };
        if status != 0 {
            // SAFETY: the handle is open; what it returns is text in it that ends with a zero byte.
            let error = unsafe { CStr::from_ptr((self.get_error)(handle.as_ptr())) };
            return Err(error.to_string_lossy().into_owned());
        }
        let count = usize::try_from(program.len).unwrap_or(usize::MAX);
        let is_long = count > MAX_INSTRUCTIONS || program.instructions.is_null();
        let instructions = if is_long {
            Vec::new()
        } else {
            // SAFETY: the compiler has made so many instructions there, which is not null.
            let raw = unsafe { std::slice::from_raw_parts(program.instructions, count) };
            raw.iter().map(Instruction::from).collect()
        };
        // SAFETY: the program was made by `pcap_compile` and is not used any more.
        unsafe { (self.free_code)(&raw mut program) };
        match instructions.is_empty() {
            true => Err(format!("it takes {count} instructions, and may take {MAX_INSTRUCTIONS}")),
            false => Ok(instructions),
        }
    }

    /// What the library's own interpreter says of a frame.
    #[cfg(test)]
    pub(crate) fn run(&self, program: &[Instruction], frame: &[u8]) -> u32 {
        let raw: Vec<RawInstruction> = program.iter().map(RawInstruction::from).collect();
        let len = c_uint::try_from(frame.len()).unwrap();
        // SAFETY: the program was checked by the caller, and the frame has `len` bytes.
        unsafe { (self.filter)(raw.as_ptr(), frame.as_ptr(), len, len) }
    }
}

impl From<&RawInstruction> for Instruction {
    fn from(raw: &RawInstruction) -> Self {
        let RawInstruction { code, jt, jf, k } = *raw;
        Self { code, jt, jf, k }
    }
}

#[cfg(test)]
impl From<&Instruction> for RawInstruction {
    fn from(instruction: &Instruction) -> Self {
        let Instruction { code, jt, jf, k } = *instruction;
        Self { code, jt, jf, k }
    }
}

/// What dlopen(3) says went wrong.
fn last_error() -> String {
    // SAFETY: it returns null or text that ends with a zero byte, which is copied at once.
    let text = NonNull::new(unsafe { libc::dlerror() });
    text.map_or_else(
        || "unknown error".to_owned(),
        // SAFETY: as above, and not null.
        |text| unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
impl Libpcap {
    /// The library, for a test, which does without where it is not there; but not with `CI=true`.
    pub(crate) fn for_test() -> Option<Self> {
        let is_needed = std::env::var_os("CI").is_some_and(|value| value == "true");
        let library = Self::load();
        assert!(library.is_ok() || !is_needed, "{library:?}");
        library.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_told_in_the_words_of_libpcap() {
        let Some(libpcap) = Libpcap::for_test() else { return };
        let error = libpcap.compile("tcp prt 80").unwrap_err().to_string();
        assert!(error.starts_with("filter 'tcp prt 80': ") && error.contains("syntax"), "{error}");
        let error = libpcap.compile("tcp\0").unwrap_err().to_string();
        assert!(error.contains("zero byte"), "{error}");
        let error = Error::Missing("not found".to_owned()).to_string();
        assert!(error.contains("libpcap0.8"), "{error}");
    }
}
