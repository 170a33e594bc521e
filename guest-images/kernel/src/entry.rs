//! The ways into the kernel and out of it: the first instruction, exceptions, system calls, the jump to the program.
//!
//! Each path saves exactly what its other side may not lose. Rust functions preserve rbx, rbp and r12 to r15 themselves.

use core::arch::{asm, global_asm};

use kernel::layout::*;
use kernel::tables;

/// What the processor and `exception_common` leave on the stack.
#[repr(C)]
pub struct Frame {
    /// r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax: what Rust code may overwrite.
    pub saved: [u64; 9],
    /// Which exception.
    pub vector: u64,
    /// Its error code; 0 for those that have none.
    pub error: u64,
    /// Where.
    pub rip: u64,
    /// Code segment: its low two bits are the privilege level.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
}

impl Frame {
    /// The exception came from the program, not from the kernel.
    pub fn is_from_program(&self) -> bool {
        self.cs & 3 == 3
    }
}

/// Flags a system call clears: trap, interrupt, direction, I/O privilege, nested task, alignment check.
const SYSCALL_CLEARS: u32 = 0x4_7700;
/// Flags a program may have set: the arithmetic ones, trap, direction, alignment check, CPUID; and interrupts, which
/// always look enabled. Not among them: the I/O privilege level.
const PROGRAM_FLAGS: u32 = 0x24_0fd7;

// CR0: protected mode, math coprocessor present, extension type, numeric errors, write protection even for the kernel,
// alignment checks, paging: the value Linux runs with.
const CR0: u32 = 0x8005_0033;
// CR4: physical address extension, and "the kernel knows about SSE" twice (its registers, its exceptions).
const CR4: u32 = 0x620;
const MSR_EFER: u32 = 0xc000_0080;
/// `syscall` works; page tables may forbid execution.
const EFER_SYSCALL_NX: u32 = 1 << 0 | 1 << 11;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_SFMASK: u32 = 0xc000_0084;

global_asm!(
    // The boot protocol starts us in 64-bit mode at a physical address, with rsi -> boot parameters.
    ".pushsection .text.entry, \"ax\"",
    ".globl start",
    "start:",
    "    mov ecx, {efer}",
    "    rdmsr",
    "    or eax, {efer_bits}",
    "    wrmsr",
    "    mov eax, {cr4}",
    "    mov cr4, rax",
    "    mov eax, {pml4}",
    "    mov cr3, rax",
    "    mov eax, {cr0}",
    "    mov cr0, rax",
    "    mov rax, offset high",
    "    jmp rax",
    // From here on at our own addresses.
    "high:", "    lgdt [{gdt}]",
    "    lidt [{idt}]",
    "    mov eax, {tss}",
    "    ltr ax",
    // Where `syscall` goes: segments (STAR), address (LSTAR), flags it clears (SFMASK).
    "    mov ecx, {star}",
    "    xor eax, eax",
    "    mov edx, {selectors}",
    "    wrmsr",
    "    mov ecx, {lstar}",
    "    mov rax, offset syscall_entry",
    "    mov edx, -1",
    "    wrmsr",
    "    mov ecx, {sfmask}",
    "    mov eax, {clears}",
    "    xor edx, edx",
    "    wrmsr",
    "    mov rsp, {stack}",
    "    mov rdi, rsi",
    "    call {main}",
    "    ud2",
    ".popsection",
    efer = const MSR_EFER,
    efer_bits = const EFER_SYSCALL_NX,
    cr4 = const CR4,
    cr0 = const CR0,
    pml4 = const tables::PML4_PHYSICAL,
    gdt = const tables::GDT_REGISTER as i64,
    idt = const tables::IDT_REGISTER as i64,
    tss = const TSS,
    star = const MSR_STAR,
    selectors = const (SYSRET_BASE as u32) << 16 | KERNEL_CS as u32,
    lstar = const MSR_LSTAR,
    sfmask = const MSR_SFMASK,
    clears = const SYSCALL_CLEARS,
    stack = const tables::STACK_TOP_KERNEL as i64,
    main = sym crate::main,
);

// One stub per exception, 16 bytes apart, so that the IDT is a constant. Those for which the processor pushes no error
// code push a zero, and all look alike afterwards.
global_asm!(
    ".pushsection .text.vectors, \"ax\"",
    ".macro vector number, has_error",
    "    .balign 16",
    "    .if \\has_error == 0",
    "    push 0",
    "    .endif",
    "    push \\number",
    "    jmp exception_common",
    ".endm",
    "vector 0, 0",
    "vector 1, 0",
    "vector 2, 0",
    "vector 3, 0",
    "vector 4, 0",
    "vector 5, 0",
    "vector 6, 0",
    "vector 7, 0",
    "vector 8, 1",
    "vector 9, 0",
    "vector 10, 1",
    "vector 11, 1",
    "vector 12, 1",
    "vector 13, 1",
    "    .balign 16",
    "    jmp page_fault_entry",
    "vector 15, 0",
    "vector 16, 0",
    "vector 17, 1",
    "vector 18, 0",
    "vector 19, 0",
    "vector 20, 0",
    "vector 21, 1",
    "vector 22, 0",
    "vector 23, 0",
    "vector 24, 0",
    "vector 25, 0",
    "vector 26, 0",
    "vector 27, 0",
    "vector 28, 0",
    "vector 29, 1",
    "vector 30, 1",
    "vector 31, 0",
    ".popsection",
);

