//! Tables for the charts of other measurements: what `NAME.json` beside a chart holds, one row for each figure.
//!
//! The files are read as plain JSON: a study this lab does not know, or one of a newer schema, has its chart shown and no table.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::html::{escape, table};
use crate::charts::anew;
use crate::results::Comparison;
use crate::study::Error;
use crate::study::cost::doubt;
use crate::study::results::{Cost, Observed, Study, Trial};
use crate::words;

/// The rows of a table that one contender has, from its name, what was found of it, and the whole study's JSON.
type Rows = fn(&str, &Value, &Value) -> Vec<Vec<String>>;

/// Newest layout of a study's file whose figures are known here.
const SCHEMA: u64 = 1;

/// The contenders that no study of the folder could measure, with the reasons.
///
/// # Errors
/// When a study's file cannot be read.
pub(super) fn skipped(folder: &Path) -> Result<String, Error> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for study in ["memory", "density", "cost", "inspect", "surface", "line"] {
        let path = folder.join(format!("{study}.json"));
        let json = match fs::read_to_string(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::file("read", &path)(source)),
        };
        let found: Value = serde_json::from_str(&json).map_err(|source| Error::Malformed { path, source })?;
        let without = list(&found["contenders"])
            .iter()
            .filter(|entry| entry["reason"].is_string());
        rows.extend(without.map(|entry| {
            let mut row = vec![study.to_owned()];
            row.extend(["name", "reason", "fix"].map(|field| text(&entry[field])));
            row
        }));
    }
    if rows.is_empty() {
        return Ok(String::new());
    }
    let header = ["study", "contender", "why", "what would change that"];
    let table = table("Asked for, and not able to run here", &header, 0, &rows);
    Ok(format!("<section>\n<h2>Not measured</h2>\n{table}</section>\n"))
}

/// The table of the study that drew `chart`, or nothing.
pub(super) fn of(folder: &Path, chart: &str) -> String {
    let study = anew::study_of(chart).unwrap_or(chart);
    let text = fs::read_to_string(folder.join(format!("{study}.json"))).unwrap_or_default();
    let Ok(found) = serde_json::from_str::<Value>(&text) else {
        return String::new();
    };
    if found["schema"].as_u64().is_none_or(|schema| schema > SCHEMA) {
        return String::new();
    }
    let (caption, header, figures, one): (_, &[&str], _, Rows) = match study {
        "density" => (
            "Charged to the instances' cgroup. Marginal: the slope of the line through all sizes, with its 95% interval.",
            &[
                "contender",
                "first instance",
                "marginal, charged",
                "marginal, by MemAvailable",
                "largest number",
            ],
            4,
            density,
        ),
        "memory" => (
            "One idle instance, no piece counted twice.",
            &["contender", "piece", "bytes", "from"],
            0,
            ledger,
        ),
        "cost" => (
            "By the program's own clock.",
            &["contender", "lesson", "p50", "× process (95%)", "exits per operation"],
            0,
            cost,
        ),
        "surface" => (
            "What the workload did, within bounds, and what came of it.",
            &["contender", "lesson", "bound", "how it ended", "others"],
            0,
            surface,
        ),
        "inspect" => (
            "What the program sees.",
            &["contender", "what", "inside", "the host's"],
            0,
            inspect,
        ),
        "line" => (
            "One line of text, by the VMM's ledger.",
            &[
                "way",
                "bytes",
                "exits",
                "p50",
                "in the VMM",
                "serial port takes × (95%)",
            ],
            5,
            line,
        ),
        _ => return String::new(),
    };
    let rows: Vec<Vec<String>> = list(&found["contenders"])
        .iter()
        .filter(|entry| entry["found"].is_object())
        .flat_map(|entry| one(entry["name"].as_str().unwrap_or_default(), &entry["found"], &found))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let doubts = doubts(&found).into_iter();
    let doubts =
        doubts.map(|(lesson, doubt)| format!("<p>No verdict on {}: {}</p>\n", escape(&lesson), escape(&doubt)));
    table(caption, header, figures, &rows) + &doubts.collect::<String>()
}

