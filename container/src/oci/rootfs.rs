//! The container's root, as config.json describes it: mounts in their order, devices, masks, and the pivot.
//!
//! Where `container run` builds one fixed root ([`crate::rootfs`]), an engine decides here. The steps are the same; that
//! every path is the engine's word about a file system that is not to be trusted is what makes the difference. Paths are
//! followed by [`Root`], mounts are placed by [`Tree`].

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::fstat;
use nix::unistd::{chdir, chroot, fchdir, pivot_root, symlinkat};
use oci_spec::runtime::{Linux, Mount};
use thiserror::Error;

use super::masks::{self, Masks};
use super::{copy_up, devices};
use crate::cgroup::place::Places;
use crate::errno::{of, why};
use crate::mounts::options::{self, Options};
use crate::mounts::target::{self, Missing, Root};
use crate::mounts::tree::{self, Attributes, Tree, set_attributes};

const NO_DATA: Option<&str> = None;

/// Nothing on it can be executed, is a device, or gives privileges.
pub(super) const INERT: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// What is mounted from the host: made by the launcher while every path of the host's can be followed, placed inside.
#[derive(Debug, Default)]
pub struct FromHost {
    root: Option<Tree>,
    /// One for each of config.json's mounts, where it is a bind.
    binds: Vec<Option<Tree>>,
}

/// config.json's description of the root, and what is needed to follow it.
pub struct Plan<'a> {
    /// The root file system on the host.
    pub rootfs: &'a Path,
    /// Whether it is read-only.
    pub read_only: bool,
    /// The bundle, from which relative sources start.
    pub bundle: &'a Path,
    /// Mounts in order.
    pub mounts: &'a [Mount],
    /// The part for Linux.
    pub linux: &'a Linux,
    /// Where the container's cgroups are.
    pub cgroups: &'a Places,
    /// Whether device nodes can be made; in a user namespace they cannot.
    pub may_make_nodes: bool,
}

impl FromHost {
    /// Opens what config.json mounts from the host. Only who has rights over the host's mounts may do so: root, outside.
    /// For others it is done inside, with the rights over the copy of the mounts they have there.
    pub fn open(plan: &Plan<'_>) -> Result<FromHost, Error> {
        let binds = plan.mounts.iter().map(|mount| plan.open_bind(mount));
        Ok(FromHost {
            root: Some(plan.open_root()?),
            binds: binds.collect::<Result<_, _>>()?,
        })
    }

    /// Shifts owners where config.json asks for it: by the maps of `namespace`, the container's own.
    pub fn shift_owners(&self, mounts: &[Mount], namespace: &File) -> Result<(), Error> {
        for (mount, tree) in mounts.iter().zip(&self.binds) {
            if let (Some(recursive), Some(tree)) = (Options::of(mount).shift_owners, tree) {
                tree.shift_owners(namespace.as_fd(), recursive)
                    .map_err(Error::mount("shift the owners of", mount))?;
            }
        }
        Ok(())
    }
}

/// The directory of the root file system, in this process's mount namespace. As the container's root it may be out of
/// reach, below a directory that is open to the host's alone.
pub fn open_place(rootfs: &Path) -> Result<OwnedFd, Error> {
    target::reopen_path(rootfs).map_err(Error::step("open", rootfs))
}

/// Whether the owners of `mount` are to be shifted.
pub fn shifts_owners(mount: &Mount) -> bool {
    Options::of(mount).shift_owners.is_some()
}

impl Options {
    fn of(mount: &Mount) -> Options {
        let mut options = Options::sort(mount.options().iter().flatten().map(String::as_str));
        // Maps of its own, which have been checked to be the container's, mean the same as the word.
        if mount.uid_mappings().as_ref().is_some_and(|maps| !maps.is_empty()) {
            options.shift_owners = options.shift_owners.or(Some(false));
        }
        options
    }
}

