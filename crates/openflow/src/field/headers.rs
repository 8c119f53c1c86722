//! Fields by the numbers that stand for them. Each field of each message is looked for, and answers about what
//! tables can do have a hundred thousand of them: they have a place for each number.

use super::table::{ALL, INFO};
use super::{Class, Field};

/// The classes that have fields.
pub(super) const CLASSES: [Class; 8] = [
    Class::NXM_OF,
    Class::NXM_NX,
    Class::OXM_OF,
    Class::OXM_OF_PKT,
    Class::ERICOXM_OF,
    Class::ONFOXM_ET,
    Class::NXOXM_ET,
    Class::NXOXM_NSH,
];

/// Numbers of a class.
const NUMBERS: usize = 128;

/// By class and number, the place of the field among all, and one more; 0: there is none.
static PLACES: [[u8; NUMBERS]; CLASSES.len()] = places();

/// The field that a number stands for.
pub(super) fn find(class: Class, number: u8) -> Option<Field> {
    let of_class = CLASSES.iter().zip(&PLACES).find(|(one, _)| **one == class);
    let place = of_class?.1.get(usize::from(number))?;
    ALL.get(usize::from(*place).checked_sub(1)?).copied()
}

/// Made when this is compiled: what is beyond the bounds does not compile.
#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "at compile time")]
const fn places() -> [[u8; NUMBERS]; CLASSES.len()] {
    let mut places = [[0; NUMBERS]; CLASSES.len()];
    assert!(INFO.len() < u8::MAX as usize, "a place is a byte");
    let mut field = 0;
    while field < INFO.len() {
        let headers = INFO[field].headers;
        let mut at = 0;
        while at < headers.len() {
            let header = &headers[at];
            places[class_at(header.class)][header.number as usize] = (field + 1) as u8;
            at += 1;
        }
        field += 1;
    }
    places
}

/// Where a class is among [`CLASSES`].
#[allow(clippy::indexing_slicing, reason = "at compile time")]
const fn class_at(class: Class) -> usize {
    let mut at = 0;
    while CLASSES[at].class != class.class || CLASSES[at].experimenter != class.experimenter {
        at += 1;
    }
    at
}