/// The lessons of `lab cost` that have no verdict, and why. None of any other study.
fn doubts(study: &Value) -> Vec<(String, String)> {
    if study["study"] != "cost" {
        return Vec::new();
    }
    let Ok(study) = serde_json::from_value::<Study<Cost>>(study.clone()) else {
        return Vec::new();
    };
    let lessons: BTreeSet<&str> = study
        .measured()
        .flat_map(|(_, cost)| cost.lessons.iter().map(|lesson| lesson.lesson.as_str()))
        .collect();
    let doubted = |lesson: &str| Some((lesson.to_owned(), doubt(&study, lesson)?));
    lessons.into_iter().filter_map(doubted).collect()
}

fn density(name: &str, found: &Value, _: &Value) -> Vec<Vec<String>> {
    let series = &found["apart"];
    let slope = |slope: &Value| match (slope["bytes"].as_f64(), interval(&slope["ci95"])) {
        (Some(middle), Some(ends)) => words::bytes_with_interval(middle, ends),
        _ => "-".to_owned(),
    };
    let most = list(&series["points"])
        .iter()
        .filter_map(|point| point["instances"].as_u64())
        .max();
    vec![vec![
        name.to_owned(),
        series["first_bytes"].as_f64().map_or_else(|| "-".to_owned(), bytes),
        slope(&series["charged"]),
        slope(&series["available"]),
        most.map_or_else(|| "-".to_owned(), |most| most.to_string()),
    ]]
}

fn ledger(name: &str, found: &Value, _: &Value) -> Vec<Vec<String>> {
    let part = |part: &Value| {
        vec![
            name.to_owned(),
            text(&part["what"]),
            part["bytes"].as_f64().map_or_else(|| "-".to_owned(), bytes),
            text(&part["source"]),
        ]
    };
    let mut rows: Vec<Vec<String>> = list(&found["parts"]).iter().map(part).collect();
    let whole = [
        ("sum", &found["sum_bytes"], "the parts above that are taken"),
        (
            "MemAvailable fell by",
            &found["available_bytes"]["median"],
            "median of readings",
        ),
        ("residue", &found["residue_bytes"], "what the books do not explain"),
    ];
    for (what, value, source) in whole {
        if let Some(value) = value.as_f64() {
            rows.push(vec![name.to_owned(), what.to_owned(), bytes(value), source.to_owned()]);
        }
    }
    rows
}

fn cost(name: &str, found: &Value, whole: &Value) -> Vec<Vec<String>> {
    let doubts = doubts(whole);
    let doubted = |lesson: &Value| doubts.iter().any(|(name, _)| lesson["lesson"] == **name);
    let row = |lesson: &Value| {
        let relative: Option<Comparison> = serde_json::from_value(lesson["relative"].clone()).ok();
        vec![
            name.to_owned(),
            text(&lesson["lesson"]),
            lesson["ns"]["p50"]
                .as_u64()
                .map_or_else(|| "-".to_owned(), words::duration),
            match relative {
                None => "1".to_owned(),
                Some(_) if doubted(lesson) => "no verdict".to_owned(),
                Some(found) => words::ratio_with_interval(&found),
            },
            lesson["exits_per_operation"]
                .as_f64()
                .map_or_else(|| "-".to_owned(), |exits| words::significant(exits, 3)),
        ]
    };
    list(&found["lessons"]).iter().map(row).collect()
}