impl Plan<'_> {
    fn open_root(&self) -> Result<Tree, Error> {
        Tree::copy_of(self.rootfs, true).map_err(Error::step("mount", self.rootfs))
    }

    /// The bind `mount` asks for, if it is one.
    fn open_bind(&self, mount: &Mount) -> Result<Option<Tree>, Error> {
        let Some(recursive) = is_bind(mount, &Options::of(mount)) else {
            return Ok(None);
        };
        let source = mount
            .source()
            .as_ref()
            .ok_or_else(|| Error::mount("find the source of", mount)(Errno::EINVAL))?;
        let source = self.bundle.join(source);
        Tree::copy_of(&source, recursive)
            .map(Some)
            .map_err(Error::mount("bind", mount))
    }

    /// Builds the root, on `place`. It becomes this process's only with [`Built::enter`].
    pub fn build(&self, mut from_host: FromHost, place: &OwnedFd) -> Result<Built, Error> {
        let propagation = self
            .linux
            .rootfs_propagation()
            .as_deref()
            .and_then(options::propagation);
        self.cut_propagation(propagation)?;
        let tree = match from_host.root.take() {
            Some(tree) => tree,
            None => self.open_root()?,
        };
        let private = Attributes {
            propagation: libc::MS_PRIVATE,
            ..Attributes::default()
        };
        tree.change(private, false).map_err(Error::step("fit", self.rootfs))?;
        tree.place_on(place.as_fd())
            .map_err(Error::step("mount", self.rootfs))?;
        let root = Root::new(
            tree.as_fd()
                .try_clone_to_owned()
                .map_err(|error| Error::step("open", self.rootfs)(of(&error)))?,
        );
        from_host.binds.resize_with(self.mounts.len(), || None);
        for (mount, bind) in self.mounts.iter().zip(from_host.binds) {
            self.mount(&root, mount, bind)?;
        }
        let dev_is_bound = self
            .mounts
            .iter()
            .any(|mount| mount.destination() == Path::new("/dev") && is_bind(mount, &Options::of(mount)).is_some());
        if !dev_is_bound {
            devices::make(&root, self.linux, self.mounts, self.may_make_nodes)?;
        }
        Ok(Built { root, propagation })
    }

    /// Mounts made from here on stay here. What the host mounts later may still come in (`slave`), unless config.json
    /// says otherwise.
    fn cut_propagation(&self, wanted: Option<(u64, bool)>) -> Result<(), Error> {
        let bits = wanted.map_or(libc::MS_SLAVE, |(bits, _)| bits) & !libc::MS_UNBINDABLE;
        let bits = if bits == 0 { libc::MS_PRIVATE } else { bits };
        let flags = MsFlags::MS_REC | MsFlags::from_bits_truncate(bits);
        mount(NO_DATA, "/", NO_DATA, flags, NO_DATA).map_err(Error::step("set the propagation of", Path::new("/")))?;
        if bits == libc::MS_SHARED {
            // The kernel pivots into no root whose parent would pass it on: that one mount alone is made private.
            let parent = mount_point_of(self.rootfs)?;
            let flags = MsFlags::MS_PRIVATE;
            mount(NO_DATA, &parent, NO_DATA, flags, NO_DATA).map_err(Error::step("set the propagation of", &parent))?;
        }
        Ok(())
    }

    fn mount(&self, root: &Root, mount: &Mount, bind: Option<Tree>) -> Result<(), Error> {
        let options = Options::of(mount);
        let kind = mount.typ().as_deref().unwrap_or_default();
        if matches!(kind, "cgroup" | "cgroup2") && options.bind.is_none() {
            return self.mount_cgroups(root, mount, &options);
        }
        if is_bind(mount, &options).is_some() {
            let tree = match bind {
                Some(tree) => Some(tree),
                None => self.open_bind(mount)?,
            };
            let tree = tree.ok_or_else(|| Error::mount("bind", mount)(Errno::EINVAL))?;
            let is_directory = fstat(tree.as_fd()).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR);
            let missing = if is_directory {
                Missing::Directory
            } else {
                Missing::File
            };
            let target = root.open_or_make(mount.destination(), missing)?;
            return fit_and_place(&tree, &target, mount, &options);
        }
        let target = match kind {
            // A link in the place of /proc would have the masks miss it (CVE-2019-19921).
            "proc" | "sysfs" => ordinary_directory(root, mount)?,
            _ => root.open_or_make(mount.destination(), Missing::Directory)?,
        };
        let source = mount
            .source()
            .as_ref()
            .and_then(|source| source.to_str())
            .unwrap_or(kind);
        let tree = Tree::new_file_system(kind, source, &options.data, options.attributes.set);
        match tree {
            Ok(tree) => {
                if options.copy_up {
                    copy_up::copy(target.as_fd(), tree.as_fd()).map_err(|error| Error::CopyUp {
                        path: mount.destination().clone(),
                        errno: of(&error),
                    })?;
                }
                fit_and_place(&tree, &target, mount, &options)
            }
            Err(tree::Error::TooLong { .. }) => mount_at_once(&target, kind, source, mount, &options),
            // A kernel without message queues has none to show.
            Err(error) if kind == "mqueue" && error.errno() == Errno::ENODEV => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A view of the container's own cgroups and no others: on v2 its one directory, on v1 one directory for each
    /// hierarchy on a tmpfs. Bound, they look the same as mounted anew in a cgroup namespace, and cost less.
    fn mount_cgroups(&self, root: &Root, mount: &Mount, options: &Options) -> Result<(), Error> {
        let target = root.open_or_make(mount.destination(), Missing::Directory)?;
        let view = |directory: &Path| {
            let tree = Tree::copy_of(directory, false).map_err(Error::mount("bind a cgroup for", mount))?;
            let attributes = Attributes {
                set: options.attributes.set & libc::MOUNT_ATTR_RDONLY | INERT,
                propagation: libc::MS_PRIVATE,
                ..Attributes::default()
            };
            tree.change(attributes, false).map_err(Error::mount("fit", mount))?;
            Ok::<Tree, Error>(tree)
        };
        match &self.cgroups.0[..] {
            [] => Ok(()),
            [place] if place.v2 => view(&place.directory)?
                .place_on(target.as_fd())
                .map_err(Error::mount("place", mount)),
            places => {
                let tmpfs = Tree::new_file_system("tmpfs", "cgroup", &["mode=755".into()], INERT)?;
                let inside = Root::new(
                    tmpfs
                        .as_fd()
                        .try_clone_to_owned()
                        .map_err(|error| Error::mount("open", mount)(of(&error)))?,
                );
                tmpfs.place_on(target.as_fd()).map_err(Error::mount("place", mount))?;
                for place in places {
                    let name = if place.v2 {
                        "unified".to_owned()
                    } else {
                        place.controllers.join(",")
                    };
                    let directory = inside.open_or_make(Path::new(&name), Missing::Directory)?;
                    view(&place.directory)?
                        .place_on(directory.as_fd())
                        .map_err(Error::mount("place", mount))?;
                    // By the name of each, where several share a hierarchy.
                    for controller in place.controllers.iter().filter(|_| place.controllers.len() > 1) {
                        symlinkat(name.as_str(), inside.as_fd(), controller.as_str())
                            .map_err(Error::mount("link", mount))?;
                    }
                }
                let attributes = Attributes {
                    set: options.attributes.set & libc::MOUNT_ATTR_RDONLY,
                    ..Attributes::default()
                };
                tmpfs.change(attributes, false).map_err(Error::mount("fit", mount))
            }
        }
    }
}

