//! The steps from a container's description to its running program, and back. All of it happens in the supervisor.
//!
//! What lasts as long as the supervisor is prepared once: the mounts, the network, the forwarders. What belongs to one
//! run of the program is made anew at each restart, by the OCI runtime.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Pid, geteuid};

use super::account::{self, Account};
use super::own_users::{self, OwnUsers};
use super::record::{Mount, Process, Settings, Source};
use super::specification::{self, Circumstances};
use super::statistics::{Groups, oom_kills};
use super::streams::Streams;
use super::{Container, Error, Locked, filesystem, runtime};
use crate::network::bridge::{self, Bridge, Membership};
use crate::network::forward::Listeners;
use crate::network::names::{self, Entry};
use crate::network::namespace::NetworkNamespace;
use crate::network::{Mode, loopback};
use crate::signals;
use crate::volume::Volumes;

/// What lasts as long as the supervisor.
pub struct Launcher {
    container: Container,
    rootless: bool,
    root: PathBuf,
    users: Option<OwnUsers>,
    no_own_users: Option<String>,
    account: Account,
    network: Option<NetworkNamespace>,
    membership: Option<Membership>,
    mounts: Vec<(String, String, bool)>,
    forwarder: Option<Pid>,
    size: Option<(u16, u16)>,
}

/// A program that runs.
pub struct Launched {
    /// The container's first process.
    pub init: Process,
    /// Readable when that has ended.
    pub pidfd: OwnedFd,
    /// The program's streams.
    pub streams: Streams,
    /// Its addresses on the bridge.
    pub addresses: Vec<String>,
    /// The bridge's own.
    pub gateway: Option<String>,
    /// Why nothing beyond the host is reached from there, if that is so.
    pub no_way_out: Option<String>,
    /// Its cgroups, as long as they are there.
    groups: Groups,
}

impl Launcher {
    /// Mounts, networks, forwards. `size` is the program's terminal's, where it is known.
    pub fn prepare(container: &Container, size: Option<(u16, u16)>) -> Result<Launcher, Error> {
        let settings = &container.settings;
        let rootless = !geteuid().is_root();
        // Listening is the host's business: before anything is left behind.
        let listeners = Listeners::open(&settings.ports)?;
        filesystem::leave_the_hosts_mounts()?;
        let own_users::Root { path, users, why_not } = own_users::mount_root(container, rootless)?;
        let root_fd = filesystem::open_root(&path)?;
        let account = account::find(root_fd.as_fd(), &settings.user).map_err(Error::Refused)?;
        if rootless && (account.uid, account.gid) != (0, 0) {
            return Err(Error::Refused(format!(
                "an ordinary user's container has one user id, which is root's inside; user {} would need a range of ids (an entry in /etc/subuid, and newuidmap)",
                settings.user
            )));
        }
        if let Some(users) = &users {
            users.outside(account.uid)?;
            users.outside(account.gid)?;
        }
        let mounts = mounts(container, root_fd.as_fd(), users.as_ref().map_or(0, OwnUsers::first))?;
        let network = network_namespace(container, rootless, users.as_ref())?;
        let mut launcher = Launcher {
            container: container.clone(),
            rootless,
            root: path,
            users,
            no_own_users: why_not,
            account,
            network,
            membership: None,
            mounts,
            forwarder: None,
            size,
        };
        launcher.write_names()?;
        launcher.join_network()?;
        if !listeners.is_empty() {
            launcher.forward(&listeners)?;
        }
        Ok(launcher)
    }

    fn settings(&self) -> &Settings {
        &self.container.settings
    }

    /// The host's id of the container's root, where that is not the host's.
    pub fn ids_from(&self) -> Option<u32> {
        self.users.as_ref().map(OwnUsers::first)
    }

    /// Why it is the host's, where nobody asked for that.
    pub fn no_own_users(&self) -> Option<&str> {
        self.no_own_users.as_deref()
    }

    /// The three files by which a container knows names.
    fn write_names(&self) -> Result<(), Error> {
        let write = |name: &str, text: &str| {
            let path = self.container.file(name);
            names::rewrite(&path, text).map_err(Error::io("write", &path))
        };
        let own = Entry {
            addresses: Vec::new(),
            names: self.names(),
        };
        let hosts = match &self.settings().network {
            Mode::Host => fs::read_to_string("/etc/hosts").unwrap_or_default(),
            Mode::Container(name) => {
                let other = Container::find(&self.container.place, name)?;
                fs::read_to_string(other.file("hosts")).unwrap_or_default()
            }
            Mode::None | Mode::Bridge => names::hosts(&own, &[]),
        };
        write("hosts", &hosts)?;
        write("hostname", &format!("{}\n", self.settings().hostname))?;
        let shares_the_hosts = self.settings().network == Mode::Host;
        write(
            "resolv.conf",
            &names::resolver(&names::host_resolver(), shares_the_hosts),
        )
    }

