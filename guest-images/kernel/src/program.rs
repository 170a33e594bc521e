//! Starting the program: its segments into memory, its arguments onto the stack, and off.

use kernel::cell::Lone;
use kernel::command_line::{Word, Words, classify};
use kernel::cpio;
use kernel::elf::{self, Program, Segment};
use kernel::layout::*;
use protocol::status;

use crate::address_space::{READ, WRITE};
use crate::boot::Boot;
use crate::files::Files;
use crate::frames::pointer;
use crate::host::{self, Report};
use crate::state::Kernel;

/// Types of the auxiliary vector (System V ABI for x86-64, 3.4.3; linux/auxvec.h).
mod auxiliary {
    pub const PROGRAM_HEADERS: u64 = 3;
    pub const PROGRAM_HEADER_SIZE: u64 = 4;
    pub const PROGRAM_HEADER_COUNT: u64 = 5;
    pub const PAGE_SIZE: u64 = 6;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EFFECTIVE_UID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EFFECTIVE_GID: u64 = 14;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const FILE_NAME: u64 = 31;
    pub const END: u64 = 0;
}

/// The environment a program starts with, before the command line's variables: Linux gives the first two.
const ENVIRONMENT: [&[u8]; 3] = [
    b"HOME=/",
    b"TERM=linux",
    b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
];

/// Where a program named without a slash is looked for.
const SEARCH_PATH: [&[u8]; 6] = [
    b"bin/",
    b"usr/bin/",
    b"sbin/",
    b"usr/sbin/",
    b"usr/local/bin/",
    b"usr/local/sbin/",
];
/// What runs when the command line names nothing, as with Linux.
const DEFAULT: &[u8] = b"/init";

/// Pages of stack filled and mapped before the program starts: room for a full command line of one-letter arguments.
const STACK_PAGES: u64 = 8;
/// Most arguments, and most variables: each takes at least two bytes of a command line of 2048.
const WORDS_MAX: usize = 1024;

/// Where words of the command line and their addresses on the program's stack are kept meanwhile. Statics, which start
/// as zeros without anybody writing them; arrays on the stack would be cleared first.
struct Scratch {
    word: [u8; 2048],
    path: [u8; 4096],
    environment: [u64; WORDS_MAX],
    arguments: [u64; WORDS_MAX],
}

static SCRATCH: Lone<Scratch> = Lone::new(Scratch {
    word: [0; 2048],
    path: [0; 4096],
    environment: [0; WORDS_MAX],
    arguments: [0; WORDS_MAX],
});

/// A program ready to run: first instruction and stack pointer.
pub struct Ready {
    /// First instruction.
    pub entry: u64,
    /// Stack pointer.
    pub stack: u64,
}

/// Loads the program the command line names. A program that cannot be run ends the machine with the reason.
pub fn load(kernel: &mut Kernel, boot: &Boot) -> Ready {
    SCRATCH.with(|scratch| load_with(kernel, boot, scratch))
}