global_asm!(
    ".pushsection .text.entry, \"ax\"",
    "exception_common:",
    "    push rax",
    "    push rcx",
    "    push rdx",
    "    push rsi",
    "    push rdi",
    "    push r8",
    "    push r9",
    "    push r10",
    "    push r11",
    "    mov rdi, rsp",
    "    call {exception}",
    "    pop r11",
    "    pop r10",
    "    pop r9",
    "    pop r8",
    "    pop rdi",
    "    pop rsi",
    "    pop rdx",
    "    pop rcx",
    "    pop rax",
    "    add rsp, 16",
    "    iretq",
    // A page fault, or a system call in disguise. Some KVMs run on no virtualization hardware and keep the program's
    // privilege level across `syscall`: fetching the first instruction of `syscall_entry`, a kernel page, then faults
    // with rip still on it, rcx and r11 as `syscall` leaves them, and the processor already on our stack. A program that
    // jumps to this address by itself looks the same, and gets the same: a system call. Its rcx and r11 may be anything
    // then, so rcx must be a program's address and r11 loses every flag a program may not have.
    "page_fault_entry:",
    "    cmp qword ptr [rsp + 8], offset syscall_entry",
    "    jne real_page_fault",
    "    cmp rcx, [rip + {user_end}]",
    "    jae real_page_fault",
    "    add rsp, 8",
    "    and r11, {program_flags}",
    "    mov [rsp], rcx",
    "    mov [rsp + 16], r11",
    "    jmp system_call_common",
    "real_page_fault:", "    push 14",
    "    jmp exception_common",
    // `syscall`: rax number, rdi rsi rdx r10 r8 r9 arguments, rcx return address, r11 flags; the stack is still the
    // program's. No interrupt can come between: SFMASK has switched them off.
    "syscall_entry:",
    "    mov [rip + {user_rsp}], rsp",
    "    mov rsp, {stack}",
    "    push {user_ds}",
    "    push [rip + {user_rsp}]",
    "    push r11",
    "    push {user_cs}",
    "    push rcx",
    "system_call_common:", "    push rdi",
    "    push rsi",
    "    push rdx",
    "    push r10",
    "    push r8",
    "    push r9",
    "    mov rcx, r10",
    "    push rax",
    "    call {system_call}",
    "    add rsp, 8",
    "    pop r9",
    "    pop r8",
    "    pop r10",
    "    pop rdx",
    "    pop rsi",
    "    pop rdi",
    "    mov rcx, [rsp]",
    "    mov r11, [rsp + 16]",
    "    mov rsp, [rsp + 24]",
    "    sysretq",
    ".popsection",
    exception = sym crate::trap::exception,
    system_call = sym crate::syscalls::system_call,
    user_end = sym USER_END_LIMIT,
    user_rsp = sym USER_RSP,
    program_flags = const PROGRAM_FLAGS,
    stack = const tables::STACK_TOP_KERNEL as i64,
    user_ds = const USER_DS,
    user_cs = const USER_CS,
);

/// For a comparison with 64 bits, which no instruction takes as a constant.
static USER_END_LIMIT: u64 = USER_END;

/// Where `syscall_entry` keeps the program's stack pointer for two instructions.
static USER_RSP: kernel::cell::Lone<u64> = kernel::cell::Lone::new(0);

/// Leaves the kernel for the program's first instruction.
///
/// rdx must be 0 (System V ABI, 3.4.1: no function to call at exit); the others are cleared so that the program learns
/// nothing of the kernel.
pub fn enter_program(rip: u64, rsp: u64) -> ! {
    // SAFETY: rip and rsp are the program's own addresses, in its half of the address space; nothing of the kernel's
    // stack is needed again, as every entry starts it afresh.
    unsafe {
        asm!(
            "mov rsp, rax",
            "xor eax, eax",
            "xor ebx, ebx",
            "xor edx, edx",
            "xor esi, esi",
            "xor edi, edi",
            "xor ebp, ebp",
            "xor r8d, r8d",
            "xor r9d, r9d",
            "xor r10d, r10d",
            "xor r12d, r12d",
            "xor r13d, r13d",
            "xor r14d, r14d",
            "xor r15d, r15d",
            "sysretq",
            in("rcx") rip,
            in("rax") rsp,
            in("r11") 0x202u64,
            options(noreturn),
        )
    }
}
