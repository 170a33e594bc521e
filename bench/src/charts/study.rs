//! What the charts of all studies share: colours, caption, metadata.

use plotters::style::RGBColor;
use serde::Serialize;

use super::canvas::{Canvas, GREY, SMALL_SIZE};
use super::{Chart, Error, okabe_ito, origin};
use crate::study::results::Study;
use crate::words;

/// A contender's colour: the known ones keep theirs in every chart, and nobody else has it. A colour more would be too like
/// another; labels stand beside all of them.
pub fn color(name: &str) -> RGBColor {
    use okabe_ito::{BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY_BLUE, VERMILION};
    match name {
        "process" => BLACK,
        "container" => BLUE,
        "vm" => VERMILION,
        "crun" => GREEN,
        "runc" => PURPLE,
        "vm-restored" => ORANGE,
        "vm-linux" => SKY_BLUE,
        _ => GREY,
    }
}

/// Who is missing and why, what to know, where the data is from; and all of it again for programs.
pub fn finish<T: Serialize>(
    name: &'static str,
    title: String,
    mut canvas: Canvas,
    found: &Study<T>,
) -> Result<Chart, Error> {
    caption(&mut canvas, found);
    let metadata = serde_json::json!({ "chart": name, "title": title, "provenance": found.provenance });
    let hints = canvas.take_hints();
    let svg = canvas.into_svg(&title, &serde_json::to_string(&metadata)?)?;
    Ok(Chart {
        name,
        title,
        svg,
        hints,
    })
}

/// The text below the chart.
pub fn caption<T>(canvas: &mut Canvas, found: &Study<T>) {
    canvas.y += 8.0;
    let skipped = found.contenders.iter().filter_map(|entry| {
        let reason = words::brief(entry.reason.as_deref()?);
        Some(format!("{} ({reason})", entry.name))
    });
    let skipped: Vec<String> = skipped.collect();
    if !skipped.is_empty() {
        canvas.paragraph(
            &format!("Not measured here: {}.", skipped.join("; ")),
            SMALL_SIZE,
            GREY,
            false,
        );
    }
    canvas.paragraph(&origin(&found.provenance), SMALL_SIZE, GREY, false);
    let notes = found.notes.iter().chain(&found.provenance.notes);
    let notes: Vec<String> = notes.map(|note| format!("{}.", note.trim_end_matches('.'))).collect();
    canvas.paragraph(&notes.join(" "), SMALL_SIZE, GREY, false);
}

#[cfg(test)]
mod tests {
    use super::super::canvas::{MARGIN, WIDTH};
    use super::super::{density, ledger, line, matrix, running_cost, surface};
    use super::*;
    use crate::contenders::Skipped;
    use crate::examples;
    use crate::results::{Comparison, Distribution, NullTest};
    use crate::study::cost::lessons;
    use crate::study::results::{
        Aspect, Cost, Density, Entry, HostProcess, Identity, Ledger, LessonCost, Line, Observed, Part, Point, Readings,
        SCHEMA, Series, Slope, Surface, Trial,
    };
    use crate::study::surface::trials::WHAT;

    const NAMES: [&str; 8] = [
        "process",
        "container",
        "vm",
        "vm-restored",
        "crun",
        "runc",
        "vm-linux",
        "podman",
    ];

    /// A study of the first `count` contenders, made up by `find` from a contender's place; no figure was measured.
    fn made_up<T>(count: usize, long: bool, find: impl Fn(usize) -> T) -> Study<T> {
        let name = |name: &str| {
            if long {
                format!("{name}-{}", "and-so-on".repeat(12))
            } else {
                name.to_owned()
            }
        };
        let mut contenders: Vec<Entry<T>> = (0..count)
            .map(|place| Entry::found(&name(NAMES[place]), find(place)))
            .collect();
        let reason = if long {
            "because ".repeat(60)
        } else {
            "there is no /dev/kvm".into()
        };
        contenders.push(Entry::skipped(
            "qemu",
            Skipped {
                reason,
                fix: "load the module".into(),
            },
        ));
        Study {
            schema: SCHEMA,
            study: "example".into(),
            provenance: examples::typical().provenance,
            contenders,
            notes: vec!["A note".into()],
        }
    }

