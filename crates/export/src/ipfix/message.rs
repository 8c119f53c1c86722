//! Records in messages, behind the templates that tell how to read them (RFC 7011, section 3).

use std::collections::HashMap;

use litemap::LiteMap;

use super::element::{Element, OPTIONS, OPTIONS_TEMPLATE};
use crate::datagram::Datagram;
use crate::wire::Writer;

const VERSION: u16 = 10;

/// The most bytes of a message: with headers of IPv6, UDP and a tunnel it is less than what Ethernet carries.
const MOST: usize = 1_400;

/// Bytes of a message's header.
const HEADER: usize = 16;

/// Sets of templates, and of those of what is told of the one who tells.
const TEMPLATES: u16 = 2;
const OPTIONS_TEMPLATES: u16 = 3;

/// After so many milliseconds templates are told again, since datagrams may be lost (RFC 7011, section 8.4).
const AGAIN: u64 = 600_000;

/// The most observation domains of which it is known which templates were told.
const MAX_DOMAINS: usize = 1_024;

/// The most of which records are counted: a collector takes a count that begins anew for a loss.
const MAX_COUNTED: usize = 65_536;

/// When something is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// By a clock that does not jump, in milliseconds.
    pub now: u64,
    /// In microseconds since 1970.
    pub wall: u64,
}

impl Moment {
    const SECOND: u64 = 1_000_000;

    /// The second that a message is of: no packet was later.
    fn second(self) -> u64 {
        self.wall.div_ceil(Self::SECOND)
    }

    /// How many microseconds before that something was at time `then`.
    pub(super) fn before(self, then: u64) -> u32 {
        let rest = self.second().saturating_mul(Self::SECOND).saturating_sub(self.wall);
        let ago = self.now.saturating_sub(then).saturating_mul(1_000);
        u32::try_from(rest.saturating_add(ago)).unwrap_or(u32::MAX)
    }
}

/// A message that is being written.
#[derive(Debug, Default)]
struct Open {
    domain: u32,
    /// How many records were before it.
    before: u32,
    second: u32,
    sets: Writer,
    records: u32,
}

/// All messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// When each template was told last, by domains.
    templates: LiteMap<u32, LiteMap<u16, u64>>,
    /// How many records were, by domains.
    records: HashMap<u32, u32>,
    open: Open,
    full: Vec<Datagram>,
}

impl Messages {
    /// Takes a record of a domain, which is read by a template of these elements.
    pub(super) fn record(
        &mut self,
        domain: u32,
        (template, elements): (u16, impl FnOnce() -> Vec<Element>),
        record: &[u8],
        moment: Moment,
    ) {
        let of_template = match self.is_due(domain, template, moment.now) {
            true => set(TEMPLATES, |set| {
                let elements = elements();
                set.u16(template).u16(u16::try_from(elements.len()).unwrap_or(u16::MAX));
                elements.iter().for_each(|element| element.specify(set));
            }),
            false => Vec::new(),
        };
        let of_record = set(template, |set| _ = set.bytes(record));
        self.put(domain, [&of_template, &of_record], moment);
    }

    /// Tells of the one who tells that so many messages were not sent, where that was not told for long.
    pub(super) fn reliability(&mut self, process: u32, not_sent: u64, moment: Moment) {
        // That is about no domain.
        const DOMAIN: u32 = 0;
        if !self.is_due(DOMAIN, OPTIONS_TEMPLATE, moment.now) {
            return;
        }
        let of_template = set(OPTIONS_TEMPLATES, |set| {
            // Of the elements the first one says what the other ones are about.
            set.u16(OPTIONS_TEMPLATE).u16(u16::try_from(OPTIONS.len()).unwrap_or(0)).u16(1);
            OPTIONS.iter().for_each(|element| element.specify(set));
        });
        let of_record = set(OPTIONS_TEMPLATE, |set| _ = set.u32(process).u64(not_sent));
        self.put(DOMAIN, [&of_template, &of_record], moment);
    }

    /// What is to be sent.
    pub(super) fn take(&mut self) -> Vec<Datagram> {
        self.end();
        std::mem::take(&mut self.full)
    }

    /// Whether a template is to be told, which it is from now on.
    fn is_due(&mut self, domain: u32, template: u16, now: u64) -> bool {
        if self.templates.len() >= MAX_DOMAINS && !self.templates.contains_key(&domain) {
            // They are told anew.
            self.templates.clear();
        }
        let templates = self.templates.entry(domain).or_default();
        let told = templates.get(&template);
        let is_due = told.is_none_or(|told| now.saturating_sub(*told) >= AGAIN);
        if is_due {
            templates.insert(template, now);
        }
        is_due
    }

    /// Writes what belongs together, with one record, into a message.
    fn put(&mut self, domain: u32, sets: [&[u8]; 2], moment: Moment) {
        let second = u32::try_from(moment.second()).unwrap_or(u32::MAX);
        let len = sets.iter().fold(self.open.sets.len(), |len, set| len.saturating_add(set.len()));
        let is_full = len > MOST.saturating_sub(HEADER);
        if is_full || self.open.domain != domain || self.open.second != second {
            self.end();
        }
        if self.records.len() >= MAX_COUNTED && !self.records.contains_key(&domain) {
            self.records.clear();
        }
        let told = self.records.entry(domain).or_default();
        if self.open.records == 0 {
            self.open = Open { domain, before: *told, second, ..Open::default() };
        }
        *told = told.wrapping_add(1);
        self.open.records = self.open.records.wrapping_add(1);
        sets.iter().for_each(|set| _ = self.open.sets.bytes(set));
    }

    /// The message is full.
    fn end(&mut self) {
        let Open { domain, before, second, sets, records } = std::mem::take(&mut self.open);
        if records == 0 {
            return;
        }
        let sets = sets.into_bytes();
        let len = sets.len().saturating_add(HEADER);
        let mut writer = Writer::default();
        writer.u16(VERSION).u16(u16::try_from(len).unwrap_or(u16::MAX));
        writer.u32(second).u32(before).u32(domain).bytes(&sets);
        self.full.push(Datagram { bytes: writer.into_bytes(), records });
    }
}

/// What `write` writes, as a set of this number.
fn set(number: u16, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    /// Bytes of its own header.
    const HEADER: usize = 4;
    let mut content = Writer::default();
    write(&mut content);
    let len = content.len().saturating_add(HEADER);
    let mut writer = Writer::default();
    writer.u16(number).u16(u16::try_from(len).unwrap_or(u16::MAX)).bytes(&content.into_bytes());
    writer.into_bytes()
}