    fn names(&self) -> Vec<String> {
        let settings = self.settings();
        let mut names = vec![settings.hostname.clone()];
        if settings.name != settings.hostname {
            names.push(settings.name.clone());
        }
        names
    }

    fn join_network(&mut self) -> Result<(), Error> {
        if self.settings().network != Mode::Bridge {
            return Ok(());
        }
        if self.rootless {
            return Err(bridge::Error::Rootless.into());
        }
        let Some(namespace) = &self.network else { return Ok(()) };
        let place = &self.container.place;
        let bridge = Bridge::configured(&place.networks())?;
        self.membership = Some(bridge.join(self.container.id(), self.names(), namespace, place)?);
        Ok(())
    }

    fn forward(&mut self, listeners: &Listeners) -> Result<(), Error> {
        let Some(namespace) = &self.network else {
            return Err(Error::Refused(
                "a published port needs a network namespace of the container's own: with --network host its ports are the host's already".into(),
            ));
        };
        let targets: Vec<IpAddr> = match &self.membership {
            Some(membership) => vec![membership.address.into(), membership.address_v6.into()],
            None => vec![[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()],
        };
        self.forwarder = Some(listeners.forward(namespace, &targets)?);
        Ok(())
    }

    /// Starts the program.
    pub fn launch(&mut self) -> Result<Launched, Error> {
        let settings = self.settings();
        let network = self
            .network
            .as_ref()
            .map(|namespace| format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()));
        let cgroup = format!("/{}", cgroup_name(self.container.id()));
        let has_limits = settings.limits != super::record::Limits::default();
        let directory = self.container.directory();
        let circumstances = Circumstances {
            root: &self.root,
            account: &self.account,
            network_namespace: network.as_deref(),
            directory: &directory,
            rootless: self.rootless,
            users: self.users.as_ref(),
            mounts: &self.mounts,
            size: self.size,
            cgroup: (!self.rootless || has_limits).then_some(cgroup.as_str()),
        };
        let document = specification::document(settings, &circumstances).map_err(Error::Refused)?;
        super::write_json(&directory.join("bundle/config.json"), &document)?;
        let from = self.ids_from().unwrap_or(0);
        let owner = (!self.rootless).then_some((from + self.account.uid, from + self.account.gid));
        let (init, streams) = runtime::start(&self.container, owner)?;
        let init =
            Process::of(init.as_raw()).ok_or_else(|| Error::Refused("the program ended before it was seen".into()))?;
        Ok(Launched {
            groups: Groups::own(&self.container, init.pid),
            no_way_out: self
                .membership
                .as_ref()
                .and_then(|membership| membership.no_way_out.clone()),
            init,
            pidfd: pidfd_open(init.pid)?,
            streams,
            addresses: self
                .membership
                .iter()
                .flat_map(|membership| [membership.address.to_string(), membership.address_v6.to_string()])
                .collect(),
            gateway: self
                .membership
                .as_ref()
                .map(|membership| membership.gateway.to_string()),
        })
    }

    /// Removes what one run of the program left; says whether the kernel killed it for want of memory.
    pub fn clear_away(&self, launched: Launched) -> Result<bool, Error> {
        let oom_killed = oom_kills(&launched.groups) > 0;
        drop(launched);
        runtime::delete(&self.container)?;
        Ok(oom_killed)
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        if let Some(forwarder) = self.forwarder {
            signals::send(forwarder, libc::SIGKILL);
            let _ = nix::sys::wait::waitpid(forwarder, None);
        }
    }
}

impl Launched {
    /// What wait(2) says of the container's first process, if it has ended.
    pub fn ended(&self) -> Result<Option<i32>, Error> {
        let mut raw = 0;
        // SAFETY: the kernel writes the status to the integer whose address it is given.
        let waited = unsafe { libc::waitpid(self.init.pid, &raw mut raw, libc::WNOHANG) };
        match Errno::result(waited) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(raw)),
            Err(Errno::EINTR) => Ok(None),
            Err(errno) => Err(Error::kernel("wait for the container's first process")(errno)),
        }
    }

    /// Sends a signal to the container's first process, which passes it on to the program.
    pub fn signal(&self, number: i32) {
        send_signal(&self.pidfd, number);
    }
}

