//! Names for addresses: which function of the guest kernel an instruction belongs to.
//!
//! From the symbol table of the kernel's own ELF file, or of a second file where the kernel has none: a `vmlinux` beside
//! its bzImage, or the `System.map` a distribution ships. A bzImage may move itself to a random address when it unpacks
//! (KASLR); its symbols then name the wrong functions unless its command line says `nokaslr`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use elf::ElfBytes;
use elf::abi::{PT_LOAD, SHN_ABS, SHN_UNDEF, STT_FUNC, STT_NOTYPE};
use elf::endian::LittleEndian;

use crate::kernel::Kernel;

/// No symbols.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read symbols from {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file has none.
    #[error(
        "{0} has no symbols: --symbols takes an ELF file that was not stripped (a vmlinux) or a System.map, with lines such as \"ffffffff81000000 T _text\""
    )]
    None(PathBuf),
}

/// The symbols of a kernel. Empty where there are none: addresses then stay without names.
#[derive(Default)]
pub struct Symbols {
    /// Sorted by address.
    names: Vec<(u64, String)>,
    /// Where the kernel's segments lie in physical memory: its first instructions run there, by another address than
    /// they were linked for. (physical, virtual, length)
    segments: Vec<(u64, u64, u64)>,
}

/// A place in a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'s> {
    /// The function, as the linker knows it.
    pub name: &'s str,
    /// Bytes behind its start.
    pub offset: u64,
}

impl fmt::Display for Place<'_> {
    /// With Rust's mangled names made legible.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}+{:#x}", rustc_demangle::demangle(self.name), self.offset)
    }
}

/// What ends a kernel's text: no function is longer, so an address farther from the symbol below it has none.
const LONGEST_FUNCTION: u64 = 1 << 20;

impl Symbols {
    /// Those of `file`, or of the kernel itself.
    pub fn of(kernel: &Kernel, file: Option<&Path>) -> Result<Symbols, Error> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| Error::Read {
                path: path.into(),
                source,
            })
        };
        match (file, kernel) {
            (Some(path), _) => {
                let content = read(path)?;
                let symbols = Symbols::from_elf(&content)
                    .unwrap_or_else(|| Symbols::from_map(&String::from_utf8_lossy(&content)));
                if symbols.is_empty() {
                    return Err(Error::None(path.into()));
                }
                Ok(symbols)
            }
            (None, Kernel::Lab) => Ok(Symbols::from_elf(guest_images::KERNEL).unwrap_or_default()),
            (None, Kernel::File(path)) => Ok(Symbols::from_elf(&read(path)?).unwrap_or_default()),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// None: not an ELF file, or a broken one.
    pub fn from_elf(bytes: &[u8]) -> Option<Symbols> {
        let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).ok()?;
        let mut symbols = Symbols::default();
        for segment in file.segments().into_iter().flatten().filter(|s| s.p_type == PT_LOAD) {
            symbols
                .segments
                .push((segment.p_paddr, segment.p_vaddr, segment.p_memsz));
        }
        if let Ok(Some((table, names))) = file.symbol_table() {
            for symbol in table {
                let placed = ![SHN_UNDEF, SHN_ABS].contains(&symbol.st_shndx);
                let code = [STT_FUNC, STT_NOTYPE].contains(&symbol.st_symtype());
                match names.get(symbol.st_name as usize) {
                    Ok(name) if placed && code && !name.is_empty() => {
                        symbols.names.push((symbol.st_value, name.to_owned()));
                    }
                    _ => {}
                }
            }
        }
        symbols.names.sort();
        Some(symbols)
    }

    /// Lines of address, kind and name, as `nm` prints and Linux keeps in `System.map`.
    pub fn from_map(text: &str) -> Symbols {
        let line = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let kind = words.next()?;
            // Text, local or global, weak ones too; data has no instructions.
            ["t", "T", "w", "W"]
                .contains(&kind)
                .then_some((address, words.next()?.to_owned()))
        };
        let mut names: Vec<_> = text.lines().filter_map(line).collect();
        names.sort();
        Symbols {
            names,
            segments: Vec::new(),
        }
    }

    /// The place of the instruction at `rip`, a virtual address or, before the kernel has its own page tables, a physical
    /// one.
    pub fn at(&self, rip: u64) -> Option<Place<'_>> {
        let linked = self
            .segments
            .iter()
            .find(|&&(physical, _, length)| rip.checked_sub(physical).is_some_and(|offset| offset < length))
            .map_or(rip, |&(physical, linked, _)| linked.wrapping_add(rip - physical));
        let below = self.names.partition_point(|&(address, _)| address <= linked);
        let (address, name) = self.names.get(below.checked_sub(1)?)?;
        let offset = linked - address;
        (offset < LONGEST_FUNCTION).then_some(Place { name, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lab_kernel_brings_its_symbols_and_is_known_by_both_its_addresses() {
        let symbols = Symbols::of(&Kernel::Lab, None).unwrap();
        let find = |wanted: &str| symbols.names.iter().find(|(_, name)| name == wanted).unwrap().0;
        let start = find("start");
        assert_eq!(symbols.at(start + 1).unwrap().to_string(), "start+0x1");
        let physical = start - 0xffff_ffff_8000_0000;
        assert_eq!(symbols.at(physical).unwrap().to_string(), "start+0x0");
        // A program's address is none of the kernel's.
        assert_eq!(symbols.at(0x7fff_0000_0000), None);
        // Rust's own names are legible.
        let ring = symbols
            .names
            .iter()
            .find(|(_, name)| name.contains("6kernel4host"))
            .unwrap();
        let legible = symbols.at(ring.0).unwrap().to_string();
        assert!(
            legible.contains("kernel::host::") && !legible.contains("_ZN"),
            "{legible}"
        );
    }

    #[test]
    fn a_system_map_is_read_and_nonsense_is_not() {
        let map = "ffffffff81000000 T _text\nffffffff81000040 t inner\nffffffff82000000 D data\nnonsense\n\n";
        let symbols = Symbols::from_map(map);
        assert_eq!(symbols.at(0xffff_ffff_8100_0041).unwrap().to_string(), "inner+0x1");
        assert_eq!(symbols.at(0xffff_ffff_8200_0000), None);
        assert_eq!(symbols.at(0), None);
        assert!(Symbols::from_map("\u{7f}ELF nonsense").is_empty());
        assert!(Symbols::from_elf(b"\x7fELF").is_none());
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Symbols::of(&Kernel::Lab, Some(file.path())).err().unwrap().to_string();
        assert!(
            error.contains("has no symbols") && error.contains("System.map"),
            "{error}"
        );
    }
}
