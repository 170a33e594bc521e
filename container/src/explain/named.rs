//! Which verb a call of a container with a name belongs to, as long as it is made outside of the container.
//!
//! What the engine does around a set-up has steps of its own: it writes the container down, starts a supervisor, and that
//! prepares mounts, volumes and networks before it hands a bundle to the runtime. Inside it is much as in any container,
//! and [`super::verbs`] knows its way, but for what is mounted: the runtime opens each place before it uses it.

use super::decode::Decoded;
use super::names;
use super::trace::Role;
use super::verbs::Verb;

/// The verb a call of the launcher's, the supervisor's or a helper's announces, if it does.
pub fn announced(call: &Decoded, role: Role, at: Verb) -> Option<Verb> {
    let about = |word: &str| call.strings.iter().any(|text| text.contains(word));
    let first = |prefix: &str| call.arguments.first().is_some_and(|text| text.starts_with(prefix));
    let asks = |flag: &str| call.namespaces & names::bit(names::CLONE, flag) != 0;
    let writes = call
        .arguments
        .iter()
        .any(|flags| flags.starts_with("O_WRONLY") || flags.starts_with("O_RDWR"));
    // What the supervisor is at once it has handed the bundle over.
    let with_runtime = matches!(
        at,
        Verb::Bundle
            | Verb::Streams
            | Verb::Runtime
            | Verb::Cgroup
            | Verb::Channel
            | Verb::Enter
            | Verb::Clone
            | Verb::Go
            | Verb::Shift
    );
    Some(match call.name.as_str() {
        // By the files they are about.
        "mkdir" | "mkdirat" | "open" | "openat" | "write" | "stat" | "statx"
            if about("/cgroup/") || about("/proc/self/cgroup") =>
        {
            Verb::Cgroup
        }
        "open" | "openat" if (about("/uid_map") || about("/gid_map") || about("/setgroups")) && writes => Verb::Users,
        "open" | "openat" if about("/ns/user") && with_runtime => Verb::Shift,
        "open" | "openat" if about("/ns/user") => Verb::Users,
        "open" | "openat" if about("/ip_forward") => Verb::Nat,
        "open" | "openat" if about("/bundle/config.json") && !with_runtime => Verb::Bundle,
        "mkdir" | "open" | "openat" | "rename" if about("/runtime") => Verb::Runtime,
        "mkdir" | "mkdirat" | "open" | "openat" | "openat2" | "statx" | "rename" | "chown" if about("/volumes/") => {
            Verb::FillVolumes
        }
        "mkdir" | "open" | "openat" | "rename" | "symlink" if about("/containers/") && role == Role::Launcher => {
            Verb::Record
        }
        "mkdir" | "open" | "openat" if about("/networks") => Verb::Bridge,
        "open" | "openat"
            if ["/hosts", "/hostname", "/resolv.conf"].iter().any(|&name| about(name)) && role == Role::Supervisor =>
        {
            Verb::Names
        }
        // By what they ask the kernel for.
        "execve" if role == Role::Helper => Verb::Nat,
        "socket" if first("AF_NETLINK") => Verb::Bridge,
        "socket" if first("AF_INET") && role == Role::Supervisor => Verb::Ports,
        "pipe2" if role == Role::Supervisor && with_runtime => Verb::Streams,
        "socketpair" if role == Role::Launcher => Verb::Supervise,
        "socketpair" if with_runtime => Verb::Channel,
        "socketpair" => Verb::MakeNetwork,
        "unshare" if asks("CLONE_NEWNS") => Verb::OwnMounts,
        "unshare" if asks("CLONE_NEWNET") => Verb::MakeNetwork,
        "setns" if role == Role::Helper && with_runtime => Verb::Enter,
        "setns" if asks("CLONE_NEWNET") && role == Role::Helper => Verb::Forward,
        "setns" if asks("CLONE_NEWNET") => Verb::Bridge,
        "clone3" | "clone" if call.namespaces == names::bit(names::CLONE, "CLONE_NEWUSER") => Verb::Users,
        "clone3" | "clone" if call.namespaces != 0 => Verb::Clone,
        "clone" | "fork" | "vfork" if role == Role::Launcher => Verb::Supervise,
        "clone" | "vfork" if call.arguments.iter().any(|text| text.contains("CLONE_VFORK")) => Verb::Nat,
        "clone" | "fork" if role == Role::Supervisor && at == Verb::MakeNetwork => Verb::MakeNetwork,
        "clone" | "fork" if role == Role::Supervisor && with_runtime => Verb::Enter,
        "clone" | "fork" if role == Role::Supervisor => Verb::Forward,
        "mount" if call.arguments.get(2).is_some_and(|kind| kind == "NULL") => Verb::OwnMounts,
        "mount" | "open_tree" | "move_mount" if role == Role::Supervisor && !with_runtime => Verb::Root,
        "open_tree" => Verb::Shift,
        "sendmsg" | "recvmsg" => Verb::Go,
        _ => return None,
    })
}

