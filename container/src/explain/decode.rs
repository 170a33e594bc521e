//! From six numbers in registers to a line one can read: which call, on what, with which flags.
//!
//! What a register means is the system call's business: a number, a set of flags, the address of a path in the caller's
//! memory. [`signature`] says it for the calls a set-up makes. A call that is not listed is shown all the same, by name,
//! with the bare registers.

use nix::errno::Errno;
use syscalls::Sysno;

use super::descriptors::Descriptors;
use super::names::{self, Bits, Values};
use super::ptrace::Memory;
use super::{address, netlink};
use crate::capabilities;

/// Longer data is cut in the line.
const LONGEST_DATA: usize = 72;

/// A request to the kernel's table of interfaces is far shorter.
const LONGEST_REQUEST: usize = 4096;

/// Of a longer path the descriptor's label has the last part only: the call that opened it has it all.
const LONGEST_NAME: usize = 32;

/// A call as far as it can be told at its entry.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// The call's name.
    pub name: String,
    /// Its arguments, as text.
    pub arguments: Vec<String>,
    /// The paths, names and data among them, a descriptor's file included: what tells calls of one name apart.
    pub strings: Vec<String>,
    /// The namespaces it asks for, as clone flags.
    pub namespaces: u64,
    /// Whether the signature was known.
    pub recognised: bool,
}

/// What an argument register holds.
enum Arg {
    /// A signed number.
    Int,
    /// A number best read in base 16: an address, a mask.
    Hex,
    /// A file mode, in base 8; with a type in it for mknod.
    Mode,
    /// A descriptor.
    Fd,
    /// The directory of the path that follows.
    Dir,
    /// A path or another string.
    Text,
    /// Data whose length is the next argument.
    Data,
    /// A socket's address, whose length is the next argument.
    Address,
    /// A set of flags.
    Set(Bits),
    /// One of several values.
    One(Values),
    /// open(2)'s flags: access mode and set.
    Open,
    /// Type and flags of a socket.
    Socket,
    /// A device number.
    Device,
    /// A NULL-terminated array of strings.
    Texts,
    /// A capability by number.
    Capability,
    /// `struct clone_args`.
    CloneArgs,
    /// `struct mount_attr`.
    MountAttr,
    /// The two data words of capset(2).
    CapabilitySets,
    /// `struct ifreq`: the interface's name.
    Interface,
    /// `struct msghdr`: the data.
    Message,
    /// `struct sock_fprog`: the length of a filter.
    Filter,
    /// A signal set of 64 bits.
    Signals,
}

