//! Figures and names as a reader meets them: the same words in the table, the charts and the report.

use crate::results::{Comparison, Contender, Provenance, Status, Summary};

/// Digits a measured figure is shown with. The fourth is noise on any machine.
const DIGITS: i32 = 3;

/// Nanoseconds as a bare number of milliseconds, for a column or an axis that names the unit.
pub fn milliseconds(ns: u64) -> String {
    significant(ns as f64 / 1e6, DIGITS)
}

/// Nanoseconds with the unit that suits them.
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", significant(ns as f64 / 1e3, DIGITS)),
        1_000_000..1_000_000_000 => format!("{} ms", significant(ns as f64 / 1e6, DIGITS)),
        _ => format!("{} s", significant(ns as f64 / 1e9, DIGITS)),
    }
}

/// Bytes with the unit (of 1024) that suits them.
pub fn bytes(bytes: u64) -> String {
    match byte_unit(bytes as f64) {
        (_, "B") => format!("{bytes} B"),
        (unit, name) => format!("{} {name}", significant(bytes as f64 / unit, DIGITS)),
    }
}

/// The unit (of 1024) that suits so many bytes, and its name.
fn byte_unit(bytes: f64) -> (f64, &'static str) {
    const KIB: f64 = 1024.0;
    match bytes {
        b if b < KIB => (1.0, "B"),
        b if b < KIB.powi(2) => (KIB, "KiB"),
        b if b < KIB.powi(3) => (KIB.powi(2), "MiB"),
        _ => (KIB.powi(3), "GiB"),
    }
}

/// Bytes of either sign with their interval, all in the unit that suits the figure: `1.23 MiB (1.20–1.26)`, and where an end is
/// negative `33.8 KiB (−449 to 517)`.
pub fn bytes_with_interval(bytes: f64, [low, high]: [f64; 2]) -> String {
    let (unit, name) = byte_unit(bytes.abs());
    let figure = |bytes: f64| {
        let sign = if bytes < 0.0 { "−" } else { "" };
        format!("{sign}{}", significant(bytes.abs() / unit, DIGITS))
    };
    let between = if low < 0.0 { " to " } else { "–" };
    format!("{} {name} ({}{between}{})", figure(bytes), figure(low), figure(high))
}

/// A tick of an axis: as many digits as it has, and no zeros behind them.
pub fn axis_figure(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A ratio, to two digits: more would claim more than a machine repeats tomorrow. Close to 1, where two digits would
/// hide the difference, to two decimals.
pub fn ratio(ratio: f64) -> String {
    with_decimals(ratio, ratio_decimals(ratio))
}

/// A ratio's 95% interval, with as many decimals as [`ratio`] shows of it: `95% 1.8–2.0`.
pub fn interval(found: &Comparison) -> String {
    let end = |end| with_decimals(end, ratio_decimals(found.ratio));
    format!("95% {}–{}", end(found.ci95[0]), end(found.ci95[1]))
}

/// A ratio with its 95% interval for a column that says so, a decimal finer than [`ratio`]: `1.93 (1.84–2.02)`.
pub fn ratio_with_interval(found: &Comparison) -> String {
    let decimals = match found.ratio {
        ratio if ratio < 10.0 => ratio_decimals(ratio).max(2),
        ratio if ratio < 100.0 => 1,
        _ => 0,
    };
    let [ratio, low, high] = [found.ratio, found.ci95[0], found.ci95[1]].map(|figure| with_decimals(figure, decimals));
    format!("{ratio} ({low}–{high})")
}

fn ratio_decimals(ratio: f64) -> usize {
    match ratio {
        ratio if (0.9..1.1).contains(&ratio) => 2,
        ratio if ratio >= 10.0 => 0,
        ratio if ratio >= 1.0 => 1,
        // 0.34 has two digits with two decimals, 0.034 with three.
        ratio if ratio > 0.0 => (1.0 - ratio.log10().floor()) as usize,
        _ => 1,
    }
}

fn with_decimals(value: f64, decimals: usize) -> String {
    if value.is_finite() {
        format!("{value:.decimals$}")
    } else {
        "-".to_string()
    }
}

/// A share of a whole: `38%`, `<1%`.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_string();
    }
    let percent = part as f64 * 100.0 / whole as f64;
    if part > 0 && percent < 1.0 {
        "<1%".to_string()
    } else {
        format!("{percent:.0}%")
    }
}

/// `value` with `digits` significant digits, without an exponent.
pub fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_string() } else { "-".to_string() };
    }
    let decimals = |value: f64| (digits - 1 - value.abs().log10().floor() as i32).max(0);
    // Rounding may carry into a new digit (9.996 is 10.0, not 10.00): count again on the rounded value.
    let scale = 10f64.powi(decimals(value));
    let rounded = (value * scale).round() / scale;
    format!("{rounded:.*}", decimals(rounded) as usize)
}

