//! A guest that prints lines and does nothing else: what a line costs, device by device (`lab line`).
//!
//! `vmm run --machine pc --console virtio --no-init --kernel PRINTER WAY BYTES LINES` prints LINES lines of BYTES bytes,
//! newline included, by the WAY `serial`, `debug` or `virtio`. Between lines it writes to a port that does nothing
//! ([`ports::DIVIDER`]), so that the VMM's ledger shows where one line ends and the next begins.
//!
//! It stays in the state in which the loader enters a kernel: 64-bit mode, the first GiB mapped as it is, interrupts off.

#![no_std]
#![no_main]

mod console;

use core::fmt::{self, Write};

use console::Console;
use kernel::cell::Lone;
use kernel::command_line::Words;
use protocol::doorbell::{MAX_SEGMENTS, Request, Segment, op};
use protocol::ports;

/// Longest line, newline included.
const LINE_MAX: usize = 4096;
/// Longest command line with its NUL: what Linux takes on x86.
const COMMAND_LINE_MAX: usize = 2048;
/// Where the boot parameters hold its address (Documentation/arch/x86/zero-page.rst: `cmd_line_ptr`).
const COMMAND_LINE: u64 = 0x228;

const STACK: usize = 16 << 10;

/// The stack's memory.
#[repr(align(16))]
struct Stack(#[allow(dead_code, reason = "only the processor uses it")] [u8; STACK]);

static STACK_MEMORY: Lone<Stack> = Lone::new(Stack([0; STACK]));
static LINE: Lone<[u8; LINE_MAX]> = Lone::new([0; LINE_MAX]);
static REQUEST: Lone<Request> = Lone::new(Request {
    op: op::WRITE_STDOUT,
    count: 1,
    argument: 0,
    result: 0,
    segments: [Segment { address: 0, length: 0 }; MAX_SEGMENTS],
});

/// The first instruction. The boot protocol leaves the boot parameters' address in RSI, and no stack.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "lea rsp, [rip + {stack} + {size}]",
        "mov rdi, rsi",
        "call {main}",
        stack = sym STACK_MEMORY,
        size = const STACK,
        main = sym main,
    )
}

/// How a line leaves the guest.
enum Way {
    /// One `out` for each byte. A real chip would have to be asked first whether it has room (another exit); ours always has.
    Serial,
    /// The line stays where it is: one `out` says where that is.
    Debug,
    /// As Debug, with the address in a queue that any virtio driver can fill.
    Virtio(Console),
}

extern "C" fn main(parameters: u64) -> ! {
    let line = command_line(parameters);
    let mut buffer = [0; COMMAND_LINE_MAX];
    let way = word(line, 0, &mut buffer);
    let way = match way {
        b"serial" => Way::Serial,
        b"debug" => Way::Debug,
        b"virtio" => Way::Virtio(Console::find(line)),
        _ => panic!("the first argument is serial, debug or virtio"),
    };
    let bytes = number(word(line, 1, &mut buffer)).clamp(1, LINE_MAX);
    let lines = number(word(line, 2, &mut buffer));
    LINE.with(|text| {
        let text = &mut text[..bytes];
        for (at, letter) in text.iter_mut().enumerate() {
            *letter = b'a' + (at % 26) as u8;
        }
        text[bytes - 1] = b'\n';
        print(way, text, lines);
    });
    out8(ports::DIVIDER, 0);
    out32(ports::EXIT, 0);
    halt()
}

// ANCHOR: ways
fn print(mut way: Way, line: &[u8], lines: usize) {
    for _ in 0..lines {
        out8(ports::DIVIDER, 0);
        match &mut way {
            Way::Serial => line.iter().for_each(|&byte| out8(ports::SERIAL, byte)),
            Way::Debug => REQUEST.with(|request| {
                request.segments[0] = Segment {
                    address: line.as_ptr() as u64,
                    length: line.len() as u64,
                };
                out32(ports::DOORBELL, &raw mut *request as u32);
            }),
            Way::Virtio(console) => console.send(line),
        }
    }
}
// ANCHOR_END: ways

/// The kernel command line.
fn command_line(parameters: u64) -> &'static [u8] {
    // SAFETY: the loader put the boot parameters there; they lie in the first GiB, and so does the command line.
    let at = unsafe { ((parameters + COMMAND_LINE) as *const u32).read_unaligned() } as *const u8;
    let mut length = 0;
    // SAFETY: as above; it ends with a NUL, and where none comes we stop.
    while length < COMMAND_LINE_MAX && unsafe { at.add(length).read() } != 0 {
        length += 1;
    }
    // SAFETY: `length` bytes were just read there, and nobody writes to them.
    unsafe { core::slice::from_raw_parts(at, length) }
}

/// The program (0) or one of its arguments.
fn word<'b>(line: &[u8], place: usize, buffer: &'b mut [u8]) -> &'b [u8] {
    const PROGRAM: &[u8] = b"rdinit=";
    let mut words = Words::new(line);
    loop {
        let Some(length) = words.next_into(buffer) else {
            return b"";
        };
        if buffer[..length].starts_with(PROGRAM) {
            if place == 0 {
                return &buffer[PROGRAM.len()..length];
            }
            break;
        }
    }
    // The separator, then the arguments before the one that is wanted.
    for _ in 0..place {
        words.next_into(buffer);
    }
    match words.next_into(buffer) {
        Some(length) => &buffer[..length],
        None => b"",
    }
}

fn number(text: &[u8]) -> usize {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0usize, |number, digit| {
        number.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
    })
}

fn out8(port: u16, value: u8) {
    // SAFETY: port I/O touches no memory of ours; the lab's ports and the serial port are all we address.
    unsafe { core::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

fn out32(port: u16, value: u32) {
    // SAFETY: as above. No `nomem`: the host reads the request, and writes its result.
    unsafe { core::arch::asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) }
}

fn halt() -> ! {
    loop {
        // SAFETY: hlt only waits.
        unsafe { core::arch::asm!("hlt", options(nomem, nostack, preserves_flags)) }
    }
}

/// The serial port, for last words.
struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| out8(ports::SERIAL, byte));
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "printer: {}", info.message());
    out32(ports::PANIC, 0);
    halt()
}
