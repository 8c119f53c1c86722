//! What operations do to registers, and what a program says of a frame.

use super::{Alu, Operand, Operation, Size, Test, WORDS, Word};

/// What a program says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It takes it.
    Taken,
    /// It does not.
    Refused,
    /// It needs bytes of it that were not there.
    Unknown,
}

/// A frame, of which the first bytes are there.
#[derive(Clone, Copy)]
struct Frame<'f> {
    bytes: &'f [u8],
    len: usize,
}

impl Frame<'_> {
    /// So many bytes from `at` on as a number; how the program ends where they are not there.
    #[inline(always)]
    fn load(&self, at: u64, size: Size) -> Result<u32, Outcome> {
        let at = usize::try_from(at).map_err(|_| Outcome::Refused)?;
        let rest = self.bytes.get(at..).unwrap_or_default();
        let value = match size {
            Size::Byte => rest.first().copied().map(u32::from),
            Size::Half => rest.first_chunk().map(|bytes| u32::from(u16::from_be_bytes(*bytes))),
            Size::Word => rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)),
        };
        value.ok_or_else(|| self.missing(at, size))
    }

    #[cold]
    fn missing(&self, at: usize, size: Size) -> Outcome {
        let end = at.saturating_add(match size {
            Size::Byte => 1,
            Size::Half => 2,
            Size::Word => 4,
        });
        if end > self.len { Outcome::Refused } else { Outcome::Unknown }
    }
}

/// Registers and memory.
#[derive(Default)]
struct Machine {
    a: u32,
    x: u32,
    memory: [u32; WORDS],
}

impl Machine {
    fn word(&self, word: Word, len: usize) -> u32 {
        match word {
            Word::Immediate(value) => value,
            Word::Memory(slot) => self.memory.get(slot).copied().unwrap_or_default(),
            Word::Length => u32::try_from(len).unwrap_or(u32::MAX),
        }
    }

    fn store(&mut self, slot: usize, value: u32) {
        if let Some(word) = self.memory.get_mut(slot) {
            *word = value;
        }
    }

    #[inline]
    const fn operand(&self, operand: Operand) -> u32 {
        match operand {
            Operand::K(k) => k,
            Operand::X => self.x,
        }
    }

    /// `None` if it divides by zero.
    const fn calculate(&self, alu: Alu, operand: Operand) -> Option<u32> {
        let (a, b) = (self.a, self.operand(operand));
        Some(match alu {
            Alu::Add => a.wrapping_add(b),
            Alu::Sub => a.wrapping_sub(b),
            Alu::Mul => a.wrapping_mul(b),
            Alu::Div => return a.checked_div(b),
            Alu::Mod => return a.checked_rem(b),
            Alu::And => a & b,
            Alu::Or => a | b,
            Alu::Xor => a ^ b,
            Alu::Lsh => {
                if b < u32::BITS {
                    a.wrapping_shl(b)
                } else {
                    0
                }
            }
            Alu::Rsh => {
                if b < u32::BITS {
                    a.wrapping_shr(b)
                } else {
                    0
                }
            }
        })
    }

    #[inline]
    const fn test(&self, test: Test, operand: Operand) -> bool {
        let (a, b) = (self.a, self.operand(operand));
        match test {
            Test::Equal => a == b,
            Test::Greater => a > b,
            Test::GreaterOrEqual => a >= b,
            Test::AnyBit => a & b != 0,
        }
    }
}

/// Runs operations, which were checked, on a frame.
#[inline]
pub(super) fn run(operations: &[Operation], bytes: &[u8], len: usize) -> Outcome {
    steps(operations, Frame { bytes, len }).unwrap_or_else(|end| end)
}

#[inline]
fn steps(operations: &[Operation], frame: Frame<'_>) -> Result<Outcome, Outcome> {
    let mut machine = Machine::default();
    let mut at = 0_usize;
    // Jumps lead forward, so this comes to its end.
    while let Some(operation) = operations.get(at) {
        at = at.saturating_add(1);
        match *operation {
            // What most steps of most filters are, each by itself, so that nothing is decided twice.
            Operation::LoadAt(Size::Byte, k) => machine.a = frame.load(k.into(), Size::Byte)?,
            Operation::LoadAt(Size::Half, k) => machine.a = frame.load(k.into(), Size::Half)?,
            Operation::LoadAt(Size::Word, k) => machine.a = frame.load(k.into(), Size::Word)?,
            Operation::JumpIf(Test::Equal, Operand::K(k), yes, no) => {
                at = at.saturating_add(usize::from(if machine.a == k { yes } else { no }));
            }
            Operation::LoadFromX(size, k) => {
                machine.a = frame.load(u64::from(machine.x).saturating_add(k.into()), size)?;
            }
            Operation::LoadA(word) => machine.a = machine.word(word, frame.len),
            Operation::LoadX(word) => machine.x = machine.word(word, frame.len),
            Operation::LoadHeaderLength(k) => {
                machine.x = (frame.load(k.into(), Size::Byte)? & 0xF).wrapping_mul(4);
            }
            Operation::StoreA(slot) => machine.store(slot, machine.a),
            Operation::StoreX(slot) => machine.store(slot, machine.x),
            Operation::Calculate(alu, operand) => {
                machine.a = machine.calculate(alu, operand).ok_or(Outcome::Refused)?;
            }
            Operation::Negate => machine.a = machine.a.wrapping_neg(),
            Operation::Jump(skip) => at = at.saturating_add(skip),
            Operation::JumpIf(test, operand, yes, no) => {
                let skip = if machine.test(test, operand) { yes } else { no };
                at = at.saturating_add(skip.into());
            }
            Operation::Return(count) => return Ok(taken(count)),
            Operation::ReturnA => return Ok(taken(machine.a)),
            Operation::AToX => machine.x = machine.a,
            Operation::XToA => machine.a = machine.x,
        }
    }
    // No checked program comes here.
    Ok(Outcome::Refused)
}

const fn taken(count: u32) -> Outcome {
    if count == 0 { Outcome::Refused } else { Outcome::Taken }
}
