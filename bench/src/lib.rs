//! The harness: races the contenders, measures, draws.

pub mod results;
pub mod stats;
