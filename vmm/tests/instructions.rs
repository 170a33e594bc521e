//! How many instructions the lab kernel may need before the program's first output. A count, not a time: the same on
//! every run, and what decides the start where a KVM interprets kernel code.

use std::process::Command;

use protocol::status;

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
