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
use crate::trap::SIGKILL;

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

/// The environment a program starts with, before the command line's variables: Linux gives the first two. One string
/// after another, each with its NUL, copied as a whole.
const ENVIRONMENT: &[u8] = b"HOME=/\0TERM=linux\0PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0";
/// Where in [`ENVIRONMENT`] each variable starts.
const VARIABLES: [u64; 3] = [0, 7, 18];

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

/// Addresses, for the program, of its arguments and variables, and a path in the making. A static, which starts as zeros
/// without anybody writing them; arrays on the stack would be cleared first.
struct Scratch {
    path: [u8; 4096],
    environment: [u64; WORDS_MAX],
    arguments: [u64; WORDS_MAX],
}

static SCRATCH: Lone<Scratch> = Lone::new(Scratch {
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
    /// Where on its stack the program finds random bytes (AT_RANDOM, 16 of them).
    pub random: u64,
}

/// Loads the program the command line names. A program that cannot be run ends the machine with the reason.
pub fn load(kernel: &mut Kernel, boot: &Boot) -> Ready {
    SCRATCH.with(
        |Scratch {
             path,
             environment,
             arguments,
         }| {
            let mut stack = Stack::new(kernel, boot.command_line.len());
            let random = stack.put(&boot.seed.unwrap_or_else(random));
            let constants = stack.put(ENVIRONMENT);
            for (place, offset) in environment.iter_mut().zip(VARIABLES) {
                *place = constants + offset;
            }
            let mut variables = VARIABLES.len();
            let mut count = 1;

            // Each word is written where the program will find it; what turns out to be an option is written over.
            let mut words = Words::new(boot.command_line);
            arguments[0] = 0;
            while let Some((address, word)) = stack.put_word(&mut words) {
                match classify(word) {
                    Word::Program(name) => {
                        kernel.program_length = name.len();
                        kernel.program[..name.len()].copy_from_slice(name);
                        arguments[0] = address + (word.len() - name.len()) as u64;
                        stack.keep();
                    }
                    Word::Variable(_) if variables < WORDS_MAX => {
                        environment[variables] = address;
                        variables += 1;
                        stack.keep();
                    }
                    Word::Statistics => kernel.statistics_wanted = true,
                    Word::Separator => break,
                    Word::Variable(_) | Word::Other => {}
                }
            }
            if arguments[0] == 0 {
                kernel.program_length = DEFAULT.len();
                kernel.program[..DEFAULT.len()].copy_from_slice(DEFAULT);
                arguments[0] = stack.put(DEFAULT);
            }
            while let Some((address, _)) = stack.put_word(&mut words) {
                if count < WORDS_MAX {
                    arguments[count] = address;
                    count += 1;
                    stack.keep();
                }
            }

            let image = load_image(kernel, boot, path);
            let auxiliary = [
                auxiliary::PROGRAM_HEADERS,
                image.headers,
                auxiliary::PROGRAM_HEADER_SIZE,
                elf::PROGRAM_HEADER_SIZE as u64,
                auxiliary::PROGRAM_HEADER_COUNT,
                image.header_count,
                auxiliary::PAGE_SIZE,
                PAGE,
                auxiliary::ENTRY,
                image.entry,
                auxiliary::UID,
                0,
                auxiliary::EFFECTIVE_UID,
                0,
                auxiliary::GID,
                0,
                auxiliary::EFFECTIVE_GID,
                0,
                auxiliary::SECURE,
                0,
                auxiliary::RANDOM,
                random,
                auxiliary::FILE_NAME,
                arguments[0],
                auxiliary::END,
                0,
            ];
            // From the stack pointer up: argc, argv and NULL, envp and NULL, auxiliary pairs.
            stack.start(1 + count + 1 + variables + 1 + auxiliary.len());
            stack.push(count as u64);
            arguments[..count].iter().for_each(|&argument| stack.push(argument));
            stack.push(0);
            environment[..variables]
                .iter()
                .for_each(|&variable| stack.push(variable));
            stack.push(0);
            auxiliary.iter().for_each(|&word| stack.push(word));
            Ready {
                entry: image.entry,
                stack: stack.map(kernel),
                random,
            }
        },
    )
}

/// What the auxiliary vector needs to know of the image.
struct Image {
    entry: u64,
    headers: u64,
    header_count: u64,
}

/// Finds the program and makes regions of its segments.
fn load_image(kernel: &mut Kernel, boot: &Boot, path: &mut [u8; 4096]) -> Image {
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
        refuse(name, status::SIGNAL_BASE + SIGKILL, "out of memory for its page tables");
    }
    Image {
        entry: base + program.entry,
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

/// The program's first stack, in the making. Its strings lie at the top, the words that point to them below.
struct Stack {
    /// Physical address of its lowest page.
    frames: u64,
    /// Lowest string, as an offset from the lowest byte.
    strings: u64,
    /// Where the next string goes.
    next: u64,
    /// Length with NUL of the word put last, until somebody keeps it.
    pending: u64,
    /// The stack pointer, and where the next word goes.
    pointer: u64,
    filled: u64,
}

const STACK_SIZE: u64 = STACK_PAGES * PAGE;
const STACK_BOTTOM: u64 = STACK_TOP - STACK_SIZE;
/// Strings besides the command line's: random bytes, environment, the default program's path.
const FIXED_STRINGS: u64 = 16 + ENVIRONMENT.len() as u64 + DEFAULT.len() as u64 + 1;

impl Stack {
    /// A stack with room for the words of a command line of this length.
    fn new(kernel: &mut Kernel, line: usize) -> Stack {
        let Some(frames) = kernel.frames.allocate_fresh(STACK_PAGES) else {
            refuse(b"anything", status::MEMORY_TOO_SMALL, "there is no memory for a stack")
        };
        if kernel.space.start(&mut kernel.frames).is_err() {
            refuse(
                b"anything",
                status::MEMORY_TOO_SMALL,
                "there is no memory for page tables",
            );
        }
        // A word is never longer than the part of the line it comes from, and its NUL takes the place of the space.
        let strings = (STACK_SIZE - FIXED_STRINGS - line as u64 - 1) & !15;
        Stack {
            frames,
            strings,
            next: strings,
            pending: 0,
            pointer: 0,
            filled: 0,
        }
    }

    /// Adds bytes; their address for the program.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.next;
        // SAFETY: within the frames allocated in `new`, which nobody else knows yet; `strings` left room.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(self.frames + at), bytes.len()) };
        // The frames are fresh and so zero: leaving a byte out ends a string that needs it.
        self.next += bytes.len() as u64 + 1;
        STACK_BOTTOM + at
    }

    /// Writes the next word of the command line, its address and itself; the one after replaces it unless it is kept.
    fn put_word(&mut self, words: &mut Words<'_>) -> Option<(u64, &'static [u8])> {
        let room = (STACK_SIZE - self.next - 1) as usize;
        // SAFETY: as in `put`; the slice is dropped before the next one is made.
        let place = unsafe { core::slice::from_raw_parts_mut(pointer(self.frames + self.next), room) };
        let length = words.next_into(place)?;
        place[length] = 0;
        self.pending = length as u64 + 1;
        Some((STACK_BOTTOM + self.next, &place[..length]))
    }

    /// Keeps the word put last.
    fn keep(&mut self) {
        self.next += self.pending;
        self.pending = 0;
    }

    /// Turns from strings to words: `words` of them, the lowest at an address aligned to 16 (System V ABI, 3.4.1).
    fn start(&mut self, words: usize) {
        self.pointer = (self.strings - 8 * words as u64) & !15;
        self.filled = self.pointer;
    }

    /// Adds a word.
    #[inline(always)]
    fn push(&mut self, word: u64) {
        // SAFETY: as in `put`. A line of 2 KiB makes at most 1024 arguments and variables each: less than the stack.
        unsafe { pointer(self.frames + self.filled).cast::<u64>().write(word) };
        self.filled += 8;
    }

    /// Makes the stack the program's; returns its stack pointer.
    fn map(self, kernel: &mut Kernel) -> u64 {
        let space = &mut kernel.space;
        let failed = space
            .add_anonymous(STACK_TOP - STACK_MAX, STACK_TOP, READ | WRITE)
            .is_err()
            || space
                .map_owned(&mut kernel.frames, STACK_BOTTOM, self.frames, STACK_PAGES, READ | WRITE)
                .is_err();
        if failed {
            refuse(
                b"anything",
                status::MEMORY_TOO_SMALL,
                "there is no memory for its page tables",
            );
        }
        space.install();
        STACK_BOTTOM + self.pointer
    }
}

const _: () = assert!(FIXED_STRINGS + 2048 + 8 * (2 * WORDS_MAX as u64 + 32) < STACK_SIZE);
