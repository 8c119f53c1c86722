//! The XDP program: it hands a frame to the socket of the queue that it arrived on, and leaves
//! it to the kernel where there is none.
//!
//! As C it would be `return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);`. It is
//! written down by hand, since six instructions are no reason to need a compiler for BPF.
//!
//! Facts: Linux `Documentation/bpf/standardization/instruction-set.rst` (RFC 9669),
//! bpf-helpers(7), `include/uapi/linux/bpf.h`.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Instructions in the program.
const COUNT: usize = 6;

/// Bytes of an instruction.
pub(super) const INSTRUCTION: usize = 8;

/// Load a 32-bit word from memory: class LDX, mode MEM, size W.
const LOAD_WORD: u8 = 0x61;
/// Load a 64-bit constant, in two instructions: class LD, mode IMM, size DW.
const LOAD_CONSTANT: u8 = 0x18;
/// Move a constant into a register: class ALU64, operation MOV, source K.
const MOVE_CONSTANT: u8 = 0xB7;
/// Call a helper function: class JMP, operation CALL.
const CALL: u8 = 0x85;
/// Return register 0: class JMP, operation EXIT.
const EXIT: u8 = 0x95;

/// As the source register of [`LOAD_CONSTANT`]: the constant is the descriptor of a map, which
/// the kernel replaces by the map's address (`BPF_PSEUDO_MAP_FD`).
const MAP_DESCRIPTOR: u8 = 1;
/// The helper `bpf_redirect_map` (`BPF_FUNC_redirect_map`).
const REDIRECT_MAP: i32 = 51;
/// Leave the frame to the kernel (`XDP_PASS`).
const PASS: i32 = 2;
/// Where `struct xdp_md` has `rx_queue_index`.
const RX_QUEUE_INDEX: i16 = 16;

/// One instruction.
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    destination: u8,
    source: u8,
    offset: i16,
    constant: i32,
}

impl Instruction {
    const fn new(code: u8, destination: u8, source: u8, offset: i16, constant: i32) -> Self {
        Self { code, destination, source, offset, constant }
    }

    /// As the kernel reads it, in the byte order of the machine. The two registers share a
    /// byte, whose halves change places with the byte order.
    fn encode(self) -> [u8; INSTRUCTION] {
        let registers = if cfg!(target_endian = "little") {
            self.source << 4 | self.destination
        } else {
            self.destination << 4 | self.source
        };
        let [o0, o1] = self.offset.to_ne_bytes();
        let [c0, c1, c2, c3] = self.constant.to_ne_bytes();
        [self.code, registers, o0, o1, c0, c1, c2, c3]
    }
}

/// The program, for a map of sockets (`BPF_MAP_TYPE_XSKMAP`).
pub(super) fn redirect(sockets: BorrowedFd<'_>) -> [[u8; INSTRUCTION]; COUNT] {
    let map = sockets.as_raw_fd();
    [
        // r2 = r1->rx_queue_index: r1 is the context, r2 the helper's second argument, the key.
        Instruction::new(LOAD_WORD, 2, 1, RX_QUEUE_INDEX, 0),
        // r1 = the map, the helper's first argument; the second half is the constant's upper
        // part.
        Instruction::new(LOAD_CONSTANT, 1, MAP_DESCRIPTOR, 0, map),
        Instruction::new(0, 0, 0, 0, 0),
        // r3 = XDP_PASS, the third argument: what to return where the map has no such key.
        Instruction::new(MOVE_CONSTANT, 3, 0, 0, PASS),
        // r0 = bpf_redirect_map(r1, r2, r3)
        Instruction::new(CALL, 0, 0, 0, REDIRECT_MAP),
        // return r0
        Instruction::new(EXIT, 0, 0, 0, 0),
    ]
    .map(Instruction::encode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_bytes_are_those_that_a_compiler_makes() {
        // SAFETY: the number is only looked at.
        let bytes = redirect(unsafe { BorrowedFd::borrow_raw(0x0102) });
        assert_eq!(
            bytes,
            [
                [0x61, 0x12, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00],
                [0x18, 0x11, 0x00, 0x00, 0x02, 0x01, 0x00, 0x00],
                [0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
                [0xb7, 0x03, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00],
                [0x85, 0x00, 0x00, 0x00, 0x33, 0x00, 0x00, 0x00],
                [0x95, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
            ]
        );
    }
}
