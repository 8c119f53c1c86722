//! Bonds: a row for each member.

use super::column::Column;
use super::columns::{RATE, column, link_of, rate};
use super::detail::{Line, paragraph, table_lines};
use super::model::{PortRow, Rates};
use super::sample::Sample;
use super::sheet::{Row, contains};
use super::value::{Value, short};
use crate::control::protocol::{Bond, BondMember};
use crate::show::bonds::{lacp, state};
use crate::table::{Align, Table, Tone, approximate, count};

/// A member of a bond; a bond without members has a row, too.
#[derive(Clone, Debug)]
pub struct BondRow {
    /// As the switch tells of the bond.
    pub bond: Bond,
    /// As it tells of the member.
    pub member: Option<BondMember>,
    /// From the member's port into the switch.
    pub rx: Option<Rates>,
    /// From the switch to it.
    pub tx: Option<Rates>,
}

/// The rows of all bonds.
pub fn rows(sample: &Sample, ports: &[PortRow]) -> Vec<BondRow> {
    let all = sample.bonds.bonds.iter().flat_map(|bond| {
        let row = |member: Option<&BondMember>| {
            let port =
                member.and_then(|member| ports.iter().find(|row| row.port.name == member.name));
            let (rx, tx) = (port.and_then(|row| row.rx), port.and_then(|row| row.tx));
            BondRow { bond: bond.clone(), member: member.cloned(), rx, tx }
        };
        let none = bond.members.is_empty().then(|| row(None));
        bond.members.iter().map(move |member| row(Some(member))).chain(none)
    });
    all.collect()
}

impl BondRow {
    fn name(&self) -> &str {
        self.member.as_ref().map_or("", |member| member.name.as_str())
    }
}

impl Row for BondRow {
    fn key(&self) -> String {
        format!("{}/{}", self.bond.name, self.name())
    }

    fn has(&self, word: &str) -> bool {
        let is_up = self.member.as_ref().map(|member| member.link_up);
        let texts = [&self.bond.name, &self.bond.bridge];
        texts.into_iter().any(|text| contains(text, word))
            || contains(self.name(), word)
            || is_up.is_some_and(|is_up| word == if is_up { "up" } else { "down" })
    }
}

fn of_member(row: &BondRow, value: impl Fn(&BondMember) -> Value) -> Value {
    row.member.as_ref().map_or_else(|| Value::text("-"), value)
}

fn part(row: &BondRow) -> Value {
    let share = row.member.as_ref().map(|member| approximate(member.share as u64) / 2.56);
    Value::Percent(share)
}

/// What is known of its partner by LACP.
fn partner(row: &BondRow) -> Value {
    let lacp = row.member.as_ref().and_then(|member| member.lacp.as_ref());
    lacp.map_or_else(
        || Value::text("-"),
        |lacp| {
            let tone = if lacp.in_use { Tone::Good } else { Tone::Bad };
            Value::Text(lacp.state.clone(), tone)
        },
    )
}

/// Columns of members of bonds.
pub const BONDS: &[Column<BondRow>] = &[
    column("bond", 99, 8, |row| Value::text(&row.bond.name)),
    column("member", 98, 8, |row| of_member(row, |member| Value::text(&member.name))),
    column("link", 97, 4, |row| of_member(row, |member| link_of(member.link_up))),
    column("state", 96, 7, |row| {
        of_member(row, |member| {
            let (text, tone) = state(&row.bond, member);
            Value::Text(text.to_owned(), tone)
        })
    }),
    column("share", 95, 4, part),
    column("lacp", 94, 9, partner),
    column("rx pps", 93, RATE, |row| rate(row.rx, |rx| rx.packets)),
    column("tx pps", 92, RATE, |row| rate(row.tx, |tx| tx.packets)),
    column("failures", 91, 5, |row| {
        Value::Troubles(row.member.as_ref().map_or(0, |member| member.failures))
    }),
    column("mode", 90, 13, |row| Value::text(row.bond.mode.to_string())),
    column("rx b/s", 80, RATE, |row| rate(row.rx, |rx| rx.bits)),
    column("tx b/s", 79, RATE, |row| rate(row.tx, |tx| tx.bits)),
    column("dropped", 78, RATE, |row| {
        Value::Troubles(row.member.as_ref().map_or(0, |member| member.inactive_drops))
    }),
    column("bridge", 77, 7, |row| Value::text(&row.bond.bridge)),
];

/// All there is to tell of the bond of a row.
pub fn detail(row: &BondRow, width: usize) -> Vec<Line> {
    let bond = &row.bond;
    let active = bond.active.as_deref().unwrap_or("none");
    let facts = format!(
        "bridge {}, active {active}, which has changed {} times; {} of 256 parts of the traffic were \
         moved for their load",
        bond.bridge,
        count(bond.active_changes),
        count(bond.moved)
    );
    let mut lines = vec![Line::heading(format!("bond {}, {}", bond.name, bond.mode))];
    lines.extend(paragraph(&facts, width));
    lines.extend(lacp(bond).into_iter().flat_map(|lacp| paragraph(&lacp, width)));
    lines.push(Line::plain(""));
    let right = Align::Right;
    let mut table = Table::new(&[
        ("member", Align::Left),
        ("state", Align::Left),
        ("share", right),
        ("failures", right),
        ("dropped", right),
        ("LACP rx", right),
        ("LACP tx", right),
        ("bad", right),
    ]);
    for member in &bond.members {
        let lacp = |take: fn(&crate::control::protocol::MemberLacp) -> u64| {
            member.lacp.as_ref().map_or_else(|| "-".to_owned(), |lacp| count(take(lacp)))
        };
        table.row(vec![
            member.name.as_str().into(),
            state(bond, member).0.into(),
            format!("{}%", short(approximate(member.share as u64) / 2.56)).into(),
            count(member.failures).into(),
            count(member.inactive_drops).into(),
            lacp(|lacp| lacp.received).into(),
            lacp(|lacp| lacp.sent).into(),
            lacp(|lacp| lacp.bad).into(),
        ]);
    }
    lines.extend(table_lines(&table, Tone::Plain));
    lines
}
