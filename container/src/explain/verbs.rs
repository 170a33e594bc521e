//! The verbs of the recipe, and how a system call tells which of them it belongs to.
//!
//! Each verb has the course's word for what it makes, and one line of why. A call that does not say by itself where it
//! belongs (memory is taken, a descriptor is closed) belongs to the verb its process is at.

use super::decode::Decoded;
use super::names;
use super::trace::Role;

/// One step of the set-up, as [`crate::run`] and [`crate::init`] have it, and [`crate::engine`] around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Write a container with a name down.
    Record,
    /// Start the process that looks after it.
    Supervise,
    /// Open the published ports.
    Ports,
    /// Take a mount table of one's own.
    OwnMounts,
    /// Make and fill volumes.
    FillVolumes,
    /// Make the container's network.
    MakeNetwork,
    /// Write the files by which names are known.
    Names,
    /// Lease addresses, and connect to the bridge.
    Bridge,
    /// Open the way out.
    Nat,
    /// Start the process that passes ports on.
    Forward,
    /// Write the bundle.
    Bundle,
    /// Make the program's streams.
    Streams,
    /// Keep the runtime's state.
    Runtime,
    /// Look at what was asked for.
    Check,
    /// Block signals.
    Signals,
    /// Make the cgroup.
    Cgroup,
    /// Start the process that cleans up.
    Keeper,
    /// Make the line between launcher and container.
    Channel,
    /// Clone into the namespaces.
    Clone,
    /// Map the users.
    Users,
    /// Shift the image's owners.
    Shift,
    /// Say go, or wait for it.
    Go,
    /// Wait for the container.
    Wait,
    /// Join the cgroup.
    Join,
    /// Put a cgroup namespace over it.
    CgroupNamespace,
    /// Raise the network.
    Network,
    /// Set the host name.
    Hostname,
    /// Cut the bounding set.
    Bounding,
    /// Take on the mapped ids.
    Ids,
    /// Hide from the inside, die with the launcher.
    Tie,
    /// Build the root.
    Root,
    /// Mount what the user gave along.
    Volumes,
    /// Pivot.
    Pivot,
    /// Mount /proc and /sys.
    KernelViews,
    /// Fill /dev.
    Devices,
    /// Let go of the host's root.
    Leave,
    /// Find the program.
    Find,
    /// Load the filter.
    Filter,
    /// Join namespaces that exist.
    Enter,
    /// Start the program's process.
    Start,
    /// Drop privileges.
    Drop,
    /// Leave the launcher's file behind.
    Step,
    /// Execute.
    Exec,
}

