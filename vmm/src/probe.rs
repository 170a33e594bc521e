//! What this machine's KVM really does, asked by running guests of a few bytes.
//!
//! Not every KVM has virtualization hardware beneath it. One that has none runs a guest's user mode natively and
//! interprets its kernel mode, a thousand times slower, and may deliver `syscall` in a way no processor does. Whoever
//! compares start-up times must know which one he measures.

use std::time::{Duration, Instant};

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::kernel::Entry;
use crate::{cpuid, gdt, layout, memory, registers, vm};

/// What the probe found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// `syscall` in user mode arrives in kernel mode, as on every processor.
    pub syscall_reaches_cpl0: bool,
    /// Instructions of a simple loop per second in kernel mode (CPL 0).
    pub cpl0_instructions_per_second: f64,
    /// The same in user mode (CPL 3).
    pub cpl3_instructions_per_second: f64,
    /// One exit to the VMM and back, in nanoseconds: the median of some hundred.
    pub exit_ns: u64,
}

/// A port nobody but the probe listens to: QEMU's debug-exit port.
const PORT: u8 = 0xf4;
const CODE: u64 = layout::HIGH_RAM;
const COUNT: u64 = CODE;
const EXITS: u64 = CODE + 0x10;
const SYSCALL: u64 = CODE + 0x20;
const TARGET: u64 = CODE + 0x30;

/// The guests: count down from rcx and say so; say so for ever; call the kernel; be the kernel, and prove it by reading
/// CR0, which only kernel mode may (anything else faults, and without an IDT that shuts the processor down).
// ANCHOR: programs
const PROGRAMS: [(u64, &[u8]); 4] = [
    (COUNT, &[0x48, 0xff, 0xc9, 0x75, 0xfb, 0xe6, PORT]), // dec rcx; jnz $-3; out PORT, al
    (EXITS, &[0xe6, PORT, 0xeb, 0xfc]),                   // out PORT, al; jmp $-2
    (SYSCALL, &[0x0f, 0x05]),                             // syscall
    (TARGET, &[0x0f, 0x20, 0xc0, 0xe6, PORT]),            // mov rax, cr0; out PORT, al
];
// ANCHOR_END: programs

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const EFER_SYSCALL: u64 = 1;
/// RFLAGS: bit 1 is always set, and I/O privilege level 3 lets user mode ring the port.
const FLAGS: u64 = 1 << 1 | 3 << 12;
const USER: u64 = 1 << 2;
const PRIVILEGE_USER: u8 = 3;
/// What one round of the counting loop executes: `dec` and `jnz`.
const INSTRUCTIONS_PER_ROUND: f64 = 2.0;
/// A loop must run at least so long for its time to mean something, and stop growing at so many rounds.
const LONG_ENOUGH: Duration = Duration::from_millis(10);
const MOST_ROUNDS: u64 = 1 << 28;
const EXIT_SAMPLES: usize = 301;

/// Runs the probe's guests.
pub fn probe() -> Result<Probe, vm::Error> {
    let kvm = vm::open_kvm()?;
    Ok(Probe {
        cpl0_instructions_per_second: Guest::new(&kvm, false)?.speed()?,
        cpl3_instructions_per_second: Guest::new(&kvm, true)?.speed()?,
        exit_ns: Guest::new(&kvm, false)?.exit_cost()?,
        syscall_reaches_cpl0: Guest::new(&kvm, true)?.syscall_arrives()?,
    })
}

/// A machine with the probe's programs in it. Its memory is dropped last.
struct Guest {
    vcpu: VcpuFd,
    _vm: kvm_ioctls::VmFd,
    _memory: GuestMemoryMmap,
}

