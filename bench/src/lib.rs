//! The harness: races the contenders, measures, draws.

pub mod charts;
#[cfg(test)]
mod examples;
pub mod report;
pub mod results;
pub mod stats;
pub mod table;
pub mod verdict;
pub mod words;
