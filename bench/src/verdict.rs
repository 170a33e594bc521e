//! The verdict: one sentence, or why there is none.
//!
//! A verdict needs a null test that passed, enough runs for an interval, and two sides that ran. Without one of them
//! the sentence says which is missing.

use crate::results::{Comparison, Contender, NullTest, Status, Summary};
use crate::stats::{self, FEWEST_FOR_AN_INTERVAL, NULL_WIDEST};
use crate::words::{self, Difference};

/// The answer to the lab's question in one sentence, from the data alone.
pub fn sentence(summary: &Summary) -> String {
    if let Some(obstacle) = obstacle(summary) {
        return format!("No verdict: {obstacle}");
    }
    let (vm, container) = (find(summary, "vm"), find(summary, "container"));
    if let (Some(vm), Some(container)) = (vm, container)
        && ran(vm)
        && ran(container)
    {
        let Some(found) = words::comparison(summary, "vm", "container") else {
            return "No verdict: this run did not compare vm with container.".to_string();
        };
        let against_crun = words::comparison(summary, "vm", "crun").map(|found| match words::difference(&found) {
            Difference::Apart => format!(
                "; the VM takes {} times as long as crun ({})",
                words::ratio(found.ratio),
                words::interval(&found)
            ),
            Difference::Alike => format!("; the VM is as fast as crun: {}", undecided(&found)),
            Difference::Unknown => format!(
                "; the VM and crun cannot be told apart by this run: {}",
                undecided(&found)
            ),
        });
        return format!(
            "{}{}. The VM's figures hold for the KVM backend {}{}.",
            compared(&found),
            against_crun.unwrap_or_default(),
            summary.provenance.kvm_backend,
            if summary.provenance.emulated {
                " on an emulated CPU"
            } else {
                ""
            }
        );
    }
    let missing = ["vm", "container"]
        .into_iter()
        .filter_map(|name| why_missing(summary, name));
    let missing = missing.collect::<Vec<_>>().join(" ");
    let rest = ["vm", "container"]
        .into_iter()
        .find_map(|name| words::comparison(summary, name, "process"))
        .map(|found| format!(" {}.", compared(&found)));
    format!(
        "No verdict on VM against container: {missing}{}",
        rest.unwrap_or_default()
    )
}

/// What stands against any verdict at all.
pub(crate) fn obstacle(summary: &Summary) -> Option<String> {
    let measured: Vec<_> = summary.contenders.iter().filter(|contender| ran(contender)).collect();
    if measured.is_empty() {
        return Some("no contender could run here.".to_string());
    }
    let fewest = measured
        .iter()
        .filter_map(|contender| contender.startup_ns.map(|found| found.n))
        .min()?;
    too_few(fewest).or_else(|| match &summary.null_test {
        None => Some("the run has no null test, so nobody knows how much of a difference is noise.".to_string()),
        Some(test) => noise(test),
    })
}

/// So many runs are too few for an interval, and so for a verdict.
pub(crate) fn too_few(runs: u64) -> Option<String> {
    (runs < FEWEST_FOR_AN_INTERVAL).then(|| {
        format!(
            "{runs} {} too few for a 95% interval. Run at least {FEWEST_FOR_AN_INTERVAL} of each (--runs).",
            if runs == 1 { "run is" } else { "runs are" }
        )
    })
}

/// A null test that did not pass: the machine was too noisy for a verdict.
pub(crate) fn noise(test: &NullTest) -> Option<String> {
    if test.passed {
        return None;
    }
    let [low, high] = test.ci95;
    let found = format!(
        "the machine is too noisy. {} raced against itself came out at {:.3} times its own time \
         (95% {low:.3} to {high:.3})",
        test.contender, test.ratio
    );
    // A difference where there is none is the graver of the two.
    let why = if stats::shows_no_difference(test.ci95) {
        format!(", an interval so wide that a contender {NULL_WIDEST} times as slow could go unnoticed")
    } else {
        ", a difference where there is none: 1 is the truth".to_string()
    };
    Some(format!("{found}{why}. Quieten the machine, or raise --runs."))
}