/// The root, built and not yet entered.
pub struct Built {
    root: Root,
    propagation: Option<(u64, bool)>,
}

impl Built {
    /// Makes it this process's root and lets go of the host's. Masks come last: the mounts before them need the paths.
    pub fn enter(self, plan: &Plan<'_>, pivot: bool) -> Result<(), Error> {
        let here = Path::new(".");
        let null = masks::open_null()?;
        fchdir(self.root.as_fd()).map_err(Error::step("enter", plan.rootfs))?;
        if pivot {
            let old_root = reopen_root()?;
            // With "." twice the old root is stacked on the new one (pivot_root(2)).
            pivot_root(".", ".").map_err(|errno| Error::Pivot { errno })?;
            fchdir(&old_root).map_err(Error::step("stay in", Path::new("/")))?;
            // What is taken apart here must stay whole on the host.
            let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
            mount(NO_DATA, ".", NO_DATA, flags, NO_DATA).map_err(Error::step("set the propagation of", here))?;
            // The null device is bound from what is about to go.
            let masks = Masks::new(&null)?;
            umount2(".", MntFlags::MNT_DETACH).map_err(Error::step("detach the host's root from", here))?;
            chdir("/").map_err(Error::step("enter", Path::new("/")))?;
            self.finish(plan, &masks)
        } else {
            let masks = Masks::new(&null)?;
            mount(Some("."), "/", NO_DATA, MsFlags::MS_MOVE, NO_DATA)
                .map_err(Error::step("move the root to", Path::new("/")))?;
            chroot(".").map_err(Error::step("change the root to", plan.rootfs))?;
            chdir("/").map_err(Error::step("enter", Path::new("/")))?;
            self.finish(plan, &masks)
        }
    }

