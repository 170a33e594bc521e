//! The programs `lab` carries inside itself, written to disk once so that they can be executed.
//!
//! They go to `$XDG_CACHE_HOME/isolation-lab/<sha256>/` (or `~/.cache`), one folder per content: two labs of different
//! versions never meet, two of the same version write the same bytes. Before each use the file must be ours and its
//! hash must be right; otherwise it is written anew beside and renamed into place, which is atomic. Where there is no
//! writable home, a private folder under the temporary directory serves for the one run.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::leftovers::Folder;
use nix::sys::statvfs::{FsFlags, statvfs};
use sha2::{Digest, Sha256};

static VMM: &[u8] = include_bytes!(env!("LAB_BUILT_VMM"));
static CONTAINER: &[u8] = include_bytes!(env!("LAB_BUILT_CONTAINER"));
/// What `container` becomes for all but a plain run: not raced, but its user's and the testbed's.
static ENGINE: &[u8] = include_bytes!(env!("LAB_BUILT_ENGINE"));

/// The name by which `container` finds it, beside itself.
pub const ENGINE_NAME: &str = "container-engine";

/// Names another `vmm` to race.
pub const VMM_VARIABLE: &str = "LAB_VMM";
/// Names another `container` to race.
pub const CONTAINER_VARIABLE: &str = "LAB_CONTAINER";

/// Only the owner may write or look: what lies there will be executed.
const PRIVATE_DIRECTORY: u32 = 0o700;
const EXECUTABLE: u32 = 0o755;
/// The write bits of group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What keeps the lab from having its launchers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be made or read.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A launcher named by an option or the environment is no executable file.
    #[error("{} is no executable file: {hint} must name a built launcher", path.display())]
    NotExecutable {
        /// The path given.
        path: PathBuf,
        /// Where it was given.
        hint: &'static str,
    },
}

/// Where the launchers are.
#[derive(Debug)]
pub struct Launchers {
    /// The hypervisor, `vmm`.
    pub vmm: PathBuf,
    /// The namespace runtime, `container`.
    pub container: PathBuf,
    /// Removed with the value: the folder of a run without a home.
    _private: Option<Folder>,
}

impl Launchers {
    /// Takes the launchers named by options or environment, and unpacks those that are not.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn find(vmm: Option<&Path>, container: Option<&Path>) -> Result<Launchers, Error> {
        let vmm = named(vmm, VMM_VARIABLE, "--vmm or LAB_VMM")?;
        let container = named(container, CONTAINER_VARIABLE, "--container or LAB_CONTAINER")?;
        let mut private = None;
        let mut unpacked = |programs: &[Program]| -> Result<PathBuf, Error> {
            if let Some(cache) = cache_directory()
                && let Ok(path) = unpack(&cache, programs)
            {
                return Ok(path);
            }
            let folder = match private.take() {
                Some(folder) => folder,
                None => Folder::new().map_err(|source| Error::File {
                    what: "make a directory in",
                    path: std::env::temp_dir(),
                    source,
                })?,
            };
            unpack(private.insert(folder).path(), programs)
        };
        Ok(Launchers {
            vmm: vmm.map_or_else(|| unpacked(&[("vmm", VMM)]), Ok)?,
            container: container.map_or_else(|| unpacked(&[("container", CONTAINER), (ENGINE_NAME, ENGINE)]), Ok)?,
            _private: private,
        })
    }
}

/// SHA-256 of `bytes`, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A launcher named by its user, as an absolute path.
fn named(option: Option<&Path>, variable: &str, hint: &'static str) -> Result<Option<PathBuf>, Error> {
    let from_environment = || std::env::var_os(variable).map(PathBuf::from);
    let Some(path) = option.map(Path::to_owned).or_else(from_environment) else {
        return Ok(None);
    };
    let executable = fs::metadata(&path).is_ok_and(|data| data.is_file() && data.mode() & 0o111 != 0);
    match path.canonicalize() {
        Ok(absolute) if executable => Ok(Some(absolute)),
        _ => Err(Error::NotExecutable { path, hint }),
    }
}