fn load_with(kernel: &mut Kernel, boot: &Boot, scratch: &mut Scratch) -> Ready {
    let Scratch {
        word,
        path,
        environment,
        arguments,
    } = scratch;
    let mut stack = Stack::new(kernel);
    let mut words = Words::new(boot.command_line);

    let mut variables = 0;
    for variable in ENVIRONMENT {
        environment[variables] = stack.push_string(variable);
        variables += 1;
    }
    kernel.program_length = DEFAULT.len();
    kernel.program[..DEFAULT.len()].copy_from_slice(DEFAULT);
    while let Some(length) = words.next_into(word) {
        match classify(&word[..length]) {
            Word::Program(path) => {
                kernel.program_length = path.len().min(kernel.program.len());
                kernel.program[..kernel.program_length].copy_from_slice(&path[..kernel.program_length]);
            }
            Word::Statistics => kernel.statistics_wanted = true,
            Word::Variable(text) if variables < WORDS_MAX - 1 => {
                environment[variables] = stack.push_string(text);
                variables += 1;
            }
            Word::Separator => break,
            Word::Variable(_) | Word::Other => {}
        }
    }
    arguments[0] = stack.push_string(&kernel.program[..kernel.program_length]);
    let mut count = 1;
    while let Some(length) = words.next_into(word) {
        if count < WORDS_MAX - 1 {
            arguments[count] = stack.push_string(&word[..length]);
            count += 1;
        }
    }
    let random = stack.push_bytes(&boot.seed.unwrap_or_else(random));

    let loaded = load_image(kernel, boot, path);
    let base = loaded.base;
    let pairs = [
        (auxiliary::PROGRAM_HEADERS, loaded.headers),
        (auxiliary::PROGRAM_HEADER_SIZE, elf::PROGRAM_HEADER_SIZE as u64),
        (auxiliary::PROGRAM_HEADER_COUNT, loaded.header_count),
        (auxiliary::PAGE_SIZE, PAGE),
        (auxiliary::ENTRY, base + loaded.entry),
        (auxiliary::UID, 0),
        (auxiliary::EFFECTIVE_UID, 0),
        (auxiliary::GID, 0),
        (auxiliary::EFFECTIVE_GID, 0),
        (auxiliary::SECURE, 0),
        (auxiliary::RANDOM, random),
        (auxiliary::FILE_NAME, arguments[0]),
        (auxiliary::END, 0),
    ];

    // From the bottom up: argc, argv and NULL, envp and NULL, auxiliary pairs; the whole aligned to 16 (3.4.1).
    let words = 1 + count + 1 + variables + 1 + 2 * pairs.len();
    stack.align(words);
    for (kind, value) in pairs.into_iter().rev() {
        stack.push(value);
        stack.push(kind);
    }
    stack.push(0);
    environment[..variables]
        .iter()
        .rev()
        .for_each(|&variable| stack.push(variable));
    stack.push(0);
    arguments[..count]
        .iter()
        .rev()
        .for_each(|&argument| stack.push(argument));
    stack.push(count as u64);

    let top = stack.map(kernel);
    Ready {
        entry: base + loaded.entry,
        stack: top,
    }
}

/// What the auxiliary vector needs to know of the image.
struct Loaded {
    base: u64,
    entry: u64,
    headers: u64,
    header_count: u64,
}

/// Finds the program and makes regions of its segments.
fn load_image(kernel: &mut Kernel, boot: &Boot, path: &mut [u8; 4096]) -> Loaded {
    let Kernel {
        files,
        program,
        program_length,
        executable,
        executable_length,
        ..
    } = kernel;
    let name = &program[..*program_length];
    let keep = |clean: &[u8]| {
        executable[0] = b'/';
        *executable_length = 1 + clean.len().min(executable.len() - 1);
        executable[1..*executable_length].copy_from_slice(&clean[..*executable_length - 1]);
    };
    let file = match find(files, name, path, keep) {
        Ok(Some(file)) => file,
        Ok(None) => refuse(name, status::NOT_FOUND, "there is no such file in the initrd"),
        Err(error) => panic!("the initrd is damaged: {error:?}"),
    };
    let program = Program::new(file).unwrap_or_else(|error| refuse(name, status::NOT_EXECUTABLE, error.reason()));
    let address = file.as_ptr() as u64 - boot.initrd.as_ptr() as u64 + boot.initrd_address;

    let base = if program.relocatable { PIE_BASE } else { 0 };
    let mut headers = 0;
    let mut end = 0;
    let mut no_room = false;
    let space = &mut kernel.space;
    let loaded = program.segments(|segment: Segment| {
        headers = program.headers_in(&segment).map_or(headers, |address| base + address);
        end = end.max(base + segment.address + segment.memory_size);
        no_room |= space.add_segment(&segment, base, address, file.len() as u64).is_err();
        Ok(())
    });
    if let Err(error) = loaded {
        refuse(name, status::NOT_EXECUTABLE, error.reason());
    }
    if no_room || end + PAGE > STACK_TOP - STACK_MAX {
        refuse(
            name,
            status::NOT_EXECUTABLE,
            "its segments overlap or lie where the lab kernel has no room for them",
        );
    }
    let heap = end.next_multiple_of(PAGE);
    space.heap = (heap, heap);
    if space.map_in_place(&mut kernel.frames).is_err() {
        refuse(name, status::SIGNAL_BASE + 9, "out of memory for its page tables");
    }
    Loaded {
        base,
        entry: program.entry,
        headers,
        header_count: program.header_count.into(),
    }
}

