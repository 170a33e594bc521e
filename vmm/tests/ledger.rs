//! The ledger of exits: what it says must be what the guest did.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Read;
use std::process::Stdio;

use protocol::ports;
use serde_json::Value;
use support::machine_code::Code;
use support::{Files, Ran, kvm, run, vmm};

/// The lines of a trace.
fn read(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// Runs a kernel of these instructions with a ledger: how it ended, and the exits.
fn trace(code: Code) -> (Ran, Vec<Value>) {
    let files = Files::new();
    let path = files.path().join("trace.jsonl");
    let path = path.to_str().unwrap();
    let kernel = files.write("kernel", &code.kernel());
    let ran = run(["--machine", "bare", "--trace", path, "--kernel", &kernel, "x"]);
    ran.no_panic();
    let mut lines = read(path);
    assert_eq!((&lines[0]["trace"], &lines[0]["vcpus"]), (&1.into(), &1.into()));
    assert!(lines.last().unwrap()["kvm"]["vcpus"].is_array());
    lines.pop();
    lines.remove(0);
    (ran, lines)
}

#[test]
fn every_exit_of_the_guest_is_one_line_in_order() {
    if !kvm() {
        return;
    }
    let code = Code::new()
        .say(b'a')
        .say(b'b')
        // in eax, dx, from a port nobody has: mov dx, 0x1234; in eax, dx
        .raw(&[0x66, 0xba, 0x34, 0x12, 0xed])
        // mov rbx, 1 GiB less a page; mov eax, [rbx]; mov [rbx], al
        .raw(&[0x48, 0xbb, 0, 0xf0, 0xff, 0x3f, 0, 0, 0, 0])
        .raw(&[0x8b, 0x03, 0x88, 0x03])
        .exit(7);
    let (ran, exits) = trace(code);
    assert_eq!((ran.status, ran.text().as_str()), (7, "ab"), "{ran:?}");
    let seen: Vec<_> = exits
        .iter()
        .map(|exit| {
            let text = |name: &str| exit[name].as_str().unwrap_or("nobody").to_owned();
            (
                text("reason"),
                text("device"),
                text("address"),
                exit["bytes"].as_u64().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("port write", "serial", "0x3f8", 1),
        ("port write", "serial", "0x3f8", 1),
        ("port read", "nobody", "0x1234", 4),
        ("memory read", "nobody", "0x3ffff000", 4),
        ("memory write", "nobody", "0x3ffff000", 1),
        ("port write", "exit", "0xc04", 4),
    ]
    .map(|(reason, device, address, bytes)| (reason.to_owned(), device.to_owned(), address.to_owned(), bytes));
    assert_eq!(seen, expected);
    let number = |exit: &Value, name: &str| exit[name].as_u64().unwrap();
    for pair in exits.windows(2) {
        // What lies between two exits: our hands, then the guest.
        let next = number(&pair[0], "left_ns") + number(&pair[0], "host_ns") + number(&pair[1], "guest_ns");
        assert!(next <= number(&pair[1], "left_ns"), "{pair:?}");
    }
    // The summary says the same, with KVM's counts beside it.
    for part in [
        "vmm: 6 exits",
        "port write    serial                  2",
        "KVM counted",
        "\nexits ",
    ] {
        assert!(ran.stderr.contains(part), "{part:?} is not in {}", ran.stderr);
    }
}

#[test]
fn the_lab_kernels_exits_name_its_functions() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let path = files.path().join("trace.jsonl");
    let path = path.to_str().unwrap();
    let ran = run(["--trace", path, "workload", "hello"]);
    assert_eq!((ran.status, ran.text().as_str()), (0, "hello from the workload\n"));
    let lines = read(path);
    let exits = &lines[1..lines.len() - 1];
    let last = exits.last().unwrap();
    assert_eq!(
        (&last["reason"], &last["device"]),
        (&"port write".into(), &"exit".into())
    );
    for exit in exits {
        let symbol = exit["symbol"].as_str().unwrap_or_else(|| panic!("{exit}"));
        assert!(symbol.contains("+0x") && !symbol.contains("_ZN"), "{exit}");
    }
    assert!(
        exits
            .iter()
            .any(|exit| exit["symbol"].as_str().unwrap().contains("kernel::syscalls::"))
    );
    // KVM counts at least as many exits as it told us of: the rest it settled itself.
    let counted = lines.last().unwrap()["kvm"]["vcpus"][0]["exits"].as_u64().unwrap();
    assert!(counted as usize >= exits.len(), "{counted} of {}", exits.len());
}

#[test]
fn every_vcpu_has_its_account() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let path = files.path().join("trace.jsonl");
    let path = path.to_str().unwrap();
    let kernel = files.write("kernel", &Code::new().say(b'!').exit(5).kernel());
    let ran = run([
        "--machine",
        "pc",
        "--cpus",
        "3",
        "--trace",
        path,
        "--kernel",
        &kernel,
        "x",
    ]);
    assert_eq!((ran.status, ran.text().as_str()), (5, "!"), "{ran:?}");
    let lines = read(path);
    assert_eq!(lines.last().unwrap()["kvm"]["vcpus"].as_array().unwrap().len(), 3);
    let of_first = lines.iter().filter(|line| line["vcpu"] == 0).count();
    assert_eq!(of_first, 2, "{lines:?}");
}

#[test]
fn a_guest_that_halts_leaves_its_ledger_behind() {
    if !kvm() {
        return;
    }
    let files = Files::new();
    let path = files.path().join("trace.jsonl");
    let kernel = files.write("kernel", &Code::new().say(b'1').say(b'2').halt().kernel());
    let mut child = vmm()
        .args(["run", "--machine", "bare", "--trace", path.to_str().unwrap()])
        .args(["--kernel", &kernel, "x"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
    let halted = || fs::read_to_string(&path).is_ok_and(|text| text.contains("halt"));
    for _ in 0..1000 {
        if halted() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // SAFETY: our own child, not waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert_eq!(support::wait(&mut child), 128 + libc::SIGTERM);
    let reasons: Vec<_> = read(path.to_str().unwrap())[1..]
        .iter()
        .map(|exit| exit["reason"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(reasons, ["port write", "port write", "halt"]);
}

#[test]
fn a_long_run_is_written_in_pieces_and_whole() {
    if !kvm() {
        return;
    }
    // More exits than the account holds at a time: mov ecx, 70000; mov edx, MARK + 1; out dx, al; dec ecx; jnz
    let code = Code::new()
        .raw(&[0xb9])
        .raw(&70_000u32.to_le_bytes())
        .raw(&[0xba])
        .raw(&(u32::from(ports::MARK) + 1).to_le_bytes())
        .raw(&[0xee, 0xff, 0xc9, 0x75, 0xfb])
        .exit(0);
    let (ran, exits) = trace(code);
    assert_eq!((ran.status, exits.len()), (0, 70_001), "{}", ran.stderr);
}

#[test]
fn a_guest_that_never_stops_leaving_does_not_fill_the_disk() {
    if !kvm() {
        return;
    }
    const LIMIT: u64 = 100_000;
    let files = Files::new();
    let path = files.path().join("trace.jsonl");
    let path = path.to_str().unwrap();
    // As above, 70 000 exits: some 9 MB of them.
    let code = Code::new()
        .raw(&[0xb9])
        .raw(&70_000u32.to_le_bytes())
        .raw(&[0xba])
        .raw(&(u32::from(ports::MARK) + 1).to_le_bytes())
        .raw(&[0xee, 0xff, 0xc9, 0x75, 0xfb])
        .exit(3);
    let kernel = files.write("kernel", &code.kernel());
    let limit = LIMIT.to_string();
    let ran = run([
        "--machine",
        "bare",
        "--trace",
        path,
        "--trace-limit",
        &limit,
        "--kernel",
        &kernel,
        "x",
    ]);
    assert_eq!(ran.status, 3, "{ran:?}");
    let lines = read(path);
    let last = lines.last().unwrap();
    let exits = lines.len() as u64 - 2;
    let left_out = last["left_out"].as_u64().unwrap();
    assert_eq!(exits + left_out, 70_001);
    assert!(
        last["note"].as_str().unwrap().starts_with("the trace ends here: ") && last["kvm"]["vcpus"].is_array(),
        "{last}"
    );
    // All but the last line, which nothing the guest does makes longer, and one that reached beyond.
    let text = fs::read_to_string(path).unwrap();
    let before = (text.len() - text.lines().last().unwrap().len()) as u64;
    assert!((LIMIT..LIMIT + 1000).contains(&before), "{before} bytes");
    // The summary has all of them, and says that the file has not.
    for part in [
        "vmm: 70001 exits",
        &format!("{left_out} further exits"),
        "--trace-limit",
    ] {
        assert!(ran.stderr.contains(part), "{part:?} is not in {}", ran.stderr);
    }
}

#[test]
fn what_keeps_a_ledger_from_being_kept_is_said_before_the_guest_runs() {
    if !kvm() {
        return;
    }
    let ran = run(["--trace", "/nowhere/trace.jsonl", "workload", "hello"]);
    ran.refused(
        protocol::status::LAUNCHER_FAILED,
        &["cannot write the trace /nowhere/trace.jsonl", "No such file"],
    );
    assert_eq!(ran.text(), "");
    let files = Files::new();
    let (trace, empty) = (files.write("trace", b""), files.write("empty", b""));
    let ran = run(["--trace", &trace, "--symbols", &empty, "workload", "hello"]);
    ran.refused(protocol::status::LAUNCHER_FAILED, &["has no symbols", "System.map"]);
    // A disk that is full: the guest's run counts, the trace does not.
    if std::path::Path::new("/dev/full").exists() {
        let ran = run(["--trace", "/dev/full", "workload", "hello"]);
        ran.refused(
            protocol::status::LAUNCHER_FAILED,
            &["cannot write the trace /dev/full", "No space left"],
        );
        assert_eq!(ran.text(), "hello from the workload\n");
    }
}
