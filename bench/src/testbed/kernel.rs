//! The kernel the testbed boots: a distribution's own, which brings KVM as modules.

use std::fs;
use std::path::{Path, PathBuf};

/// Fetches a kernel to where [`Kernel::find`] looks.
pub const FETCH: &str = "bash guest-images/testbed/fetch-kernel";

/// A kernel and its modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// `lib/modules/RELEASE` of the same kernel. None: everything is built in.
    pub modules: Option<PathBuf>,
}

impl Kernel {
    /// The kernel that options name, or else the one that was fetched into `folder`. None: there is none.
    pub fn find(image: Option<&Path>, modules: Option<&Path>, folder: Option<&Path>) -> Option<Kernel> {
        let image = match image {
            Some(image) => image.to_owned(),
            None => first_that_begins_with(&folder?.join("boot"), "vmlinuz-")?,
        };
        let modules = modules.map(Path::to_owned).or_else(|| modules_of(&image));
        image.is_file().then_some(Kernel { image, modules })
    }
}

/// `/boot/vmlinuz-6.1.0` has its modules in `/lib/modules/6.1.0`, or in `/usr/lib`; and so beneath any other root.
fn modules_of(image: &Path) -> Option<PathBuf> {
    let release = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?;
    let root = image.parent()?.parent()?;
    ["lib/modules", "usr/lib/modules"]
        .into_iter()
        .map(|place| root.join(place).join(release))
        .find(|directory| directory.is_dir())
}

fn first_that_begins_with(directory: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetched_kernel_has_its_modules_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Kernel::find(None, None, Some(folder.path())), None);
        let modules = folder.path().join("usr/lib/modules/6.1.0-cloud");
        fs::create_dir_all(&modules).unwrap();
        fs::create_dir(folder.path().join("boot")).unwrap();
        let image = folder.path().join("boot/vmlinuz-6.1.0-cloud");
        fs::write(&image, "kernel").unwrap();
        let found = Kernel::find(None, None, Some(folder.path())).unwrap();
        assert_eq!((&found.image, &found.modules), (&image, &Some(modules)));
        let named = Kernel::find(Some(&image), Some(Path::new("/m")), None).unwrap();
        assert_eq!(named.modules.as_deref(), Some(Path::new("/m")));
        assert_eq!(Kernel::find(Some(Path::new("/none")), None, None), None);
    }
}
