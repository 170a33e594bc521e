//! How the kernel is to treat the program: what it may use at most, and when it comes to the processor and the disk.

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use oci_spec::runtime::{IOPriorityClass, LinuxSchedulerPolicy, PosixRlimitType, Process};

use super::process::Error;

/// Limits and priorities of a process, understood.
pub struct Treatment {
    /// Which resource, and the soft and the hard limit.
    limits: Vec<(Resource, u64, u64)>,
    io_priority: Option<i32>,
    scheduler: Option<SchedulerAttributes>,
}

impl Treatment {
    /// What `process` asks for.
    pub fn of(process: &Process) -> Treatment {
        let limits = process.rlimits().iter().flatten();
        Treatment {
            limits: limits
                .map(|limit| (resource(limit.typ()), limit.soft(), limit.hard()))
                .collect(),
            io_priority: process.io_priority().as_ref().map(|priority| {
                let class = match priority.class() {
                    IOPriorityClass::IoprioClassRt => 1,
                    IOPriorityClass::IoprioClassBe => 2,
                    IOPriorityClass::IoprioClassIdle => 3,
                };
                // IOPRIO_PRIO_VALUE (linux/ioprio.h).
                class << 13 | priority.priority() as i32
            }),
            scheduler: process.scheduler().as_ref().map(SchedulerAttributes::of),
        }
    }

    /// Has the calling process treated so. Raising anything takes privileges.
    pub fn apply(&self) -> Result<(), Error> {
        for &(resource, soft, hard) in &self.limits {
            setrlimit(resource, soft, hard).map_err(|errno| Error::Limit {
                name: format!("{resource:?}"),
                soft,
                hard,
                errno,
            })?;
        }
        if let Some(priority) = self.io_priority {
            const WHO_PROCESS: libc::c_int = 1; // IOPRIO_WHO_PROCESS
            // SAFETY: takes numbers only.
            let set = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) };
            Errno::result(set).map_err(|errno| Error::Step {
                step: "set the I/O priority",
                errno,
            })?;
        }
        if let Some(attributes) = &self.scheduler {
            attributes.set().map_err(|errno| Error::Step {
                step: "set the scheduling policy",
                errno,
            })?;
        }
        Ok(())
    }
}

fn resource(typ: PosixRlimitType) -> Resource {
    match typ {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}

/// `struct sched_attr` in its first version (sched_setattr(2)).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct SchedulerAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl SchedulerAttributes {
    fn of(scheduler: &oci_spec::runtime::Scheduler) -> SchedulerAttributes {
        use oci_spec::runtime::LinuxSchedulerFlag as Flag;
        let policy = match scheduler.policy() {
            LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
            LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
            LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
            LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
            LinuxSchedulerPolicy::SchedIso => 4,
            LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
            LinuxSchedulerPolicy::SchedDeadline => libc::SCHED_DEADLINE,
        };
        // SCHED_FLAG_* (linux/sched.h).
        let flags = scheduler.flags().iter().flatten().fold(0, |flags, flag| {
            flags
                | match flag {
                    Flag::SchedResetOnFork => 0x01,
                    Flag::SchedFlagReclaim => 0x02,
                    Flag::SchedFlagDLOverrun => 0x04,
                    Flag::SchedFlagKeepPolicy => 0x08,
                    Flag::SchedFlagKeepParams => 0x10,
                    Flag::SchedFlagUtilClampMin => 0x20,
                    Flag::SchedFlagUtilClampMax => 0x40,
                }
        });
        SchedulerAttributes {
            size: size_of::<SchedulerAttributes>() as u32,
            policy: policy as u32,
            flags,
            nice: scheduler.nice().unwrap_or(0),
            priority: scheduler.priority().unwrap_or(0) as u32,
            runtime: scheduler.runtime().unwrap_or(0),
            deadline: scheduler.deadline().unwrap_or(0),
            period: scheduler.period().unwrap_or(0),
        }
    }

    fn set(&self) -> Result<(), Errno> {
        // SAFETY: the structure says its own size, and the kernel copies it.
        let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(self), 0) };
        Errno::result(set).map(drop)
    }
}
