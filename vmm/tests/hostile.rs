//! Guests that mean harm: a kernel is free to try every port, every address and every lie in a request. The VMM goes on
//! or ends with a message; it never panics and never grows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Read;
use std::process::Stdio;

use protocol::doorbell::{MAX_TRANSFER, Request, op};
use protocol::{ports, status};
use support::machine_code::{Code, boot};
use support::{kvm, vmm};

/// Where these kernels put their requests: above themselves, in the page tables' first GiB.
const REQUEST: u64 = 0x40_0000;
/// The guests' memory, as `--memory` defaults to.
const MEMORY: u64 = 64 << 20;

/// Fills in a request and rings.
fn ring(code: Code, operation: u32, count: u32, segments: &[(u64, u64)]) -> Code {
    let mut code = code.store(REQUEST, u64::from(operation) | u64::from(count) << 32);
    for (i, &(address, length)) in segments.iter().enumerate() {
        let at = REQUEST + Request::SEGMENTS_OFFSET + 16 * i as u64;
        code = code.store(at, address).store(at + 8, length);
    }
    code.out(ports::DOORBELL, REQUEST as u32)
}

#[test]
fn requests_full_of_lies_are_answered_with_errors() {
    if !kvm() {
        return;
    }
    let lies = [
        (MEMORY, 1),
        (MEMORY - 1, 2),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (MEMORY - 4096, u64::MAX),
        (1 << 63, 1 << 63),
        (0xc000_0000, 4096),
        (0x1_0000_0000, 16),
        (REQUEST, 0),
    ];
    let mut code = Code::new();
    for operation in [
        0,
        op::WRITE_STDERR,
        op::READ_STDIN,
        op::RANDOM,
        op::CLOCK,
        7,
        1000,
        u32::MAX,
    ] {
        for lie in lies {
            code = ring(code, operation, 1, &[lie]);
            code = ring(code, operation, 16, &[lie; 16]);
        }
        for count in [0, 17, 1 << 31, u32::MAX] {
            code = ring(code, operation, count, &[(REQUEST + 0x1000, 16)]);
        }
    }
    let ran = boot(code.exit(77));
    assert_eq!(ran.status, 77, "{}", ran.stderr);
}

/// The operation that has a second address: where to copy from.
#[test]
fn copies_from_and_to_anywhere_stay_in_guest_memory() {
    if !kvm() {
        return;
    }
    let mut code = Code::new();
    for source in [
        0,
        1,
        0x80_0000,
        0x80_0010,
        MEMORY - 1,
        MEMORY,
        1 << 40,
        1 << 63,
        u64::MAX,
    ] {
        code = code.store(REQUEST + 8, source);
        // Apart, over each other by a few bytes, onto itself, to where there is nothing, and zeros far too many.
        for target in [0x90_0000, 0x80_0008, 0x80_0000, MEMORY - 8, u64::MAX] {
            for length in [1, 64, 1 << 21, u64::MAX] {
                code = ring(code, op::COPY, 1, &[(target, length)]);
                code = ring(code, op::COPY, 2, &[(target, length); 2]);
                code = ring(code, op::ZERO, 2, &[(target, length); 2]);
            }
        }
    }
    let ran = boot(code.exit(78));
    assert_eq!(ran.status, 78, "{ran:?}");
}

