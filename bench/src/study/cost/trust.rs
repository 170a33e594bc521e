//! Whether a verdict on a lesson is allowed: the same gate as a race's.

use crate::study::results::{Cost, LessonCost, Study};
use crate::verdict;

/// What stands against a verdict on this lesson: too few runs, or a plain process that differs from itself. None: nothing.
pub fn doubt(study: &Study<Cost>, lesson: &str) -> Option<String> {
    let of = |cost: &'_ Cost| cost.lessons.iter().find(|found| found.lesson == lesson).cloned();
    let Some(plain) = study.of("process").and_then(of) else {
        return Some("the plain process did not do it, and the others are held against it".into());
    };
    let measured: Vec<LessonCost> = study.measured().filter_map(|(_, cost)| of(cost)).collect();
    let fewest = measured.iter().map(|found| found.ns.n).min().unwrap_or(0);
    verdict::too_few(fewest).or_else(|| match &plain.null_test {
        None => Some("there is no null test, so nobody knows how much of a difference is noise".into()),
        Some(test) => verdict::noise(test),
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
}
