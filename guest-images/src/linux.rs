//! Where the small Linux kernels for guests are: built by `guest-images/linux/build`, which lies beside its config.

use std::env;
use std::fmt;
use std::path::PathBuf;

/// Names another kernel to use as the Linux guest's.
pub const VARIABLE: &str = "LAB_LINUX_KERNEL";

/// The two forms of one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An ELF file, entered in 64-bit mode or by PVH.
    Vmlinux,
    /// A file that unpacks itself, as boot loaders know it.
    BzImage,
}

impl Form {
    fn file(self) -> &'static str {
        match self {
            Form::Vmlinux => "vmlinux",
            Form::BzImage => "bzImage",
        }
    }
}

/// There is no Linux kernel for guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Where it was looked for. None: the environment names neither a cache directory nor a home.
    pub looked_at: Option<PathBuf>,
}

/// What makes the kernels appear.
pub const FIX: &str =
    "build them with `bash guest-images/linux/build` (some minutes, once), or name one in LAB_LINUX_KERNEL";

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.looked_at {
            Some(path) => write!(f, "there is no Linux kernel for guests at {}", path.display()),
            None => write!(
                f,
                "there is no Linux kernel for guests, and neither XDG_CACHE_HOME nor HOME to look for one in"
            ),
        }
    }
}

impl std::error::Error for Missing {}

/// The folder the kernels are built into: `isolation-lab/linux` in the user's cache directory (XDG Base Directory
/// Specification).
pub fn folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = PathBuf::from(env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("isolation-lab/linux"))
}

/// The Linux kernel for guests: what `LAB_LINUX_KERNEL` names, whatever its form, or else the one of this form that was
/// built here.
///
/// # Errors
/// [`Missing`] when there is no such file; [`FIX`] says what to do.
pub fn locate(form: Form) -> Result<PathBuf, Missing> {
    let path = match env::var_os(VARIABLE) {
        Some(named) => Some(PathBuf::from(named)),
        None => folder().map(|folder| folder.join(form.file())),
    };
    match path {
        Some(path) if path.is_file() => Ok(path),
        looked_at => Err(Missing { looked_at }),
    }
}
