//! Statistics: from samples to figures that can be checked by hand.
//!
//! Start-up times are skewed: a floor the machine cannot beat and a tail of everything else that happened. So the lab
//! reports order statistics, which no single outlier can move far ([`percentile`]), compares medians by their ratio
//! with an interval that assumes no distribution ([`bootstrap`]), and lays a typical run together from the medians of
//! its marks ([`phases`](mod@phases)). No sample is ever dropped as an outlier.

pub mod bootstrap;
pub mod percentile;
pub mod phases;

pub use bootstrap::{
    FEWEST_FOR_AN_INTERVAL, NULL_TOLERANCE, NULL_WIDEST, compare, narrow_enough, null_test, of_medians,
    shows_no_difference,
};
pub use percentile::distribution;
pub use phases::{FINISH_LINE, phases};
