//! From instructions to operations: nothing that is wrong with a program is found out while it
//! runs.
//!
//! Codes are those of `<net/bpf.h>`: the low three bits are the class of an instruction.

use super::{
    Alu, BadProgram, Instruction, MAX_INSTRUCTIONS, Operand, Operation, Size, Test, WORDS, Word,
};

/// Classes.
const LD: u16 = 0;
const LDX: u16 = 1;
const ST: u16 = 2;
const STX: u16 = 3;
const ALU: u16 = 4;
const JMP: u16 = 5;
const RET: u16 = 6;

/// Sizes of loads.
const W: u16 = 0x00;
const H: u16 = 0x08;
const B: u16 = 0x10;

/// Where loads find their word.
const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const MSH: u16 = 0xA0;

/// A second operand that is the index register.
const X: u16 = 0x08;

/// Makes operations of instructions.
pub(super) fn check(instructions: &[Instruction]) -> Result<Box<[Operation]>, BadProgram> {
    let count = instructions.len();
    if !(1..=MAX_INSTRUCTIONS).contains(&count) {
        return Err(BadProgram::Length(count));
    }
    let numbered = instructions.iter().enumerate();
    let checked = numbered.map(|(index, instruction)| {
        let code = instruction.code;
        let wrong = |reason| BadProgram::Instruction { index, code, reason };
        let operation = operation(*instruction).map_err(wrong)?;
        // How many instructions come after this one.
        let rest = count.saturating_sub(index).saturating_sub(1);
        lands(operation, rest).map_err(wrong)?;
        Ok(operation)
    });
    checked.collect()
}

/// Checks that there is an instruction where another one is expected to follow.
const fn lands(operation: Operation, rest: usize) -> Result<(), &'static str> {
    let farthest = match operation {
        Operation::Return(_) | Operation::ReturnA => return Ok(()),
        Operation::Jump(skip) => skip,
        Operation::JumpIf(_, _, yes, no) => {
            if yes > no {
                yes as usize
            } else {
                no as usize
            }
        }
        _ => 0,
    };
    if farthest < rest { Ok(()) } else { Err("what follows it is outside of the filter") }
}

fn operation(instruction: Instruction) -> Result<Operation, &'static str> {
    let Instruction { code, jt, jf, k } = instruction;
    let unknown = Err("there is no such instruction");
    Ok(match code & 7 {
        LD => load(code & !7, k)?,
        LDX => load_index(code & !7, k)?,
        ST if code == ST => Operation::StoreA(slot(k)?),
        STX if code == STX => Operation::StoreX(slot(k)?),
        ALU => calculate(code & !7, k)?,
        JMP if code == JMP => Operation::Jump(usize::try_from(k).unwrap_or(usize::MAX)),
        JMP => Operation::JumpIf(test(code & !0xF)?, operand(code, k), jt, jf),
        RET if code == RET => Operation::Return(k),
        RET if code == RET | B => Operation::ReturnA,
        7 if code == 0x07 => Operation::AToX,
        7 if code == 0x87 => Operation::XToA,
        _ => return unknown,
    })
}

fn load(how: u16, k: u32) -> Result<Operation, &'static str> {
    let size = match how & 0x18 {
        W => Size::Word,
        H => Size::Half,
        B => Size::Byte,
        _ => return Err("there is no load of this size"),
    };
    Ok(match (how & !0x18, size) {
        (ABS, size) => Operation::LoadAt(size, k),
        (IND, size) => Operation::LoadFromX(size, k),
        (_, Size::Word) => Operation::LoadA(word(how, k)?),
        _ => return Err("there is no load of this kind"),
    })
}

fn load_index(how: u16, k: u32) -> Result<Operation, &'static str> {
    match how == MSH | B {
        true => Ok(Operation::LoadHeaderLength(k)),
        false => word(how, k).map(Operation::LoadX),
    }
}

fn word(how: u16, k: u32) -> Result<Word, &'static str> {
    match how {
        IMM => Ok(Word::Immediate(k)),
        MEM => slot(k).map(Word::Memory),
        LEN => Ok(Word::Length),
        _ => Err("there is no load of this kind"),
    }
}

fn slot(k: u32) -> Result<usize, &'static str> {
    let slot = usize::try_from(k).ok().filter(|slot| *slot < WORDS);
    slot.ok_or("there are 16 words of memory")
}

const fn operand(code: u16, k: u32) -> Operand {
    if code & X == 0 { Operand::K(k) } else { Operand::X }
}

fn calculate(how: u16, k: u32) -> Result<Operation, &'static str> {
    let alu = match how & !X {
        0x00 => Alu::Add,
        0x10 => Alu::Sub,
        0x20 => Alu::Mul,
        0x30 => Alu::Div,
        0x40 => Alu::Or,
        0x50 => Alu::And,
        0x60 => Alu::Lsh,
        0x70 => Alu::Rsh,
        0x80 if how == 0x80 => return Ok(Operation::Negate),
        0x90 => Alu::Mod,
        0xA0 => Alu::Xor,
        _ => return Err("there is no such calculation"),
    };
    let operand = operand(how, k);
    match (alu, operand) {
        (Alu::Div | Alu::Mod, Operand::K(0)) => Err("it divides by zero"),
        (Alu::Lsh | Alu::Rsh, Operand::K(32..)) => Err("it shifts by more than 31 bits"),
        _ => Ok(Operation::Calculate(alu, operand)),
    }
}

const fn test(code: u16) -> Result<Test, &'static str> {
    Ok(match code {
        0x10 => Test::Equal,
        0x20 => Test::Greater,
        0x30 => Test::GreaterOrEqual,
        0x40 => Test::AnyBit,
        _ => return Err("there is no such jump"),
    })
}