/// A container's cgroup. Not below a directory of all containers: nobody could tell when to remove that.
pub fn cgroup_name(id: &str) -> String {
    format!("lab-{id}")
}

/// The network namespace the container is to have; `None`: the host's.
fn network_namespace(
    container: &Container,
    rootless: bool,
    users: Option<&OwnUsers>,
) -> Result<Option<NetworkNamespace>, Error> {
    match &container.settings.network {
        Mode::Host => Ok(None),
        Mode::None | Mode::Bridge => {
            let users = users.map(AsFd::as_fd);
            Ok(Some(NetworkNamespace::new_with(users, || loopback::raise().is_ok())?))
        }
        Mode::Container(name) if rootless => Err(Error::Refused(format!(
            "--network container:{name} needs root: the network of an ordinary user's container belongs to a user namespace of its own, which nobody outside may enter while its first process hides itself. Without root, publish a port of {name} (-p) and reach it with --network host"
        ))),
        Mode::Container(name) => {
            let other = Container::find(&container.place, name)?;
            let init = other.init()?;
            Ok(Some(NetworkNamespace::of(Pid::from_raw(init.pid))?))
        }
    }
}

/// The directories and files of the host, volumes among them, that the container mounts.
pub fn sources(container: &Container) -> impl Iterator<Item = (PathBuf, &Mount)> {
    let volumes = Volumes::new(container.place.volumes());
    container.settings.mounts.iter().map(move |mount| match &mount.source {
        Source::Host(path) => (path.clone(), mount),
        Source::Volume { name, .. } => (volumes.data(name), mount),
    })
}

/// What is to be bound into the container: source, target, read-only. Volumes are filled on the way, from a root whose
/// owners are shifted by `ids_from`.
fn mounts(
    container: &Container,
    root: std::os::fd::BorrowedFd<'_>,
    ids_from: u32,
) -> Result<Vec<(String, String, bool)>, Error> {
    let volumes = Volumes::new(container.place.volumes());
    let mut mounts = Vec::new();
    for (source, mount) in sources(container) {
        if let Source::Volume { name, .. } = &mount.source {
            // In the image, never on the host: a link there may point anywhere.
            let content = filesystem::open_inside(root, Path::new(&mount.target), libc::O_PATH | libc::O_DIRECTORY);
            let content = content
                .ok()
                .map(|fd| (PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())), fd));
            volumes.first_use(name, content.as_ref().map(|(path, _)| path.as_path()), ids_from)?;
        }
        if !source.exists() {
            return Err(Error::Refused(format!(
                "there is no {} on the host to mount on {}",
                source.display(),
                mount.target
            )));
        }
        mounts.push((
            source.to_string_lossy().into_owned(),
            mount.target.clone(),
            mount.read_only,
        ));
    }
    Ok(mounts)
}

/// Ends what is left of a container whose supervisor was killed, and removes its cgroups.
pub fn clear_away_the_abandoned(container: &Locked) -> Result<(), Error> {
    if let Some(init) = container.state()?.init.filter(|init| init.is_alive()) {
        signals::send(Pid::from_raw(init.pid), libc::SIGKILL);
        if let Ok(pidfd) = pidfd_open(init.pid) {
            wait_for_end(&pidfd, None);
        }
    }
    runtime::delete(container)
}

/// A descriptor for a process, which stays that process's when its number is given to another.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Error> {
    // SAFETY: pidfd_open takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd).map_err(Error::kernel("open the container's first process"))?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as i32) })
}

/// Sends a signal; a process that has ended needs none.
pub fn send_signal(pidfd: &OwnedFd, number: i32) {
    // SAFETY: the descriptor is open; no siginfo is passed.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, 0usize, 0) };
}

/// Waits until the process has ended; `false` when it has not within `patience`.
pub fn wait_for_end(pidfd: &OwnedFd, patience: Option<std::time::Duration>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let until = patience.map(|patience| std::time::Instant::now() + patience);
    loop {
        let left = until.map(|until| until.saturating_duration_since(std::time::Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::from(left.as_millis().min(60_000) as u16)
        });
        let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Ok(ready) if ready > 0 => return true,
            Ok(_) if left.is_some_and(|left| left.is_zero()) => return false,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}