fn surface(name: &str, found: &Value, _: &Value) -> Vec<Vec<String>> {
    let trials: Vec<Trial> = serde_json::from_value(found["trials"].clone()).unwrap_or_default();
    let row = |trial: &Trial| {
        vec![
            name.to_owned(),
            trial.lesson.clone(),
            trial.bound.clone(),
            trial.ending(),
            trial.others(),
        ]
    };
    let filter = ["reachable", "depending", "known"].map(|field| found[field].as_u64().unwrap_or(0));
    let [reachable, depending, known] = filter;
    let mut rows = vec![vec![
        name.to_owned(),
        "-".to_owned(),
        format!("the filter of {}", text(&found["behind"])),
        format!("{reachable} of {known} host system calls open, {depending} more by argument"),
        "-".to_owned(),
    ]];
    if let Ok(Some(observed)) = serde_json::from_value::<Option<Observed>>(found["observed"].clone()) {
        let each = observed.calls.iter().map(|(call, count)| format!("{call} {count}"));
        rows.push(vec![
            name.to_owned(),
            observed.lesson.clone(),
            "watched".to_owned(),
            format!(
                "{} different calls: {}",
                observed.distinct(),
                each.collect::<Vec<_>>().join(", ")
            ),
            "-".to_owned(),
        ]);
    }
    rows.extend(trials.iter().map(row));
    rows
}

fn line(name: &str, found: &Value, whole: &Value) -> Vec<Vec<String>> {
    let failed = |entry: &Value| entry["found"]["null_test"]["passed"] == false;
    let doubted = list(&whole["contenders"]).iter().any(failed);
    let time = |value: &Value| value["p50"].as_u64().map_or_else(|| "-".to_owned(), words::duration);
    let relative: Option<Comparison> = serde_json::from_value(found["relative"].clone()).ok();
    vec![vec![
        name.to_owned(),
        found["bytes"].to_string(),
        found["exits"]
            .as_f64()
            .map_or_else(|| "-".to_owned(), words::axis_figure),
        time(&found["ns"]),
        time(&found["host_ns"]),
        match relative {
            None => "1".to_owned(),
            Some(_) if doubted => "no verdict".to_owned(),
            Some(found) => words::ratio_with_interval(&found),
        },
    ]]
}

fn inspect(name: &str, found: &Value, _: &Value) -> Vec<Vec<String>> {
    let row = |aspect: &Value| {
        let shared = match aspect["shared"].as_bool() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        vec![
            name.to_owned(),
            text(&aspect["name"]),
            text(&aspect["inside"]),
            shared.to_owned(),
        ]
    };
    list(&found["aspects"]).iter().map(row).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn interval(value: &Value) -> Option<[f64; 2]> {
    Some([value[0].as_f64()?, value[1].as_f64()?])
}

/// Bytes with their sign: a slope or a residue may be negative.
fn bytes(value: f64) -> String {
    format!(
        "{}{}",
        if value < 0.0 { "−" } else { "" },
        words::bytes(value.abs().round() as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, chart: &str, json: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{name}.json")), json).unwrap();
        of(dir.path(), chart)
    }

    #[test]
    fn studies_have_their_tables_and_newer_ones_none() {
        let density = r#"{"schema": 1, "contenders": [{"name": "vm", "found": {"apart": {"first_bytes": 2048, "points":
            [{"instances": 0}, {"instances": 500}], "charged": {"bytes": 1024, "ci95": [512, 2048]}}}}, {"name": "runc"}]}"#;
        let table = shown("density", "density", density);
        assert!(
            table.contains("<td>vm</td>") && table.contains("1.00 KiB (0.500–2.00)"),
            "{table}"
        );
        assert!(table.contains("500") && !table.contains("runc"), "{table}");
        assert_eq!(
            shown("density", "density", &density.replace("\"schema\": 1", "\"schema\": 2")),
            ""
        );
        let memory = r#"{"schema": 1, "contenders": [{"name": "<vm>", "found": {"parts": [{"what": "page tables", "bytes": 4096,
            "source": "VmPTE"}], "sum_bytes": 4096, "residue_bytes": -100}}]}"#;
        let table = shown("memory", "ledger", memory);
        assert!(
            table.contains("&lt;vm&gt;") && table.contains("−100 B") && table.contains("VmPTE"),
            "{table}"
        );
        assert_eq!(of(Path::new("/nowhere"), "density"), "");
        assert_eq!(shown("density", "density", "{"), "");
    }
}
