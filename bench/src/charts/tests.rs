//! Every chart with every kind of data.

use super::*;
use crate::examples;

fn runs() -> [(&'static str, (Summary, Vec<Sample>)); 7] {
    [
        ("typical", examples::typical_run()),
        ("without_kvm", examples::without_kvm_run()),
        ("many", examples::many_run()),
        ("far_apart", examples::far_apart_run()),
        ("single", examples::single_run()),
        ("empty", examples::empty_run()),
        ("wordy", wordy_run()),
    ]
}

/// Names, notes and reasons longer than any sheet is wide.
fn wordy_run() -> (Summary, Vec<Sample>) {
    let long = |text: &str| format!("{text}-{}", "and-so-on".repeat(20));
    let (mut summary, mut samples) = examples::many_run();
    for contender in &mut summary.contenders {
        contender.name = long(&contender.name);
        contender
            .phases
            .iter_mut()
            .for_each(|phase| phase.name = long(&phase.name));
        contender
            .memory
            .iter_mut()
            .for_each(|memory| memory.note = Some(long("note")));
    }
    samples
        .iter_mut()
        .for_each(|sample| sample.contender = long(&sample.contender));
    summary.provenance.cpu = long("cpu");
    summary.contenders.extend(examples::empty().contenders);
    summary
        .contenders
        .iter_mut()
        .for_each(|contender| contender.reason = contender.reason.as_deref().map(long));
    (summary, samples)
}

fn linear(summary: &Summary, samples: &[Sample]) -> (String, Canvas) {
    let (title, canvas, _) = startup::sheet_on(summary, samples, startup::Axis::Linear);
    (title, canvas)
}

#[test]
fn a_guess_is_drawn_or_said_to_lie_outside() {
    let (mut summary, samples) = examples::typical_run();
    for (guess, said) in [(3.0, "(dashed line)"), (1000.0, "outside this chart")] {
        summary.provenance.prediction = Some(guess);
        let (_, canvas) = startup::sheet(&summary, &samples);
        let text: String = canvas.text_boxes().iter().map(|(_, text)| *text).collect();
        assert!(
            text.contains("The guess before the race") && text.contains(said),
            "{text}"
        );
    }
}

#[test]
fn a_hundred_thousand_samples_draw_no_more_than_the_plot_has_columns() {
    let (summary, samples) = examples::race(&[("process", 1_000_000, 0.3), ("vm", 5_000_000, 0.3)], 16_700, &[]);
    assert!(samples.len() > 100_000);
    for chart in draw_all(&summary, &samples).unwrap() {
        assert!(chart.svg.len() < 60_000, "{}: {} bytes", chart.name, chart.svg.len());
    }
}

#[test]
fn no_text_touches_another_or_leaves_the_sheet() {
    for (run, (summary, samples)) in runs() {
        let sheets = [
            startup::sheet(&summary, &samples),
            phases::sheet(&summary),
            memory::sheet(&summary),
            linear(&summary, &samples),
        ];
        for (title, mut canvas) in sheets {
            caption(&mut canvas, &summary);
            assert_apart(run, &title, &canvas);
        }
    }
}

/// No text touches another or leaves the sheet.
pub(super) fn assert_apart(run: &str, title: &str, canvas: &Canvas) {
    let boxes = canvas.text_boxes();
    for (index, ([left, top, right, bottom], text)) in boxes.iter().enumerate() {
        assert!(
            *left >= 0.0 && *right <= canvas::WIDTH,
            "{run}, {title}: {text} leaves the sheet"
        );
        assert!(
            *top >= 0.0 && *bottom <= canvas.y + canvas::MARGIN,
            "{run}, {title}: {text} leaves the sheet"
        );
        for ([l, t, r, b], other) in &boxes[index + 1..] {
            let apart = right <= l || r <= left || bottom <= t || b <= top;
            assert!(apart, "{run}, {title}: “{text}” touches “{other}”");
        }
    }
}

#[test]
fn charts_are_files_with_their_provenance_inside() {
    let folder = tempfile::tempdir().unwrap();
    let (summary, samples) = examples::typical_run();
    let files = write_all(&summary, &samples, &folder.path().join("charts")).unwrap();
    let names: Vec<_> = files
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["startup.svg", "phases.svg", "memory.svg"]);
    for file in files {
        let svg = std::fs::read_to_string(&file).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        let json = svg
            .split("<metadata>")
            .nth(1)
            .unwrap()
            .split("</metadata>")
            .next()
            .unwrap();
        let json: serde_json::Value = serde_json::from_str(&json.replace("&quot;", "\"")).unwrap();
        assert_eq!(json["provenance"]["kvm_backend"], "pvm");
        for expected in origin(&summary.provenance).split_whitespace() {
            assert!(svg.contains(expected), "{expected} is missing in {}", file.display());
        }
    }
}

#[test]
fn titles_are_computed_from_the_data() {
    let (summary, samples) = examples::without_kvm_run();
    let charts = draw_all(&summary, &samples).unwrap();
    let p50 = |index: usize| words::duration(summary.contenders[index].startup_ns.unwrap().p50);
    let expected = format!(
        "A plain process has started after {}, a container after {} (medians)",
        p50(0),
        p50(1)
    );
    assert_eq!(charts[0].title, expected);
    assert!(
        charts[1]
            .title
            .starts_with("The step to “clone returned” is 31% of the container's start"),
        "{}",
        charts[1].title
    );
    assert_eq!(charts[2].title, "An idle container holds 550 KiB");
}

#[test]
fn a_title_claims_no_more_than_the_verdict() {
    let (mut summary, samples) = examples::typical_run();
    let title = |summary: &Summary| startup::sheet(summary, &samples).0;
    assert!(title(&summary).ends_with("times as long"), "{}", title(&summary));
    summary.null_test.as_mut().unwrap().passed = false;
    assert!(title(&summary).ends_with("no verdict"), "{}", title(&summary));
}

#[test]
fn a_hostile_name_stays_text() {
    let (mut summary, mut samples) = examples::single_run();
    let name = "<script>\u{1}&\"'";
    summary.contenders[0].name = name.into();
    samples.iter_mut().for_each(|sample| sample.contender = name.into());
    for chart in draw_all(&summary, &samples).unwrap() {
        assert!(
            !chart.svg.contains("<script>") && !chart.svg.contains('\u{1}'),
            "{}",
            chart.name
        );
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (summary, samples) = examples::empty_run();
    let error = write_all(&summary, &samples, &file.path().join("charts"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("charts") && error.contains("Not a directory"), "{error}");
}
