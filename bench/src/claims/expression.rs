//! Inequalities over results: `startup(vm-restored) < startup(runc)`.

use std::fmt;

use crate::results::{Purpose, Sample};
use crate::stats::FINISH_LINE;

/// A figure of a contender that every one of its samples has its own value of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Start line to finish line.
    Startup,
    /// Start line to the launcher's end.
    Total,
    /// One phase.
    Phase(String),
    /// Start line to finish line of launches with marks.
    Whole,
    /// What an idle instance holds.
    Memory,
    /// The part of it that no other process has a share in.
    Private,
    /// The most ever charged.
    Peak,
    /// What each further instance adds: a slope, not a figure of samples.
    Marginal,
}

/// A figure of a contender, times a factor.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// What it is multiplied with.
    pub factor: f64,
    /// What is measured.
    pub figure: Figure,
    /// Of whom.
    pub contender: String,
}

/// Two sums, the first claimed to be the smaller.
#[derive(Clone, Debug, PartialEq)]
pub struct Inequality {
    /// The terms of the side said to be smaller.
    pub less: Vec<Term>,
    /// The terms of the side said to be larger.
    pub more: Vec<Term>,
}

impl Inequality {
    /// Whether it is about slopes, which have intervals of their own, rather than about samples.
    pub fn speaks_of_slopes(&self) -> bool {
        self.less
            .iter()
            .chain(&self.more)
            .any(|term| term.figure == Figure::Marginal)
    }
}

impl Figure {
    /// Whether it is a time; otherwise it is an amount of memory.
    pub fn is_time(&self) -> bool {
        !matches!(self, Figure::Memory | Figure::Private | Figure::Peak | Figure::Marginal)
    }
}

impl Term {
    /// The values of its samples, without the factor.
    pub fn values(&self, samples: &[Sample]) -> Vec<u64> {
        let purpose = match self.figure {
            Figure::Startup | Figure::Total => Purpose::Timed,
            Figure::Phase(_) | Figure::Whole => Purpose::Phases,
            Figure::Memory | Figure::Private | Figure::Peak | Figure::Marginal => Purpose::Memory,
        };
        let own = samples
            .iter()
            .filter(|s| s.contender == self.contender && s.purpose == purpose);
        own.filter_map(|sample| self.value(sample)).collect()
    }

    fn value(&self, sample: &Sample) -> Option<u64> {
        match &self.figure {
            Figure::Startup | Figure::Whole => sample.startup_ns(),
            Figure::Total => Some(sample.total_ns()),
            Figure::Phase(name) => phase(sample, name),
            Figure::Memory => sample.memory.as_ref()?.held_bytes(),
            // It belongs to many launches together: see `super::Results::marginal`.
            Figure::Marginal => None,
            Figure::Private => sample.memory.as_ref()?.private_bytes(),
            Figure::Peak => sample.memory.as_ref()?.peak_bytes,
        }
    }
}

/// How long the phase `name` took in this launch: from the mark before its own, or from the start line.
fn phase(sample: &Sample, name: &str) -> Option<u64> {
    let mut moments: Vec<(&str, u64)> = sample.marks.iter().map(|mark| (mark.name.as_str(), mark.ns)).collect();
    moments.extend(sample.first_byte_ns.map(|ns| (FINISH_LINE, ns)));
    moments.sort_by_key(|(_, ns)| *ns);
    let place = moments.iter().position(|(found, _)| *found == name)?;
    let before = place.checked_sub(1).map_or(sample.start_ns, |before| moments[before].1);
    moments[place].1.checked_sub(before)
}

/// Reads an inequality. The error says what is wrong with it.
pub fn parse(text: &str) -> Result<Inequality, String> {
    let (left, right, turned) = match (text.split_once('<'), text.split_once('>')) {
        (Some((left, right)), None) => (left, right, false),
        (None, Some((left, right))) => (left, right, true),
        _ => return Err(format!("\"{text}\" needs one < or >")),
    };
    let (left, right) = (sum(left)?, sum(right)?);
    Ok(if turned {
        Inequality {
            less: right,
            more: left,
        }
    } else {
        Inequality {
            less: left,
            more: right,
        }
    })
}

fn sum(text: &str) -> Result<Vec<Term>, String> {
    text.split(" + ").map(|text| term(text.trim())).collect()
}

fn term(text: &str) -> Result<Term, String> {
    let (factor, call) = match text.split_once('*') {
        Some((factor, call)) => {
            let factor: f64 = factor
                .trim()
                .parse()
                .map_err(|_| format!("\"{}\" is no factor", factor.trim()))?;
            (factor, call.trim())
        }
        None => (1.0, text),
    };
    let known = "startup(C), total(C), phase(C, NAME), whole(C), memory(C), private(C), peak(C), marginal(C)";
    let wrong = || format!("\"{call}\" is no figure; there are {known}");
    let (name, arguments) = call
        .strip_suffix(')')
        .and_then(|call| call.split_once('('))
        .ok_or_else(wrong)?;
    let (contender, phase) = match arguments.split_once(',') {
        Some((contender, phase)) => (contender.trim(), Some(phase.trim())),
        None => (arguments.trim(), None),
    };
    let figure = match (name, phase) {
        ("startup", None) => Figure::Startup,
        ("total", None) => Figure::Total,
        ("phase", Some(phase)) => Figure::Phase(phase.to_owned()),
        ("whole", None) => Figure::Whole,
        ("memory", None) => Figure::Memory,
        ("private", None) => Figure::Private,
        ("marginal", None) => Figure::Marginal,
        ("peak", None) => Figure::Peak,
        _ => return Err(wrong()),
    };
    Ok(Term {
        factor,
        figure,
        contender: contender.to_owned(),
    })
}

impl fmt::Display for Term {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        if self.factor != 1.0 {
            write!(out, "{} * ", self.factor)?;
        }
        let of = &self.contender;
        match &self.figure {
            Figure::Startup => write!(out, "startup({of})"),
            Figure::Total => write!(out, "total({of})"),
            Figure::Phase(name) => write!(out, "phase({of}, {name})"),
            Figure::Whole => write!(out, "whole({of})"),
            Figure::Memory => write!(out, "memory({of})"),
            Figure::Private => write!(out, "private({of})"),
            Figure::Marginal => write!(out, "marginal({of})"),
            Figure::Peak => write!(out, "peak({of})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn inequalities_are_read_either_way_round() {
        let less = parse("startup(process) < 2 * phase(vm, user mode entry) + whole(vm)").unwrap();
        let more = parse("2 * phase(vm, user mode entry) + whole(vm) > startup(process)").unwrap();
        assert_eq!(less, more);
        assert_eq!((less.less.len(), less.more.len()), (1, 2));
        assert_eq!(less.more[0].to_string(), "2 * phase(vm, user mode entry)");
        for wrong in [
            "startup(vm)",
            "startup(vm) < speed(vm)",
            "x * startup(vm) < peak(vm)",
            "phase(vm) < peak(vm)",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn phases_of_a_launch_add_up_to_its_whole() {
        let (_, samples) = examples::typical_run();
        let sample = samples
            .iter()
            .find(|s| s.contender == "vm" && s.purpose == Purpose::Phases)
            .unwrap();
        let names = sample.marks.iter().map(|mark| mark.name.as_str()).chain([FINISH_LINE]);
        let sum: u64 = names.map(|name| phase(sample, name).unwrap()).sum();
        assert_eq!(Some(sum), sample.startup_ns());
        assert_eq!(phase(sample, "tea break"), None);
    }
}