    fn finish(&self, plan: &Plan<'_>, masks: &Masks) -> Result<(), Error> {
        for path in plan.linux.readonly_paths().iter().flatten() {
            masks::make_read_only(&self.root, Path::new(path))?;
        }
        for path in plan.linux.masked_paths().iter().flatten() {
            masks.cover(&self.root, Path::new(path))?;
        }
        if plan.read_only {
            let attributes = Attributes {
                set: libc::MOUNT_ATTR_RDONLY,
                ..Attributes::default()
            };
            set_attributes(self.root.as_fd(), attributes, false, None)
                .map_err(Error::step("make read-only", Path::new("/")))?;
        }
        if let Some((propagation, recursive)) = self.propagation {
            let attributes = Attributes {
                propagation,
                ..Attributes::default()
            };
            let set = set_attributes(self.root.as_fd(), attributes, recursive, None);
            set.map_err(Error::step("set the propagation of", Path::new("/")))?;
        }
        Ok(())
    }
}

/// Whether `mount` is a bind, and then whether a recursive one.
fn is_bind(mount: &Mount, options: &Options) -> Option<bool> {
    options
        .bind
        .or_else(|| (mount.typ().as_deref() == Some("bind")).then_some(false))
}

fn fit_and_place(tree: &Tree, target: &OwnedFd, mount: &Mount, options: &Options) -> Result<(), Error> {
    let failed = Error::mount("fit", mount);
    let own = Attributes {
        propagation: libc::MS_PRIVATE,
        ..if is_bind(mount, options).is_some() {
            options.attributes
        } else {
            Attributes::default()
        }
    };
    // Nothing passes between the host and a mount of the container's unless it is asked for.
    tree.change(own, false).map_err(&failed)?;
    if is_bind(mount, options) == Some(true) {
        let beneath = Attributes {
            propagation: libc::MS_PRIVATE,
            ..Attributes::default()
        };
        tree.change(beneath, true).map_err(&failed)?;
    }
    if !options.recursive.is_empty() {
        tree.change(options.recursive, true).map_err(&failed)?;
    }
    for &(propagation, recursive) in &options.propagation {
        let attributes = Attributes {
            propagation,
            ..Attributes::default()
        };
        tree.change(attributes, recursive).map_err(&failed)?;
    }
    tree.place_on(target.as_fd()).map_err(Error::mount("place", mount))
}

/// mount(2), for a file system with an option too long for fsconfig(2). The target is named by its descriptor, so that
/// it is the same one.
fn mount_at_once(target: &OwnedFd, kind: &str, source: &str, mount_: &Mount, options: &Options) -> Result<(), Error> {
    use std::os::fd::AsRawFd;
    let flags = [
        (libc::MOUNT_ATTR_RDONLY, MsFlags::MS_RDONLY),
        (libc::MOUNT_ATTR_NOSUID, MsFlags::MS_NOSUID),
        (libc::MOUNT_ATTR_NODEV, MsFlags::MS_NODEV),
        (libc::MOUNT_ATTR_NOEXEC, MsFlags::MS_NOEXEC),
    ]
    .into_iter()
    .filter(|(bit, _)| options.attributes.set & bit != 0)
    .fold(MsFlags::empty(), |flags, (_, flag)| flags | flag);
    let target = format!("/proc/self/fd/{}", target.as_raw_fd());
    let data = options.data.join(",");
    mount(Some(source), target.as_str(), Some(kind), flags, Some(data.as_str())).map_err(Error::mount("place", mount_))
}

