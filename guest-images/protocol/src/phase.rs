//! Phases: the moments of a run both sides report, in the same words.

/// The instant a phase of the set-up is complete. What a chart draws between two of them is the time the later one took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// The launcher's `main` runs. Everything before it is exec and the loader.
    ProcessStart = 1,

    /// VM: `/dev/kvm` is open.
    KvmOpened = 16,
    /// VM: the virtual machine exists, without memory or processor.
    VmCreated = 17,
    /// VM: guest memory is reserved and handed to KVM.
    MemoryMapped = 18,
    /// VM: kernel, initrd and boot parameters are in guest memory.
    KernelLoaded = 19,
    /// VM: the vCPU exists and its registers are set.
    VcpuReady = 20,
    /// VM: the guest kernel runs its first instructions (reported by the guest).
    GuestKernelEntry = 21,
    /// VM: the guest kernel is about to enter the program (reported by the guest).
    UserModeEntry = 22,

    /// Container: the cgroup exists and its limits are set.
    CgroupMade = 32,
    /// Container: clone3 returned in the child, inside all its new namespaces.
    CloneReturned = 33,
    /// Container: user and group ids are mapped.
    UserMapWritten = 34,
    /// Container: the root file system is assembled.
    MountsDone = 35,
    /// Container: the root is the container's own and the host's is gone from view.
    PivotDone = 36,
    /// Container: capabilities cut, no_new_privs set, the seccomp filter in place.
    PrivilegesDropped = 37,
    /// Container: execve is the next system call.
    Exec = 38,

    /// The workload's first output was seen.
    FirstOutput = 64,
    /// The launcher is about to end.
    Exit = 65,
}

impl Phase {
    /// Every phase, in the order in which a run reaches them.
    pub const ALL: [Phase; 17] = [
        Phase::ProcessStart,
        Phase::KvmOpened,
        Phase::VmCreated,
        Phase::MemoryMapped,
        Phase::KernelLoaded,
        Phase::VcpuReady,
        Phase::GuestKernelEntry,
        Phase::UserModeEntry,
        Phase::CgroupMade,
        Phase::CloneReturned,
        Phase::UserMapWritten,
        Phase::MountsDone,
        Phase::PivotDone,
        Phase::PrivilegesDropped,
        Phase::Exec,
        Phase::FirstOutput,
        Phase::Exit,
    ];

    /// The code that goes over the mark port.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The phase with this code, if there is one.
    pub fn from_code(code: u8) -> Option<Phase> {
        Self::ALL.into_iter().find(|phase| phase.code() == code)
    }

    /// The name in marks, tables and charts.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::ProcessStart => "process start",
            Phase::KvmOpened => "KVM opened",
            Phase::VmCreated => "VM created",
            Phase::MemoryMapped => "memory mapped",
            Phase::KernelLoaded => "kernel loaded",
            Phase::VcpuReady => "vCPU ready",
            Phase::GuestKernelEntry => "guest kernel entry",
            Phase::UserModeEntry => "user mode entry",
            Phase::CgroupMade => "cgroup made",
            Phase::CloneReturned => "clone returned",
            Phase::UserMapWritten => "user map written",
            Phase::MountsDone => "mounts done",
            Phase::PivotDone => "pivot done",
            Phase::PrivilegesDropped => "privileges dropped",
            Phase::Exec => "exec",
            Phase::FirstOutput => "first output",
            Phase::Exit => "exit",
        }
    }

    /// The phase of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Phase> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_lead_back() {
        for (i, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(Phase::from_code(phase.code()), Some(phase));
            assert_eq!(Phase::from_name(phase.name()), Some(phase));
            for other in &Phase::ALL[i + 1..] {
                assert_ne!(phase.code(), other.code());
                assert_ne!(phase.name(), other.name());
            }
        }
        assert_eq!(Phase::from_code(0), None);
    }
}
