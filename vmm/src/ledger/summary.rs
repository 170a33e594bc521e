//! The ledger's last page: sums by reason and device, and beside them what KVM says happened.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::entry::{Entry, Reason};
use super::statistics::Counts;
use super::symbols::Symbols;

/// Sums over exits.
#[derive(Debug, Default)]
pub struct Totals {
    lines: BTreeMap<(Reason, Option<&'static str>), Line>,
    guest_ns: u64,
}

/// One line of the summary.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    count: u64,
    host_ns: u64,
}

impl Totals {
    /// Takes an exit into account.
    pub fn add(&mut self, entry: &Entry) {
        self.guest_ns += entry.guest_ns;
        let line = self.lines.entry((entry.reason, entry.device)).or_default();
        line.count += 1;
        line.host_ns += entry.host_ns;
    }

    /// Exits for one of these reasons.
    fn count(&self, reasons: &[Reason]) -> u64 {
        let matching = self.lines.iter().filter(|((reason, _), _)| reasons.contains(reason));
        matching.map(|(_, line)| line.count).sum()
    }
}

/// A count of KVM's that the ledger has too, and the exits that are in both.
const SHARED: [(&str, &[Reason]); 5] = [
    ("io_exits", &[Reason::PortRead, Reason::PortWrite]),
    ("mmio_exits", &[Reason::MemoryRead, Reason::MemoryWrite]),
    ("halt_exits", &[Reason::Halt]),
    ("signal_exits", &[Reason::Signal]),
    (
        "exits",
        &[
            Reason::PortRead,
            Reason::PortWrite,
            Reason::MemoryRead,
            Reason::MemoryWrite,
            Reason::Halt,
            Reason::Step,
            Reason::Signal,
            Reason::Shutdown,
            Reason::NotEmulated,
            Reason::Other,
        ],
    ),
];

/// What KVM's names mean: those of arch/x86/kvm/x86.c and virt/kvm/kvm_main.c that counted something in our guests.
/// Whatever else a kernel counts is shown without a word.
const MEANINGS: [(&str, &str); 33] = [
    (
        "exits",
        "the processor left the guest; what the ledger has not seen, KVM settled alone",
    ),
    (
        "fpu_reload",
        "the guest's floating-point registers were loaded before an entry",
    ),
    ("generic/blocking", "a vCPU sleeps in hlt"),
    (
        "halt_attempted_poll",
        "KVM polled for an interrupt before it put a halted vCPU to sleep",
    ),
    ("halt_exits", "hlt; with interrupt controllers KVM waits itself"),
    ("halt_poll_invalid", "polls that an unrelated event ended"),
    ("halt_successful_poll", "polls that were worth it"),
    ("halt_wakeup", "an interrupt woke a halted vCPU"),
    ("host_state_reload", "the host's segment registers were put back"),
    ("hypercalls", "the guest called KVM itself"),
    ("insn_emulation", "instructions KVM carried out in software"),
    ("insn_emulation_fail", "instructions KVM could not carry out"),
    ("invlpg", "the guest dropped one page from the TLB"),
    ("io_exits", "in or out; ports of KVM's own controllers never reach us"),
    ("irq_exits", "the host's own interrupts, served while the guest waits"),
    ("irq_injections", "interrupts given to the guest"),
    (
        "irq_window_exits",
        "the guest became ready for an interrupt that waited",
    ),
    (
        "l1d_flush",
        "the first-level data cache was emptied before an entry (L1TF)",
    ),
    (
        "mmio_exits",
        "loads and stores without memory behind them; KVM's own APICs never reach us",
    ),
    ("mmu_cache_miss", "page tables of the guest met for the first time"),
    ("mmu_pde_zapped", "large pages of KVM's tables given up for small ones"),
    (
        "mmu_pte_write",
        "writes to the guest's page tables that KVM had to follow",
    ),
    ("nmi_injections", "non-maskable interrupts given to the guest"),
    ("pf_emulate", "page faults that ended in emulation: device memory"),
    (
        "pf_fixed",
        "page faults settled by mapping a page: the guest's first touch of its memory",
    ),
    ("pf_guest", "page faults handed on to the guest's kernel"),
    ("pf_mmio_spte_created", "addresses KVM learned to be no memory"),
    ("pf_taken", "page faults KVM looked at"),
    (
        "preemption_other",
        "the host took the processor from a vCPU in the middle of KVM's work",
    ),
    (
        "preemption_reported",
        "the host took the processor from a vCPU between two instructions",
    ),
    ("remote_tlb_flush", "TLBs of other processors emptied"),
    ("req_event", "entries before which KVM looked for a pending event"),
    ("tlb_flush", "TLBs emptied"),
];

/// The summary as text.
pub fn text(totals: &Totals, counts: &Counts, symbols: &Symbols) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write(&mut out, totals, counts, symbols);
    out
}

