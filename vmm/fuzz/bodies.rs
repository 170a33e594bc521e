//! What a fuzzer calls with bytes of its own: everything here that reads what a guest, or a file, chose.
//!
//! A body fails by panicking; returning an error is what it is for. cargo-fuzz (`fuzz/targets/`) and the bounded run in
//! `tests/fuzz.rs` share them.

use std::cell::RefCell;
use std::fs::File;
use std::hash::Hasher;
use std::io::{Cursor, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};

use arbitrary::{Arbitrary, Unstructured};
use protocol::doorbell::op;
use protocol::marks::Marks;
use protocol::ports as port;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm::ledger::symbols::Symbols;
use vmm::ports::Ports;
use vmm::serial::{Output, Serial};
use vmm::{cpio as archive, doorbell as bell, kernel as loader, memory, snapshot as file};

/// The guest's memory in these tests.
const MEMORY: u64 = 4 << 20;

thread_local! {
    /// Made once: what an input left behind is what any guest may find.
    static RAM: GuestMemoryMmap = memory::reserve(MEMORY).expect("4 MiB");
    static DEVICES: RefCell<Ports> = RefCell::new(RAM.with(|ram| {
        Ports::new(ram.clone(), Serial::polled(Output::Stderr), Marks::new(None, "fuzz"))
    }));
}

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
        if let Some(content) = archive::find(data, name) {
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
        assert_eq!(archive::find(&packed, name), Some(&content[..]));
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

/// A request at the doorbell, wherever it lies, whatever it says.
pub fn doorbell(data: &[u8]) {
    let Some((address, request)) = data.split_first_chunk::<4>() else {
        return;
    };
    // Around the last place where a request fits as well as in the middle.
    let address = u64::from(u32::from_le_bytes(*address)) % (MEMORY + 8);
    RAM.with(|ram| {
        let _ = ram.write(request, GuestAddress(address));
        harmless(ram, address);
        let _ = bell::serve(ram, address, |_| {});
    });
}

/// The operations that reach our own standard streams, or take the time the guest names, become one that only fills
/// memory: the walk over the segments is the same.
fn harmless(ram: &GuestMemoryMmap, address: u64) {
    let operation = ram.read_obj::<u32>(GuestAddress(address));
    let outside = [op::WRITE_STDOUT, op::WRITE_STDERR, op::READ_STDIN, op::SLEEP];
    if operation.is_ok_and(|operation| outside.contains(&operation)) {
        ram.write_obj(op::ZERO, GuestAddress(address))
            .expect("it was just read");
    }
}

/// One thing a guest does at a port.
#[derive(Arbitrary, Debug)]
enum PortAccess {
    Read {
        port: u16,
        width: Width,
        times: u8,
    },
    Write {
        port: u16,
        width: Width,
        value: [u8; 4],
        times: u8,
    },
    /// At a port that somebody answers.
    Known {
        which: u8,
        offset: u8,
        value: [u8; 4],
        width: Width,
    },
    /// Puts something into memory, for the doorbell to find.
    Poke {
        address: u16,
        value: u64,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Width {
    One,
    Two,
    Four,
}

impl Width {
    fn bytes(self) -> usize {
        match self {
            Width::One => 1,
            Width::Two => 2,
            Width::Four => 4,
        }
    }
}

/// A guest at the I/O ports.
pub fn ports(data: &[u8]) {
    const KNOWN: [u16; 6] = [port::SERIAL, port::MARK, port::EXIT, port::PANIC, port::DOORBELL, 0x64];
    let mut choices = Unstructured::new(data);
    DEVICES.with_borrow_mut(|devices| {
        // An empty source would go on to give zeros.
        while let (false, Ok(access)) = (choices.is_empty(), PortAccess::arbitrary(&mut choices)) {
            match access {
                PortAccess::Read { port, width, times } => {
                    devices.read(port, &mut vec![0; width.bytes() * usize::from(times)]);
                }
                PortAccess::Write {
                    port,
                    width,
                    value,
                    times,
                } => {
                    write(devices, port, &value[..width.bytes()].repeat(usize::from(times)));
                }
                PortAccess::Known {
                    which,
                    offset,
                    value,
                    width,
                } => {
                    let port = KNOWN[usize::from(which) % KNOWN.len()] + u16::from(offset % 8);
                    write(devices, port, &value[..width.bytes()]);
                    devices.read(port, &mut [0; 4][..width.bytes()]);
                }
                PortAccess::Poke { address, value } => {
                    let _ = RAM.with(|ram| ram.write_obj(value, GuestAddress(address.into())));
                }
            }
        }
    });
}

fn write(devices: &mut Ports, to: u16, data: &[u8]) {
    // The serial port's data register would print it here.
    if to == port::SERIAL {
        return;
    }
    if let (port::DOORBELL, Ok(address)) = (to, data.try_into()) {
        RAM.with(|ram| harmless(ram, u32::from_le_bytes(address).into()));
    }
    let _ = devices.write(to, data);
}

/// A snapshot: as it is, and as the state of a file whose lengths and checksum are right.
pub fn snapshot(data: &[u8]) {
    read_snapshot(data);
    let mut whole = b"LABSNAP\0".to_vec();
    whole.extend(1u32.to_le_bytes());
    whole.extend((data.len() as u32).to_le_bytes());
    let pages = usize::from(data.first().copied().unwrap_or(0) % 4);
    let length = (40 + data.len()).next_multiple_of(4096) + pages * 4096;
    whole.extend((length as u64).to_le_bytes());
    whole.extend([0; 8]);
    let mut sum = twox_hash::XxHash64::with_seed(0);
    let mut rest = data.to_vec();
    rest.resize(length - 40, 0);
    sum.write(&whole);
    sum.write(&rest);
    whole.extend(sum.finish().to_le_bytes());
    whole.extend(rest);
    read_snapshot(&whole);
}

fn read_snapshot(bytes: &[u8]) {
    // SAFETY: takes a name and flags; the descriptor it gives is ours alone.
    let mut memory = unsafe { File::from_raw_fd(vmm_memfd()) };
    memory.write_all(bytes).expect("memory takes a few pages");
    let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    if let Ok(opened) = file::open(&path) {
        let pages: u64 = opened.state.runs.iter().map(|run| run.pages).sum();
        assert_eq!(opened.memory_at + pages * 4096, bytes.len() as u64);
    }
}

/// A file that is only memory.
fn vmm_memfd() -> i32 {
    unsafe extern "C" {
        fn memfd_create(name: *const std::ffi::c_char, flags: std::ffi::c_uint) -> std::ffi::c_int;
    }
    // SAFETY: the name ends with a NUL and the call only reads it.
    let fd = unsafe { memfd_create(c"fuzz".as_ptr(), 0) };
    assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    fd
}
