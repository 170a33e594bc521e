//! The default system call filter, in the words of the OCI runtime specification.
//!
//! It is the lab's own policy ([`crate::seccomp::table`]), less what a capability gives back: a container that was given
//! SYS_TIME is to set the clock. Docker's default profile pairs them in the same way.

use serde_json::{Value, json};
use syscalls::Sysno;

use crate::seccomp::table::{
    Action, EXCEPTIONS, FIRST_UNKNOWN, NAMESPACE_FLAGS, PERSONALITIES, SOCKET_FAMILIES, TERMINAL_IOCTLS,
};

/// What a capability is for. The call is no longer refused where the container has it; the kernel still asks for it.
const GIVEN_BACK: [(&str, &[&str]); 12] = [
    ("SYS_CHROOT", &["chroot"]),
    ("SYS_TIME", &["settimeofday", "clock_settime"]),
    ("SYS_MODULE", &["init_module", "finit_module", "delete_module"]),
    ("SYS_BOOT", &["reboot", "kexec_load", "kexec_file_load"]),
    ("SYS_PACCT", &["acct"]),
    (
        "SYS_NICE",
        &[
            "mbind",
            "set_mempolicy",
            "get_mempolicy",
            "migrate_pages",
            "move_pages",
            "set_mempolicy_home_node",
        ],
    ),
    ("SYS_RAWIO", &["iopl", "ioperm"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
    ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("SYSLOG", &["syslog"]),
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        "SYS_ADMIN",
        &[
            "mount",
            "umount2",
            "pivot_root",
            "unshare",
            "setns",
            "sethostname",
            "setdomainname",
            "fanotify_init",
            "open_tree",
            "move_mount",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "mount_setattr",
            "quotactl",
            "quotactl_fd",
            "bpf",
            "perf_event_open",
            "syslog",
            "lookup_dcookie",
            "swapon",
            "swapoff",
            "statmount",
            "listmount",
        ],
    ),
];

/// The profile for a container with these capabilities.
pub fn default_profile(capabilities: &[&str]) -> Value {
    let given_back: Vec<&str> = GIVEN_BACK
        .iter()
        .filter(|(capability, _)| capabilities.contains(capability))
        .flat_map(|(_, calls)| calls.iter().copied())
        .collect();
    let (mut refused, mut unknown) = (Vec::new(), Vec::new());
    for number in 0..FIRST_UNKNOWN {
        let Some(name) = Sysno::new(number as usize).map(|call| call.name()) else {
            continue;
        };
        match action(number) {
            Action::Refuse if !given_back.contains(&name) => refused.push(name),
            Action::Unknown => unknown.push(name),
            _ => {}
        }
    }
    let is_one_of = |values: &[u32]| -> Vec<Value> {
        let equal = |value| json!({ "index": 0, "value": value, "op": "SCMP_CMP_EQ" });
        values.iter().map(equal).collect()
    };
    let terminal: Vec<Value> = TERMINAL_IOCTLS
        .iter()
        .map(|request| json!({ "index": 1, "value": 0xffff_ffff_u32, "valueTwo": request, "op": "SCMP_CMP_MASKED_EQ" }))
        .collect();
    let mut rules = vec![
        json!({ "names": refused, "action": "SCMP_ACT_ERRNO" }),
        json!({ "names": unknown, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }),
        json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": is_one_of(&PERSONALITIES) }),
        json!({ "names": ["personality"], "action": "SCMP_ACT_ERRNO" }),
        json!({ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": is_one_of(&SOCKET_FAMILIES) }),
        json!({ "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": terminal }),
    ];
    if !capabilities.contains(&"SYS_ADMIN") {
        // One condition for each flag: that it is set.
        let flags = (0..u32::BITS)
            .map(|bit| 1u32 << bit)
            .filter(|flag| NAMESPACE_FLAGS & flag != 0);
        let set: Vec<Value> = flags
            .map(|flag| json!({ "index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ" }))
            .collect();
        rules.push(json!({ "names": ["clone"], "action": "SCMP_ACT_ERRNO", "args": set }));
    }
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    })
}

/// What the policy says about a number.
fn action(number: u32) -> Action {
    let covers = |exception: &&(u32, u32, Action)| (exception.0..=exception.1).contains(&number);
    EXCEPTIONS
        .iter()
        .find(covers)
        .map_or(Action::Allow, |exception| exception.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(profile: &Value) -> Vec<&str> {
        profile["syscalls"][0]["names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect()
    }

    #[test]
    fn a_capability_gives_its_calls_back() {
        let (without, with) = (default_profile(&[]), default_profile(&["SYS_TIME", "SYS_CHROOT"]));
        for call in ["settimeofday", "chroot"] {
            assert!(
                refused(&without).contains(&call) && !refused(&with).contains(&call),
                "{call}"
            );
        }
        assert!(refused(&with).contains(&"mount"));
        assert!(!refused(&default_profile(&["SYS_ADMIN"])).contains(&"mount"));
    }

    #[test]
    fn the_profile_is_one_the_runtime_can_make_a_filter_of() {
        let profile = serde_json::from_value(default_profile(&[])).unwrap();
        let filter = crate::seccomp::profile::compile(&profile).unwrap();
        assert!(filter.unknown.is_empty(), "{:?}", filter.unknown);
    }
}