impl Verb {
    /// What is done, as the reader of the recipe knows it.
    pub const fn title(self) -> &'static str {
        match self {
            Verb::Record => "write the container down",
            Verb::Supervise => "start the supervisor",
            Verb::Ports => "open the published ports",
            Verb::OwnMounts => "leave the host's mount table",
            Verb::FillVolumes => "make and fill the volumes",
            Verb::MakeNetwork => "make the network",
            Verb::Names => "write who is called what",
            Verb::Bridge => "connect to the bridge",
            Verb::Nat => "open the way out",
            Verb::Forward => "start the forwarder",
            Verb::Bundle => "write the bundle",
            Verb::Streams => "make the program's streams",
            Verb::Runtime => "keep the runtime's state",
            Verb::Check => "look at what was asked for",
            Verb::Signals => "take charge of signals",
            Verb::Cgroup => "make the cgroup",
            Verb::Keeper => "start the keeper",
            Verb::Channel => "make the line to the container",
            Verb::Clone => "clone into the namespaces",
            Verb::Users => "map the users",
            Verb::Shift => "shift the image's owners",
            Verb::Go => "say go, and wait for it",
            Verb::Wait => "wait",
            Verb::Join => "join the cgroup",
            Verb::CgroupNamespace => "make the cgroup the root of what is seen",
            Verb::Network => "raise the network",
            Verb::Hostname => "set the host name",
            Verb::Bounding => "cut the bounding set",
            Verb::Ids => "take on the mapped ids",
            Verb::Tie => "hide, and die with the launcher",
            Verb::Root => "build the root",
            Verb::Volumes => "mount what comes from outside",
            Verb::Pivot => "pivot",
            Verb::KernelViews => "mount /proc and /sys",
            Verb::Devices => "fill /dev",
            Verb::Leave => "let go of the host's root",
            Verb::Find => "find the program",
            Verb::Filter => "load the system call filter",
            Verb::Enter => "enter namespaces that exist",
            Verb::Start => "start the program's process",
            Verb::Drop => "drop privileges",
            Verb::Step => "leave the launcher's file",
            Verb::Exec => "exec",
        }
    }

    /// The course's word for it, where it has one.
    pub const fn term(self) -> Option<&'static str> {
        Some(match self {
            Verb::Record => "engine: an image becomes a container",
            Verb::Supervise => "engine: no daemon, a process for each container",
            Verb::OwnMounts => "namespace MNT",
            Verb::FillVolumes => "volume",
            Verb::MakeNetwork => "namespace NET",
            Verb::Ports | Verb::Forward => "port forwarding",
            Verb::Names => "name resolution",
            Verb::Bridge => "veth pair and bridge, addresses",
            Verb::Nat => "network address translation",
            Verb::Bundle => "OCI bundle",
            Verb::Runtime => "OCI runtime",
            Verb::Cgroup | Verb::Join => "control groups",
            Verb::Clone | Verb::Enter => "namespaces",
            Verb::CgroupNamespace => "control groups, seen through a namespace",
            Verb::Users | Verb::Ids => "namespace USER",
            Verb::Network => "namespace NET",
            Verb::Hostname => "namespace UTS",
            Verb::Shift => "image",
            Verb::Root => "union file system, copy-on-write",
            Verb::Volumes => "volume",
            Verb::Pivot | Verb::Leave => "isolated union file system, namespace MNT",
            Verb::KernelViews => "namespaces PID, NET and MNT",
            Verb::Devices => "namespaces MNT and IPC",
            _ => return None,
        })
    }

    /// Why it is done, in a line.
    pub const fn why(self) -> &'static str {
        match self {
            Verb::Record => {
                "Its directory holds the settings, the log and the layer that takes its changes; its name is a link there."
            }
            Verb::Supervise => {
                "It holds the program's streams, keeps the log and learns of the end, whatever becomes of this command."
            }
            Verb::Ports => "On the host, before anything is made: a port that is taken stops the container here.",
            Verb::OwnMounts => "What is mounted for the container is seen by the supervisor alone, and goes with it.",
            Verb::FillVolumes => {
                "A directory of the host's that outlives the container; at its first use it gets what the image has there."
            }
            Verb::MakeNetwork => "A process goes there, and an open file keeps it when that process has ended.",
            Verb::Names => {
                "hosts, hostname and resolv.conf, mounted over the image's: this is how containers find each other."
            }
            Verb::Bridge => {
                "A cable with one end in the container, the other in a switch of the host's; addresses are leased from a file."
            }
            Verb::Nat => "The host passes the container's packets on, with its own address in the place of theirs.",
            Verb::Forward => {
                "It listens on the host, lives in the container's network, and carries bytes between the two."
            }
            Verb::Bundle => {
                "From here on it is an OCI container like any engine's: a root file system and a config.json."
            }
            Verb::Streams => "The ends of these pipes are what the program will know as its input and output.",
            Verb::Runtime => {
                "create and start: what they know of each other is on the disk, so that a crash loses nothing."
            }
            Verb::Check => {
                "Whatever can be refused is refused before anything is made; an open directory of the host would be a way out."
            }
            Verb::Signals => "Blocked and taken one by one, no signal is lost and none ends the launcher half way.",
            Verb::Cgroup => {
                "A directory of the kernel's whose files are limits: what the container may use, not what it sees."
            }
            Verb::Keeper => {
                "A process that outlives the launcher, whatever ends it, and removes what would stay behind."
            }
            Verb::Channel => {
                "Two sockets: when one side dies, the other reads the end of the stream and never waits in vain."
            }
            Verb::Clone => {
                "The one call that makes the container: a copy of this process with views of the kernel of its own."
            }
            Verb::Users => {
                "Root inside becomes an id outside that owns nothing. Only the launcher may write this map, and once."
            }
            Verb::Shift => {
                "What belongs to the host's root in the image appears as the container's root's, without a copy."
            }
            Verb::Go => "The container must not act before its ids are mapped.",
            Verb::Wait => "From here on the launcher passes signals on, and waits for the end.",
            Verb::Join => {
                "By writing itself into the cgroup the process is counted and limited there, and so are all its children."
            }
            Verb::CgroupNamespace => "Made after moving in, since it shows as root the cgroup its maker is in.",
            Verb::Network => "A new network has a loopback interface and nothing else, and that is switched off.",
            Verb::Hostname => "A new UTS namespace starts with a copy of the host's name.",
            Verb::Bounding => "The ceiling of what any program inside can ever have; one call for each capability.",
            Verb::Ids => "The map exists now; this process becomes root inside and forgets the launcher's groups.",
            Verb::Tie => {
                "No process inside may look into this copy of the launcher, and no container outlives its launcher."
            }
            Verb::Root => {
                "Image below, read-only; an empty layer above that takes every change: looks writable, stays as it is."
            }
            Verb::Volumes => "What is mounted over the union file system is outside of it, and outlives the container.",
            Verb::Pivot => {
                "Swaps the root of the whole mount table, where chroot only changes where one process starts to look."
            }
            Verb::KernelViews => {
                "Windows into the kernel: mounted anew to show the container's own, then masked where they tell too much."
            }
            Verb::Devices => {
                "The handful of devices every program expects, and nothing else of the machine's hardware."
            }
            Verb::Leave => "From here on no path leads to a file of the host.",
            Verb::Find => "Looked for in the container's own files, by the container's own PATH.",
            Verb::Filter => {
                "A small program the kernel runs at every system call from here on: which of its doors stay shut."
            }
            Verb::Enter => "A view of the kernel that another container has already: joined, not made.",
            Verb::Start => "This process stays as the container's first one; the program becomes its child.",
            Verb::Drop => "Capabilities, session, descriptors: each step gives up what no later one needs.",
            Verb::Step => {
                "/proc/self/exe is the launcher still, and its owner is this program's: a stepping stone comes between."
            }
            Verb::Exec => "The last call of the set-up: from here on it is the program's process.",
        }
    }
}

