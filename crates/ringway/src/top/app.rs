//! What the user looks at, and what keys do to it.

use std::time::Duration;

use super::columns::View;
use super::history::History;
use super::keys::Key;
use super::model::{Model, Snapshot};
use super::sample::Sample;
use super::sheet::{Order, Sheet};

/// Intervals that `+` and `-` go through, in milliseconds.
const INTERVALS: [u64; 9] = [100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];

/// Characters that a filter may have.
const MAX_FILTER: usize = 60;

/// Where the user is in a table.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// By what it is sorted.
    pub order: Order,
    /// The row that is marked, from 0.
    pub selected: usize,
    /// The first row that is seen.
    pub first: usize,
}

/// What is over the table, or in place of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// Nothing.
    Nothing,
    /// The keys.
    Help,
    /// All there is to tell of one row of the view, by what it is called; lines that were scrolled.
    Detail(String, usize),
}

/// What is to happen outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but drawing the screen.
    Draw,
    /// Ask the switch every [`App::interval`].
    Interval,
    /// Draw all of the screen, whatever is there.
    Redraw,
    /// Stop, as other programs do at Ctrl-Z.
    Suspend,
    /// End.
    Quit,
}

/// All of it.
#[derive(Debug)]
pub struct App {
    /// The table.
    pub view: View,
    /// Where the user is, for each of [`View::ALL`].
    pub places: [Place; 7],
    /// Words that rows must have.
    pub filter: String,
    /// The filter while it is being typed.
    pub input: Option<String>,
    /// See [`Over`].
    pub over: Over,
    /// Whether the screen stands still.
    pub paused: bool,
    /// Time between two samples.
    pub interval: Duration,
    /// What the switch said last.
    pub snapshot: Option<Snapshot>,
    /// Why it says nothing now.
    pub lost: Option<String>,
    /// Rows of the table, and lines of a detail, that there was room for when it was drawn last.
    pub page: usize,
    model: Model,
}

impl App {
    /// What is seen at the start.
    pub fn new(view: View, order: Option<Order>, filter: &str, interval: Duration) -> Self {
        let places = View::ALL.map(|other| {
            let by_default = Order { column: other.default_sort(), reversed: false };
            let order = order.filter(|_| other == view).unwrap_or(by_default);
            Place { order, selected: 0, first: 0 }
        });
        Self {
            view,
            places,
            filter: filter.to_owned(),
            input: None,
            over: Over::Nothing,
            paused: false,
            interval,
            snapshot: None,
            lost: None,
            page: 1,
            model: Model::default(),
        }
    }

    /// Takes an answer of the switch.
    pub fn take(&mut self, sample: Sample) {
        self.lost = None;
        if !self.paused {
            self.snapshot = Some(self.model.take(sample));
        }
    }

    /// The rates of a port in the last minutes.
    pub fn history(&self, port: &str) -> Option<&History> {
        self.model.history(port)
    }

    /// Where the user is in the table that is seen.
    pub fn place(&self) -> Place {
        let [ports, workers, queues, bridges, bonds, mirrors, vdpa] = self.places;
        match self.view {
            View::Ports => ports,
            View::Workers => workers,
            View::Queues => queues,
            View::Bridges => bridges,
            View::Bonds => bonds,
            View::Mirrors => mirrors,
            View::Vdpa => vdpa,
        }
    }

    /// The same, to be changed.
    pub fn place_mut(&mut self) -> &mut Place {
        let [ports, workers, queues, bridges, bonds, mirrors, vdpa] = &mut self.places;
        match self.view {
            View::Ports => ports,
            View::Workers => workers,
            View::Queues => queues,
            View::Bridges => bridges,
            View::Bonds => bonds,
            View::Mirrors => mirrors,
            View::Vdpa => vdpa,
        }
    }

    /// What rows must have, while it is typed, too.
    pub fn filter(&self) -> &str {
        self.input.as_deref().unwrap_or(&self.filter)
    }

    /// The table that is seen, in `width` places.
    pub fn sheet(&self, width: usize) -> Option<Sheet> {
        let snapshot = self.snapshot.as_ref()?;
        Some(Sheet::of(snapshot, self.view, self.filter(), self.place().order, width))
    }

    /// Does what a key means.
    pub fn key(&mut self, key: Key) -> Effect {
        match key {
            Key::Ctrl('c') => return Effect::Quit,
            Key::Ctrl('l') => return Effect::Redraw,
            Key::Ctrl('z') => return Effect::Suspend,
            _ => {}
        }
        if self.input.is_some() {
            self.edit(key);
            return Effect::Draw;
        }
        match self.over {
            Over::Help => {
                self.over = Over::Nothing;
                Effect::Draw
            }
            Over::Detail(..) => self.detail_key(key),
            Over::Nothing => self.table_key(key),
        }
    }

