//! Inputs to begin with: small, and right, so that a change leads to something nearly right.

/// The targets, each with its inputs.
pub fn all() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let elf = vec![kernel(), head(guest_images::KERNEL)];
    let archives = vec![
        archive(&[("bin/workload", b"program"), ("etc/name", b"")]),
        archive(&[]),
    ];
    vec![
        ("elf", elf.clone()),
        ("bzimage", vec![bzimage()]),
        ("guest_elf", vec![kernel(), head(guest_images::WORKLOAD)]),
        ("cpio", archives.clone()),
        (
            "guest_cpio",
            [archives, vec![vec![7; 64], (0..=255).collect()]].concat(),
        ),
        (
            "symbols",
            [
                elf,
                vec![b"ffffffff81000000 T _text\nffffffff81000040 t inner\n".to_vec()],
            ]
            .concat(),
        ),
        ("doorbell", vec![request(4, 2), request(8, 16), request(7, 1)]),
        ("ports", vec![vec![1; 64], (0..=255).collect(), vec![0xc0; 200]]),
        ("snapshot", vec![vec![0; 200], b"LABSNAP\0\x01\0\0\0".to_vec(), state()]),
    ]
}

/// An ELF kernel with one segment and a PVH note.
fn kernel() -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0x10_0000u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    for (kind, offset, size) in [(1u32, 0x1000u64, 16u64), (4, 0x1010, 20)] {
        file.extend(kind.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        for word in [offset, 0x10_0000, 0x10_0000, size, size, 4] {
            file.extend(word.to_le_bytes());
        }
    }
    file.resize(0x1010, 0x90);
    // Size of name, size of content, XEN_ELFNOTE_PHYS32_ENTRY, name, address.
    for half in [4u32, 4, 18] {
        file.extend(half.to_le_bytes());
    }
    file.extend(b"Xen\0\0\0\x10\0");
    file
}

/// Headers are what a loader believes; a few KiB hold them all.
fn head(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len().min(8 << 10)].to_vec()
}

/// A bzImage of protocol 2.12 with one sector of set-up code.
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 0x800];
    file[0x1f1] = 1;
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x201] = 0x66;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&[0x0c, 0x02]);
    // Loaded high; code at 1 MiB; relocatable; 64-bit entry.
    file[0x211] = 1;
    file[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
    file[0x234] = 1;
    file[0x236] = 1;
    file[0x260..0x264].copy_from_slice(&0x1000u32.to_le_bytes());
    file
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = vmm::cpio::Archive::default();
    for (name, content) in files {
        archive
            .add(name.as_bytes(), vmm::cpio::PROGRAM, 0, content)
            .expect("a short name");
    }
    archive.finish()
}

/// Address, then a request: operation, number of segments, argument, result, segments.
fn request(operation: u32, count: u32) -> Vec<u8> {
    let mut bytes = 0x1000u32.to_le_bytes().to_vec();
    bytes.extend(operation.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(0x2000u64.to_le_bytes());
    bytes.extend([0; 8]);
    for segment in 0..count.into() {
        bytes.extend((0x8000u64 + segment * 0x1000).to_le_bytes());
        bytes.extend(100u64.to_le_bytes());
    }
    bytes
}

/// The beginning of a state as postcard writes it: a mark's name, a kind, an amount of memory, two runs.
fn state() -> Vec<u8> {
    let mut bytes = vec![15];
    bytes.extend(b"user mode entry");
    bytes.extend([0, 0x80, 0x80, 0x80, 0x20, 2, 0, 1, 0x80, 0x40, 1, 1, 0]);
    bytes.resize(600, 0);
    bytes
}
