//! Sentences the project stands by: `{{#claim pvm/claims: startup(vm) < startup(runc)}}` becomes the sentence behind that inequality, and
//! how it fared in `recorded/pvm/claims.json`, which `lab claims --json` writes.

use std::path::Path;

use serde_json::Value;

use crate::numbers;

/// A claim that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recorded claims cannot be read.
    #[error(transparent)]
    Recorded(#[from] numbers::Error),
    /// Not a directive.
    #[error("`{0}`: write {{{{#claim NAME/FILE: INEQUALITY}}}}, the inequality as bench/src/claims/claims.txt has it")]
    Syntax(String),
    /// Nobody claimed that.
    #[error("nobody claims `{formula}` in {place}; known there: {known}")]
    Unknown {
        /// What was looked for.
        formula: String,
        /// Where.
        place: String,
        /// What is there.
        known: String,
    },
}

/// The text for what stands between `{{#claim` and `}}`.
pub fn resolve(recorded: &Path, words: &str) -> Result<String, Error> {
    let syntax = || Error::Syntax(words.trim().to_owned());
    let (place, formula) = words.split_once(':').ok_or_else(syntax)?;
    let (place, formula) = (place.trim(), formula.trim());
    let claims = numbers::look_up(recorded, place)?;
    let text = |claim: &Value, key: &str| claim.get(key).and_then(Value::as_str).map(str::to_owned);
    let listed = claims.as_array().or_else(|| claims.get("claims")?.as_array());
    let listed = listed.map(Vec::as_slice).unwrap_or_default();
    let same = |claim: &&Value| text(claim, "formula").as_deref() == Some(formula);
    let claim = listed.iter().find(same).ok_or_else(|| Error::Unknown {
        formula: formula.to_owned(),
        place: place.to_owned(),
        known: listed
            .iter()
            .filter_map(|claim| text(claim, "formula"))
            .collect::<Vec<_>>()
            .join("; "),
    })?;
    let fared = match text(claim, "outcome").as_deref() {
        Some("holds") => "holds".to_owned(),
        Some("fails") => "does not hold".to_owned(),
        _ => format!(
            "cannot be said: {}",
            text(claim, "reason").unwrap_or_else(|| "it was not measured".into())
        ),
    };
    let found = text(claim, "found")
        .map(|found| format!("; {}", in_brackets(&found)))
        .unwrap_or_default();
    let sentence = text(claim, "sentence").ok_or_else(syntax)?;
    Ok(format!(
        "*{}* (`lab claims`: {fared}{found})",
        sentence.trim_end_matches('.')
    ))
}

/// `353 µs against 2.6 ms: apart by 2.2 ms (95% 1.9 ms to 2.4 ms)` without brackets of its own.
fn in_brackets(found: &str) -> String {
    found
        .replace(": apart by", ", apart by")
        .replace(" (95%", ", 95%")
        .trim_end_matches(')')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_shown_with_how_it_fared() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("here")).unwrap();
        let claims = r#"[{"sentence": "A is faster.", "formula": "a < b", "robust": true, "outcome": "holds", "found": "1 ms against 2 ms: apart by 1 ms (95% 0.5 ms to 2 ms)"},
            {"sentence": "B is smaller.", "formula": "b < a", "robust": false, "outcome": "not_measurable", "reason": "b did not run"}]"#;
        std::fs::write(folder.path().join("here/claims.json"), claims).unwrap();
        let shown = |words: &str| resolve(folder.path(), words);
        assert_eq!(
            shown("here/claims: a < b").unwrap(),
            "*A is faster* (`lab claims`: holds; 1 ms against 2 ms, apart by 1 ms, 95% 0.5 ms to 2 ms)"
        );
        assert!(
            shown("here/claims: b < a")
                .unwrap()
                .contains("cannot be said: b did not run")
        );
        assert!(
            shown("here/claims: c < a")
                .unwrap_err()
                .to_string()
                .contains("known there: a < b; b < a")
        );
        assert!(matches!(shown("here/claims"), Err(Error::Syntax(_))));
        assert!(matches!(shown("there/claims: a < b"), Err(Error::Recorded(_))));
    }
}
