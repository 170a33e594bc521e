//! `lab doctor`: what this machine offers for isolating programs, found out by trying it.
//!
//! A setting says what somebody intended; only an attempt says what works. So namespaces are really made, an overlay is
//! really mounted, a cgroup is really created, each in a child process or removed at once. The settings are read only
//! to explain a refusal.

mod cgroup;
mod kvm;
mod machine;
mod namespaces;
mod peers;
mod testbed;
pub mod trial;

use std::fmt::Write;

use serde::Serialize;

use crate::words::wrap;

/// Version of the layout of `lab doctor --json`.
const SCHEMA: u32 = 1;

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// As it should be.
    Good,
    /// It works, with something to know about it.
    Limited,
    /// It is not there, or does not work.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// What was found.
    pub found: String,
    /// What that means for the lab.
    pub meaning: String,
    /// What would change it, when something should be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn new(name: &'static str, standing: Standing, found: impl Into<String>, meaning: impl Into<String>) -> Finding {
        Finding {
            name,
            standing,
            found: found.into(),
            meaning: meaning.into(),
            fix: None,
        }
    }

    fn fix(mut self, fix: impl Into<String>) -> Finding {
        self.fix = Some(fix.into());
        self
    }
}

/// Looks at everything. Takes about a second.
pub fn examine() -> Vec<Finding> {
    let mut findings = kvm::examine();
    findings.extend(namespaces::examine());
    findings.extend(cgroup::examine());
    findings.extend(peers::examine());
    findings.push(testbed::examine());
    findings.extend(machine::examine());
    findings
}

/// The findings as text, `width` columns wide.
pub fn text(findings: &[Finding], width: usize) -> String {
    const INDENT: usize = 10;
    let mut text = String::new();
    let room = width.saturating_sub(INDENT).max(INDENT) as f64;
    for finding in findings {
        let standing = match finding.standing {
            Standing::Good => "good",
            Standing::Limited => "limited",
            Standing::Missing => "missing",
        };
        let headline = format!("{}: {}", finding.name, finding.found);
        let fix = finding.fix.as_ref().map(|fix| format!("To change that: {fix}"));
        let paragraphs = [Some(&headline), Some(&finding.meaning), fix.as_ref()];
        let lines = paragraphs.into_iter().flatten().flat_map(|paragraph| {
            // In columns; these texts are ASCII.
            wrap(paragraph, room, |text| text.len() as f64)
        });
        for (number, line) in lines.enumerate() {
            let margin = if number == 0 { standing } else { "" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{margin:<INDENT$}{line}");
        }
    }
    text
}

/// The findings as JSON: `{ "schema": 1, "findings": [ ... ] }`.
///
/// # Errors
/// None that can happen with these types; the serializer's signature has one.
pub fn json(findings: &[Finding]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&serde_json::json!({ "schema": SCHEMA, "findings": findings }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_status_meaning_and_fix() {
        let finding =
            Finding::new("KVM", Standing::Missing, "no /dev/kvm", "No VM can run here.").fix("load the module");
        let text = text(std::slice::from_ref(&finding), 80);
        assert!(text.starts_with("missing   KVM: no /dev/kvm\n"), "{text}");
        assert!(text.contains("\n          To change that: load the module\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&json(&[finding]).unwrap()).unwrap();
        assert_eq!(json["findings"][0]["standing"], "missing");
    }
}
