//! One disk for both sides: a folder on it, and a raw file in that folder with a file system of its own.
//!
//! A plain process and a container work on files of the folder; a VM gets the raw file as its disk. So all bytes end on the
//! same device of the host. Before every launch what the launch will read is written anew and made durable, whoever it is
//! for: nobody finds older data, or a fuller journal, than the others.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, umount2};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, XFS_SUPER_MAGIC, statfs};
use nix::unistd::geteuid;

use crate::contenders::Skipped;
use crate::contenders::oci::find;
use crate::image::Image;
use crate::series_namespace;

/// The file the workload works on.
const FILE: &str = "data";
/// A file system of the kernel's initial memory (linux/magic.h). nix has no name for it.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
/// The raw disk: the workload's file of 16 MiB, ext4's journal of 4, and air.
const RAW_BYTES: u64 = 32 << 20;
/// Blocks as on a disk of ordinary size; for one this small mke2fs would take 1 KiB.
const BLOCK_BYTES: &str = "4096";
/// The file a disk is made of where the temporary files lie in memory: the raw disk twice, and a container's copy.
const LOOP_BYTES: u64 = 256 << 20;
/// Makes file systems of the ext family.
const MAKER: &str = "mke2fs";
const NO_MAKER: &str = "install the package e2fsprogs, which holds it; into the testbed it is taken by --with mke2fs";

/// The disk. It goes with the value.
pub struct Disk {
    folder: PathBuf,
    kind: String,
    raw: Result<(), Skipped>,
    /// Dropped last.
    _loop: Option<Loop>,
}

impl Disk {
    /// Makes it in the image's folder, or, where that lies in memory, on a loop device.
    ///
    /// # Errors
    /// Why there is none.
    pub fn make(image: &Image) -> Result<Disk, Skipped> {
        let folder = image.folder().join("disk");
        fs::create_dir_all(&folder).map_err(|error| failed("make the folder", &folder, &error))?;
        let mut kind = kind_of(&folder);
        let mut device = None;
        if kind == IN_MEMORY {
            device = Some(Loop::mount(&folder)?);
            kind = "ext4 on a loop device whose file lies in memory".into();
        }
        let mut disk = Disk {
            raw: Err(Skipped {
                reason: format!("{MAKER} is not installed, so a VM's disk cannot be given a file system"),
                fix: NO_MAKER.into(),
            }),
            folder,
            kind,
            _loop: device,
        };
        let files = disk.folder.join("files");
        fs::create_dir_all(&files).map_err(|error| failed("make the folder", &files, &error))?;
        // Reading nothing makes the file, and finds out whether the page cache can be passed by here.
        let reader = image.program();
        run(Command::new(reader).args(["disk", "read", "0"]).arg(files.join(FILE)))?;
        if let Some(maker) = find(MAKER) {
            disk.raw = disk.make_template(&maker, &files);
        }
        Ok(disk)
    }

    fn make_template(&self, maker: &Path, files: &Path) -> Result<(), Skipped> {
        let template = self.folder.join("template");
        File::create(&template)
            .and_then(|file| file.set_len(RAW_BYTES))
            .map_err(|error| failed("make", &template, &error))?;
        run(Command::new(maker)
            .args(["-q", "-F", "-t", "ext4", "-b", BLOCK_BYTES, "-d"])
            .arg(files)
            .arg(&template))
    }

    /// What lies under the folder, in words.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// A folder on the disk that holds no file of the workload's yet.
    ///
    /// # Errors
    /// When the file of the launch before cannot be removed.
    pub fn empty_folder(&self) -> io::Result<PathBuf> {
        let folder = self.folder.join("files");
        match fs::remove_file(folder.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(folder),
        }
    }

