//! `lab claims`: the sentences this project says about VMs and containers, checked against results.
//!
//! The sentences are in [`claims.txt`](CLAIMS), each with the inequality it means ([`expression`]).

pub mod expression;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::results::{Provenance, SCHEMA, Sample, Summary};
use crate::stats::{self, FEWEST_FOR_AN_INTERVAL};
use crate::store;
use crate::words;
use expression::{Inequality, Term};

/// The project's own claims.
pub const CLAIMS: &str = include_str!("claims.txt");

/// Fewest weighed launches for a claim about memory: what `lab compare` takes. All five of them lie on one side of the
/// true median once in 16 series, so the interval is one of 94%.
const FEWEST_WEIGHED: u64 = 5;

/// A file of claims that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the claims: {problem}")]
pub struct Error {
    /// From 1.
    line: usize,
    /// What is wrong there.
    problem: String,
}

/// A sentence and what it means.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The sentence.
    pub sentence: String,
    /// The inequality as it was written.
    pub formula: String,
    /// Whether CI may rely on it.
    pub robust: bool,
    inequality: Inequality,
}

/// How a claim fares.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The interval lies wholly on the claimed side.
    Holds,
    /// It lies wholly on the other.
    Fails,
    /// It cannot be said here.
    NotMeasurable {
        /// Why.
        reason: String,
    },
}

/// A claim held against results.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// The sentence.
    pub sentence: String,
    /// The inequality.
    pub formula: String,
    /// Whether CI may rely on it.
    pub robust: bool,
    /// How it fares.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What was found, in words: both sides and the interval of their difference.
    pub found: Option<String>,
}

/// Reads claims: `claim:` and `that:` lines, `robust` where it applies, `#` comments.
///
/// # Errors
/// [`Error`] names the line.
pub fn parse(text: &str) -> Result<Vec<Claim>, Error> {
    let mut claims: Vec<Claim> = Vec::new();
    let mut sentence: Option<String> = None;
    for (index, line) in text.lines().map(str::trim).enumerate() {
        let wrong = |problem: &str| Error {
            line: index + 1,
            problem: problem.to_owned(),
        };
        if line.is_empty() || line.starts_with('#') {
        } else if let Some(words) = line.strip_prefix("claim:") {
            if sentence.replace(words.trim().to_owned()).is_some() {
                return Err(wrong("the claim before has no line \"that:\""));
            }
        } else if let Some(formula) = line.strip_prefix("that:") {
            let inequality = expression::parse(formula).map_err(|problem| wrong(&problem))?;
            claims.push(Claim {
                sentence: sentence
                    .take()
                    .ok_or_else(|| wrong("\"that:\" without a \"claim:\" before it"))?,
                formula: formula.trim().to_owned(),
                robust: false,
                inequality,
            });
        } else if line == "robust" && sentence.is_none() {
            let last = claims.last_mut().ok_or_else(|| wrong("\"robust\" before any claim"))?;
            last.robust = true;
        } else {
            return Err(wrong("neither \"claim:\", \"that:\", \"robust\" nor a comment"));
        }
    }
    match sentence {
        Some(_) => Err(Error {
            line: text.lines().count(),
            problem: "the last claim has no line \"that:\"".into(),
        }),
        None => Ok(claims),
    }
}

/// The contenders that `claims` speak of and a race can have, each once. (Rungs of a ladder race by `lab ladder`.)
pub fn contenders(claims: &[Claim]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let terms = claims
        .iter()
        .flat_map(|claim| claim.inequality.less.iter().chain(&claim.inequality.more));
    for term in terms {
        let races = crate::contenders::NAMES.contains(&term.contender.as_str());
        if races && !names.contains(&term.contender) {
            names.push(term.contender.clone());
        }
    }
    names
}

/// A results folder, as far as claims speak of it.
#[derive(Debug)]
pub struct Results {
    /// What a race found; without contenders in a folder no race was run in.
    pub summary: Summary,
    /// Its samples.
    pub samples: Vec<Sample>,
    /// Bytes that each further instance adds, with their 95% interval, by `lab density`.
    pub marginal: BTreeMap<String, (f64, [f64; 2])>,
}

impl Results {
    /// Of a race.
    pub fn of_race(summary: Summary, samples: Vec<Sample>) -> Results {
        Results {
            summary,
            samples,
            marginal: BTreeMap::new(),
        }
    }

