//! Settings of tables.

use std::fmt::Write as _;

use super::{Bits, Names};
use crate::error::ErrorCode;
use crate::message::flow_mod::ALL_TABLES;
use crate::message::stats::table::TableDesc;
use crate::message::table_mod::{Miss, TableMod, Vacancy, VacancyEvent, decode_status};
use crate::message::{Kind, Raw};

/// By what it is chosen which rules are removed.
const EVICTION: Names = &["OTHER", "IMPORTANCE", "LIFETIME"];

/// Writes what a message about settings of tables says.
pub(super) fn show(text: &mut String, raw: &Raw<'_>) -> Result<(), ErrorCode> {
    match raw.kind {
        Kind::TableMod => change(text, &TableMod::decode(raw.version, raw.body)?),
        Kind::TableStatus => {
            let (event, desc) = decode_status(raw.body)?;
            *text += match event {
                VacancyEvent::Down => " reason=VACANCY_DOWN",
                VacancyEvent::Up => " reason=VACANCY_UP",
            };
            *text += "\ntable_desc:-";
            settings(text, &desc);
        }
        _ => TableDesc::decode_all(raw.body)?.iter().for_each(|desc| settings(text, desc)),
    }
    Ok(())
}

const fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

fn change(text: &mut String, change: &TableMod) {
    let _ = match change.table {
        ALL_TABLES => write!(text, " table_id: ALL_TABLES"),
        table => write!(text, " table_id={table}"),
    };
    *text += match change.miss {
        Miss::Default => "",
        Miss::Controller => ", flow_miss_config=controller",
        Miss::Continue => ", flow_miss_config=continue",
        Miss::Drop => ", flow_miss_config=drop",
    };
    if let Some(eviction) = change.eviction {
        let _ = write!(text, ", eviction={}", on_off(eviction));
    }
    if let Some(flags) = change.eviction_flags {
        let _ = write!(text, ", eviction_flags={}", eviction_flags(flags));
    }
    if let Some(vacancy) = change.vacancy {
        let _ = write!(text, ", vacancy={}", on_off(vacancy.is_some()));
        if let Some(Vacancy { down, up }) = vacancy {
            let _ = write!(text, " vacancy:{down},{up}");
        }
    }
}

fn settings(text: &mut String, desc: &TableDesc) {
    let (eviction, vacancy) = (on_off(desc.eviction), on_off(desc.vacancy.is_some()));
    let flags = eviction_flags(desc.eviction_flags);
    let _ = writeln!(text, "\n  table {}:", desc.table);
    let _ = writeln!(text, "   eviction={eviction} eviction_flags={flags}");
    let _ = write!(text, "   vacancy={vacancy}");
    if let Some((down, up, free)) = desc.vacancy {
        let _ = write!(text, " vacancy_down={down}% vacancy_up={up}% vacancy={free}%");
    }
    text.push('\n');
}

fn eviction_flags(flags: u32) -> String {
    if flags == u32::MAX { "(default)".to_owned() } else { Bits(flags, EVICTION).joined("|") }
}