    /// Where the workload's file is when `folder` is the disk's folder, or the place it is mounted on.
    pub fn file_in(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// A folder on the disk for a container engine's state, the upper directories of its overlays included.
    pub fn engine_state(&self) -> PathBuf {
        self.folder.join("engine")
    }

    /// Whether there is a raw disk.
    ///
    /// # Errors
    /// Why there is none.
    pub fn has_raw(&self) -> Result<(), Skipped> {
        self.raw.clone()
    }

    /// The raw disk, written anew, and in nobody's page cache.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn fresh_raw(&self) -> io::Result<PathBuf> {
        let raw = self.folder.join("raw");
        fs::copy(self.folder.join("template"), &raw)?;
        let file = File::open(&raw)?;
        // Only pages that are on the disk can be let go.
        file.sync_all()?;
        // SAFETY: takes numbers; length 0 means up to the end.
        match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
            0 => Ok(raw),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

const IN_MEMORY: &str = "memory";

fn kind_of(folder: &Path) -> String {
    match statfs(folder).map(|found| found.filesystem_type()) {
        // ext2, ext3 and ext4 bear the same number.
        Ok(EXT4_SUPER_MAGIC) => "ext4".into(),
        Ok(XFS_SUPER_MAGIC) => "xfs".into(),
        Ok(BTRFS_SUPER_MAGIC) => "btrfs".into(),
        Ok(TMPFS_MAGIC | RAMFS_MAGIC) => IN_MEMORY.into(),
        Ok(FsType(other)) => format!("a file system of type {other:#x}"),
        Err(_) => "an unknown file system".into(),
    }
}

/// A file system on a loop device, in a mount namespace of the lab's own: it ends with the lab, whatever ends the lab.
struct Loop(PathBuf);

impl Loop {
    fn mount(place: &Path) -> Result<Loop, Skipped> {
        let elsewhere = "set TMPDIR to a folder on a disk";
        if !geteuid().is_root() {
            return Err(Skipped {
                reason: "the temporary files lie in memory, where nothing is made durable, and a disk of one's own takes root"
                    .into(),
                fix: format!("{elsewhere}, or run as root"),
            });
        }
        let maker = find(MAKER).ok_or_else(|| Skipped {
            reason: format!(
                "the temporary files lie in memory, where nothing is made durable, and {MAKER} is not installed to make a disk"
            ),
            fix: format!("{elsewhere}, or {NO_MAKER}"),
        })?;
        let file = place.with_extension("img");
        File::create(&file)
            .and_then(|made| made.set_len(LOOP_BYTES))
            .map_err(|error| failed("make", &file, &error))?;
        run(Command::new(maker)
            .args(["-q", "-F", "-t", "ext4", "-b", BLOCK_BYTES])
            .arg(&file))?;
        series_namespace::enter().map_err(|errno| failed("enter a mount namespace for", place, &errno.into()))?;
        // mount(8) picks a free loop device, and has the kernel release it with the last mount.
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "loop"])
            .arg(&file)
            .arg(place))?;
        Ok(Loop(place.to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The mount namespace goes with the lab, and the mount with it: nothing is lost by a failure here.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Runs a tool to its end.
fn run(command: &mut Command) -> Result<(), Skipped> {
    let name = command.get_program().to_string_lossy().into_owned();
    let reason = match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => format!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => format!("cannot run {name}: {error}"),
    };
    Err(Skipped {
        reason,
        fix: "the message says what failed; TMPDIR names the folder where the disk is made".into(),
    })
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Skipped {
    Skipped {
        reason: format!("cannot {what} {}: {error}", path.display()),
        fix: "TMPDIR names the folder where the disk is made".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of the file that are in the page cache (mincore(2)).
    fn cached_pages(file: &File) -> usize {
        let length = file.metadata().unwrap().len() as usize;
        let mut pages = vec![0u8; length.div_ceil(4096)];
        // SAFETY: a mapping of the whole file that nobody touches; mincore writes one byte for each of its pages.
        unsafe {
            let fd = file.as_raw_fd();
            let place = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
            assert_ne!(place, libc::MAP_FAILED);
            assert_eq!(libc::mincore(place, length, pages.as_mut_ptr()), 0);
            libc::munmap(place, length);
        }
        pages.iter().filter(|&&page| page & 1 == 1).count()
    }

    #[test]
    fn a_fresh_raw_disk_holds_the_file_and_is_not_in_the_page_cache() {
        let image = Image::build().unwrap();
        if kind_of(image.folder()) == IN_MEMORY {
            return println!("skipped: the temporary files lie in memory, which is its own cache");
        }
        let disk = Disk::make(&image).unwrap();
        if let Err(skipped) = disk.has_raw() {
            return println!("skipped: {}", skipped.reason);
        }
        let raw = disk.fresh_raw().unwrap();
        assert_eq!(cached_pages(&File::open(&raw).unwrap()), 0);
        // The test can tell: reading brings them in.
        let bytes = fs::read(&raw).unwrap();
        assert_ne!(cached_pages(&File::open(&raw).unwrap()), 0);
        assert_eq!(disk.fresh_raw().unwrap(), raw);
        assert_eq!(cached_pages(&File::open(&raw).unwrap()), 0);
        // A block from the middle of the workload's file lies somewhere on the disk.
        let data = fs::read(disk.folder.join("files").join(FILE)).unwrap();
        let block = &data[data.len() / 2..][..4096];
        assert!(bytes.chunks(4096).any(|found| found == block));
    }

    #[test]
    fn a_file_system_in_memory_is_known_as_one() {
        assert_eq!(kind_of(Path::new("/dev/shm")), IN_MEMORY);
        assert_ne!(kind_of(Path::new("/proc")), IN_MEMORY);
    }
}