#[test]
fn a_guest_that_sleeps_for_ever_can_be_ended() {
    if !kvm() {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let code = Code::new().say(b'!').store(REQUEST + 8, u64::MAX);
    fs::write(file.path(), ring(code, op::SLEEP, 0, &[]).exit(1).kernel()).unwrap();
    let mut child = vmm()
        .args([
            "run",
            "--machine",
            "bare",
            "--kernel",
            file.path().to_str().unwrap(),
            "x",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    // SAFETY: our own child, not waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert_eq!(support::wait(&mut child), 128 + libc::SIGTERM);
}

#[test]
fn a_request_may_overwrite_only_the_guest_itself() {
    if !kvm() {
        return;
    }
    // Random bytes over the request that asks for them, over the boot tables nobody uses any more, over all memory
    // above: the guest hurts itself alone.
    let mut code = ring(Code::new(), op::RANDOM, 1, &[(REQUEST, 4096)]);
    code = ring(
        code,
        op::RANDOM,
        2,
        &[(0x80_0000, MAX_TRANSFER), (0x80_0000, u64::MAX / 2)],
    );
    assert_eq!(boot(code.exit(3)).status, 3);
    // Over the running code: whatever comes next, it is the guest's end and not the VMM's.
    let ran = boot(ring(Code::new(), op::CLOCK, 1, &[(support::machine_code::AT, 16)]).exit(4));
    assert_eq!(ran.status, 4, "{ran:?}");
}

#[test]
fn a_request_outside_memory_ends_the_machine() {
    if !kvm() {
        return;
    }
    for address in [
        MEMORY as u32,
        MEMORY as u32 - Request::SIZE as u32 + 1,
        0xc000_0000,
        u32::MAX,
    ] {
        let ran = boot(Code::new().out(ports::DOORBELL, address).exit(0));
        ran.refused(status::GUEST_MISBEHAVED, &["doorbell"]);
    }
    // The last place where one fits.
    assert_eq!(
        boot(
            Code::new()
                .out(ports::DOORBELL, MEMORY as u32 - Request::SIZE as u32)
                .exit(6)
        )
        .status,
        6
    );
}

/// A loop over all ports: dx counts up from 0, `body` runs once per port.
fn every_port(body: &[u8]) -> Code {
    // xor edx, edx; then body; inc dx; jnz back
    let back = -(body.len() as i8 + 5);
    Code::new()
        .raw(&[0x31, 0xd2])
        .raw(body)
        .raw(&[0x66, 0xff, 0xc2, 0x75, back as u8])
}

#[test]
fn every_port_can_be_written_and_read_with_every_width() {
    if !kvm() {
        return;
    }
    // in al, dx; in ax, dx; in eax, dx: nothing ends by being read.
    for read in [&[0xec][..], &[0x66, 0xed], &[0xed]] {
        assert_eq!(boot(every_port(read).exit(9)).status, 9, "{read:x?}");
    }
    // Written, the exit port ends the machine when it gets 8 or 32 bits; 16 are not addressed to it, and the panic port,
    // which comes next, takes any width.
    assert_eq!(boot(every_port(&[0x31, 0xc0, 0xee]).exit(9)).status, 0);
    assert_eq!(
        boot(every_port(&[0x31, 0xc0, 0x66, 0xef]).exit(9)).status,
        i32::from(status::KERNEL_PANIC)
    );
    let ran = boot(every_port(&[0x31, 0xc0, 0xef]).exit(9));
    assert_eq!(ran.status, 0, "{ran:?}");
    // From the panic port's neighbour up: mov edx, PANIC + 1.
    let mut upper = vec![0xba];
    upper.extend((u32::from(ports::PANIC) + 1).to_le_bytes());
    upper.extend([0xb0, 0x01, 0xee, 0x66, 0xff, 0xc2, 0x75, 0xf9]);
    assert_eq!(boot(Code::new().raw(&upper).exit(9)).status, 9);
}

#[test]
fn addresses_without_memory_read_as_ones_and_swallow_writes() {
    if !kvm() {
        return;
    }
    let code = Code::new()
        // mov rbx, end of memory
        .raw(&[0x48, 0xbb])
        .raw(&MEMORY.to_le_bytes())
        // loop: mov rax, [rbx]; mov eax, [rbx+4]; mov ax, [rbx+2]; mov al, [rbx+1]; mov [rbx], rax; mov [rbx+7], al
        .raw(&[
            0x48, 0x8b, 0x03, 0x8b, 0x43, 0x04, 0x66, 0x8b, 0x43, 0x02, 0x8a, 0x43, 0x01,
        ])
        .raw(&[0x48, 0x89, 0x03, 0x88, 0x43, 0x07])
        // add rbx, 1 MiB; cmp rbx, 1 GiB; jb loop
        .raw(&[0x48, 0x81, 0xc3, 0, 0, 0x10, 0])
        .raw(&[0x48, 0x81, 0xfb, 0, 0, 0, 0x40])
        .raw(&[0x72, 0xdd])
        // The value last read, to the exit port: mov al, [MEMORY]
        .raw(&[0xa0])
        .raw(&MEMORY.to_le_bytes())
        .raw(&[0x0f, 0xb6, 0xc0, 0x66, 0xba])
        .raw(&ports::EXIT.to_le_bytes())
        .raw(&[0xef]);
    let ran = boot(code);
    assert_eq!(ran.status, 0xff, "{ran:?}");
}

#[test]
fn string_output_arrives_whole_and_in_order() {
    if !kvm() {
        return;
    }
    // mov esi, code's own address; mov ecx, 20000; mov dx, COM1; cld; rep outsb
    let code = Code::new()
        .raw(&[0xbe])
        .raw(&(support::machine_code::AT as u32).to_le_bytes())
        .raw(&[0xb9])
        .raw(&20_000u32.to_le_bytes())
        .raw(&[0x66, 0xba])
        .raw(&ports::SERIAL.to_le_bytes())
        .raw(&[0xfc, 0xf3, 0x6e]);
    let mut expected = code.exit(0).bytes();
    let ran = boot(Code::new().raw(&expected));
    expected.resize(20_000, 0);
    assert_eq!(ran.status, 0);
    assert!(ran.stdout == expected, "{} bytes", ran.stdout.len());
}

/// What the VMM takes of the host's memory does not follow from what the guest asks for.
#[test]
fn wild_requests_do_not_make_the_vmm_grow() {
    if !kvm() {
        return;
    }
    let mut code = Code::new();
    for i in 0..200 {
        // Always the same MiB of guest memory, with lengths far beyond the longest transfer.
        code = ring(code, op::RANDOM, 16, &[(0x80_0000, 1 << (20 + i % 43)); 16]);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), code.say(b'!').halt().kernel()).unwrap();
    let mut child = vmm()
        .args([
            "run",
            "--machine",
            "bare",
            "--memory",
            "16G",
            "--kernel",
            file.path().to_str().unwrap(),
            "x",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut done = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut done).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // A debug build's own pages, the MiB written to, and room; the guest has 16 GiB.
    assert!(kib < 48 << 10, "{line}");
}
