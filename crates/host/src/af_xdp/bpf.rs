//! The system call bpf(2), as far as it is needed: a map of sockets, a program, and the link
//! that holds it on an interface.
//!
//! Each `repr(C)` structure is the beginning of `union bpf_attr` for one command, as
//! `include/uapi/linux/bpf.h` has it; the kernel takes the rest as zero.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::program::{INSTRUCTION, redirect};

/// `enum bpf_cmd`.
const MAP_CREATE: c_long = 0;
const MAP_UPDATE_ELEM: c_long = 2;
const PROG_LOAD: c_long = 5;
const LINK_CREATE: c_long = 28;

/// `BPF_MAP_TYPE_XSKMAP`.
const XSKMAP: u32 = 17;
/// `BPF_PROG_TYPE_XDP`.
const PROGRAM_XDP: u32 = 6;
/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
/// `BPF_F_XDP_HAS_FRAGS`: the program stands frames of several buffers (Linux 5.18).
const HAS_FRAGS: u32 = 1 << 5;
/// Length of a name, with its final NUL (`BPF_OBJ_NAME_LEN`).
const NAME_LEN: usize = 16;
/// What the map and the program are called in listings.
const NAME: [u8; NAME_LEN] = *b"ringway_xdp\0\0\0\0\0";
/// The helper that the program calls demands no licence of it, but one has to be given.
const LICENCE: &[u8] = b"MIT OR Apache-2.0\0";

/// Where a program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// In the interface's driver (`XDP_FLAGS_DRV_MODE`).
    Native,
    /// In the network stack, whatever the driver (`XDP_FLAGS_SKB_MODE`).
    Generic,
}

impl Hook {
    const fn flags(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; NAME_LEN],
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_LEN],
    ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// # Safety
/// `attributes` must be what the command takes, without padding; the memory that it names must
/// be what the command expects there.
unsafe fn bpf<T>(command: c_long, attributes: &T) -> io::Result<c_long> {
    let attributes_at = &raw const *attributes;
    // SAFETY: the kernel reads the size given of `attributes`; the caller vouches for the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes_at, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes a descriptor of what a command has returned.
fn descriptor(number: c_long) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the command has just made this descriptor for us. BPF descriptors are always
    // close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T: ?Sized>(of: &T) -> u64 {
    (&raw const *of).cast::<u8>().addr() as u64
}

/// A map from queue numbers below `queues` to sockets.
pub(super) fn socket_map(queues: u32) -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        map_type: XSKMAP,
        key_size: 4,
        value_size: 4,
        max_entries: queues,
        map_flags: 0,
        inner_map_fd: 0,
        numa_node: 0,
        name: NAME,
    };
    // SAFETY: this is what MAP_CREATE takes; it names no memory.
    descriptor(unsafe { bpf(MAP_CREATE, &attributes)? })
}

/// Makes `socket` the one that gets the frames of `queue`. It leaves the map when it is closed.
pub(super) fn set_socket(
    map: BorrowedFd<'_>,
    queue: u32,
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    let socket = number(socket);
    let attributes = MapUpdate {
        map_fd: number(map),
        padding: 0,
        key: address(&queue),
        value: address(&socket),
        flags: 0,
    };
    // SAFETY: this is what MAP_UPDATE_ELEM takes; key and value are four bytes each, as the map
    // was made with, and outlive the call.
    unsafe { bpf(MAP_UPDATE_ELEM, &attributes)? };
    Ok(())
}

/// Loads the program that redirects frames to the sockets of `map`.
pub(super) fn load(map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // Before Linux 5.18 there are no frames of several buffers, and no such flag.
    load_with(map, HAS_FRAGS).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => load_with(map, 0),
        _ => Err(error),
    })
}

fn load_with(map: BorrowedFd<'_>, flags: u32) -> io::Result<OwnedFd> {
    let program = redirect(map);
    let bytes: &[[u8; INSTRUCTION]] = &program;
    let attributes = ProgramLoad {
        program_type: PROGRAM_XDP,
        instruction_count: u32::try_from(bytes.len()).map_err(io::Error::other)?,
        instructions: address(bytes),
        licence: address(LICENCE),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags,
        name: NAME,
        ifindex: 0,
        expected_attach_type: ATTACH_XDP,
    };
    // SAFETY: this is what PROG_LOAD takes; the instructions are as many as it says, the licence
    // ends with NUL, both outlive the call, and there is no log.
    descriptor(unsafe { bpf(PROG_LOAD, &attributes)? })
}

/// Puts `program` on interface `ifindex`, for as long as the returned link is open: the kernel
/// takes it away when the last descriptor is closed, however the process ends (Linux 5.9).
pub(super) fn attach(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program_fd: number(program),
        ifindex,
        attach_type: ATTACH_XDP,
        flags: hook.flags(),
    };
    // SAFETY: this is what LINK_CREATE takes for XDP; it names no memory.
    descriptor(unsafe { bpf(LINK_CREATE, &attributes)? })
}

const _: () = assert!(size_of::<MapCreate>() == 44 && size_of::<MapUpdate>() == 32);
const _: () = assert!(size_of::<ProgramLoad>() == 72 && size_of::<LinkCreate>() == 16);
