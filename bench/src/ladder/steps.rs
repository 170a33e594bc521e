//! What each step of a ladder costs: the difference of two medians and how sure it is.

use fastrand::Rng;

use super::rungs::{ADDS, SIDE, SIDES};
use crate::results::{Purpose, Sample, Status, Summary};
use crate::stats::percentile::{median, percentile};

/// Redraws per interval, as many as for a ratio's.
const REDRAWS: usize = 10_000;
/// Any fixed number does: the same samples give the same interval.
const SEED: u64 = 20_261_125;

/// One ladder, from the floor up.
#[derive(Clone, Debug, PartialEq)]
pub struct Ladder {
    /// `container` or `vm`.
    pub side: String,
    /// Its steps; the first is the floor.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The rung's name.
    pub name: String,
    /// What it adds to the rung below.
    pub adds: String,
    /// Median from start line to finish line, nanoseconds.
    pub p50_ns: f64,
    /// That, less the median of the rung below, nanoseconds.
    pub cost_ns: f64,
    /// 95% bootstrap interval of the cost; the floor has none.
    pub ci95: Option<[f64; 2]>,
}

impl Step {
    /// Whether the interval leaves zero out: this run can tell that the step costs something.
    pub fn is_told(&self) -> bool {
        self.ci95.is_none_or(|[low, high]| low > 0.0 || high < 0.0)
    }
}

/// The ladders in a results folder of `lab ladder`; none in any other.
pub fn ladders(summary: &Summary, samples: &[Sample]) -> Vec<Ladder> {
    let ladders = SIDES.map(|side| {
        let mut steps: Vec<Step> = Vec::new();
        let mut below: Vec<u64> = Vec::new();
        for rung in &summary.contenders {
            let of = rung.details.get(SIDE).map(String::as_str);
            if rung.status != Status::Measured || !(of == Some(side) || of == Some("both")) {
                continue;
            }
            let times = times(&rung.name, samples);
            let Some(p50_ns) = median(&mut times.clone()) else {
                continue;
            };
            let (cost_ns, ci95) = match steps.last() {
                Some(last) => (p50_ns - last.p50_ns, Some(interval(&times, &below))),
                None => (p50_ns, None),
            };
            steps.push(Step {
                name: rung.name.clone(),
                adds: rung.details.get(ADDS).cloned().unwrap_or_default(),
                p50_ns,
                cost_ns,
                ci95,
            });
            below = times;
        }
        Ladder {
            side: side.into(),
            steps,
        }
    });
    ladders.into_iter().filter(|ladder| ladder.steps.len() > 1).collect()
}

fn times(name: &str, samples: &[Sample]) -> Vec<u64> {
    samples
        .iter()
        .filter(|sample| sample.contender == name && sample.purpose == Purpose::Timed)
        .filter_map(|sample| sample.first_byte_ns?.checked_sub(sample.start_ns))
        .collect()
}

/// The 95% percentile bootstrap interval of the difference of the medians of `above` and `below`.
fn interval(above: &[u64], below: &[u64]) -> [f64; 2] {
    let mut random = Rng::with_seed(SEED);
    let mut draw = |from: &[u64]| {
        let mut drawn: Vec<u64> = (0..from.len()).map(|_| from[random.usize(..from.len())]).collect();
        median(&mut drawn).unwrap_or(f64::NAN)
    };
    let mut differences: Vec<f64> = (0..REDRAWS).map(|_| draw(above) - draw(below)).collect();
    differences.sort_unstable_by(f64::total_cmp);
    let end = |p| percentile(&differences, p).unwrap_or(f64::NAN);
    [end(0.025), end(0.975)]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::examples;

    /// A made-up run of both ladders: each rung with what it adds and its median in nanoseconds.
    pub fn example() -> (Summary, Vec<Sample>) {
        let rungs: [(&str, &str, &str, u64); 6] = [
            ("process", "both", "fork, exec, the program itself", 400_000),
            ("container launcher", "container", "the launcher, container", 900_000),
            ("container +net", "container", "net namespace, loopback up", 1_500_000),
            ("container", "container", "privileges dropped, process 1", 2_100_000),
            ("vm launcher", "vm", "the launcher, vmm", 800_000),
            ("vm", "vm", "the workload", 5_200_000),
        ];
        let racers: Vec<examples::Racer> = rungs.iter().map(|(name, _, _, p50)| (*name, *p50, 0.05)).collect();
        let (mut summary, samples) = examples::race(&racers, 30, &[]);
        for (contender, (_, side, adds, _)) in summary.contenders.iter_mut().zip(rungs) {
            contender.details.insert(SIDE.into(), side.into());
            contender.details.insert(ADDS.into(), adds.into());
        }
        (summary, samples)
    }

    #[test]
    fn steps_add_up_to_the_top() {
        let (summary, samples) = example();
        let found = ladders(&summary, &samples);
        assert_eq!(found.len(), 2);
        for (ladder, rungs) in found.iter().zip([4, 3]) {
            assert_eq!(ladder.steps.len(), rungs, "{}", ladder.side);
            let sum: f64 = ladder.steps.iter().map(|step| step.cost_ns).sum();
            let top = ladder.steps.last().unwrap().p50_ns;
            assert!((sum - top).abs() < 1.0, "{sum} {top}");
            assert_eq!(ladder.steps[0].ci95, None);
            assert!(ladder.steps[1..].iter().all(Step::is_told), "{ladder:?}");
        }
        let (plain, samples) = examples::typical_run();
        assert_eq!(ladders(&plain, &samples), [], "a race is no ladder");
    }

    #[test]
    fn a_step_that_costs_nothing_is_not_told() {
        let same: Vec<u64> = (0..30).map(|i| 1_000 + i * 7 % 13).collect();
        let [low, high] = interval(&same, &same);
        assert!(low <= 0.0 && high >= 0.0, "{low} {high}");
        // By hand: 10 against 4 everywhere is a difference of 6 in every redraw.
        assert_eq!(interval(&[10; 8], &[4; 8]), [6.0, 6.0]);
    }
}