    /// A key while a filter is typed.
    fn edit(&mut self, key: Key) {
        let Some(mut text) = self.input.take() else { return };
        match key {
            Key::Enter => {
                self.filter = text.trim().to_owned();
                return;
            }
            Key::Esc => {
                self.filter.clear();
                self.place_mut().selected = 0;
                return;
            }
            Key::Backspace => drop(text.pop()),
            Key::Ctrl('u') => text.clear(),
            Key::Char(c) if text.chars().count() < MAX_FILTER => text.push(c),
            _ => {}
        }
        self.input = Some(text);
        self.place_mut().selected = 0;
    }

    fn detail_key(&mut self, key: Key) -> Effect {
        let page = self.page;
        let Over::Detail(_, scroll) = &mut self.over else { return Effect::Draw };
        match key {
            Key::Up | Key::Char('k') => *scroll = scroll.saturating_sub(1),
            Key::Down | Key::Char('j') => *scroll = scroll.saturating_add(1),
            Key::PageUp => *scroll = scroll.saturating_sub(page),
            Key::PageDown => *scroll = scroll.saturating_add(page),
            Key::Home | Key::Char('g') => *scroll = 0,
            Key::End | Key::Char('G') => *scroll = usize::MAX,
            Key::Esc | Key::Enter | Key::Char('q') | Key::Left => self.over = Over::Nothing,
            key => return self.common_key(key),
        }
        Effect::Draw
    }

    fn table_key(&mut self, key: Key) -> Effect {
        let page = self.page;
        let count = self.sheet(0).map_or(0, |sheet| sheet.rows.len());
        let columns = self.view.titles().len();
        let place = self.place_mut();
        // The rows may have become fewer.
        let at = place.selected.min(count.saturating_sub(1));
        match key {
            Key::Up | Key::Char('k') => place.selected = at.saturating_sub(1),
            Key::Down | Key::Char('j') => place.selected = at.saturating_add(1),
            Key::PageUp => place.selected = at.saturating_sub(page),
            Key::PageDown => place.selected = at.saturating_add(page),
            Key::Home | Key::Char('g') => place.selected = 0,
            Key::End | Key::Char('G') => place.selected = usize::MAX,
            Key::Right | Key::Char('>' | '.') => sort_by(place, (place.order.column + 1) % columns),
            Key::Left | Key::Char('<' | ',') => {
                sort_by(place, (place.order.column + columns - 1) % columns);
            }
            Key::Char('r') => place.order.reversed = !place.order.reversed,
            Key::Char('/') => self.input = Some(self.filter.clone()),
            Key::Enter => self.open(),
            Key::Esc => self.filter.clear(),
            key => return self.common_key(key),
        }
        let place = self.place_mut();
        place.selected = place.selected.min(count.saturating_sub(1));
        Effect::Draw
    }

    /// Keys that mean the same everywhere.
    fn common_key(&mut self, key: Key) -> Effect {
        match key {
            Key::Char('q') => return Effect::Quit,
            Key::Char('?' | 'h') => self.over = Over::Help,
            Key::Char('p' | ' ') => self.paused = !self.paused,
            Key::Char('+' | '=') => return self.change_interval(true),
            Key::Char('-') => return self.change_interval(false),
            Key::Tab => self.show(self.view.index() + 1),
            Key::BackTab => self.show(self.view.index() + View::ALL.len() - 1),
            Key::Char(digit @ '1'..='7') => {
                self.show((digit as usize).saturating_sub('1' as usize));
            }
            _ => {}
        }
        Effect::Draw
    }

    /// Goes to another table, by its number.
    fn show(&mut self, index: usize) {
        if let Some(view) = View::ALL.get(index % View::ALL.len()) {
            self.view = *view;
            self.over = Over::Nothing;
        }
    }

    /// Opens the row that is marked.
    fn open(&mut self) {
        let selected = self.place().selected;
        let sheet = self.sheet(0);
        if let Some((key, _)) = sheet.and_then(|sheet| sheet.rows.into_iter().nth(selected)) {
            self.over = Over::Detail(key, 0);
        }
    }

    /// Samples come less often, or more often.
    fn change_interval(&mut self, slower: bool) -> Effect {
        let now = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        let next = match slower {
            true => INTERVALS.into_iter().find(|interval| *interval > now),
            false => INTERVALS.into_iter().rev().find(|interval| *interval < now),
        };
        if let Some(next) = next {
            self.interval = Duration::from_millis(next);
        }
        Effect::Interval
    }
}

fn sort_by(place: &mut Place, column: usize) {
    place.order = Order { column, reversed: false };
}