fn find(
    files: &Files,
    name: &[u8],
    path: &mut [u8; 4096],
    mut found: impl FnMut(&[u8]),
) -> Result<Option<&'static [u8]>, cpio::Error> {
    if name.contains(&b'/') {
        return files.program(name, found);
    }
    for directory in SEARCH_PATH {
        let length = directory.len() + name.len();
        let Some(place) = path.get_mut(..length) else { break };
        place[..directory.len()].copy_from_slice(directory);
        place[directory.len()..].copy_from_slice(name);
        if let Some(file) = files.program(place, &mut found)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn refuse(name: &[u8], status: u8, reason: &str) -> ! {
    Report::line(format_args!("cannot run {}: {reason}", name.escape_ascii()));
    host::exit(status)
}

fn random() -> [u8; 16] {
    let bytes = [0u8; 16];
    // On the kernel's stack, which lies in its image.
    let physical = (bytes.as_ptr() as u64).wrapping_sub(KERNEL_OFFSET);
    host::ring(protocol::doorbell::op::RANDOM, physical, 16);
    // SAFETY: an initialized array; volatile because the host wrote it behind the compiler's back.
    unsafe { (&raw const bytes).read_volatile() }
}

/// The program's first stack, in the making: written through the direct map, from the top down.
struct Stack {
    /// Physical address of its lowest page.
    frames: u64,
    /// How far it is filled, as an offset from its lowest byte.
    used_from: u64,
}

const STACK_SIZE: u64 = STACK_PAGES * PAGE;

impl Stack {
    fn new(kernel: &mut Kernel) -> Stack {
        match kernel.frames.allocate_fresh(STACK_PAGES) {
            Some(frames) => Stack {
                frames,
                used_from: STACK_SIZE,
            },
            None => refuse(b"anything", status::MEMORY_TOO_SMALL, "there is no memory for a stack"),
        }
    }

    /// Address, for the program, of what was pushed last.
    fn address(&self) -> u64 {
        STACK_TOP - STACK_SIZE + self.used_from
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> u64 {
        // A command line of 2 KiB makes at most 2 KiB of strings and 8 KiB of pointers: less than the stack, always.
        self.used_from -= bytes.len() as u64;
        // SAFETY: within the frames allocated above, which nobody else knows yet.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(self.frames + self.used_from), bytes.len());
        }
        self.address()
    }

    /// The frames are fresh and so zero: leaving a byte out ends the string.
    fn push_string(&mut self, text: &[u8]) -> u64 {
        self.used_from -= 1;
        self.push_bytes(text)
    }

    fn push(&mut self, word: u64) {
        self.push_bytes(&word.to_le_bytes());
    }

    /// Leaves room so that the stack is aligned to 16 bytes after `words` more pushes.
    fn align(&mut self, words: usize) {
        self.used_from &= !15;
        if !words.is_multiple_of(2) {
            self.used_from -= 8;
        }
    }

    /// Makes the stack the program's; returns its stack pointer.
    fn map(self, kernel: &mut Kernel) -> u64 {
        let lowest = STACK_TOP - STACK_SIZE;
        let mut failed = kernel
            .space
            .add_anonymous(STACK_TOP - STACK_MAX, STACK_TOP, READ | WRITE)
            .is_err();
        for page in 0..STACK_PAGES {
            let (address, frame) = (lowest + page * PAGE, self.frames + page * PAGE);
            failed |= kernel
                .space
                .map_owned(&mut kernel.frames, address, frame, READ | WRITE)
                .is_err();
        }
        if failed || kernel.space.install(&mut kernel.frames).is_err() {
            refuse(
                b"anything",
                status::MEMORY_TOO_SMALL,
                "there is no memory for its page tables",
            );
        }
        self.address()
    }
}