/// The arguments of the calls a set-up makes, from the manual pages.
fn signature(call: Sysno, arguments: &[u64; 6]) -> Option<Vec<Arg>> {
    use Arg::*;
    Some(match call {
        Sysno::read => vec![Fd, Hex, Int],
        Sysno::write => vec![Fd, Data, Int],
        Sysno::open | Sysno::creat => vec![Text, Open, Mode],
        Sysno::openat => vec![Dir, Text, Open, Mode],
        Sysno::openat2 => vec![Dir, Text, Hex, Int],
        Sysno::close => vec![Fd],
        Sysno::close_range => vec![Int, Int, Set(names::CLOSE_RANGE)],
        Sysno::dup | Sysno::fchdir | Sysno::fstat | Sysno::fstatfs => vec![Fd],
        Sysno::dup2 => vec![Fd, Int],
        Sysno::dup3 => vec![Fd, Int, Open],
        Sysno::fchown => vec![Fd, Int, Int],
        Sysno::chown | Sysno::lchown => vec![Text, Int, Int],
        Sysno::fchownat => vec![Dir, Text, Int, Int, Set(names::AT)],
        Sysno::fchmod => vec![Fd, Mode],
        Sysno::chmod | Sysno::mkdir => vec![Text, Mode],
        Sysno::stat | Sysno::lstat | Sysno::statfs | Sysno::chdir | Sysno::chroot | Sysno::rmdir | Sysno::unlink => {
            vec![Text]
        }
        Sysno::newfstatat => vec![Dir, Text, Hex, Set(names::AT)],
        Sysno::statx => vec![Dir, Text, Set(names::AT), Hex],
        Sysno::access => vec![Text, Mode],
        Sysno::faccessat | Sysno::faccessat2 | Sysno::fchmodat | Sysno::mkdirat => vec![Dir, Text, Mode],
        Sysno::unlinkat => vec![Dir, Text, Set(names::AT)],
        Sysno::readlink => vec![Text],
        Sysno::readlinkat => vec![Dir, Text],
        Sysno::symlink | Sysno::rename => vec![Text, Text],
        Sysno::symlinkat => vec![Text, Dir, Text],
        Sysno::mknod => vec![Text, Mode, Device],
        Sysno::mknodat => vec![Dir, Text, Mode, Device],
        Sysno::getdents64 | Sysno::ftruncate => vec![Fd],
        Sysno::mount => vec![Text, Text, Text, Set(names::MOUNT), Text],
        Sysno::umount2 => vec![Text, Set(names::UNMOUNT)],
        Sysno::pivot_root => vec![Text, Text],
        Sysno::open_tree => vec![Dir, Text, Set(names::OPEN_TREE)],
        Sysno::move_mount => vec![Dir, Text, Dir, Text, Set(names::MOVE_MOUNT)],
        Sysno::mount_setattr => vec![Dir, Text, Set(names::AT), MountAttr],
        Sysno::fsopen => vec![Text, Int],
        Sysno::fsconfig => vec![Fd, Int, Text, Text],
        Sysno::fsmount => vec![Fd, Int, Set(names::MOUNT_ATTRIBUTES)],
        Sysno::clone3 => vec![CloneArgs],
        Sysno::clone | Sysno::unshare => vec![Set(names::CLONE)],
        Sysno::fork | Sysno::vfork | Sysno::setsid => vec![],
        Sysno::getpid | Sysno::getppid | Sysno::gettid => vec![],
        Sysno::geteuid | Sysno::getegid | Sysno::getuid | Sysno::getgid => vec![],
        Sysno::setns => vec![Fd, Set(names::CLONE)],
        Sysno::sethostname | Sysno::setdomainname => vec![Data, Int],
        Sysno::setgroups => vec![Int],
        Sysno::setresuid | Sysno::setresgid => vec![Int, Int, Int],
        Sysno::setuid | Sysno::setgid => vec![Int],
        Sysno::capset => vec![CapabilitySets],
        Sysno::prctl => match arguments[0] as i32 {
            libc::PR_CAPBSET_DROP => vec![One(names::PRCTL), Capability],
            libc::PR_SET_PDEATHSIG | libc::PR_SET_DUMPABLE | libc::PR_SET_NO_NEW_PRIVS => {
                vec![One(names::PRCTL), Int]
            }
            _ => vec![One(names::PRCTL), Hex],
        },
        Sysno::seccomp => vec![One(names::SECCOMP), Hex, Filter],
        Sysno::execve => vec![Text, Texts],
        Sysno::execveat => vec![Dir, Text, Texts, Hex, Set(names::AT)],
        Sysno::socket => vec![One(names::FAMILIES), Socket, Int],
        Sysno::socketpair => vec![One(names::FAMILIES), Socket, Int],
        Sysno::sendmsg => vec![Fd, Message, Set(names::MESSAGE)],
        Sysno::recvmsg => vec![Fd, Hex, Set(names::MESSAGE)],
        Sysno::sendto => vec![Fd, Data, Int, Set(names::MESSAGE)],
        Sysno::recvfrom => vec![Fd, Hex, Int, Set(names::MESSAGE)],
        Sysno::ioctl => match arguments[1] {
            0x8913..=0x893f => vec![Fd, One(names::IOCTL), Interface],
            _ => vec![Fd, One(names::IOCTL), Hex],
        },
        Sysno::fcntl => vec![Fd, One(names::FCNTL)],
        Sysno::memfd_create => vec![Text, Set(names::MEMFD)],
        Sysno::mmap => vec![Hex, Int, Set(names::PROTECTION), Set(names::MAP), Int, Hex],
        Sysno::mprotect => vec![Hex, Int, Set(names::PROTECTION)],
        Sysno::munmap => vec![Hex, Int],
        Sysno::brk => vec![Hex],
        Sysno::rt_sigprocmask => vec![One(names::SIGNAL_MASK), Signals],
        Sysno::rt_sigaction => vec![Int, Hex],
        Sysno::signalfd4 => vec![Int, Signals, Int, Open],
        Sysno::bind | Sysno::connect => vec![Fd, Address, Int],
        Sysno::listen => vec![Fd, Int],
        Sysno::accept4 => vec![Fd, Hex, Hex],
        Sysno::setsockopt => vec![Fd, Int, Int],
        Sysno::pipe2 => vec![Hex, Open],
        Sysno::flock => vec![Fd, One(names::LOCK)],
        Sysno::fsync | Sysno::fdatasync => vec![Fd],
        Sysno::lseek => vec![Fd, Int, Int],
        Sysno::link => vec![Text, Text],
        Sysno::linkat | Sysno::renameat | Sysno::renameat2 => vec![Dir, Text, Dir, Text],
        Sysno::utimensat => vec![Dir, Text],
        Sysno::listxattr | Sysno::llistxattr => vec![Text],
        Sysno::getxattr | Sysno::lgetxattr | Sysno::setxattr | Sysno::lsetxattr => vec![Text, Text],
        Sysno::flistxattr => vec![Fd],
        Sysno::copy_file_range => vec![Fd, Hex, Fd],
        Sysno::sendfile => vec![Fd, Fd, Hex, Int],
        Sysno::getrandom => vec![Hex, Int, Int],
        Sysno::setfsuid | Sysno::setfsgid => vec![Int],
        Sysno::pidfd_open => vec![Int, Int],
        Sysno::pidfd_send_signal => vec![Fd, Int],
        Sysno::epoll_create1 => vec![Open],
        Sysno::epoll_ctl => vec![Fd, Int, Fd],
        Sysno::epoll_wait => vec![Fd],
        Sysno::poll => vec![Hex, Int, Int],
        Sysno::wait4 => vec![Int, Hex, Int],
        Sysno::kill => vec![Int, Int],
        Sysno::umask => vec![Mode],
        Sysno::rt_sigtimedwait => vec![Signals],
        Sysno::set_robust_list | Sysno::sigaltstack => vec![Hex],
        Sysno::exit_group => vec![Int],
        _ => return None,
    })
}

