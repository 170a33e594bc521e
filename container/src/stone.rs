//! The stepping stone: a program of a few instructions between the launcher's and the container's.
//!
//! Until execve, a process of the container is still the launcher by its file: `/proc/self/exe` is the launcher's, on the
//! host. An image can have that very link executed, as `#!/proc/self/exe` in a script, and then holds the file of a
//! running process that is its own. Where an id inside is the id that owns the file (a container of an ordinary user's,
//! or root's without a user namespace), that is enough to make it set-user-id and open to everybody; and when no launcher
//! runs any more, to overwrite it, for the host's root to run next (CVE-2019-5736). Engines copy themselves into memory
//! and start anew from there, a megabyte or more each time.
//!
//! Here the process becomes the stone first, 200 bytes in memory, and the stone executes the program. What `/proc/self/exe`
//! leads to at that moment is the stone, which nobody will ever run again. Where the ids inside own nothing outside it is
//! not needed, and not used.

use std::fs;
use std::io::{Read, Write, pipe};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use thiserror::Error;

use crate::errno::{of, why};

/// What descriptor links call it.
pub const NAME: &std::ffi::CStr = c"stepping stone";

/// Where the stone lies in its process: the address a linker would choose. The program it executes has a memory of its own.
const BASE: u64 = 0x40_0000;

/// ELF header and program header of a 64-bit file (elf(5)).
const HEADERS: usize = 64 + 56;

// Entered with the stack as execve(2) leaves it: argc, argv, NULL, envp, NULL. argv[0] is the program's path, the rest its
// argv. The descriptor is to be open here and closed in the program, so that its end of file says that the program runs;
// when it does not, the errno is written there. Where it is closed already, the stone was executed by what it executed:
// an image's link to /proc/self/exe. That ends here, or it would go on for ever.
std::arch::global_asm!(
    ".pushsection .rodata.container_stone, \"a\"",
    ".hidden container_stone_begin, container_stone_end",
    ".globl container_stone_begin, container_stone_end",
    "container_stone_begin:",
    "    mov edi, dword ptr [rip + 2f]",
    "    mov esi, 2",  // F_SETFD
    "    mov edx, 1",  // FD_CLOEXEC
    "    mov eax, 72", // fcntl
    "    syscall",
    "    test eax, eax",
    "    jnz 3f",
    "    mov rax, [rsp]",
    "    mov rdi, [rsp + 8]",
    "    lea rsi, [rsp + 16]",
    "    lea rdx, [rsp + rax * 8 + 16]",
    "    mov eax, 59", // execve
    "    syscall",
    "    neg eax",
    "    push rax",
    "    mov edi, dword ptr [rip + 2f]",
    "    mov rsi, rsp",
    "    mov edx, 4",
    "    mov eax, 1", // write
    "    syscall",
    "3:  mov edi, 126",
    "    mov eax, 231", // exit_group
    "    syscall",
    "2:  .long 0", // the descriptor
    "container_stone_end:",
    ".popsection",
);

unsafe extern "C" {
    static container_stone_begin: u8;
    static container_stone_end: u8;
}

/// A stone that lies ready.
pub struct Stone {
    program: OwnedFd,
    reports: std::io::PipeReader,
    /// The stone's end. The process that becomes the stone has a copy; this one must be gone before the end of file comes.
    reporter: std::io::PipeWriter,
}

/// Whether a container in which `outside`, an id of the host's, is somebody needs the stone. `None`: nobody inside is
/// anybody outside.
pub fn is_needed(outside: Option<u32>) -> bool {
    // Root may have been given capabilities over files of any owner's. A file whose owner cannot be told is taken to be in
    // danger.
    let owns = |uid| fs::metadata("/proc/self/exe").map_or(true, |launcher| launcher.uid() == uid);
    outside.is_some_and(|uid| uid == 0 || owns(uid))
}

impl Stone {
    /// Lays it. Called before the process that will step on it is made.
    pub fn lay() -> Result<Stone, Error> {
        let (reports, reporter) = pipe().map_err(|error| Error(of(&error)))?;
        let program = memory()?;
        fs::File::from(program.try_clone().map_err(|error| Error(of(&error)))?)
            .write_all(&file(reporter.as_raw_fd()))
            .map_err(|error| Error(of(&error)))?;
        Ok(Stone {
            program,
            reports,
            reporter,
        })
    }

    /// Those of its descriptors that the process needs that will step on it.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.program.as_raw_fd(), self.reporter.as_raw_fd()]
    }

    /// Becomes the stone, which executes the program whose path is the first of `words`, with the others as its argv.
    /// Returns only when the stone could not be executed.
    pub fn step(&self, words: &[*const libc::c_char], environment: &[*const libc::c_char]) -> Errno {
        let (stone, empty) = (self.program.as_raw_fd(), c"".as_ptr());
        // SAFETY: both arrays are NULL-terminated and their strings alive; F_SETFD takes a number. Left open across this
        // exec, the reporter is closed at the next by the stone itself.
        unsafe {
            libc::fcntl(self.reporter.as_raw_fd(), libc::F_SETFD, 0);
            libc::syscall(
                libc::SYS_execveat,
                stone,
                empty,
                words.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        Errno::last()
    }

    /// Waits until the program runs; the error is execve's.
    pub fn cross(mut self) -> Result<(), Errno> {
        drop(self.reporter);
        let mut errno = [0; 4];
        match self.reports.read(&mut errno) {
            // Closed by execve, or killed before it: the process's end tells.
            Ok(0) => Ok(()),
            Ok(_) => Err(Errno::from_raw(i32::from_ne_bytes(errno))),
            Err(error) => Err(of(&error)),
        }
    }
}

/// A file without a name that may be executed.
fn memory() -> Result<OwnedFd, Error> {
    let make = |flags| {
        // SAFETY: the name is NUL-terminated.
        Errno::result(unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC | flags) })
    };
    // Kernels before 6.3 do not know the flag, and let everything in memory be executed.
    let made = match make(libc::MFD_EXEC) {
        Err(Errno::EINVAL) => make(0),
        made => made,
    };
    // SAFETY: the kernel just made this descriptor for us.
    made.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).map_err(Error)
}

/// The stone as an ELF file, reporting to `reporter`.
fn file(reporter: i32) -> Vec<u8> {
    // SAFETY: the linker puts both symbols around the bytes assembled above, in a section that is never written.
    let code = unsafe {
        let begin = &raw const container_stone_begin;
        let length = (&raw const container_stone_end).offset_from_unsigned(begin);
        std::slice::from_raw_parts(begin, length)
    };
    let size = (HEADERS + code.len()) as u64;
    let mut file = Vec::with_capacity(size as usize);
    // 64 bits, little-endian, version 1, System V.
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // ET_EXEC for EM_X86_64, version 1.
    file.extend([2u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    // Entry; the program header right behind this one; no section headers.
    file.extend([BASE + HEADERS as u64, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    // PT_LOAD, readable and executable: the whole file, in pages.
    file.extend([1u32, 5].map(u32::to_le_bytes).concat());
    file.extend([0, BASE, BASE, size, size, 4096].map(u64::to_le_bytes).concat());
    file.extend(&code[..code.len() - 4]);
    file.extend(reporter.to_le_bytes());
    file
}

/// Why there is no stone.
#[derive(Debug, Error)]
#[error(
    "cannot lay the program that is executed before the container's own: {}. The sysctl vm.memfd_noexec must not be 2",
    why(.0)
)]
pub struct Error(Errno);
