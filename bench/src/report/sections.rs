//! The parts of the report: a table for each chart, the skipped contenders, the method, the machine.

use super::html::{escape, facts, paragraph, table, terms};
use crate::results::{Memory, Phase, Summary};
use crate::stats::{NULL_TOLERANCE, NULL_WIDEST};
use crate::words;

/// What a table shows where nothing is known.
const UNKNOWN: &str = "-";

fn or_unknown(text: Option<String>) -> String {
    text.unwrap_or_else(|| UNKNOWN.to_string())
}

pub(super) fn startup(summary: &Summary) -> String {
    let (measured, _) = words::measured_and_skipped(summary);
    if measured.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = measured
        .iter()
        .map(|contender| {
            let found = contender.startup_ns;
            let shown = |ns: Option<u64>| or_unknown(ns.map(words::milliseconds));
            let against = words::comparison(summary, &contender.name, "process");
            let alone = (contender.name == "process").then(|| "1".to_string());
            vec![
                words::label(&contender.name, &summary.provenance),
                shown(found.map(|found| found.min)),
                shown(found.map(|found| found.p50)),
                shown(found.and_then(|found| found.p90)),
                shown(found.and_then(|found| found.p99)),
                shown(found.map(|found| found.max)),
                or_unknown(found.map(|found| found.n.to_string())),
                or_unknown(against.map(|found| words::ratio_with_interval(&found)).or(alone)),
                shown(contender.total_ns.map(|found| found.p50)),
            ]
        })
        .collect();
    let header = [
        "contender",
        "min",
        "p50",
        "p90",
        "p99",
        "max",
        "n",
        "× process (95%)",
        "p50 of the whole run",
    ];
    let caption = "Start line to finish line, in milliseconds; the last column lasts until the launcher ended. A percentile the runs are too few for is left out \
                   (p90 below 10, p99 below 100).";
    table(caption, &header, 8, &rows)
}

