//! Capabilities: the pieces root's power was cut into, and the three a container keeps.
//!
//! A process has several sets of them (capabilities(7)). The bounding set is the ceiling: a program run as root gets at
//! execve what the bounding set holds. The set kept here is the one `runc spec` and `crun spec` write for a container:
//! bounding, effective and permitted; inheritable and ambient empty, so that a program run as another user than root
//! has none at all.

use nix::errno::Errno;
use thiserror::Error;

use crate::errno::why;

/// Send signals to processes of other users.
const CAP_KILL: u32 = 5;
/// Change one's own bounding set. Held only while the container is set up.
const CAP_SETPCAP: u32 = 8;
/// Bind to ports below 1024.
const CAP_NET_BIND_SERVICE: u32 = 10;
/// Write to the kernel's audit log.
const CAP_AUDIT_WRITE: u32 = 29;

/// What a container keeps, as a bit mask.
pub const KEPT: u64 = 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE | 1 << CAP_AUDIT_WRITE;

/// The kernel's names, by number (`linux/capability.h`, Linux 6.18), without their common `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The names of the capabilities in a set, without `CAP_`; a number where the kernel is newer than the list.
pub fn names(set: u64) -> Vec<String> {
    (0..u64::BITS)
        .filter(|capability| set & (1 << capability) != 0)
        .map(|capability| {
            NAMES
                .get(capability as usize)
                .map_or_else(|| capability.to_string(), |&name| name.to_owned())
        })
        .collect()
}

/// The layout of the capability system calls with 64 capabilities in two 32-bit words (`linux/capability.h`).
const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Removes every capability but those in `kept` from the bounding set.
///
/// The kernel offers no way to drop more than one with one call. The loop ends where the kernel's list of capabilities
/// ends, which it says with EINVAL.
pub fn cut_bounding_set(kept: u64) -> Result<(), Error> {
    for capability in (0..u64::BITS).filter(|capability| kept & (1 << capability) == 0) {
        // SAFETY: PR_CAPBSET_DROP takes a number and no pointer.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0u64, 0u64, 0u64) };
        match Errno::result(dropped) {
            Ok(_) => {}
            Err(Errno::EINVAL) if capability > CAP_SETPCAP => return Ok(()),
            Err(errno) => return Err(Error::Bounding { capability, errno }),
        }
    }
    Ok(())
}

/// Makes `kept` this process's effective and permitted set and empties the inheritable one; the ambient set goes with
/// that, being a part of it. Capabilities that are not permitted now cannot be had back.
pub fn keep_only(kept: u64) -> Result<(), Error> {
    Sets {
        effective: kept,
        permitted: kept,
        ..Sets::default()
    }
    .take()
}

/// The sets of a process, each as a bit mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// The ceiling of what execve gives.
    pub bounding: u64,
    /// What is in force.
    pub effective: u64,
    /// What can be put in force.
    pub permitted: u64,
    /// What a file with the same bit hands on.
    pub inheritable: u64,
    /// What a program gets that knows nothing of capabilities, whoever runs it. Part of permitted and inheritable.
    pub ambient: u64,
}

impl Sets {
    /// Makes these this process's sets, all but the bounding set, which [`cut_bounding_set`] cuts while CAP_SETPCAP
    /// is still there to do it.
    pub fn take(&self) -> Result<(), Error> {
        let word = |shift: u32| Data {
            effective: (self.effective >> shift) as u32,
            permitted: (self.permitted >> shift) as u32,
            inheritable: (self.inheritable >> shift) as u32,
        };
        let data = [word(0), word(u32::BITS)];
        // SAFETY: version 3 reads one header and two data structures, in the layout declared below.
        let set = unsafe { libc::syscall(libc::SYS_capset, &raw const HEADER, data.as_ptr()) };
        Errno::result(set).map_err(|errno| Error::Set { errno })?;
        for capability in (0..u64::BITS).filter(|capability| self.ambient & (1 << capability) != 0) {
            // SAFETY: PR_CAP_AMBIENT takes numbers and no pointer.
            let raised = unsafe {
                let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
                libc::prctl(libc::PR_CAP_AMBIENT, raise, u64::from(capability), 0u64, 0u64)
            };
            Errno::result(raised).map_err(|errno| Error::Ambient { capability, errno })?;
        }
        Ok(())
    }

    /// The sets cut to what is `permitted` at all, and to what their own rules leave: nothing is ambient that is not
    /// inheritable and permitted, nothing in force that is not permitted.
    pub fn within(self, permitted: u64) -> Sets {
        let granted = self.permitted & permitted;
        let inheritable = self.inheritable & permitted;
        Sets {
            bounding: self.bounding,
            effective: self.effective & granted,
            permitted: granted,
            inheritable,
            ambient: self.ambient & granted & inheritable,
        }
    }
}

/// This process's permitted set.
pub fn permitted() -> Result<u64, Error> {
    let mut data = [const {
        Data {
            effective: 0,
            permitted: 0,
            inheritable: 0,
        }
    }; 2];
    // SAFETY: version 3 reads one header and writes two data structures, in the layout declared below.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw const HEADER, data.as_mut_ptr()) };
    Errno::result(got).map_err(|errno| Error::Set { errno })?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << u32::BITS)
}

/// The set that holds the one capability with this name, `CAP_` in front of it or not.
pub fn by_name(name: &str) -> Option<u64> {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// Names the layout of [`Data`] and, by 0, the calling thread.
static HEADER: Header = Header {
    version: LINUX_CAPABILITY_VERSION_3,
    pid: 0,
};

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Why the capabilities could not be cut.
#[derive(Clone, Copy, Debug, Error)]
pub enum Error {
    /// A capability stayed in the bounding set.
    #[error(
        "cannot drop capability {capability} from the bounding set: {}. Dropping needs CAP_SETPCAP",
        why(errno)
    )]
    Bounding {
        /// Its number.
        capability: u32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A capability did not become ambient.
    #[error(
        "cannot make capability {capability} ambient: {}. Its securebits may forbid it (SECBIT_NO_CAP_AMBIENT_RAISE)",
        why(errno)
    )]
    Ambient {
        /// Its number.
        capability: u32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The sets stayed as they were.
    #[error(
        "cannot cut the capabilities: {}. The launcher itself lacks one of those a container keeps (CAP_KILL, CAP_NET_BIND_SERVICE, CAP_AUDIT_WRITE)",
        why(errno)
    )]
    Set {
        /// The kernel's answer.
        errno: Errno,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_their_numbers() {
        assert_eq!(names(KEPT), ["KILL", "NET_BIND_SERVICE", "AUDIT_WRITE"]);
        assert_eq!(names(1 << 40 | 1 << 63), ["CHECKPOINT_RESTORE", "63"]);
    }
}