/// Reads a call out of the registers and the memory of the process that makes it.
pub fn decode(number: u64, arguments: [u64; 6], memory: &Memory, descriptors: &Descriptors) -> Decoded {
    let Some(call) = usize::try_from(number).ok().and_then(Sysno::new) else {
        return raw(format!("system call {number}"), arguments);
    };
    let Some(signature) = signature(call, &arguments) else {
        return raw(call.name().to_owned(), arguments);
    };
    let mut reader = Reader {
        memory,
        descriptors,
        decoded: Decoded {
            name: call.name().to_owned(),
            recognised: true,
            ..Decoded::default()
        },
    };
    for (i, kind) in signature.into_iter().enumerate() {
        // A length is told by the data it belongs to.
        let text = reader.argument(kind, i, &arguments);
        reader.decoded.arguments.push(text);
    }
    match call {
        Sysno::unshare | Sysno::clone => reader.decoded.namespaces = arguments[0] & names::NEW_NAMESPACES,
        Sysno::setns => reader.decoded.namespaces = arguments[1] & names::NEW_NAMESPACES,
        _ => {}
    }
    // Arguments that are not given are not shown.
    let optional = match call {
        Sysno::openat if arguments[2] & libc::O_CREAT as u64 == 0 => 1,
        Sysno::open if arguments[1] & libc::O_CREAT as u64 == 0 => 1,
        Sysno::mknodat if arguments[2] & u64::from(libc::S_IFCHR | libc::S_IFBLK) & 0o060_000 == 0 => 1,
        Sysno::mount if arguments[4] == 0 => 1,
        _ => 0,
    };
    let kept = reader.decoded.arguments.len().saturating_sub(optional);
    reader.decoded.arguments.truncate(kept);
    reader.decoded
}

