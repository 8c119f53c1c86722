//! Classic BPF: the programs that filters of captures are made into.
//!
//! The machine is that of McCanne and Jacobson, "The BSD Packet Filter" (1993), as bpf(4) describes
//! it and libpcap's `bpf_filter` runs it: an accumulator, an index register, 16 words of memory, and
//! jumps that lead forward only. So a program ends after as many steps as it has instructions, at
//! most. A [`Program`] is checked when it is made; nothing that it does to a frame can fail.
//!
//! - `check`: from instructions to operations, or why not
//! - `run`: what operations do

mod check;
mod run;

use std::str::FromStr;

pub use self::run::Outcome;

/// The most instructions of a program. Those of libpcap rarely have a hundred.
pub const MAX_INSTRUCTIONS: usize = 2048;

/// Hexadecimal digits of an instruction as text.
const DIGITS: usize = 16;

/// Words of memory.
const WORDS: usize = 16;

/// An instruction as it is exchanged (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// What it does, and how it gets its operand.
    pub code: u16,
    /// How many instructions are passed over if a comparison is true.
    pub jt: u8,
    /// And if it is not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A program that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProgram {
    /// No instructions, or more than [`MAX_INSTRUCTIONS`].
    #[error("a filter of {0} instructions: expected 1 to {MAX_INSTRUCTIONS}")]
    Length(usize),
    /// An instruction that makes no sense where it is.
    #[error("instruction {index} of the filter (code {code:#06x}): {reason}")]
    Instruction {
        /// Its number, from 0.
        index: usize,
        /// What it was to do.
        code: u16,
        /// Why it cannot.
        reason: &'static str,
    },
    /// Text that is none.
    #[error("the filter is no text of {DIGITS} hexadecimal digits for each instruction")]
    Text,
}

/// What an arithmetic instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
    Lsh,
    Rsh,
}

/// How a conditional jump compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

/// Bytes of the frame that are loaded at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Byte,
    Half,
    Word,
}

/// The second operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    K(u32),
    X,
}

/// A word that is loaded into the accumulator or the index register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Immediate(u32),
    Memory(usize),
    Length,
}

/// An instruction that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// A := frame\[k\]
    LoadAt(Size, u32),
    /// A := frame\[X + k\]
    LoadFromX(Size, u32),
    LoadA(Word),
    LoadX(Word),
    /// X := 4 * (frame\[k\] & 15), the length of an IPv4 header
    LoadHeaderLength(u32),
    StoreA(usize),
    StoreX(usize),
    Calculate(Alu, Operand),
    Negate,
    Jump(usize),
    JumpIf(Test, Operand, u8, u8),
    /// The end, with so many bytes of the frame to be kept.
    Return(u32),
    ReturnA,
    AToX,
    XToA,
}

/// A program that was checked: it ends, and touches nothing but the frame and its own memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Box<[Operation]>);

impl Program {
    /// Checks a program.
    ///
    /// # Errors
    /// An instruction that is unknown, divides by zero, shifts too far, uses memory that is not
    /// there, or jumps out of the program; a program without end.
    pub fn new(instructions: &[Instruction]) -> Result<Self, BadProgram> {
        check::check(instructions).map(Self)
    }

    /// Number of instructions.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "none is empty")]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it takes a frame, of which all bytes are there.
    #[must_use]
    pub fn matches(&self, frame: &[u8]) -> bool {
        self.run(frame, frame.len()) == Outcome::Taken
    }

    /// Runs it on the first bytes of a frame that has `len` bytes. Where it needs more of them it
    /// says so: then it is to be run again on all of them. Bytes that the frame does not have end a
    /// program, which does not take the frame then.
    #[must_use]
    #[inline]
    pub fn run(&self, bytes: &[u8], len: usize) -> Outcome {
        run::run(&self.0, bytes, len)
    }
}

/// The text of a program: for each instruction 16 hexadecimal digits, of which four are its code, two
/// are for each jump, and eight its operand.
#[must_use]
pub fn to_text(instructions: &[Instruction]) -> String {
    let each = instructions.iter();
    each.map(|Instruction { code, jt, jf, k }| format!("{code:04x}{jt:02x}{jf:02x}{k:08x}"))
        .collect()
}

impl FromStr for Program {
    type Err = BadProgram;

    /// Reads and checks a program that [`to_text`] has written.
    fn from_str(text: &str) -> Result<Self, BadProgram> {
        let (digits, rest) = text.as_bytes().as_chunks::<DIGITS>();
        if !rest.is_empty() {
            return Err(BadProgram::Text);
        }
        if digits.len() > MAX_INSTRUCTIONS {
            return Err(BadProgram::Length(digits.len()));
        }
        let instructions = digits.iter().map(|digits| instruction(digits).ok_or(BadProgram::Text));
        Self::new(&instructions.collect::<Result<Vec<_>, _>>()?)
    }
}

fn instruction(digits: &[u8; DIGITS]) -> Option<Instruction> {
    let text = str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    let [a, b, jt, jf, k @ ..] = u64::from_str_radix(text, 16).ok()?.to_be_bytes();
    Some(Instruction { code: u16::from_be_bytes([a, b]), jt, jf, k: u32::from_be_bytes(k) })
}

#[cfg(test)]
mod tests;