/// The same for a call made inside.
pub fn announced_inside(call: &Decoded, role: Role, at: Verb) -> Option<Verb> {
    let place = match call.name.as_str() {
        "openat2" | "mount" | "mkdirat" | "mknodat" => call.arguments.get(1),
        "symlinkat" | "move_mount" => call.arguments.get(2),
        _ => return super::verbs::announced(call, role, at),
    };
    // A path of the container's. What is named from an open directory belongs where that belonged.
    let path = place.map_or("", |place| place.trim_matches('"'));
    let below = |directory: &str| {
        path.strip_prefix(directory)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match path {
        "/" => Some(Verb::Root),
        _ if below("/proc") || below("/sys") => Some(Verb::KernelViews),
        _ if below("/dev") => Some(Verb::Devices),
        _ if path.starts_with('/') => Some(Verb::Volumes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, strings: &[&str]) -> Decoded {
        Decoded {
            name: name.into(),
            arguments: strings.iter().map(|text| (*text).to_owned()).collect(),
            strings: strings.iter().map(|text| (*text).to_owned()).collect(),
            ..Decoded::default()
        }
    }

    #[test]
    fn a_step_is_known_by_its_files_and_its_sockets() {
        let of = |call: &Decoded| announced(call, Role::Supervisor, Verb::Supervise);
        assert_eq!(of(&call("openat", &["/s/volumes/data/_data"])), Some(Verb::FillVolumes));
        assert_eq!(of(&call("openat", &["/s/networks/lab0.json"])), Some(Verb::Bridge));
        assert_eq!(of(&call("socket", &["AF_NETLINK", "SOCK_RAW"])), Some(Verb::Bridge));
        assert_eq!(of(&call("socket", &["AF_INET6", "SOCK_STREAM"])), Some(Verb::Ports));
        assert_eq!(
            of(&call("openat", &["/s/containers/1/bundle/config.json"])),
            Some(Verb::Bundle)
        );
        assert_eq!(of(&call("mmap", &["0"])), None);
    }

    #[test]
    fn a_place_inside_is_known_by_its_path_and_keeps_what_is_done_there() {
        let of = |name: &str, arguments: &[&str], at| announced_inside(&call(name, arguments), Role::Inside, at);
        assert_eq!(
            of("openat2", &["24", "\"/sys/fs\""], Verb::Devices),
            Some(Verb::KernelViews)
        );
        assert_eq!(
            of("openat2", &["24", "\"/etc/hosts\""], Verb::Devices),
            Some(Verb::Volumes)
        );
        assert_eq!(of("openat2", &["26", "\"pts\""], Verb::Devices), None);
        assert_eq!(
            of("move_mount", &["28", "\"\"", "27 <pts>", "\"\""], Verb::Devices),
            None
        );
    }

    #[test]
    fn a_clone_is_told_by_what_it_makes() {
        let mut clone = call("clone3", &[]);
        clone.namespaces = libc::CLONE_NEWUSER as u64;
        assert_eq!(announced(&clone, Role::Supervisor, Verb::OwnMounts), Some(Verb::Users));
        clone.namespaces |= libc::CLONE_NEWPID as u64;
        assert_eq!(announced(&clone, Role::Supervisor, Verb::Runtime), Some(Verb::Clone));
    }
}