    /// Reads a folder with a race, a ladder or a density in it.
    ///
    /// # Errors
    /// Why the race cannot be read.
    pub fn read(folder: &Path) -> Result<Results, store::Error> {
        let marginal = marginal(folder);
        let (summary, samples) = match folder.join(store::SUMMARY).exists() || marginal.is_empty() {
            true => (store::read_summary(folder)?, store::read_samples(folder)?),
            false => (no_race(), Vec::new()),
        };
        Ok(Results {
            marginal,
            ..Results::of_race(summary, samples)
        })
    }

    fn has(&self, term: &Term) -> bool {
        if term.figure == expression::Figure::Marginal {
            return self.marginal.contains_key(&term.contender);
        }
        let (measured, _) = words::measured_and_skipped(&self.summary);
        measured.iter().any(|contender| contender.name == term.contender)
    }
}

fn no_race() -> Summary {
    Summary {
        schema: SCHEMA,
        provenance: Provenance::default(),
        contenders: Vec::new(),
        comparisons: Vec::new(),
        null_test: None,
        null_tests: Vec::new(),
    }
}

/// The slopes in `density.json`; none where there is no such file, or one of a newer layout.
fn marginal(folder: &Path) -> BTreeMap<String, (f64, [f64; 2])> {
    let text = std::fs::read_to_string(folder.join("density.json")).unwrap_or_default();
    let found: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    if found["schema"].as_u64() != Some(1) {
        return BTreeMap::new();
    }
    let slope = |entry: &serde_json::Value| {
        let slope = &entry["found"]["apart"]["charged"];
        let ci95 = [slope["ci95"][0].as_f64()?, slope["ci95"][1].as_f64()?];
        Some((entry["name"].as_str()?.to_owned(), (slope["bytes"].as_f64()?, ci95)))
    };
    found["contenders"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(slope)
        .collect()
}

/// A claim about slopes: the interval of their difference, each half as wide as theirs together (independent errors add
/// by their squares).
fn weigh_slopes(inequality: &Inequality, results: &Results) -> Result<(Outcome, String), String> {
    let side = |terms: &[Term]| -> Result<(f64, f64), String> {
        let mut sum = (0.0, 0.0);
        for term in terms {
            let missing = || {
                format!(
                    "no slope of {} in density.json; `lab density` measures it",
                    term.contender
                )
            };
            let slope = (term.figure == expression::Figure::Marginal).then(|| results.marginal.get(&term.contender));
            let (bytes, [low, high]) = slope.flatten().ok_or_else(missing)?;
            sum = (
                sum.0 + term.factor * bytes,
                sum.1 + (term.factor * (high - low) / 2.0).powi(2),
            );
        }
        Ok(sum)
    };
    let ((less, less_error), (more, more_error)) = (side(&inequality.less)?, side(&inequality.more)?);
    let (apart, error) = (more - less, (less_error + more_error).sqrt());
    let amount = |value: f64| {
        let sign = if value < 0.0 { "−" } else { "" };
        format!("{sign}{}", words::bytes(value.abs().round() as u64))
    };
    let found = format!(
        "{} against {}: apart by {} (95% {} to {})",
        amount(less),
        amount(more),
        amount(apart),
        amount(apart - error),
        amount(apart + error)
    );
    let outcome = match () {
        () if apart - error > 0.0 => Outcome::Holds,
        () if apart + error < 0.0 => Outcome::Fails,
        () => Outcome::NotMeasurable {
            reason: "the interval of the difference holds 0; more instances (--up-to) narrow it".into(),
        },
    };
    Ok((outcome, found))
}

/// Holds `claims` against results: each against the first of them that measured all it speaks of.
pub fn judge(claims: &[Claim], results: &[Results]) -> Vec<Judged> {
    let judge = |claim: &Claim| {
        let has_all = |results: &&Results| {
            let mut terms = claim.inequality.less.iter().chain(&claim.inequality.more);
            terms.all(|term| results.has(term))
        };
        let weighed = match results.iter().find(has_all).or(results.first()) {
            Some(results) if claim.inequality.speaks_of_slopes() => weigh_slopes(&claim.inequality, results),
            Some(results) => weigh(&claim.inequality, &results.summary, &results.samples),
            None => Err("there are no results".into()),
        };
        let (outcome, found) = match weighed {
            Ok((outcome, found)) => (outcome, Some(found)),
            Err(reason) => (Outcome::NotMeasurable { reason }, None),
        };
        Judged {
            sentence: claim.sentence.clone(),
            formula: claim.formula.clone(),
            robust: claim.robust,
            outcome,
            found,
        }
    };
    claims.iter().map(judge).collect()
}

/// The outcome and what was found, or why nothing can be said.
fn weigh(inequality: &Inequality, summary: &Summary, samples: &[Sample]) -> Result<(Outcome, String), String> {
    let terms: Vec<&Term> = inequality.less.iter().chain(&inequality.more).collect();
    let sets: Vec<Vec<u64>> = terms
        .iter()
        .map(|term| values(term, summary, samples))
        .collect::<Result<_, _>>()?;
    let sets: Vec<&[u64]> = sets.iter().map(Vec::as_slice).collect();
    let smaller = inequality.less.len();
    let is_time = terms.iter().all(|term| term.figure.is_time());
    // What the null test took for a difference where there is none, a claim must exceed.
    let noise = if is_time { noise(summary) } else { 1.0 };
    let side = |medians: &[f64], terms: &[Term]| -> f64 {
        medians
            .iter()
            .zip(terms)
            .map(|(median, term)| median * term.factor)
            .sum()
    };
    let sides = |medians: &[f64]| {
        let (less, more) = medians.split_at(smaller);
        (side(less, &inequality.less), side(more, &inequality.more))
    };
    let difference = |medians: &[f64]| {
        let (less, more) = sides(medians);
        more - less
    };
    let nothing = || "a figure has no samples".to_owned();
    let (apart, [low, high]) = stats::of_medians(&sets, difference).ok_or_else(nothing)?;
    let (less, _) = stats::of_medians(&sets, |medians| sides(medians).0).ok_or_else(nothing)?;
    let amount = |value: f64| match is_time {
        true => words::duration(value.abs().round() as u64),
        false => words::bytes(value.abs().round() as u64),
    };
    let signed = |value: f64| format!("{}{}", if value < 0.0 { "−" } else { "" }, amount(value));
    let found = format!(
        "{} against {}: apart by {} (95% {} to {})",
        amount(less),
        amount(less + apart),
        signed(apart),
        signed(low),
        signed(high)
    );
    let margin = less * (noise - 1.0);
    let outcome = if low > margin {
        Outcome::Holds
    } else if high < -margin {
        Outcome::Fails
    } else if noise > 1.0 {
        Outcome::NotMeasurable {
            reason: format!(
                "the machine is too noisy: its null test shows up to {noise:.2} times where 1 is the truth, and the \
                 sides are not further apart than that"
            ),
        }
    } else {
        Outcome::NotMeasurable {
            reason: "the interval of the difference holds 0; more runs (--runs) narrow it".into(),
        }
    };
    Ok((outcome, found))
}

/// How far the null test strayed from 1, when it failed; 1 when it passed.
fn noise(summary: &Summary) -> f64 {
    match &summary.null_test {
        Some(test) if !test.passed => test.ci95[1].max(1.0 / test.ci95[0]).max(1.0),
        _ => 1.0,
    }
}

fn values(term: &Term, summary: &Summary, samples: &[Sample]) -> Result<Vec<u64>, String> {
    let name = &term.contender;
    let (measured, skipped) = words::measured_and_skipped(summary);
    if let Some(contender) = skipped.iter().find(|contender| contender.name == *name) {
        let reason = contender.reason.as_deref().unwrap_or("no reason was recorded");
        return Err(format!("{name} did not run here: {}", words::brief(reason)));
    }
    if !measured.iter().any(|contender| contender.name == *name) {
        return Err(format!("{name} was not raced"));
    }
    let values = term.values(samples);
    let (n, fewest) = (
        values.len() as u64,
        if term.figure.is_time() {
            FEWEST_FOR_AN_INTERVAL
        } else {
            FEWEST_WEIGHED
        },
    );
    match n {
        0 => Err(format!("no sample of {name} has {term}")),
        n if n < fewest => Err(format!(
            "{n} samples of {term} are too few for an interval; {fewest} are needed"
        )),
        _ => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;
    use crate::results::NullTest;

    fn outcome(formula: &str, summary: &Summary, samples: &[Sample]) -> Outcome {
        let claims = parse(&format!("claim: x\nthat: {formula}\n")).unwrap();
        judge(&claims, &[Results::of_race(summary.clone(), samples.to_vec())])
            .remove(0)
            .outcome
    }

    #[test]
    fn the_projects_claims_can_be_read() {
        let claims = parse(CLAIMS).unwrap();
        assert!(claims.len() >= 10 && claims.iter().filter(|claim| claim.robust).count() >= 5);
        // Whoever a claim speaks of races, or is a rung of a ladder; a name spelt wrong would never be measured.
        let known = |name: &str| {
            crate::contenders::NAMES.contains(&name) || name == "container launcher" || name.contains(" +")
        };
        let terms = claims
            .iter()
            .flat_map(|claim| claim.inequality.less.iter().chain(&claim.inequality.more));
        for term in terms {
            assert!(known(&term.contender), "{term}");
        }
        assert!(contenders(&claims).iter().all(|name| !name.contains('+')));
    }

    #[test]
    fn claims_hold_fail_or_stay_open() {
        let (summary, samples) = examples::typical_run();
        assert_eq!(
            outcome("startup(process) < startup(runc)", &summary, &samples),
            Outcome::Holds
        );
        assert_eq!(
            outcome("startup(process) > startup(runc)", &summary, &samples),
            Outcome::Fails
        );
        let open = outcome("startup(vm) < startup(vm)", &summary, &samples);
        assert!(
            matches!(&open, Outcome::NotMeasurable { reason } if reason.contains("holds 0")),
            "{open:?}"
        );
        let alone = outcome("startup(qemu) < startup(vm)", &summary, &samples);
        assert!(
            matches!(&alone, Outcome::NotMeasurable { reason } if reason.contains("not raced")),
            "{alone:?}"
        );
        let (summary, samples) = examples::without_kvm_run();
        let skipped = outcome("startup(process) < startup(vm)", &summary, &samples);
        assert!(
            matches!(&skipped, Outcome::NotMeasurable { reason } if reason.contains("/dev/kvm")),
            "{skipped:?}"
        );
        let (summary, samples) = examples::race(&[("process", 1, 0.1), ("vm", 1000, 0.1)], 3, &[]);
        let few = outcome("startup(process) < startup(vm)", &summary, &samples);
        assert!(
            matches!(&few, Outcome::NotMeasurable { reason } if reason.contains("too few")),
            "{few:?}"
        );
    }

    #[test]
    fn slopes_are_read_from_a_density() {
        let dir = tempfile::tempdir().unwrap();
        let slope = |name: &str, bytes: f64| {
            serde_json::json!({ "name": name, "found": { "apart": { "charged":
                { "bytes": bytes, "ci95": [bytes - 300.0, bytes + 300.0] } } } })
        };
        let density = serde_json::json!({ "schema": 1,
            "contenders": [slope("container", 1000.0), slope("vm", 2000.0), slope("crun", 1100.0)] });
        std::fs::write(dir.path().join("density.json"), density.to_string()).unwrap();
        let results = [Results::read(dir.path()).unwrap()];
        let outcome = |formula: &str| {
            let claims = parse(&format!("claim: x\nthat: {formula}\n")).unwrap();
            judge(&claims, &results).remove(0).outcome
        };
        assert_eq!(outcome("marginal(container) < marginal(vm)"), Outcome::Holds);
        assert_eq!(outcome("marginal(vm) < marginal(container)"), Outcome::Fails);
        assert!(matches!(
            outcome("marginal(container) < marginal(crun)"),
            Outcome::NotMeasurable { .. }
        ));
        assert!(matches!(
            outcome("marginal(runc) < marginal(vm)"),
            Outcome::NotMeasurable { .. }
        ));
        assert!(matches!(
            outcome("marginal(vm) < peak(vm)"),
            Outcome::NotMeasurable { .. }
        ));
    }

    #[test]
    fn a_noisy_machine_proves_large_differences_only() {
        let (mut summary, samples) = examples::typical_run();
        summary.null_test = Some(NullTest {
            contender: "container".into(),
            ratio: 1.3,
            ci95: [1.1, 1.5],
            passed: false,
        });
        assert_eq!(
            outcome("startup(process) < startup(runc)", &summary, &samples),
            Outcome::Holds
        );
        let close = outcome("startup(container) < startup(vm)", &summary, &samples);
        assert!(
            matches!(&close, Outcome::NotMeasurable { reason } if reason.contains("noisy")),
            "{close:?}"
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named_by_line() {
        for (text, line) in [
            ("claim: a\nclaim: b", 2),
            ("that: peak(vm) < peak(runc)", 1),
            ("claim: a\nthat: peak(vm)", 2),
            ("robust", 1),
            ("claim: a\n", 1),
            ("hello", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().line, line, "{text}");
        }
    }
}