/// The directory `mount` goes on, if nothing on the way to it is a link.
fn ordinary_directory(root: &Root, mount: &Mount) -> Result<OwnedFd, Error> {
    let target = root.open_or_make(mount.destination(), Missing::Directory)?;
    let metadata = |file: &OwnedFd| fstat(file).map_err(Error::mount("look at the target of", mount));
    let followed = metadata(&target)?;
    // The path is walked a second time without following links; both must lead to the same directory.
    let direct = root
        .open_without_links(mount.destination())
        .map_err(Error::mount("follow no link to", mount))?;
    let direct = metadata(&direct)?;
    match (direct.st_dev, direct.st_ino) == (followed.st_dev, followed.st_ino) {
        true => Ok(target),
        false => Err(Error::mount("follow no link to", mount)(Errno::ELOOP)),
    }
}

fn reopen_root() -> Result<OwnedFd, Error> {
    target::reopen_path(Path::new("/")).map_err(Error::step("open", Path::new("/")))
}

/// The mount that `path` lies on, by its mount point.
fn mount_point_of(path: &Path) -> Result<PathBuf, Error> {
    let failed = Error::step("find the mount of", path);
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|error| failed(of(&error)))?;
    // The later of two on one directory covers the earlier.
    let points = table
        .lines()
        .filter_map(|line| Some(PathBuf::from(line.split(' ').nth(4)?)));
    points
        .filter(|point| path.starts_with(point))
        .max_by_key(|point| point.as_os_str().len())
        .ok_or_else(|| failed(Errno::ENOENT))
}

/// Puts the program's terminal on /dev/console. The root has been entered.
pub fn mount_console(terminal: std::os::fd::BorrowedFd<'_>) -> Result<(), Error> {
    let path = Path::new("/dev/console");
    let failed = Error::step("mount the terminal on", path);
    let root = Root::new(reopen_root()?);
    let target = root.open_or_make(path, Missing::File)?;
    let tree = Tree::copy_of_open(terminal, false).map_err(&failed)?;
    tree.place_on(target.as_fd()).map_err(failed)
}

/// Why the root is not as config.json has it.
#[derive(Debug, Error)]
pub enum Error {
    /// One of config.json's mounts.
    #[error("cannot {action} the mount {} ({}): {}", destination.display(), source_path.display(), why(errno))]
    Mount {
        /// What was tried.
        action: &'static str,
        /// Where in the container.
        destination: PathBuf,
        /// What.
        source_path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Another step.
    #[error("cannot {action} {} while building the container's root: {}", path.display(), why(errno))]
    Step {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// What a tmpfs was to start with.
    #[error("cannot copy what {} has in the image to the tmpfs that covers it: {}", path.display(), why(errno))]
    CopyUp {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The root stayed the host's.
    #[error(
        "cannot pivot into the container's root: {}. The kernel refuses to leave the initial ramfs this way: there, --no-pivot does without",
        why(errno)
    )]
    Pivot {
        /// The kernel's answer.
        errno: Errno,
    },
    /// A new file system.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// A place in the root.
    #[error(transparent)]
    Target(#[from] target::Error),
}

impl Error {
    pub(super) fn step(action: &'static str, path: &Path) -> impl Fn(Errno) -> Error {
        move |errno| Error::Step {
            action,
            path: path.to_owned(),
            errno,
        }
    }

    fn mount(action: &'static str, mount: &Mount) -> impl Fn(Errno) -> Error {
        move |errno| Error::Mount {
            action,
            destination: mount.destination().clone(),
            source_path: mount.source().clone().unwrap_or_default(),
            errno,
        }
    }
}