    fn assert_apart<T>(what: &str, found: &Study<T>, (title, mut canvas): (String, Canvas)) {
        caption(&mut canvas, found);
        let boxes = canvas.text_boxes();
        assert!(!boxes.is_empty());
        for (index, ([left, top, right, bottom], text)) in boxes.iter().enumerate() {
            let inside = *left >= 0.0 && *right <= WIDTH && *top >= 0.0 && *bottom <= canvas.y + MARGIN;
            assert!(inside, "{what}, {title}: “{text}” leaves the sheet");
            for ([l, t, r, b], other) in &boxes[index + 1..] {
                let apart = right <= l || r <= left || bottom <= t || b <= top;
                assert!(apart, "{what}, {title}: “{text}” touches “{other}”");
            }
        }
    }

    fn series(each: f64, up_to: u64) -> Series {
        let point = |instances| Point {
            instances,
            charged_bytes: Some((each * instances as f64) as u64),
            kernel_bytes: None,
            available_bytes: 1 << 34,
            merged_bytes: None,
        };
        let slope = Slope {
            bytes: each,
            ci95: [each * 0.98, each * 1.02],
            intercept_bytes: 0.0,
            n: 9,
        };
        Series {
            points: (0..=8).map(|step| point(up_to * step / 8)).collect(),
            first_bytes: Some(each),
            charged: Some(slope),
            available: None,
            stopped: None,
        }
    }

    fn ledger_of(place: usize) -> Ledger {
        let parts = [
            "private pages",
            "guest pages",
            "page tables",
            "second-level tables",
            "kernel stacks",
            "other kernel memory",
            "file pages",
        ];
        let part = |(index, what): (usize, &&str)| Part {
            what: (*what).into(),
            bytes: (index != 3).then_some((place + 1) as f64 * 50_000.0),
            taken: *what != "file pages",
            source: "an example".into(),
        };
        Ledger {
            parts: parts.iter().enumerate().map(part).collect(),
            of_which: Vec::new(),
            sum_bytes: 5.0 * (place + 1) as f64 * 50_000.0,
            available_bytes: Readings::of(&[-100_000.0, 300_000.0, 900_000.0]),
            residue_bytes: Some(-12_345.0),
            processes: Vec::new(),
            guest_configured_bytes: (place == 2).then_some(64 << 20),
            instances: 16,
        }
    }

    fn cost_of(place: usize, times: f64) -> Cost {
        let lesson = |name: &str| LessonCost {
            lesson: format!("{name} 1000"),
            operations: 1000,
            ns: Distribution {
                n: 20,
                min: 1,
                p50: 123_456_789,
                p90: None,
                p99: None,
                max: 1 << 40,
            },
            relative: (place != 0).then(|| Comparison {
                a: "a".into(),
                b: "process".into(),
                ratio: times * place as f64,
                ci95: [times * place as f64 * 0.9, times * place as f64 * 1.2],
            }),
            exits_per_operation: Some(1.0025),
            waited: None,
            null_test: Some(NullTest {
                contender: "process".into(),
                ratio: 1.0,
                ci95: [0.9, 1.1],
                passed: true,
            }),
        };
        Cost {
            lessons: lessons::NAMES.map(lesson).to_vec(),
            skipped: Vec::new(),
        }
    }

    fn identity_of(place: usize) -> Identity {
        let aspect = |name: &&str| Aspect {
            name: (*name).into(),
            inside: "Linux 6.18.0-with-a-long-name".into(),
            shared: [Some(true), Some(false), None][place % 3],
        };
        Identity {
            aspects: ["kernel", "boot", "processes", "System V IPC"]
                .iter()
                .map(aspect)
                .collect(),
            whoami: serde_json::Value::Null,
            host_processes: vec![HostProcess {
                name: "vmm".into(),
                threads: 1,
            }],
        }
    }

