//! The harness: races the contenders, measures, draws.
//!
//! Read [`compare`] first: it is the whole story on one page. [`launch`] holds the two lines every contender crosses.

pub mod accounting;
pub mod baseline;
pub mod book;
pub mod cgroups;
pub mod charts;
pub mod claims;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod conditions;
pub mod contenders;
pub mod doctor;
pub mod equipment;
pub mod evaluate;
#[cfg(test)]
mod examples;
pub mod explain;
pub mod export;
pub mod host;
pub mod image;
pub mod interrupt;
pub mod ladder;
pub mod launch;
pub mod launchers;
pub mod leftovers;
pub mod memory;
pub mod mistakes;
pub mod modes;
pub mod overhead;
pub mod predict;
pub mod provenance;
pub mod race;
pub mod report;
pub mod restore_cost;
pub mod results;
pub mod schedule;
pub mod series_namespace;
pub mod stats;
pub mod store;
pub mod study;
pub mod table;
pub mod testbed;
pub mod trace;
pub mod verdict;
pub mod words;