fn write(out: &mut String, totals: &Totals, counts: &Counts, symbols: &Symbols) -> std::fmt::Result {
    let exits: u64 = totals.lines.values().map(|line| line.count).sum();
    let host_ns: u64 = totals.lines.values().map(|line| line.host_ns).sum();
    writeln!(
        out,
        "vmm: {exits} exits; {} in the guest and what KVM did for it, {} in our hands ({:.0}%)",
        duration(totals.guest_ns),
        duration(host_ns),
        percent(host_ns, totals.guest_ns + host_ns)
    )?;
    if symbols.is_empty() {
        writeln!(
            out,
            "vmm: the kernel's file has no symbols; --symbols FILE names one that has"
        )?;
    }
    writeln!(
        out,
        "\n{:<14}{:<16}{:>9}{:>12}{:>12}{:>8}",
        "exit", "device", "count", "total", "mean", "share"
    )?;
    let mut lines: Vec<_> = totals.lines.iter().collect();
    lines.sort_by_key(|(_, line)| std::cmp::Reverse(line.host_ns));
    for ((reason, device), line) in lines {
        writeln!(
            out,
            "{:<14}{:<16}{:>9}{:>12}{:>12}{:>7.0}%",
            reason.name(),
            device.unwrap_or(if reason.name().contains(' ') { "nobody" } else { "" }),
            line.count,
            duration(line.host_ns),
            duration(line.host_ns / line.count),
            percent(line.host_ns, host_ns)
        )?;
    }
    write_counts(out, totals, counts)
}

/// KVM's counts beside ours, then those that have no counterpart here.
fn write_counts(out: &mut String, totals: &Totals, counts: &Counts) -> std::fmt::Result {
    if counts.sum("exits").is_none() {
        return writeln!(
            out,
            "\nvmm: this kernel gives no counts of its own (KVM_GET_STATS_FD, Linux 5.14)"
        );
    }
    writeln!(
        out,
        "\n{:<24}{:>10}{:>10}{:>10}",
        "KVM counted", "KVM", "ledger", "unseen"
    )?;
    let mut below_zero = false;
    for (name, reasons) in SHARED {
        let (theirs, ours) = (counts.sum(name).unwrap_or(0), totals.count(reasons));
        if theirs == 0 && ours == 0 {
            continue;
        }
        let unseen = theirs as i64 - ours as i64;
        below_zero |= unseen < 0;
        writeln!(out, "{name:<24}{theirs:>10}{ours:>10}{unseen:>10}  {}", meaning(name))?;
    }
    let mut rest: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in counts.vcpus.iter().flatten().chain(&counts.vm) {
        *rest.entry(name).or_default() += count;
    }
    for (name, count) in rest
        .iter()
        .filter(|(name, _)| SHARED.iter().all(|(shared, _)| shared != *name))
    {
        writeln!(out, "{name:<24}{count:>10}{:>20}  {}", "", meaning(name))?;
    }
    if below_zero {
        writeln!(
            out,
            "Below zero: this KVM carries such instructions out in software, and does not count those it then hands to us."
        )?;
    }
    Ok(())
}

fn meaning(name: &str) -> &'static str {
    MEANINGS
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("", |(_, meaning)| meaning)
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        100.0 * part as f64 / whole as f64
    }
}

/// With a unit a person reads.
fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_entries_and_differences_those_of_kvm() {
        let mut totals = Totals::default();
        for (reason, device, host_ns) in [
            (Reason::PortWrite, Some("serial"), 1_000),
            (Reason::PortWrite, Some("serial"), 3_000),
            (Reason::MemoryRead, None, 4_000),
        ] {
            totals.add(&Entry {
                left_ns: 0,
                guest_ns: 10,
                host_ns,
                reason,
                device,
                address: 0,
                bytes: 1,
                rip: None,
            });
        }
        let count = |name: &str, count| (name.to_owned(), count);
        let counts = Counts {
            vm: [count("remote_tlb_flush", 4)].into(),
            vcpus: vec![[count("exits", 8), count("io_exits", 2), count("mmio_exits", 1)].into(); 2],
        };
        let text = text(&totals, &counts, &Symbols::default());
        let words = |start: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(start))
                .unwrap_or_else(|| panic!("{start}: {text}"));
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(text.starts_with("vmm: 3 exits; 30 ns in the guest"), "{text}");
        assert_eq!(
            words("port write")[2..],
            ["serial", "2", "4.0", "µs", "2.0", "µs", "50%"]
        );
        assert_eq!(words("memory read")[2..4], ["nobody", "1"]);
        assert_eq!(words("exits ")[1..4], ["16", "3", "13"]);
        assert_eq!(words("io_exits")[1..4], ["4", "2", "2"]);
        assert_eq!(words("mmio_exits")[1..4], ["2", "1", "1"]);
        assert_eq!(words("remote_tlb_flush")[1], "4");
    }
}