    fn surface_of(place: usize) -> Surface {
        let doors = r#"{"doors":[{"answer":"EROFS"},{"answer":"EPERM"},{"answer":"ENOENT"},{"answer":"errno 123"}]}"#;
        let trial = |what: &&str| Trial {
            what: (*what).into(),
            lesson: (*what).into(),
            bound: "none".into(),
            own_kernel: place == 2,
            status: [139, 116, 137, 0][place % 4],
            said: if *what == "panic" { doors.into() } else { String::new() },
            sibling_survived: place != 3,
            next_started: Some(place != 3),
            host_survived: (place != 1).then_some(place != 3),
        };
        Surface {
            behind: "workload".into(),
            reachable: 383 - 40 * place as u64,
            depending: place as u64,
            known: 383,
            observed: (place != 1).then(|| Observed {
                lesson: "whoami".into(),
                calls: (0..20 + place).map(|call| (format!("call{call}"), 3)).collect(),
            }),
            trials: WHAT.iter().map(trial).collect(),
        }
    }

    /// The study in a results folder, its chart where a study puts it, and that chart explained.
    fn explained<T: Serialize>(mut found: Study<T>, study: &str, chart: Chart) -> crate::explain::Explained {
        found.study = study.into();
        let dir = tempfile::tempdir().unwrap();
        let charts = dir.path().join("charts");
        std::fs::create_dir(&charts).unwrap();
        let text = serde_json::to_string_pretty(&found).unwrap();
        std::fs::write(dir.path().join(format!("{study}.json")), text).unwrap();
        std::fs::write(dir.path().join(format!("{study}.jsonl")), "{}\n{}\n").unwrap();
        let path = charts.join(format!("{}.svg", chart.name));
        std::fs::write(&path, chart.svg).unwrap();
        crate::explain::explain(&path, None).unwrap()
    }

    #[test]
    fn every_studys_chart_can_be_explained_and_drawn_anew() {
        use crate::explain::Redrawn;
        let density = || {
            made_up(3, false, |place| Density {
                apart: series(1e6 / (place + 3) as f64, 100),
                merged: None,
            })
        };
        let ledger = || made_up(4, false, ledger_of);
        let cost = || made_up(4, false, |place| cost_of(place, 1.0 / 3.0));
        let identity = || made_up(3, false, identity_of);
        let surface = || made_up(4, false, surface_of);
        let all = [
            explained(density(), "density", density::draw(&density()).unwrap()),
            explained(ledger(), "memory", ledger::draw(&ledger()).unwrap()),
            explained(cost(), "cost", running_cost::draw(&cost()).unwrap()),
            explained(identity(), "inspect", matrix::draw(&identity()).unwrap()),
            explained(surface(), "surface", surface::draw(&surface()).unwrap()),
        ];
        for found in all {
            assert_eq!(found.redrawn, Redrawn::Same { samples: 2 }, "{}", found.chart);
            assert_eq!(found.provenance.unwrap(), examples::typical().provenance);
        }
        // Another's findings are not what the chart shows.
        let chart = surface::draw(&surface()).unwrap();
        let mut other = surface();
        other.contenders.truncate(2);
        let found = explained(other, "surface", chart);
        assert!(matches!(found.redrawn, Redrawn::Differs { .. }), "{:?}", found.redrawn);
    }

    fn line_of(place: usize, exits: f64, ns: u64) -> Line {
        let times = |ns| Distribution {
            n: 20,
            min: 1,
            p50: ns,
            p90: None,
            p99: None,
            max: 1 << 40,
        };
        Line {
            bytes: 80,
            lines: 50,
            exits: exits / (place + 1) as f64,
            ns: times(ns / (place as u64 + 1)),
            host_ns: times(ns / (place as u64 + 1) / 3),
            relative: None,
            null_test: (place == 0).then(|| NullTest {
                contender: "serial port".into(),
                ratio: 1.0,
                ci95: [0.99, 1.01],
                passed: true,
            }),
        }
    }

