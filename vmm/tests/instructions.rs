//! How many instructions the lab kernel may need before the program's first output. A count, not a time: the same on
//! every run, and what decides the start where a KVM interprets kernel code. And the first of them, printed one by one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Command;

use protocol::status;
use support::machine_code::Code;
use support::{Files, kvm};

/// A little above what it takes today. A change that needs more should be worth it, and say so here.
const BUDGET: u64 = 4_200;

#[test]
fn the_lab_kernel_keeps_its_budget_until_the_first_output() {
    let output = Command::new(env!("CARGO_BIN_EXE_vmm"))
        .args(["run", "--count-instructions", "workload", "hello"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if [status::NO_KVM, status::KVM_NOT_PERMITTED]
        .map(|s| Some(s.into()))
        .contains(&output.status.code())
    {
        eprintln!("skipped: {said}");
        return;
    }
    assert_eq!(output.stdout, b"hello from the workload\n", "{said}");
    // "vmm: N kernel instructions, M of them before the first output; ..."
    let before = said
        .split(", ")
        .nth(1)
        .and_then(|part| part.split(' ').next())
        .and_then(|n| n.parse::<u64>().ok());
    let before = before.unwrap_or_else(|| panic!("no count in {said:?}"));
    assert!(
        (1_000..=BUDGET).contains(&before),
        "{before} kernel instructions before the first output"
    );
}

#[test]
fn the_first_instructions_are_printed_as_they_run() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    // mov eax, 2; dec eax; jnz back; then the end.
    let code = Code::new().raw(&[0xb8, 2, 0, 0, 0, 0xff, 0xc8, 0x75, 0xfc]).exit(3);
    let kernel = files.write("kernel", &code.kernel());
    let list = |count: &str| {
        let ran = support::run(["--machine", "bare", "--single-step", count, "--kernel", &kernel, "x"]);
        assert_eq!(ran.status, 3, "{ran:?}");
        let lines = ran.stderr.lines().filter(|line| line.contains(" 0x"));
        let text = |line: &str| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" ");
        lines.map(text).collect::<Vec<_>>()
    };
    let all = [
        "mov eax, 0x2",
        "dec eax",
        "jne 0x100005",
        "dec eax",
        "jne 0x100005",
        "mov eax, 0x3",
    ];
    assert_eq!(list("6"), all);
    assert_eq!(list("1"), all[..1]);
    // The whole of a short run, whose end comes before the end of the listing.
    let last = list("1000").pop().unwrap();
    assert_eq!(last, "out dx, eax");
}
