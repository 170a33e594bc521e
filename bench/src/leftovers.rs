//! Folders and cgroups of a race, and what becomes of them when the lab is killed.
//!
//! A lab that ends, even by Ctrl-C, removes what it made. One that is killed with SIGKILL cannot. So every folder and
//! cgroup of a race is locked by the lab that uses it: the kernel drops the lock with the process, whatever ended it,
//! and the next lab removes what bears the name and is locked by nobody.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;
use tempfile::TempDir;

/// What the names of all folders and cgroups of races begin with.
pub const PREFIX: &str = "isolation-lab-";

/// A lab locks what it has just made, but not in the same instant: nothing younger counts as abandoned.
const YOUNG: Duration = Duration::from_secs(60);

/// A folder for temporary files. It goes with the value, or with the next lab.
#[derive(Debug)]
pub struct Folder {
    folder: TempDir,
    _claim: File,
}

impl Folder {
    /// Makes one among the system's temporary files, and removes abandoned ones there.
    ///
    /// # Errors
    /// When it cannot be made or locked.
    pub fn new() -> io::Result<Folder> {
        remove_abandoned(&std::env::temp_dir(), |path| {
            // Whoever cleans up behind others does it as far as he can.
            let _ = fs::remove_dir_all(path);
        });
        let folder = TempDir::with_prefix(PREFIX)?;
        let claim = claim(folder.path())?;
        Ok(Folder { folder, _claim: claim })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Locks a directory for as long as the result lives.
///
/// # Errors
/// When it cannot be opened or locked.
pub fn claim(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    file.lock()?;
    Ok(file)
}

/// Calls `remove` for every directory in `base` that a lab of this user made and no lab uses any more.
pub fn remove_abandoned(base: &Path, remove: impl Fn(&Path)) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        if is_ours(&entry.file_name())
            && entry.metadata().is_ok_and(|found| {
                let old = found
                    .modified()
                    .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > YOUNG));
                found.is_dir() && found.uid() == geteuid().as_raw() && old
            })
            && let Ok(directory) = File::open(entry.path())
            && directory.try_lock().is_ok()
        {
            remove(&entry.path());
        }
    }
}

fn is_ours(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::time::SystemTime;

    #[test]
    fn only_old_unlocked_directories_of_that_name_are_abandoned() {
        let base = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            let old = SystemTime::now() - 2 * YOUNG;
            File::open(&path).unwrap().set_modified(old).unwrap();
            path
        };
        let (abandoned, used, _other) = (make("isolation-lab-a"), make("isolation-lab-b"), make("somebody-else"));
        fs::create_dir(base.path().join("isolation-lab-young")).unwrap();
        let claim = claim(&used).unwrap();
        let found = RefCell::new(vec![]);
        remove_abandoned(base.path(), |path| found.borrow_mut().push(path.to_owned()));
        assert_eq!(*found.borrow(), std::slice::from_ref(&abandoned));
        drop(claim);
        found.borrow_mut().clear();
        remove_abandoned(base.path(), |path| found.borrow_mut().push(path.to_owned()));
        found.borrow_mut().sort();
        assert_eq!(*found.borrow(), [abandoned, used]);
    }
}