    /// The ways by their own names.
    fn lines(count: usize, exits: f64, ns: u64) -> Study<Line> {
        let mut found = made_up(count, false, |place| line_of(place, exits, ns));
        let ways = ["serial port", "debug port", "virtio-console"];
        found.contenders.truncate(count);
        for (entry, way) in found.contenders.iter_mut().zip(ways) {
            entry.name = way.into();
        }
        found
    }

    #[test]
    fn no_text_touches_another_or_leaves_the_sheet() {
        for (count, long) in [(0, false), (1, false), (4, false), (8, false), (8, true)] {
            let what = format!("{count} contenders, long names: {long}");
            for (each, up_to) in [(1_500_000.0, 1000), (1_500_000.0, 4), (3.0, 10_000)] {
                let found = made_up(count, long, |place| Density {
                    apart: series(each * (place + 1) as f64, up_to),
                    merged: (place % 2 == 0).then(|| series(each, up_to)),
                });
                assert_apart(&what, &found, density::sheet(&found));
            }
            let found = made_up(count, long, ledger_of);
            assert_apart(&what, &found, ledger::sheet(&found));
            for times in [1.0, 0.01, 90_000.0] {
                let found = made_up(count, long, |place| cost_of(place, times));
                assert_apart(&what, &found, running_cost::sheet(&found));
            }
            let found = made_up(count, long, identity_of);
            assert_apart(&what, &found, matrix::sheet(&found));
            let found = made_up(count, long, surface_of);
            assert_apart(&what, &found, surface::sheet(&found));
            for (exits, ns) in [(80.0, 800_000), (1.0, 1), (1_000.0, 999_999_999_999)] {
                let found = made_up(count, long, |place| line_of(place, exits, ns));
                assert_apart(&what, &found, line::sheet(&found));
                let found = lines(count.min(3), exits, ns);
                assert_apart(&what, &found, line::sheet(&found));
            }
        }
    }

    #[test]
    fn titles_are_computed_from_the_data() {
        let found = made_up(3, false, |place| Density {
            apart: series(1_048_576.0 * (place + 1) as f64, 100),
            merged: None,
        });
        assert_eq!(
            density::sheet(&found).0,
            "One more idle VM takes 3.00 MiB, one more container 2.00 MiB"
        );
        let found = made_up(3, false, surface_of);
        assert_eq!(
            surface::sheet(&found).0,
            "A VM's launcher may make 303 of the host's 383 system calls, a container's program 343"
        );
        let mut found = made_up(3, false, |place| cost_of(place, 1.0));
        assert!(
            running_cost::sheet(&found).0.ends_with("a system call 2.0 times"),
            "{}",
            running_cost::sheet(&found).0
        );
        let mut printed = lines(3, 80.0, 800_000);
        assert_eq!(
            line::sheet(&printed).0,
            "A line of 80 bytes takes 80 exits and 800 µs by serial port, 40 exits and 400 µs by debug port, 26.666667 exits and 267 µs by virtio-console"
        );
        printed.contenders[0]
            .found
            .as_mut()
            .unwrap()
            .null_test
            .as_mut()
            .unwrap()
            .passed = false;
        assert!(line::sheet(&printed).0.ends_with(" by virtio-console") && !line::sheet(&printed).0.contains("µs"));
        // Where the machine is too noisy the title claims nothing.
        let plain = found.contenders[0].found.as_mut().unwrap();
        plain
            .lessons
            .iter_mut()
            .for_each(|lesson| lesson.null_test.as_mut().unwrap().passed = false);
        assert_eq!(
            running_cost::sheet(&found).0,
            "What work costs inside, relative to a plain process"
        );
    }
}