pub(super) fn phases(summary: &Summary) -> String {
    let sides = summary
        .contenders
        .iter()
        .filter(|contender| !contender.phases.is_empty());
    sides
        .map(|side| {
            let whole = side.phases.last().map_or(0, |last| last.start_ns + last.duration_ns);
            let row = |phase: &Phase| {
                vec![
                    phase.name.clone(),
                    words::duration(phase.start_ns),
                    words::duration(phase.duration_ns),
                    words::share(phase.duration_ns, whole),
                    phase.emitter.clone(),
                ]
            };
            let rows: Vec<Vec<String>> = side.phases.iter().map(row).collect();
            let name = words::label(&side.name, &summary.provenance);
            let caption = format!("{name}: {} from start line to finish line", words::duration(whole));
            table(
                &caption,
                &["until", "began at", "took", "share", "reported by"],
                3,
                &rows,
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
}

pub(super) fn memory(summary: &Summary) -> String {
    let (measured, _) = words::measured_and_skipped(summary);
    if measured.is_empty() {
        return String::new();
    }
    let unknown = Memory {
        note: Some("not measured".to_string()),
        ..Memory::default()
    };
    let rows: Vec<Vec<String>> = measured
        .iter()
        .map(|contender| {
            let memory = contender.memory.as_ref().unwrap_or(&unknown);
            let amounts = [
                memory.peak_bytes,
                memory.idle_bytes,
                memory.unique_bytes,
                memory.shared_bytes,
                memory.kernel_bytes,
                memory.guest_touched_bytes,
                memory.guest_configured_bytes,
            ];
            let mut row = vec![words::label(&contender.name, &summary.provenance)];
            row.extend(amounts.map(|amount| or_unknown(amount.map(words::bytes))));
            row.push(memory.note.clone().unwrap_or_default());
            row
        })
        .collect();
    let header = [
        "contender",
        "peak",
        "charged idle",
        "private",
        "shared",
        "kernel",
        "guest touched",
        "guest may use",
        "",
    ];
    let caption = "Per instance. Peak, charged idle and kernel: by its memory cgroup. Private and shared: its processes' \
                   pages. Guest touched is part of private and shared.";
    table(caption, &header, 7, &rows)
}

pub(super) fn skipped(summary: &Summary) -> String {
    let (_, skipped) = words::measured_and_skipped(summary);
    if skipped.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = skipped
        .iter()
        .map(|contender| {
            let reason = contender.reason.clone();
            vec![
                contender.name.clone(),
                or_unknown(reason),
                or_unknown(contender.fix.clone()),
            ]
        })
        .collect();
    let table = table(
        "Asked for, and not able to run here",
        &["contender", "why", "what would change that"],
        0,
        &rows,
    );
    format!("<section>\n<h2>Not raced</h2>\n{table}</section>\n")
}

pub(super) fn method(summary: &Summary) -> String {
    let from = &summary.provenance;
    let null_test = match &summary.null_test {
        Some(test) => format!(
            "{} was raced against itself in the same run. The truth is 1; the result was {:.3} (95% {:.3} to {:.3}). \
             The test {}. It passes when the interval contains 1 or lies within {:.0}% of it, and its high end is at \
             most {NULL_WIDEST} times its low end; when it fails, the machine is too noisy and there is no verdict.",
            test.contender,
            test.ratio,
            test.ci95[0],
            test.ci95[1],
            if test.passed { "passed" } else { "failed" },
            NULL_TOLERANCE * 100.0
        ),
        None => "This run has none, so it has no verdict either.".to_string(),
    };
    let list = terms(&[
        (
            "Start line",
            "The moment before the harness spawns the launcher process, on CLOCK_MONOTONIC.".to_string(),
        ),
        (
            "Finish line",
            "The moment the workload's first byte of output reaches the harness, on the same clock. Every contender \
             is timed between these two by the same code and runs the same program, byte for byte."
                .to_string(),
        ),
        (
            "Interleaving",
            format!(
                "Every round launches every contender once, in an order drawn by lot; the next round takes it backwards \
                 (ABBA), with {} ms of rest between launches. A machine that grows slower or faster does so for all \
                 of them alike. A few launches to warm up come first and do not count.",
                from.gap_ms
            ),
        ),
        (
            "Ratio and interval",
            "A ratio is one median over another. Its interval is a percentile bootstrap of 10,000 redraws: were the \
             race repeated on this machine in this state, about 95 intervals in 100 made this way would hold the true \
             ratio. Percentiles interpolate as NumPy and R do by default (type 7)."
                .to_string(),
        ),
        ("Null test", null_test),
        (
            "Phases",
            "From launches of their own, in which the launchers report each finished step. Each step stands at the \
             median of its moments; so the phases add up to the whole. These launches are not in the start-up figures."
                .to_string(),
        ),
        (
            "Memory",
            "From launches of their own in a memory cgroup, with a workload that idles. What the host accounts to one \
             instance, its kernel memory included; memory a guest may use and has not touched is not counted."
                .to_string(),
        ),
    ]);
    format!("<section>\n<h2>How it was measured</h2>\n{list}</section>\n")
}

pub(super) fn machine(summary: &Summary) -> String {
    let from = &summary.provenance;
    let fact = |name: &str, value: String| (name.to_string(), value);
    let mut list = vec![
        fact("Date", from.date.clone()),
        fact("Processor", format!("{}, {} online", from.cpu, from.cpus)),
        fact("Memory", words::bytes(from.memory_bytes)),
        fact("Host kernel", from.kernel.clone()),
        fact("KVM backend", from.kvm_backend.clone()),
        fact(
            "Host is itself a guest",
            if from.nested { "yes" } else { "no" }.to_string(),
        ),
        fact(
            "Processor is emulated",
            if from.emulated { "yes: ratios only" } else { "no" }.to_string(),
        ),
        fact("cgroup", from.cgroup_mode.clone()),
        fact(
            "Load at the start",
            from.load.map(|load| format!("{load:.2}")).join(" "),
        ),
        fact(
            "Frequency governor",
            from.governor.clone().unwrap_or_else(|| "none".to_string()),
        ),
        fact("Transparent huge pages", from.thp.clone()),
        fact(
            "Same-page merging",
            if from.ksm { "running" } else { "off" }.to_string(),
        ),
        fact("User id", from.uid.to_string()),
        fact("Lab revision", or_unknown(from.git_revision.clone())),
        fact("Guest kernel SHA-256", or_unknown(from.kernel_sha256.clone())),
        fact("Workload SHA-256", from.workload_sha256.clone()),
        fact("Workload", from.workload.join(" ")),
        fact("Command", from.command.join(" ")),
        fact("Timed runs each", from.n.to_string()),
    ];
    list.extend(from.notes.iter().map(|note| fact("Note", note.clone())));
    let mut section = format!("<section>\n<h2>Machine and provenance</h2>\n{}", facts(&list));
    for contender in &summary.contenders {
        let details = contender
            .details
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        let mut details: Vec<(String, String)> = details.collect();
        details.extend(
            contender
                .checksum
                .iter()
                .map(|sum| fact("workload's checksum", sum.clone())),
        );
        if !details.is_empty() {
            section.push_str(&format!("<h3>{}</h3>\n{}", escape(&contender.name), facts(&details)));
        }
    }
    if summary.contenders.is_empty() {
        section.push_str(&paragraph("No contender was asked for."));
    }
    section.push_str("</section>\n");
    section
}