/// What a call returned: nothing for a plain success, otherwise ` = ...`.
pub fn result(value: i64) -> String {
    match value {
        0 => String::new(),
        // The kernel's own word for "will be tried again": a signal or this tracer came in between.
        -516..=-512 => " = interrupted".into(),
        -4095..0 => format!(" = {:?}", Errno::from_raw(-value as i32)),
        // Addresses are read in base 16.
        0x1_0000_0000.. => format!(" = {value:#x}"),
        _ => format!(" = {value}"),
    }
}

fn raw(name: String, arguments: [u64; 6]) -> Decoded {
    Decoded {
        name,
        arguments: arguments.iter().map(|argument| format!("{argument:#x}")).collect(),
        ..Decoded::default()
    }
}

struct Reader<'a> {
    memory: &'a Memory,
    descriptors: &'a Descriptors,
    decoded: Decoded,
}

impl Reader<'_> {
    fn argument(&mut self, kind: Arg, index: usize, arguments: &[u64; 6]) -> String {
        let value = arguments[index];
        match kind {
            Arg::Int => (value as i32).to_string(),
            Arg::Hex if value == 0 => "0".into(),
            Arg::Hex => format!("{value:#x}"),
            Arg::Mode => mode(value),
            Arg::Fd => self.descriptor(value as i32),
            Arg::Dir if value as i32 == libc::AT_FDCWD => "AT_FDCWD".into(),
            Arg::Dir => self.descriptor(value as i32),
            Arg::Text => self.text(value),
            Arg::Data => self.data(value, arguments.get(index + 1).copied().unwrap_or(0)),
            Arg::Address => self.address(value, arguments.get(index + 1).copied().unwrap_or(0)),
            Arg::Set(table) => names::bits(table, value & 0xffff_ffff & !signal_of_clone(table, value)),
            Arg::One(table) => names::value(table, value & 0xffff_ffff),
            Arg::Open => {
                let access = ["O_RDONLY", "O_WRONLY", "O_RDWR", "3"][value as usize & 3];
                match value & !3 & !LARGEFILE {
                    0 => access.into(),
                    flags => format!("{access}|{}", names::bits(names::OPEN, flags)),
                }
            }
            Arg::Socket => {
                let kind = names::value(names::SOCKET_TYPES, value & 0xf);
                match value & !0xf {
                    0 => kind,
                    flags => format!("{kind}|{}", names::bits(names::SOCKET, flags)),
                }
            }
            Arg::Device => {
                let (major, minor) = (libc::major(value), libc::minor(value));
                format!("device {major}:{minor}")
            }
            Arg::Texts => self.texts(value),
            Arg::Capability => {
                let name = capabilities::NAMES.get(value as usize);
                name.map_or_else(|| value.to_string(), |name| format!("CAP_{name}"))
            }
            Arg::CloneArgs => self.clone_args(value),
            Arg::MountAttr => self.mount_attr(value),
            Arg::CapabilitySets => self.capability_sets(arguments[1]),
            Arg::Interface => self
                .memory
                .string(value)
                .map_or_else(|| format!("{value:#x}"), |name| quote(&name)),
            Arg::Message => self.message(value),
            Arg::Filter => match self.memory.words::<1>(value) {
                Some([length]) => format!("{} instructions", length as u16),
                None => format!("{value:#x}"),
            },
            Arg::Signals => match self.memory.words::<1>(value) {
                Some([u64::MAX]) => "every signal".into(),
                Some([0]) => "no signal".into(),
                Some([set]) => format!("{} signals", set.count_ones()),
                None if value == 0 => "NULL".into(),
                None => format!("{value:#x}"),
            },
        }
    }

    fn descriptor(&mut self, fd: i32) -> String {
        match self.descriptors.name(fd) {
            Some(name) => {
                self.decoded.strings.push(name.to_owned());
                let long = name.chars().count() > LONGEST_NAME;
                match name.rsplit_once('/').filter(|_| long) {
                    Some((_, file)) => format!("{fd} <.../{file}>"),
                    None => format!("{fd} <{name}>"),
                }
            }
            None => fd.to_string(),
        }
    }

    fn text(&mut self, address: u64) -> String {
        match self.memory.string(address) {
            Some(text) => {
                let quoted = quote(&text);
                self.decoded.strings.push(text);
                quoted
            }
            None if address == 0 => "NULL".into(),
            None => format!("{address:#x}"),
        }
    }

    fn address(&mut self, address: u64, length: u64) -> String {
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(address::LONGEST);
        let text = self
            .memory
            .bytes(address, length)
            .and_then(|bytes| address::told(&bytes));
        match text {
            Some(text) => {
                self.decoded.strings.push(text.clone());
                text
            }
            None => format!("{address:#x}"),
        }
    }

    fn data(&mut self, address: u64, length: u64) -> String {
        let to_the_kernel = self.decoded.strings.last().is_some_and(|to| to.contains("AF_NETLINK"));
        if to_the_kernel
            && let Some(bytes) = self
                .memory
                .bytes(address, usize::try_from(length).unwrap_or(0).min(LONGEST_REQUEST))
            && let Some(request) = netlink::request(&bytes)
        {
            return request;
        }
        let shown = usize::try_from(length).unwrap_or(usize::MAX).min(LONGEST_DATA);
        match self.memory.bytes(address, shown) {
            Some(bytes) if bytes.iter().all(|&byte| byte == b'\n' || (b' '..=b'~').contains(&byte)) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let more = if shown < length as usize { "..." } else { "" };
                let quoted = format!("{}{more}", quote(&text));
                self.decoded.strings.push(text);
                quoted
            }
            _ => format!("{length} bytes"),
        }
    }

    fn texts(&mut self, address: u64) -> String {
        let pointers = (0..64).map_while(|i| {
            let [pointer] = self.memory.words::<1>(address + i * 8)?;
            (pointer != 0).then(|| self.memory.string(pointer))?
        });
        let quoted: Vec<String> = pointers.map(|text| quote(&text)).collect();
        format!("[{}]", quoted.join(", "))
    }

    /// flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
    fn clone_args(&mut self, address: u64) -> String {
        let Some(words) = self.memory.words::<11>(address) else {
            return format!("{address:#x}");
        };
        let flags = words[0];
        self.decoded.namespaces = flags & names::NEW_NAMESPACES;
        let mut text = names::bits(names::CLONE, flags);
        if flags & names::bit(names::CLONE, "CLONE_INTO_CGROUP") != 0 {
            let cgroup = self.descriptor(words[10] as i32);
            text = format!("{text}, cgroup {cgroup}");
        }
        text
    }

    /// attr_set, attr_clr, propagation, userns_fd.
    fn mount_attr(&mut self, address: u64) -> String {
        let Some([set, clear, _, namespace]) = self.memory.words::<4>(address) else {
            return format!("{address:#x}");
        };
        let mut text = format!("set {}", names::bits(names::MOUNT_ATTRIBUTES, set));
        if clear != 0 {
            text = format!("{text}, clear {}", names::bits(names::MOUNT_ATTRIBUTES, clear));
        }
        if set & names::bit(names::MOUNT_ATTRIBUTES, "MOUNT_ATTR_IDMAP") != 0 {
            let namespace = self.descriptor(namespace as i32);
            text = format!("{text}, ids of {namespace}");
        }
        text
    }

    /// Two times effective, permitted, inheritable, 32 bits each.
    fn capability_sets(&mut self, address: u64) -> String {
        let Some([first, second, third]) = self.memory.words::<3>(address) else {
            return format!("{address:#x}");
        };
        let low = |word: u64| word & 0xffff_ffff;
        let set = |low_half: u64, high_half: u64| low_half | high_half << 32;
        let name = |set: u64| match capabilities::names(set).as_slice() {
            [] => "none".to_owned(),
            names => format!("CAP_{}", names.join("|CAP_")),
        };
        let effective = set(low(first), second >> 32);
        let permitted = set(first >> 32, low(third));
        format!("effective {}, permitted {}", name(effective), name(permitted))
    }

    /// msg_name, msg_namelen, msg_iov, msg_iovlen, msg_control, msg_controllen: the first piece of data.
    fn message(&mut self, address: u64) -> String {
        let words = self.memory.words::<6>(address);
        let Some([_, _, vector, count, _, control]) = words.filter(|words| words[3] > 0) else {
            return format!("{address:#x}");
        };
        let Some([data, length]) = self.memory.words::<2>(vector) else {
            return format!("{count} pieces");
        };
        let text = self.data(data, length);
        if control > 0 {
            format!("{text} and a descriptor")
        } else {
            text
        }
    }
}

