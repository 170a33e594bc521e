//! Figures in prose: `{{#number pvm.contenders.vm.startup_ns.p50 ms}}` is looked up in `recorded/pvm/summary.json`.
//!
//! A path is the name of a folder in `recorded/`, perhaps with a file in it (`pvm/restore` is `recorded/pvm/restore.json`;
//! without one it is `summary.json`), then steps separated by dots. A step into an object is a key; a step into a list is an
//! index, or the `name`, `id`, `contender`, `what` or `lesson` of one of its objects, in which a `+` stands for a space; of a lesson
//! the first word will do.
//! `{{#number A / B ratio}}` divides one figure by another.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// A figure that cannot be shown. The book is not built then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder's file is missing or damaged.
    #[error("{path}: {what}. Record it with book/record, or name a folder that is in book/recorded")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The path leads nowhere.
    #[error("there is no `{step}` in {path} (known there: {known})")]
    Step {
        /// The step that failed.
        step: String,
        /// The whole path.
        path: String,
        /// What could have been said instead.
        known: String,
    },
    /// The value is of another kind than the unit wants.
    #[error("{path} is {value}, which cannot be shown as `{unit}`")]
    Kind {
        /// The whole path.
        path: String,
        /// What is there.
        value: String,
        /// What was asked.
        unit: String,
    },
    /// Not a directive.
    #[error(
        "`{0}`: write {{{{#number PATH UNIT}}}} or {{{{#number PATH / PATH UNIT}}}}; units: ms us ns s KiB MiB GiB ratio times percent count text"
    )]
    Syntax(String),
}

/// The text for what stands between `{{#number` and `}}`.
pub fn resolve(recorded: &Path, words: &str) -> Result<String, Error> {
    match words.split_whitespace().collect::<Vec<_>>()[..] {
        [path, unit] => show(path, &look_up(recorded, path)?, unit),
        [path, "/", divisor, unit] => {
            let number = |path: &str| {
                let value = look_up(recorded, path)?;
                value.as_f64().ok_or_else(|| wrong_kind(path, &value, unit))
            };
            show(words, &(number(path)? / number(divisor)?).into(), unit)
        }
        _ => Err(Error::Syntax(words.trim().to_owned())),
    }
}

/// The value at a path.
pub fn look_up(recorded: &Path, path: &str) -> Result<Value, Error> {
    let (place, steps) = path.split_once('.').unwrap_or((path, ""));
    let file = match place.contains('/') {
        true => recorded.join(format!("{place}.json")),
        false => recorded.join(place).join("summary.json"),
    };
    let failed = |what: String| Error::File {
        path: file.display().to_string(),
        what,
    };
    let text = fs::read_to_string(&file).map_err(|error| failed(error.to_string()))?;
    let mut value: &Value = &serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    for step in steps.split('.').filter(|step| !step.is_empty()) {
        value = descend(value, step).ok_or_else(|| Error::Step {
            step: step.to_owned(),
            path: path.to_owned(),
            known: known(value),
        })?;
    }
    Ok(value.clone())
}

fn descend<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => members.get(step),
        Value::Array(entries) => match step.parse::<usize>() {
            Ok(index) => entries.get(index),
            Err(_) => {
                let wanted = step.replace('+', " ");
                let exactly = entries.iter().find(|entry| name(entry) == Some(&wanted));
                exactly.or_else(|| entries.iter().find(|entry| lesson(entry) == Some(&wanted)))
            }
        },
        _ => None,
    }
}

fn name(entry: &Value) -> Option<&str> {
    ["name", "id", "contender", "what", "lesson"]
        .iter()
        .find_map(|key| entry.get(key)?.as_str())
}

/// A lesson without its arguments, which say how much of it was done: `cpu` of `cpu 5000000`.
fn lesson(entry: &Value) -> Option<&str> {
    entry.get("lesson")?.as_str()?.split(' ').next()
}

