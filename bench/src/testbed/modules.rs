//! Kernel modules: which ones the testbed needs, what those need in turn, and the order they are loaded in.
//!
//! A module names what it depends on in its own `.modinfo` section, as the text `depends=a,b`. That is all depmod(8)
//! reads for its list, too; a freshly unpacked package has no such list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the testbed loads, where the kernel has it as a module. What is built in needs no loading.
pub const WANTED: [&str; 11] = [
    // The port to the lab.
    "virtio_pci",
    "virtio_console",
    // The reason for the testbed.
    "kvm_amd",
    // Networks: a VM's end of a cable, containers' cables, the bridge between them, and a bound on what goes through one.
    "tun",
    "veth",
    "bridge",
    "sch_tbf",
    // Images in layers, files as disks, and what is on them.
    "overlay",
    "loop",
    "ext4",
    // A checksum that ext4 asks for by a name no module bears.
    "crc32c_generic",
];

/// Suffixes of module files, with the program that unpacks each.
const FORMS: [(&str, Option<&str>); 4] = [
    (".ko", None),
    (".ko.xz", Some("xz")),
    (".ko.zst", Some("zstd")),
    (".ko.gz", Some("gzip")),
];

/// A module could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or its folder.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its packing.
    #[error("cannot unpack {} with {program}: {problem}. Install {program}", path.display())]
    Unpack {
        /// Which file.
        path: PathBuf,
        /// The program that should.
        program: &'static str,
        /// What went wrong.
        problem: String,
    },
}

/// A module, ready to be loaded.
#[derive(Debug)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The ELF file, unpacked.
    pub bytes: Vec<u8>,
}

/// The wanted modules and all they depend on, each after those it needs.
///
/// # Errors
/// See [`Error`].
pub fn in_order(directory: &Path) -> Result<Vec<Module>, Error> {
    let mut files = BTreeMap::new();
    collect(directory, &mut files)?;
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    for name in WANTED {
        visit(name, &files, &mut order, &mut seen)?;
    }
    Ok(order)
}

fn visit(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    order: &mut Vec<Module>,
    seen: &mut BTreeSet<String>,
) -> Result<(), Error> {
    // Not a file: built into this kernel, or not in it at all. Whoever needs it will say so.
    let Some(path) = files.get(name) else { return Ok(()) };
    if !seen.insert(name.to_owned()) {
        return Ok(());
    }
    let bytes = read(path)?;
    for needed in dependencies(&bytes) {
        visit(&needed, files, order, seen)?;
    }
    order.push(Module {
        name: name.to_owned(),
        bytes,
    });
    Ok(())
}

/// Every module file beneath `directory`, by its name. The kernel takes `-` and `_` for one character.
fn collect(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    let failed = |source| Error::Read {
        path: directory.to_owned(),
        source,
    };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if let Some(name) = entry.file_name().to_str()
            && let Some(name) = FORMS.iter().find_map(|(suffix, _)| name.strip_suffix(suffix))
        {
            files.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let name = path.to_string_lossy();
    let packer = FORMS
        .iter()
        .find(|(suffix, _)| name.ends_with(suffix))
        .and_then(|form| form.1);
    let Some(program) = packer else {
        return fs::read(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        });
    };
    let failed = |problem| Error::Unpack {
        path: path.to_owned(),
        program,
        problem,
    };
    let output = Command::new(program)
        .arg("-dc")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// The names in `depends=` of a module's `.modinfo`, a section of NUL-terminated texts.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or(&[]);
    let names = String::from_utf8_lossy(value);
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(depends: &str) -> Vec<u8> {
        format!("\x7fELF...\0license=GPL\0depends={depends}\0name=x\0").into_bytes()
    }

    #[test]
    fn a_module_comes_after_those_it_needs_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("kernel/drivers");
        fs::create_dir_all(&below).unwrap();
        for (file, depends) in [
            ("kvm-amd.ko", "kvm"),
            ("kvm.ko", "irqbypass"),
            ("irqbypass.ko", ""),
            ("virtio_pci.ko", "virtio_ring,virtio"),
            ("virtio_ring.ko", "virtio"),
            ("virtio.ko", ""),
            ("unwanted.ko", ""),
        ] {
            fs::write(below.join(file), module(depends)).unwrap();
        }
        let order: Vec<String> = in_order(folder.path())
            .unwrap()
            .into_iter()
            .map(|module| module.name)
            .collect();
        assert_eq!(
            order,
            ["virtio", "virtio_ring", "virtio_pci", "irqbypass", "kvm", "kvm_amd"]
        );
    }

    #[test]
    fn a_packed_module_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("tun.ko");
        fs::write(&plain, module("")).unwrap();
        if !Command::new("gzip")
            .arg(&plain)
            .status()
            .is_ok_and(|status| status.success())
        {
            eprintln!("skipped: no gzip here");
            return;
        }
        let order = in_order(folder.path()).unwrap();
        assert_eq!((order[0].name.as_str(), &order[0].bytes), ("tun", &module("")));
    }
}