/// The verb a call announces, if it does.
pub fn announced(call: &Decoded, role: Role, at: Verb) -> Option<Verb> {
    let about = |word: &str| call.strings.iter().any(|text| text.contains(word));
    let first = |prefix: &str| call.arguments.first().is_some_and(|text| text.starts_with(prefix));
    let inside = matches!(role, Role::Inside | Role::Program);
    Some(match call.name.as_str() {
        "rt_sigprocmask" | "rt_sigaction" | "signalfd4" if at == Verb::Check => Verb::Signals,
        "clone" | "clone3" | "vfork" | "fork" if call.namespaces != 0 => Verb::Clone,
        "clone" | "clone3" | "vfork" | "fork" if inside => Verb::Start,
        "clone" | "clone3" | "vfork" | "fork" => Verb::Keeper,
        "socketpair" => Verb::Channel,
        "mkdir" | "mkdirat" | "open" | "openat" | "write"
            if about("/cgroup/") || about("/cgroup.") || about("/proc/self/cgroup") =>
        {
            if inside {
                Verb::Join
            } else {
                Verb::Cgroup
            }
        }
        "unshare" | "setns" if call.namespaces == names::bit(names::CLONE, "CLONE_NEWCGROUP") => Verb::CgroupNamespace,
        "setns" => Verb::Enter,
        // What is read of them inside tells a process only where it is.
        "open" | "openat" if !inside && (about("/uid_map") || about("/gid_map") || about("/setgroups")) => Verb::Users,
        "open" | "openat" if about("/ns/user") && !inside => Verb::Shift,
        "open_tree" if !inside => Verb::Shift,
        "sendmsg" | "recvmsg" => Verb::Go,
        "poll" | "wait4" | "waitid" => Verb::Wait,
        "signalfd4" => Verb::Wait,
        "socket" if inside => Verb::Network,
        "sethostname" | "setdomainname" => Verb::Hostname,
        "prctl" if first("PR_CAPBSET_DROP") => Verb::Bounding,
        "prctl" if first("PR_SET_DUMPABLE") || first("PR_SET_PDEATHSIG") && role == Role::Inside => Verb::Tie,
        "prctl" if first("PR_SET_NO_NEW_PRIVS") => Verb::Filter,
        "seccomp" => Verb::Filter,
        "setgroups" | "setresgid" | "setresuid" if role == Role::Inside => Verb::Ids,
        "setgroups" | "setresgid" | "setresuid" | "capset" | "setsid" | "close_range" if role == Role::Program => {
            Verb::Drop
        }
        "pivot_root" => Verb::Pivot,
        "fchdir" if at == Verb::Pivot => Verb::Pivot,
        "umount2" if first("\".\"") => Verb::Leave,
        "mkdir" | "mount" | "mknod" | "mknodat" | "symlinkat" | "symlink" | "move_mount" | "openat2" if inside => {
            return mounted(call, at);
        }
        "memfd_create" | "execveat" if about(&crate::stone::NAME.to_string_lossy()) => Verb::Step,
        "execve" | "execveat" => Verb::Exec,
        "chdir" | "open" | "openat" if at == Verb::Tie => Verb::Root,
        "stat" | "statx" | "newfstatat" if inside && matches!(at, Verb::Leave | Verb::Tie) => Verb::Find,
        "memfd_create" => Verb::Find,
        _ => return None,
    })
}

