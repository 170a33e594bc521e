//! The few instructions Rust has no words for.

use core::arch::asm;

/// Writes 8 bits to a port.
#[inline(always)]
pub fn out8(port: u16, value: u8) {
    // SAFETY: port I/O touches no memory of ours; the lab's ports and the serial port are all we address.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

/// Writes 8 bits to a port, with a further number in RCX for a host that looks.
#[inline(always)]
pub fn out8_with(port: u16, value: u8, rcx: u64) {
    // SAFETY: as above. No `nomem`: the host may change memory of the program's.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, in("rcx") rcx, options(nostack, preserves_flags)) }
}

/// Writes 32 bits to a port. The host may read and write our memory meanwhile.
#[inline(always)]
pub fn out32(port: u16, value: u32) {
    // SAFETY: the host changes only what the request at `value` points to. No `nomem`: it does change memory.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) }
}

/// The address whose access faulted last.
#[inline(always)]
pub fn cr2() -> u64 {
    let address;
    // SAFETY: reading CR2 changes nothing.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) }
    address
}

/// Forgets every remembered translation of the program's addresses.
#[inline(always)]
pub fn flush_translations() {
    // SAFETY: loading CR3 with its own value only empties the TLB.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) }
}

/// Forgets the remembered translation of one address.
#[inline(always)]
pub fn flush_translation(address: u64) {
    // SAFETY: the page tables, not the TLB, say what is mapped; forgetting only costs a walk.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) }
}

/// Sets the base of the program's FS segment: its thread pointer.
#[inline(always)]
pub fn set_fs_base(address: u64) {
    const MSR_FS_BASE: u32 = 0xc000_0100;
    // SAFETY: the caller has checked that the address is a program's, hence canonical; the kernel does not use FS.
    unsafe {
        asm!("wrmsr", in("ecx") MSR_FS_BASE, in("eax") address as u32, in("edx") (address >> 32) as u32,
            options(nostack, preserves_flags))
    }
}

/// Waits for an interrupt. This machine has none, so: for ever.
pub fn halt() -> ! {
    loop {
        // SAFETY: hlt only waits.
        unsafe { asm!("hlt", options(nomem, nostack, preserves_flags)) }
    }
}