fn known(value: &Value) -> String {
    let names: Vec<&str> = match value {
        Value::Object(members) => members.keys().map(String::as_str).collect(),
        Value::Array(entries) => entries.iter().filter_map(name).collect(),
        _ => Vec::new(),
    };
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

fn wrong_kind(path: &str, value: &Value, unit: &str) -> Error {
    Error::Kind {
        path: path.to_owned(),
        value: value.to_string(),
        unit: unit.to_owned(),
    }
}

fn show(path: &str, value: &Value, unit: &str) -> Result<String, Error> {
    let wrong = || wrong_kind(path, value, unit);
    if unit == "text" {
        return match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(truth) => Ok(truth.to_string()),
            _ => Err(wrong()),
        };
    }
    let number = value.as_f64().filter(|number| number.is_finite()).ok_or_else(wrong)?;
    // Nanoseconds and bytes are what every results folder holds.
    let (divisor, suffix) = match unit {
        "ns" => (1.0, " ns"),
        "us" => (1e3, " µs"),
        "ms" => (1e6, " ms"),
        "s" => (1e9, " s"),
        "KiB" => (1024.0, " KiB"),
        "MiB" => (1024.0 * 1024.0, " MiB"),
        "GiB" => (1024.0 * 1024.0 * 1024.0, " GiB"),
        "ratio" => (1.0, ""),
        "times" => (1.0, " times"),
        "percent" => (0.01, "%"),
        "count" => return Ok(grouped(number.round() as i64)),
        _ => return Err(Error::Syntax(format!("{path} {unit}"))),
    };
    // A space that does not break: a figure and its unit stay on one line.
    Ok(significant(number / divisor) + &suffix.replace(' ', "\u{a0}"))
}

/// Three significant digits, or all digits before the point: 0.292, 2.67, 36.2, 1234.
fn significant(number: f64) -> String {
    let decimals = match number.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{number:.decimals$}");
    match text.trim_end_matches('0') {
        // 5.00 is 5; 100 stays.
        short if text.contains('.') => short.trim_end_matches('.').to_owned(),
        _ => text,
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("here")).unwrap();
        let summary = r#"{"machine": {"cpu": "A processor"}, "contenders": [
            {"name": "vm", "startup_ns": {"p50": 5240000}, "memory": {"peak": 1258291}, "phases": [{"name": "user mode entry", "share": 0.431}]},
            {"name": "container", "startup_ns": {"p50": 2620000}}]}"#;
        fs::write(folder.path().join("here/summary.json"), summary).unwrap();
        fs::write(folder.path().join("here/exits.json"), r#"{"total": 1234567}"#).unwrap();
        let cost = r#"{"lessons": [{"lesson": "cpu 500", "ratio": 1.5}]}"#;
        fs::write(folder.path().join("here/cost.json"), cost).unwrap();
        folder
    }

    #[test]
    fn figures_are_looked_up_and_given_their_unit() {
        let folder = recorded();
        let shown = |words: &str| resolve(folder.path(), words).unwrap().replace('\u{a0}', " ");
        assert_eq!(shown("here.contenders.vm.startup_ns.p50 ms"), "5.24 ms");
        assert_eq!(shown("here.contenders.1.startup_ns.p50 us"), "2620 µs");
        assert_eq!(shown("here.contenders.vm.memory.peak MiB"), "1.2 MiB");
        assert_eq!(
            shown("here.contenders.vm.phases.user+mode+entry.share percent"),
            "43.1%"
        );
        assert_eq!(
            shown("here.contenders.vm.startup_ns.p50 / here.contenders.container.startup_ns.p50 times"),
            "2 times"
        );
        assert_eq!(shown("here.machine.cpu text"), "A processor");
        assert_eq!(shown("here/exits.total count"), "1,234,567");
        assert_eq!(shown("here/cost.lessons.cpu.ratio times"), "1.5 times");
    }

    #[test]
    fn a_path_that_leads_nowhere_says_where_it_ended() {
        let folder = recorded();
        let error = |words: &str| resolve(folder.path(), words).unwrap_err().to_string();
        assert!(error("here.contenders.qemu.startup_ns.p50 ms").contains("known there: vm, container"));
        assert!(error("elsewhere.contenders ms").contains("elsewhere/summary.json"));
        assert!(error("here.machine.cpu ms").contains("cannot be shown as `ms`"));
        assert!(error("here.machine.cpu").contains("units: ms us"));
        assert!(error("here.contenders.vm.startup_ns.p50 furlongs").contains("units: ms us"));
    }
}