/// A contender's name where figures stand: what a VM costs depends on what is beneath KVM, so it says so.
pub fn label(contender: &str, provenance: &Provenance) -> String {
    let is_vm = contender == "vm" || contender.starts_with("vm-");
    let backend = provenance.kvm_backend.as_str();
    if is_vm && !backend.is_empty() && backend != "none" {
        format!("{contender} ({backend})")
    } else {
        contender.to_string()
    }
}

/// What stands beside every figure made on an emulated processor.
pub const EMULATED: &str = "Emulated CPU: ratios only. Times are those of an emulator that translates every instruction; \
                            compare them with each other, never with a time from elsewhere.";

/// A reason short enough for a sentence or a caption; the whole of it stands with the contender.
pub fn brief(reason: &str) -> String {
    const LONGEST: usize = 100;
    let reason = reason.trim_end_matches('.');
    if reason.chars().count() <= LONGEST {
        return reason.to_string();
    }
    let cut = wrap(reason, LONGEST as f64, |line| line.chars().count() as f64);
    format!(
        "{}…",
        cut.first()
            .map_or("", String::as_str)
            .trim_end_matches([',', ';', ':', '.'])
    )
}

/// The first digits of a git revision, enough to find it, with its `-dirty`.
pub fn short_revision(revision: &str) -> String {
    const DIGITS: usize = 12;
    match revision.split_once('-') {
        Some((hash, state)) => format!("{hash:.DIGITS$}-{state}"),
        None => format!("{revision:.DIGITS$}"),
    }
}

/// A contender in a sentence, as its subject: `A VM`.
pub fn spoken(contender: &str) -> String {
    match contender {
        "vm" => "A VM".to_string(),
        "container" => "A container".to_string(),
        "process" => "A plain process".to_string(),
        peer => peer.to_string(),
    }
}

/// [`spoken`] anywhere else in the sentence: `a VM`.
pub fn spoken_within(contender: &str) -> String {
    match contender {
        "vm" | "container" | "process" => spoken(contender).replacen('A', "a", 1),
        peer => peer.to_string(),
    }
}

/// The contenders that ran and those that could not.
pub fn measured_and_skipped(summary: &Summary) -> (Vec<&Contender>, Vec<&Contender>) {
    summary
        .contenders
        .iter()
        .partition(|contender| contender.status == Status::Measured)
}

/// The comparison of `a` with `b`, turned round when the summary holds it the other way. None when the summary has
/// none, or one without a figure.
pub fn comparison(summary: &Summary, a: &str, b: &str) -> Option<Comparison> {
    let found = summary.comparisons.iter().find_map(|found| {
        if found.a == a && found.b == b {
            Some(found.clone())
        } else if found.a == b && found.b == a {
            let [low, high] = found.ci95;
            Some(Comparison {
                a: a.into(),
                b: b.into(),
                ratio: 1.0 / found.ratio,
                ci95: [1.0 / high, 1.0 / low],
            })
        } else {
            None
        }
    })?;
    [found.ratio, found.ci95[0], found.ci95[1]]
        .iter()
        .all(|figure| figure.is_finite())
        .then_some(found)
}

/// A signal by its name: `SIGSEGV`.
pub fn signal(number: i32) -> String {
    let known = nix::sys::signal::Signal::try_from(number);
    known.map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_string())
}

/// How near 1 a ratio's whole interval must lie for the two sides to count as equally fast. A tenth is the least
/// difference the two digits of [`ratio`] are shown for.
const ALIKE: std::ops::RangeInclusive<f64> = 0.9..=1.1;

/// What a ratio's interval allows to be said of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The interval is all above or all below 1: one side is faster.
    Apart,
    /// It contains 1 and lies close around it: equally fast.
    Alike,
    /// It contains 1 and reaches far from it: the run is too coarse to say anything.
    Unknown,
}

/// What `found` allows to be said.
pub fn difference(found: &Comparison) -> Difference {
    let [low, high] = found.ci95;
    if low > 1.0 || high < 1.0 {
        Difference::Apart
    } else if ALIKE.contains(&low) && ALIKE.contains(&high) {
        Difference::Alike
    } else {
        Difference::Unknown
    }
}