/// The kernel's own value, which no program needs to give on this architecture.
const LARGEFILE: u64 = 0o100_000;

/// The lowest byte of clone(2)'s flags is the signal for its end.
fn signal_of_clone(table: Bits, value: u64) -> u64 {
    if std::ptr::eq(table, names::CLONE) {
        value & 0x3f
    } else {
        0
    }
}

fn mode(value: u64) -> String {
    let kind = value & 0o170_000;
    match kind {
        0 => format!("0{value:o}"),
        _ => format!("{}|0{:o}", names::value(names::FILE_TYPES, kind), value & 0o7777),
    }
}

fn quote(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This process's own memory serves as a tracee's.
    fn told(call: Sysno, arguments: [u64; 6]) -> String {
        let memory = Memory::of(nix::unistd::Pid::this());
        let decoded = decode(call.id() as u64, arguments, &memory, &Descriptors::standard());
        format!("{}({})", decoded.name, decoded.arguments.join(", "))
    }

    #[test]
    fn arguments_are_told_in_the_manual_pages_words() {
        let address = |text: &std::ffi::CStr| text.as_ptr().addr() as u64;
        assert_eq!(
            told(
                Sysno::mount,
                [address(c"proc"), address(c"/proc"), address(c"proc"), 14, 0, 0]
            ),
            r#"mount("proc", "/proc", "proc", MS_NOSUID|MS_NODEV|MS_NOEXEC)"#
        );
        assert_eq!(
            told(Sysno::write, [1, address(c"0 524288 65536"), 14, 0, 0, 0]),
            r#"write(1 <standard output>, "0 524288 65536", 14)"#
        );
        assert_eq!(
            told(Sysno::prctl, [24, 21, 0, 0, 0, 0]),
            "prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN)"
        );
        let sets: [u64; 3] = [0x420 | 0x420 << 32, 0, 0];
        assert_eq!(
            told(Sysno::capset, [0, sets.as_ptr().addr() as u64, 0, 0, 0, 0]),
            "capset(effective CAP_KILL|CAP_NET_BIND_SERVICE, permitted CAP_KILL|CAP_NET_BIND_SERVICE)"
        );
        let clone: [u64; 11] = [0x2_7c02_1000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 1];
        let clone = told(Sysno::clone3, [clone.as_ptr().addr() as u64, 88, 0, 0, 0, 0]);
        assert!(
            clone.contains("CLONE_NEWPID|CLONE_NEWNET|CLONE_INTO_CGROUP, cgroup 1 <standard output>"),
            "{clone}"
        );
    }

    #[test]
    fn what_cannot_be_read_or_is_not_known_is_shown_raw() {
        assert_eq!(told(Sysno::chdir, [8, 0, 0, 0, 0, 0]), "chdir(0x8)");
        assert_eq!(
            told(Sysno::kexec_load, [1, 2, 3, 0, 0, 0]),
            "kexec_load(0x1, 0x2, 0x3, 0x0, 0x0, 0x0)"
        );
        let memory = Memory::of(nix::unistd::Pid::this());
        let unknown = decode(4000, [1; 6], &memory, &Descriptors::standard());
        assert_eq!((unknown.name.as_str(), unknown.recognised), ("system call 4000", false));
    }

    #[test]
    fn results_name_the_error() {
        assert_eq!(result(0), "");
        assert_eq!(result(3), " = 3");
        assert_eq!(result(-2), " = ENOENT");
        assert_eq!(result(-516), " = interrupted");
    }
}
