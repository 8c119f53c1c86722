//! How tables are set: by the bridge's owner, and by controllers.

use flow::{Miss, TableSettings, Tables};
use litemap::LiteMap;
use openflow::message::asynchronous::Unasked;
use openflow::message::stats::table::TableDesc;
use openflow::message::table_mod::{TableMod, Vacancy, VacancyEvent, encode_status};
use openflow::{Field, Subfield, Version};

use crate::bridge::Bridge;
use crate::datapath::Datapath;
use crate::handle::VISIBLE_TABLES;
use crate::monitor::Made;

/// The most rules of a table, as it is said where there is no other limit than memory.
const MAX_ENTRIES: u32 = 1_000_000;

/// Of rules that make room, importance, the time left, and everything else decide.
const EVICTION_FLAGS: u32 = 7;

/// How the owner of a bridge sets a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableConfig {
    /// Its name; controllers cannot give it another one.
    pub name: Option<String>,
    /// The most rules.
    pub limit: Option<usize>,
    /// Whether rules that end by themselves make room for others.
    pub evicts: bool,
    /// By what they match on in these bits, rules that make room are in groups.
    pub groups: Vec<Subfield>,
    /// Those addresses of which a trace says how many bits decide, if not those of IPv4.
    pub prefixes: Option<Vec<Field>>,
}

/// How controllers have set a table.
#[derive(Clone, Debug, Default)]
struct TableState {
    name: Option<String>,
    evicts: bool,
    miss: Miss,
    /// When they want to be told how much room there is, and what they are told next.
    vacancy: Option<(Vacancy, VacancyEvent)>,
}

/// How all tables are set by controllers; those that are not here are as at first.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableStates(LiteMap<u8, TableState>);

/// How much of a table is free, in percent, rounded down; all, where there is no limit.
fn room(tables: &Tables, table: u8) -> u8 {
    let Some(limit) = tables.settings(table).limit else { return 100 };
    let free = limit.saturating_sub(tables.len_of(table)).saturating_mul(100);
    free.checked_div(limit).and_then(|percent| u8::try_from(percent).ok()).unwrap_or(0)
}

impl Bridge {
    /// Has tables be so as their owner wants it. Rules may have to go.
    pub(crate) fn set_tables(
        &mut self,
        before: &LiteMap<u8, TableConfig>,
        datapath: &mut dyn Datapath,
    ) {
        let named = self.settings.tables.iter().filter(|(_, table)| table.name.is_some());
        for (table, _) in named {
            // The name that a controller has given it is forgotten.
            if let Some(state) = self.table_states.0.get_mut(table) {
                state.name = None;
            }
        }
        let tables: Vec<u8> = before.keys().chain(self.settings.tables.keys()).copied().collect();
        tables.into_iter().for_each(|table| self.set_table(table, datapath));
    }

    fn set_table(&mut self, table: u8, datapath: &mut dyn Datapath) {
        let config = self.settings.tables.get(&table).cloned().unwrap_or_default();
        let state = self.table_states.0.get(&table);
        let evicts = config.evicts || state.is_some_and(|state| state.evicts);
        let miss = state.map_or(Miss::Default, |state| state.miss);
        let TableConfig { limit, groups, prefixes, .. } = config;
        let settings = TableSettings { limit, evicts, groups, miss, prefixes };
        if settings == *self.tables.settings(table) {
            return;
        }
        let len = self.tables.len_of(table);
        if settings.evicts && settings.limit.is_some_and(|limit| len > limit) {
            // Which rules go depends on when they were used.
            datapath.flush();
        }
        let outcome = self.tables.set_table(table, settings);
        self.is_dirty = true;
        self.tell_changes(&[Made::unasked(&outcome)], datapath.now());
    }

    /// Sets a table as a controller wants it.
    pub(crate) fn change_table(
        &mut self,
        table: u8,
        wanted: &TableMod,
        datapath: &mut dyn Datapath,
    ) {
        let room = room(&self.tables, table);
        let state = self.table_states.0.entry(table).or_default();
        if wanted.miss != Miss::Default {
            state.miss = wanted.miss;
        }
        state.evicts = wanted.eviction.unwrap_or(state.evicts);
        if let Some(vacancy) = wanted.vacancy {
            let next = |vacancy: Vacancy| {
                if room < vacancy.up { VacancyEvent::Up } else { VacancyEvent::Down }
            };
            let before = state.vacancy.map(|(_, event)| event);
            state.vacancy =
                vacancy.map(|vacancy| (vacancy, before.unwrap_or_else(|| next(vacancy))));
        }
        self.set_table(table, datapath);
    }

    /// The settings of a table, as controllers are told.
    pub(crate) fn table_desc(&self, table: u8) -> TableDesc {
        let state = self.table_states.0.get(&table);
        let vacancy = state.and_then(|state| state.vacancy);
        let room = room(&self.tables, table);
        TableDesc {
            table,
            eviction: state.is_some_and(|state| state.evicts),
            eviction_flags: EVICTION_FLAGS,
            vacancy: vacancy.map(|(Vacancy { down, up }, _)| (down, up, room)),
        }
    }

    /// The name of a table; empty if it has none.
    pub(crate) fn table_name(&self, table: u8) -> &str {
        let config = self.settings.tables.get(&table).and_then(|table| table.name.as_ref());
        let state = self.table_states.0.get(&table).and_then(|table| table.name.as_ref());
        config.or(state).map_or("", String::as_str)
    }

    /// Whether a controller can give a table this name: its owner has given it none, or the same.
    pub(crate) fn may_name_table(&self, table: u8, name: &str) -> bool {
        let config = self.settings.tables.get(&table).and_then(|table| table.name.as_ref());
        config.is_none_or(|own| own == name)
    }

    /// Gives a table this name, if its owner has not given it one.
    pub(crate) fn name_table(&mut self, table: u8, name: &str) {
        let config = self.settings.tables.get(&table);
        if config.is_none_or(|table| table.name.is_none()) && self.table_name(table) != name {
            let name = Some(name.to_owned()).filter(|name| !name.is_empty());
            self.table_states.0.entry(table).or_default().name = name;
        }
    }

    /// The most rules of a table, as controllers are told.
    pub(crate) fn max_entries(&self, table: u8) -> u32 {
        let limit = self.tables.settings(table).limit;
        limit.map_or(MAX_ENTRIES, |limit| u32::try_from(limit).unwrap_or(u32::MAX))
    }

    /// Tells those who want to know it that tables have less room than they wanted, or more again.
    pub(crate) fn tell_room(&mut self) {
        let mut news = Vec::new();
        for (table, state) in &mut self.table_states.0 {
            let Some((Vacancy { down, up }, awaited)) = &mut state.vacancy else { continue };
            let room = room(&self.tables, *table);
            let (event, next) = match room {
                room if room < *down => (VacancyEvent::Down, VacancyEvent::Up),
                room if room > *up => (VacancyEvent::Up, VacancyEvent::Down),
                _ => continue,
            };
            if event == *awaited {
                *awaited = next;
                news.push((*table, event));
            }
        }
        for (table, event) in news {
            let desc = self.table_desc(table);
            for (_, connection) in &mut self.connections {
                let listener = connection.listener(Unasked::TableStatus, event as u32);
                let version = listener.map(|session| session.version);
                if let Some(version) = version.filter(|version| *version >= Version::V14) {
                    connection.outbox.tell(encode_status(event, &desc, version));
                }
            }
        }
    }
}

/// All tables that controllers see.
pub(crate) fn visible() -> impl Iterator<Item = u8> {
    0..VISIBLE_TABLES
}