/// `isolation-lab` in the user's cache directory: XDG Base Directory Specification. It need not exist.
pub fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("isolation-lab"))
}

/// The cache folder, if programs in it can be executed.
fn cache_directory() -> Option<PathBuf> {
    let directory = cache_folder()?;
    private_directory(&directory).ok()?;
    let executable = !statvfs(&directory).ok()?.flags().contains(FsFlags::ST_NOEXEC);
    executable.then_some(directory)
}

/// Makes `directory`, or makes sure that it is ours alone to write.
fn private_directory(directory: &Path) -> Result<(), Error> {
    let failed = |what| {
        move |source| Error::File {
            what,
            path: directory.to_owned(),
            source,
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIRECTORY)
        .create(directory)
        .map_err(failed("make"))?;
    let data = fs::symlink_metadata(directory).map_err(failed("look at"))?;
    if data.is_dir() && data.uid() == nix::unistd::geteuid().as_raw() && data.mode() & WRITABLE_BY_OTHERS == 0 {
        return Ok(());
    }
    Err(failed("trust")(io::Error::other(
        "it belongs to somebody else or others may write there",
    )))
}

/// An executable file: its name, its bytes.
type Program<'a> = (&'a str, &'a [u8]);

/// The path of the first of these programs, which lie beside each other beneath `cache`; writes those that are not there.
fn unpack(cache: &Path, programs: &[Program]) -> Result<PathBuf, Error> {
    let mut all = Sha256::new();
    programs.iter().for_each(|(_, bytes)| all.update(bytes));
    let name: String = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let directory = cache.join(name);
    private_directory(&directory)?;
    for (name, bytes) in programs {
        let path = directory.join(name);
        if !holds(&path, bytes) {
            write_atomically(&directory, &path, bytes).map_err(|source| Error::File {
                what: "write the launcher",
                path: path.clone(),
                source,
            })?;
        }
    }
    Ok(directory.join(programs.first().map_or("", |(name, _)| name)))
}

/// Whether `path` is our own regular file with exactly these bytes.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let Ok(mut file) = opened else { return false };
    let Ok(data) = file.metadata() else { return false };
    let ours = data.is_file()
        && data.uid() == nix::unistd::geteuid().as_raw()
        && data.mode() & WRITABLE_BY_OTHERS == 0
        && data.mode() & 0o100 != 0
        && data.len() == bytes.len() as u64;
    let mut found = Vec::new();
    ours && file.read_to_end(&mut found).is_ok() && found == bytes
}

fn write_atomically(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(EXECUTABLE))
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    // The umask took bits away; and the file must be closed before the rename, or exec says "text file busy".
    file.as_file().set_permissions(fs::Permissions::from_mode(EXECUTABLE))?;
    let temporary = file.into_temp_path();
    temporary.persist(path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    #[test]
    fn a_planted_or_damaged_file_is_replaced() {
        let cache = TempDir::new().unwrap();
        let path = unpack(cache.path(), &[("vmm", b"good")]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"good");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, EXECUTABLE);
        let first = fs::metadata(&path).unwrap().ino();
        unpack(cache.path(), &[("vmm", b"good")]).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().ino(),
            first,
            "a good file is used as it is"
        );

        fs::write(&path, b"evil").unwrap();
        unpack(cache.path(), &[("vmm", b"good")]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"good");

        let elsewhere = cache.path().join("elsewhere");
        fs::write(&elsewhere, b"good").unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&elsewhere, &path).unwrap();
        unpack(cache.path(), &[("vmm", b"good")]).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "a link is not followed");
    }

    #[test]
    fn a_directory_others_may_write_is_refused() {
        let cache = TempDir::new().unwrap();
        let open = cache.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = private_directory(&open).unwrap_err();
        assert!(error.to_string().contains("others may write"), "{error}");
    }
}
