//! What is read before the guest runs: kernels, programs, initrds, symbols.

use std::io::Cursor;
use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use vmm::ledger::symbols::Symbols;
use vmm::{cpio as archive, kernel as loader};

use super::RAM;

/// A kernel as an ELF file. Its first bytes are made right, so that what follows is looked at.
pub fn elf(data: &[u8]) {
    let mut image = data.to_vec();
    overwrite(&mut image, 0, b"\x7fELF");
    for pvh in [false, true] {
        load(&image, pvh);
    }
}

/// A kernel as a bzImage, with the two signatures a loader looks for.
pub fn bzimage(data: &[u8]) {
    let mut image = data.to_vec();
    overwrite(&mut image, 0x1fe, &[0x55, 0xaa]);
    overwrite(&mut image, 0x202, b"HdrS");
    load(&image, false);
}

fn load(image: &[u8], pvh: bool) {
    RAM.with(|ram| {
        let loaded = loader::load_image(ram, &mut Cursor::new(image), Path::new("fuzz"), pvh);
        if let Ok(loaded) = loaded {
            assert!(loaded.end > 0);
        }
    });
}

fn overwrite(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(part) = image.get_mut(at..at + bytes.len()) {
        part.copy_from_slice(bytes);
    }
}

/// The lab kernel's own loader: a program for the guest.
pub fn guest_elf(data: &[u8]) {
    let mut file = data.to_vec();
    overwrite(&mut file, 0, b"\x7fELF\x02\x01");
    let Ok(program) = kernel::elf::Program::new(&file) else {
        return;
    };
    let _ = program.segments(|segment| {
        let range = segment.offset as usize..(segment.offset + segment.file_size) as usize;
        // What the kernel maps must be there.
        assert!(file.get(range).is_some());
        let _ = program.headers_in(&segment);
        Ok(())
    });
}

/// An initrd, as the VMM looks into it.
pub fn cpio(data: &[u8]) {
    for name in [&b"bin/workload"[..], b"", b"TRAILER!!!"] {
        if let Ok(content) = archive::find(data, name) {
            assert!(content.len() <= data.len());
        }
    }
}

/// An initrd, as the lab kernel walks it; and any archive our packer makes reads back as what went in.
pub fn guest_cpio(data: &[u8]) {
    let walk = |bytes: &[u8]| {
        let read = kernel::cpio::Archive::new(bytes);
        let (mut offset, mut entries) = (0, Vec::new());
        while let Ok(Some((entry, next))) = read.entry(offset) {
            assert!(next > offset, "the walk goes forward");
            let numbers = (
                entry.mode(),
                entry.uid(),
                entry.links(),
                entry.modified(),
                entry.device(),
            );
            assert_eq!(numbers.0, entry.mode());
            entries.push((entry.name.to_vec(), entry.data.to_vec()));
            offset = next;
        }
        entries
    };
    walk(data);

    let mut choices = Unstructured::new(data);
    let mut packed = archive::Archive::default();
    let mut wanted = Vec::new();
    for _ in 0..choices.arbitrary_len::<u8>().unwrap_or(0).min(8) {
        let Ok((length, content)) = <(u16, &[u8])>::arbitrary(&mut choices) else {
            break;
        };
        // A name of letters: NUL, slashes and dots mean something else to the reader.
        let name = vec![b'a' + (wanted.len() as u8); usize::from(length) % 4096 + 1];
        if packed.add(&name, archive::PROGRAM, 0, content).is_ok() {
            wanted.push((name, content.to_vec()));
        }
    }
    let packed = packed.finish();
    let mut read = walk(&packed);
    // Padding may mention the root again.
    read.retain(|(name, _)| !name.is_empty());
    assert_eq!(read, wanted);
    for (name, content) in &wanted {
        assert_eq!(archive::find(&packed, name), Ok(&content[..]));
    }
}

/// Symbols for the ledger, from a file of the user's.
pub fn symbols(data: &[u8]) {
    let from_elf = Symbols::from_elf(data).unwrap_or_default();
    for symbols in [from_elf, Symbols::from_map(&String::from_utf8_lossy(data))] {
        for address in [0, 1, 0x10_0000, 1 << 63, u64::MAX] {
            if let Some(place) = symbols.at(address) {
                assert!(!place.to_string().is_empty());
            }
        }
    }
}