impl Guest {
    fn new(kvm: &Kvm, user_mode: bool) -> Result<Guest, vm::Error> {
        let failed = |what| move |source| vm::Error::Kvm { what, source, cure: "" };
        let vm = kvm.create_vm().map_err(failed("create a virtual machine"))?;
        let memory = memory::reserve(layout::MEMORY_MIN)?;
        memory::give_to(&vm, &memory)?;
        for (address, code) in PROGRAMS {
            memory
                .write_slice(code, GuestAddress(address))
                .map_err(registers::Error::from)?;
        }
        let vcpu = vm.create_vcpu(0).map_err(failed("create a vCPU"))?;
        cpuid::bare::set_up(&vcpu)?;
        registers::set_up(&vcpu, &memory, Entry::Linux64(CODE))?;

        // The boot page tables, opened to user mode.
        for table in [layout::PML4, layout::PDPT, layout::PD] {
            let entry: u64 = memory.read_obj(GuestAddress(table)).map_err(registers::Error::from)?;
            memory
                .write_obj(entry | USER, GuestAddress(table))
                .map_err(registers::Error::from)?;
        }
        let mut special = vcpu.get_sregs().map_err(failed("read the vCPU's registers"))?;
        special.efer |= EFER_SYSCALL;
        if user_mode {
            special.cs.dpl = PRIVILEGE_USER;
            special.cs.selector |= u16::from(PRIVILEGE_USER);
            special.ss.dpl = PRIVILEGE_USER;
            special.ss.selector |= u16::from(PRIVILEGE_USER);
        }
        vcpu.set_sregs(&special).map_err(failed("set the vCPU's registers"))?;
        let msr = |index, data| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        };
        let msrs = Msrs::from_entries(&[
            msr(MSR_STAR, u64::from(gdt::CODE_SELECTOR) << 32),
            msr(MSR_LSTAR, TARGET),
        ])
        .map_err(|_| failed("set two MSRs")(kvm_ioctls::Error::new(libc::ENOMEM)))?;
        vcpu.set_msrs(&msrs).map_err(failed("set two MSRs"))?;
        Ok(Guest {
            vcpu,
            _vm: vm,
            _memory: memory,
        })
    }

    /// Runs from `rip` until the program rings the port; false when the processor shut down instead.
    fn run(&mut self, rip: u64, rcx: u64) -> Result<bool, vm::Error> {
        let failed = |what| move |source| vm::Error::Kvm { what, source, cure: "" };
        let start = kvm_regs {
            rip,
            rcx,
            rflags: FLAGS,
            ..Default::default()
        };
        self.vcpu.set_regs(&start).map_err(failed("set the vCPU's registers"))?;
        self.go_on()
    }

    fn go_on(&mut self) -> Result<bool, vm::Error> {
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(port, _)) if port == u16::from(PORT) => return Ok(true),
                // Without VT-x or AMD-V the interpreter may be the one to give up: not kernel mode either way.
                Ok(VcpuExit::Shutdown | VcpuExit::InternalError) => return Ok(false),
                Err(error) if error.errno() == libc::EINTR => {}
                Ok(other) => return Err(crate::vcpu::Error::Unexpected(format!("{other:?}")).into()),
                Err(error) => return Err(crate::vcpu::Error::Run(error).into()),
            }
        }
    }

    /// Instructions per second: more rounds until they take long enough.
    fn speed(&mut self) -> Result<f64, vm::Error> {
        let mut rounds = 1 << 10;
        // The first run of a vCPU pays for its page tables and more; that is no speed.
        self.run(COUNT, rounds)?;
        loop {
            let start = Instant::now();
            if !self.run(COUNT, rounds)? {
                return Err(crate::vcpu::Error::Unexpected("a shutdown in a loop of two instructions".into()).into());
            }
            let took = start.elapsed();
            if took >= LONG_ENOUGH || rounds >= MOST_ROUNDS {
                return Ok(rounds as f64 * INSTRUCTIONS_PER_ROUND / took.as_secs_f64());
            }
            rounds *= 4;
        }
    }

    fn exit_cost(&mut self) -> Result<u64, vm::Error> {
        self.run(EXITS, 0)?;
        let mut times = Vec::with_capacity(EXIT_SAMPLES);
        for _ in 0..EXIT_SAMPLES {
            let start = Instant::now();
            self.go_on()?;
            times.push(start.elapsed().as_nanos() as u64);
        }
        times.sort_unstable();
        Ok(times[EXIT_SAMPLES / 2])
    }

    fn syscall_arrives(&mut self) -> Result<bool, vm::Error> {
        self.run(SYSCALL, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_of_this_machine_finds_plausible_figures() {
        let found = match probe() {
            Ok(found) => found,
            Err(error @ (vm::Error::NoKvm | vm::Error::NotPermitted)) => {
                eprintln!("skipped: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert!(found.cpl3_instructions_per_second > 1e6, "{found:?}");
        assert!(found.cpl0_instructions_per_second > 1e4, "{found:?}");
        assert!(found.exit_ns > 0, "{found:?}");
    }
}
