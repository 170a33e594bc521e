//! Whether a verdict on a lesson is allowed: the same gate as a race's, and one more. A null test compares a contender with
//! itself, so it passes where both of its halves wait alike; but a container in a cgroup of its own has another share of a busy
//! processor than a plain process beside its neighbours, and then the ratio tells who was given more, not what work costs.

use crate::study::results::{Cost, LessonCost, Study};
use crate::{verdict, words};

/// Share of the time a program may have been without a processor: as much as the tasks of a whole race may.
const MOST_WAITING: f64 = 0.10;

/// What stands against a verdict on this lesson: too few runs, a plain process that differs from itself, or a program that
/// did not have its processor to itself. None: nothing.
pub fn doubt(study: &Study<Cost>, lesson: &str) -> Option<String> {
    let of = |cost: &'_ Cost| cost.lessons.iter().find(|found| found.lesson == lesson).cloned();
    let Some(plain) = study.of("process").and_then(of) else {
        return Some("the plain process did not do it, and the others are held against it".into());
    };
    let measured: Vec<(&str, LessonCost)> = study
        .measured()
        .filter_map(|(name, cost)| Some((name, of(cost)?)))
        .collect();
    let fewest = measured.iter().map(|(_, found)| found.ns.n).min().unwrap_or(0);
    verdict::too_few(fewest)
        .or_else(|| match &plain.null_test {
            None => Some("there is no null test, so nobody knows how much of a difference is noise".into()),
            Some(test) => verdict::noise(test),
        })
        .or_else(|| waiting(&measured))
}

/// Who was without a processor for longer than a verdict allows.
fn waiting(measured: &[(&str, LessonCost)]) -> Option<String> {
    let percent = |share: f64| words::significant(share * 100.0, 2);
    let waited = measured.iter().filter_map(|(name, found)| {
        let share = found.waited.filter(|&share| share > MOST_WAITING)?;
        Some(format!("{name} {}%", percent(share)))
    });
    let waited: Vec<String> = waited.collect();
    (!waited.is_empty()).then(|| {
        format!(
            "without a processor for more than {}% of the time: {}. Others had it, and how much they had is in the ratio. Try again \
             on a quiet machine.",
            percent(MOST_WAITING),
            waited.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Distribution, NullTest, Provenance};
    use crate::study::results::{Entry, SCHEMA};

    fn study(n: u64, null_test: Option<NullTest>) -> Study<Cost> {
        let lesson = LessonCost {
            lesson: "cpu 1".into(),
            operations: 1,
            ns: Distribution {
                n,
                min: 1,
                p50: 1,
                p90: None,
                p99: None,
                max: 1,
            },
            relative: None,
            exits_per_operation: None,
            waited: Some(0.02),
            null_test,
        };
        let cost = Cost {
            lessons: vec![lesson],
            skipped: Vec::new(),
        };
        Study {
            schema: SCHEMA,
            study: "cost".into(),
            provenance: Provenance::default(),
            contenders: vec![Entry::found("process", cost)],
            notes: Vec::new(),
        }
    }

    fn test(low: f64, high: f64, passed: bool) -> Option<NullTest> {
        Some(NullTest {
            contender: "process".into(),
            ratio: (low + high) / 2.0,
            ci95: [low, high],
            passed,
        })
    }

    #[test]
    fn few_runs_a_failed_and_a_missing_null_test_all_forbid_a_verdict() {
        assert_eq!(doubt(&study(6, test(0.98, 1.03, true)), "cpu 1"), None);
        let said = |n, null| doubt(&study(n, null), "cpu 1").unwrap();
        // However well two runs happen to agree.
        assert!(said(5, test(1.0, 1.0, true)).starts_with("5 runs are too few"));
        assert!(said(20, test(1.05, 1.09, false)).contains("a difference where there is none"));
        assert!(said(20, test(0.6, 1.7, false)).contains("so wide"));
        assert!(said(20, None).contains("no null test"));
        assert!(doubt(&study(20, None), "memory 16").is_some());
    }

    #[test]
    fn whoever_had_no_processor_forbids_a_verdict_though_the_null_test_passed() {
        let mut found = study(20, test(0.98, 1.03, true));
        let mut crun = found.contenders[0].clone();
        crun.name = "crun".into();
        found.contenders.push(crun);
        assert_eq!(doubt(&found, "cpu 1"), None);
        // A plain process that shared its processor with others, while the container's cgroup had one.
        let plain = found.contenders[0].found.as_mut().unwrap();
        plain.lessons[0].waited = Some(0.45);
        let said = doubt(&found, "cpu 1").unwrap();
        assert!(said.contains("process 45%") && !said.contains("crun"), "{said}");
        // An older lab did not ask.
        found.contenders[0].found.as_mut().unwrap().lessons[0].waited = None;
        assert_eq!(doubt(&found, "cpu 1"), None);
    }
}