/// Breaks `text` at spaces into lines no wider than `width`, by the measure given. A word wider than a line has one of
/// its own, cut into pieces that fit.
pub fn wrap(text: &str, width: f64, measure: impl Fn(&str) -> f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let longer = if line.is_empty() {
            word.to_string()
        } else {
            format!("{line} {word}")
        };
        if measure(&longer) <= width {
            line = longer;
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for letter in word.chars() {
            line.push(letter);
            if measure(&line) > width && line.chars().count() > 1 {
                line.pop();
                lines.push(std::mem::replace(&mut line, letter.to_string()));
            }
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_the_unit_of_its_figure() {
        let mib = |figure: f64| figure * 1024.0 * 1024.0;
        let shown = bytes_with_interval(mib(1.0273), [mib(1.0), mib(12.0)]);
        assert_eq!(shown, "1.03 MiB (1.00–12.0)");
        assert_eq!(
            bytes_with_interval(2048.0, [-1024.0, 5120.0]),
            "2.00 KiB (−1.00 to 5.00)"
        );
        assert_eq!(bytes_with_interval(-512.0, [-1024.0, 0.0]), "−512 B (−1024 to 0)");
    }

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        let durations = [
            (0, "0 ns"),
            (999, "999 ns"),
            (20_000, "20.0 µs"),
            (412_345, "412 µs"),
            (2_314_000, "2.31 ms"),
        ];
        for (ns, text) in durations
            .into_iter()
            .chain([(47_040_000, "47.0 ms"), (1_500_000_000, "1.50 s")])
        {
            assert_eq!(duration(ns), text);
        }
        assert_eq!(milliseconds(22_600_000), "22.6");
        for (value, text) in [
            (512, "512 B"),
            (430_080, "420 KiB"),
            (1_572_864, "1.50 MiB"),
            (64 << 20, "64.0 MiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(significant(9.996, 3), "10.0");
        assert_eq!(significant(1234.5, 3), "1235");
    }

    #[test]
    fn ratios_and_shares() {
        assert_eq!(
            [1.94, 0.344, 12.4, 0.999, 0.0344].map(ratio),
            ["1.9", "0.34", "12", "1.00", "0.034"]
        );
        let found = |ratio, ci95| Comparison {
            a: "a".into(),
            b: "b".into(),
            ratio,
            ci95,
        };
        assert_eq!(interval(&found(1.93, [1.84, 2.02])), "95% 1.8–2.0");
        assert_eq!(ratio_with_interval(&found(1.93, [1.84, 2.02])), "1.93 (1.84–2.02)");
        assert_eq!(ratio_with_interval(&found(36.96, [34.9, 39.2])), "37.0 (34.9–39.2)");
        assert_eq!(ratio(f64::NAN), "-");
        assert_eq!(
            [share(1, 3), share(1, 1000), share(0, 5), share(1, 0)],
            ["33%", "<1%", "0%", "-"]
        );
    }

    #[test]
    fn a_wide_interval_is_no_equality() {
        let difference = |ci95| {
            difference(&Comparison {
                a: "a".into(),
                b: "b".into(),
                ratio: 1.0,
                ci95,
            })
        };
        assert_eq!(difference([0.7, 10.53]), Difference::Unknown);
        assert_eq!(difference([0.89, 1.02]), Difference::Unknown);
        assert_eq!(difference([0.97, 1.04]), Difference::Alike);
        assert_eq!(difference([1.01, 1.04]), Difference::Apart);
        assert_eq!(difference([0.2, 0.4]), Difference::Apart);
    }

    #[test]
    fn a_comparison_is_found_either_way_round() {
        let stored = Comparison {
            a: "vm".into(),
            b: "crun".into(),
            ratio: 0.5,
            ci95: [0.4, 0.8],
        };
        let summary = Summary {
            schema: 1,
            provenance: Provenance::default(),
            contenders: Vec::new(),
            comparisons: vec![stored.clone()],
            null_test: None,
            null_tests: Vec::new(),
        };
        assert_eq!(comparison(&summary, "vm", "crun"), Some(stored));
        let turned = comparison(&summary, "crun", "vm").unwrap();
        assert_eq!((turned.ratio, turned.ci95), (2.0, [1.25, 2.5]));
        assert_eq!(comparison(&summary, "crun", "runc"), None);
    }

    #[test]
    fn what_is_long_is_cut_at_a_word() {
        assert_eq!(brief("there is no /dev/kvm."), "there is no /dev/kvm");
        let long = brief(&"word, ".repeat(40));
        assert!(long.ends_with("word…") && long.chars().count() <= 101, "{long}");
        assert_eq!(
            short_revision("8dc7a5283a3167d2876ccf7d2765bb1c31a4e57e-dirty"),
            "8dc7a5283a31-dirty"
        );
        assert_eq!(short_revision("8dc7a52"), "8dc7a52");
    }

    #[test]
    fn only_a_vm_names_the_backend() {
        let on = |backend: &str| Provenance {
            kvm_backend: backend.into(),
            ..Provenance::default()
        };
        assert_eq!(label("vm", &on("pvm")), "vm (pvm)");
        assert_eq!(label("vm", &on("none")), "vm");
        assert_eq!(label("crun", &on("pvm")), "crun");
    }

    #[test]
    fn wrapping_fills_lines_and_cuts_only_what_must_be() {
        let count = |text: &str| text.chars().count() as f64;
        assert_eq!(wrap("one two three", 7.0, count), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3.0, count), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("  ", 3.0, count), [""; 0]);
    }
}