/// Where a mount or what is mounted on belongs, by its place in the container.
fn mounted(call: &Decoded, at: Verb) -> Option<Verb> {
    let target = call.arguments.get(match call.name.as_str() {
        "mkdir" | "mknod" => 0,
        "symlinkat" => 2,
        "move_mount" => 3,
        _ => 1,
    })?;
    let target = target.trim_matches('"');
    let below = |directory: &str| {
        let rest = target.strip_prefix(directory);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let before_the_pivot = (at as u8) < Verb::Pivot as u8;
    Some(match call.name.as_str() {
        _ if below("/proc") || below("/sys") => Verb::KernelViews,
        _ if below("/dev") => Verb::Devices,
        _ if before_the_pivot => Verb::Root,
        "mount" | "move_mount" => Verb::Volumes,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &[&str]) -> Decoded {
        let texts = || arguments.iter().map(|&text| text.to_owned());
        Decoded {
            name: name.into(),
            arguments: texts().collect(),
            strings: texts().map(|text| text.trim_matches('"').to_owned()).collect(),
            ..Decoded::default()
        }
    }

    #[test]
    fn a_mount_belongs_where_its_target_is() {
        let mount = |target: &str, at| announced(&call("mount", &["\"x\"", target]), Role::Inside, at);
        assert_eq!(mount("\"/tmp\"", Verb::Tie), Some(Verb::Root));
        assert_eq!(mount("\"/proc/acpi\"", Verb::Pivot), Some(Verb::KernelViews));
        assert_eq!(mount("\"/dev/pts\"", Verb::KernelViews), Some(Verb::Devices));
        assert_eq!(mount("\"/device\"", Verb::Devices), Some(Verb::Volumes));
    }

    #[test]
    fn a_call_that_says_nothing_stays_where_its_process_is() {
        assert_eq!(announced(&call("mmap", &["0"]), Role::Inside, Verb::Root), None);
        assert_eq!(
            announced(&call("never_heard_of", &[]), Role::Launcher, Verb::Check),
            None
        );
    }

    #[test]
    fn a_clone_is_told_by_its_flags_and_by_who_makes_it() {
        let mut clone = call("clone3", &["CLONE_NEWPID"]);
        assert_eq!(announced(&clone, Role::Launcher, Verb::Channel), Some(Verb::Keeper));
        clone.namespaces = libc::CLONE_NEWPID as u64;
        assert_eq!(announced(&clone, Role::Launcher, Verb::Channel), Some(Verb::Clone));
        clone.namespaces = 0;
        assert_eq!(announced(&clone, Role::Inside, Verb::Filter), Some(Verb::Start));
    }
}