fn compared(found: &Comparison) -> String {
    let (a, b) = (words::spoken(&found.a), words::spoken_within(&found.b));
    match words::difference(found) {
        Difference::Apart => format!(
            "{a} takes {} times as long to start as {b} here ({})",
            words::ratio(found.ratio),
            words::interval(found)
        ),
        Difference::Alike => format!("{a} and {b} start equally fast here: {}", undecided(found)),
        Difference::Unknown => format!("{a} and {b} cannot be told apart by this run: {}", undecided(found)),
    }
}

/// A ratio whose interval contains 1, with decimals enough to see on which sides of 1 its ends lie.
fn undecided(found: &Comparison) -> String {
    let [low, high] = found.ci95;
    format!("ratio {:.2} (95% {low:.2}–{high:.2})", found.ratio)
}

fn find<'a>(summary: &'a Summary, name: &str) -> Option<&'a Contender> {
    summary.contenders.iter().find(|contender| contender.name == name)
}

fn ran(contender: &Contender) -> bool {
    contender.status == Status::Measured && contender.startup_ns.is_some()
}

fn why_missing(summary: &Summary, name: &str) -> Option<String> {
    match find(summary, name) {
        None => Some(format!("{name} was not asked for.")),
        Some(contender) if ran(contender) => None,
        Some(contender) => {
            let reason = contender.reason.as_deref().unwrap_or("no run reached the finish line");
            Some(format!("{name} did not run here ({}).", words::brief(reason)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn a_verdict_has_ratio_interval_and_backend() {
        let mut summary = examples::typical();
        summary.comparisons = vec![
            Comparison {
                a: "vm".into(),
                b: "container".into(),
                ratio: 1.93,
                ci95: [1.84, 2.02],
            },
            Comparison {
                a: "crun".into(),
                b: "vm".into(),
                ratio: 4.0,
                ci95: [3.2, 5.0],
            },
        ];
        assert_eq!(
            sentence(&summary),
            "A VM takes 1.9 times as long to start as a container here (95% 1.8–2.0); the VM takes 0.25 times as long \
             as crun (95% 0.20–0.31). The VM's figures hold for the KVM backend pvm."
        );
    }

    #[test]
    fn an_interval_around_one_is_equality_only_when_narrow() {
        let mut summary = examples::typical();
        summary.comparisons = vec![Comparison {
            a: "vm".into(),
            b: "container".into(),
            ratio: 1.01,
            ci95: [0.97, 1.04],
        }];
        let text = sentence(&summary);
        assert!(text.contains("equally fast here: ratio 1.01 (95% 0.97–1.04)"), "{text}");
        summary.comparisons[0].ratio = 3.7;
        summary.comparisons[0].ci95 = [0.7, 10.53];
        let text = sentence(&summary);
        assert!(
            text.contains("cannot be told apart by this run: ratio 3.70 (95% 0.70–10.53)") && !text.contains("equally"),
            "{text}"
        );
    }

    #[test]
    fn a_failed_or_absent_null_test_means_no_verdict() {
        let mut summary = examples::typical();
        summary.null_test = Some(NullTest {
            contender: "process".into(),
            ratio: 1.08,
            ci95: [1.03, 1.12],
            passed: false,
        });
        let text = sentence(&summary);
        assert!(text.starts_with("No verdict: the machine is too noisy."), "{text}");
        assert!(text.contains("1.080") && text.contains("1.030 to 1.120"), "{text}");
        assert!(text.contains("a difference where there is none"), "{text}");
        summary.null_test = Some(NullTest {
            contender: "process".into(),
            ratio: 1.2,
            ci95: [0.49, 5.3],
            passed: false,
        });
        let text = sentence(&summary);
        assert!(
            text.contains("so wide") && !text.contains("where there is none"),
            "{text}"
        );
        summary.null_test = None;
        assert!(sentence(&summary).starts_with("No verdict: the run has no null test"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = sentence(&examples::without_kvm());
        assert!(text.contains("vm did not run here (there is no /dev/kvm)"), "{text}");
        assert!(
            text.contains("A container takes") && text.contains("a plain process"),
            "{text}"
        );
        assert_eq!(sentence(&examples::empty()), "No verdict: no contender could run here.");
        let mut few = examples::typical();
        if let Some(startup) = &mut few.contenders[0].startup_ns {
            startup.n = 5;
        }
        assert!(sentence(&few).starts_with("No verdict: 5 runs are too few"));
    }
}
