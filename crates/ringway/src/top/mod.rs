//! `ringway top`: what a running switch does, on the whole screen.
//!
//! - [`sample`]: what the switch answers at a moment
//! - [`poll`]: the thread that asks it
//! - [`model`]: rates out of two samples
//! - [`history`]: rates of the last minutes
//! - [`value`], [`column`], [`columns`]: what there is to show of a row, and in which order
//! - [`bonds`], [`mirrors`], [`vdpa`]: what is told of those
//! - [`sheet`]: the rows and columns for which there is room
//! - [`app`]: what the user looks at, and what keys do to it
//! - [`keys`]: keys out of what a terminal sends
//! - [`canvas`], [`draw`], [`detail`], [`help`]: the screen
//! - [`backend`]: what has changed there, as control sequences
//! - [`screen`]: the terminal, taken and given back
//! - [`plain`]: the same as lines, for scripts
//! - [`run`]: waits for keys, samples and signals

mod app;
mod backend;
mod bonds;
mod canvas;
mod column;
mod columns;
mod detail;
mod draw;
mod help;
mod history;
mod keys;
mod mirrors;
mod model;
mod plain;
mod poll;
pub mod run;
mod sample;
mod screen;
mod sheet;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod value;
mod vdpa;

pub use columns::View;
