//! Inputs to begin with: small, and right, so that a change leads to something nearly right.

use vmm::bus::Device as _;
use vmm::machine::Kind;
use vmm::serial::Output;
use vmm::snapshot::{Run, State, pc, processor};
use vmm::virtio::Spec;
use vmm::virtio::balloon::Balloon;
use vmm::virtio::device::Device;
use vmm::virtio::driver::Driver;
use vmm::virtio::random::Random;

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
        (
            "serial",
            vec![pairs(&[
                (3, 3),
                (1, 15),
                (0, b'x'),
                (4, 0x10),
                (0, b'y'),
                (0x80, 0),
                (0x85, 0),
            ])],
        ),
        (
            "i8042",
            vec![vec![1, 1, 0xfe, 0, 1, 1, 0xd1, 0, 0, 1, 0xfe, 0, 1, 2, 0xfe, 0xfe]],
        ),
        ("queue", queues()),
        ("bus", vec![(0..=255).collect(), vec![1; 120]]),
        ("rng", guests(0, &[])),
        ("balloon", guests(0, &[])),
        ("block", [guests(0, &[0]), guests(0, &[1]), guests(0, &[2])].concat()),
        ("net", [guests(1, &[8]), guests(0, &[200])].concat()),
        ("console", [guests(1, &[5]), guests(0, &[255])].concat()),
        ("device_state", device_states()),
        (
            "snapshot",
            vec![
                vec![0; 200],
                b"LABSNAP\0\x02\0\0\0".to_vec(),
                machine(Kind::Bare),
                machine(Kind::Pc),
            ],
        ),
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

/// A serial port's plain state, then a register and a value each.
fn pairs(accesses: &[(u8, u8)]) -> Vec<u8> {
    let state = [12, 0, 0, 1, 3, 0x60, 8, 0xb0, 0, 0, 0, 0, 0, 0];
    state
        .into_iter()
        .chain(accesses.iter().flat_map(|&(register, value)| [register, value]))
        .collect()
}

/// Guests of [`vmm::virtio::driver::Driver::misbehave`]: one that asks as it should, with writing and reading, then saves
/// itself and resets; one that builds a chain of its own in queue `queue`.
fn guests(queue: u8, prefix: &[u8]) -> Vec<Vec<u8>> {
    const REQUEST: u8 = 4;
    const INPUT: [u8; 8] = [7, 0, 1, 0, 0, 0, 0, 0];
    const SNAPSHOT: [u8; 8] = [7, 0, 2, 0, 0, 0, 0, 0];
    const AGAIN: [u8; 8] = [7, 0, 3, 0, 0, 0, 0, 0];
    let asks = [
        // What, queue, kind, sector, length and its shift, buffers, how many of them are readable.
        [REQUEST, queue, 0, 1, 1, 9, 2, 1],
        [REQUEST, queue, 1, 2, 2, 9, 2, 2],
        [REQUEST, queue, 4, 0, 1, 4, 2, 1],
        [REQUEST, queue, 8, 0, 20, 0, 2, 1],
        [REQUEST, 0, 0, 0, 2, 10, 1, 0],
        INPUT,
        SNAPSHOT,
        [REQUEST, queue, 0, 0, 8, 9, 1, 0],
        AGAIN,
        [REQUEST, queue, 0, 0, 8, 9, 1, 2],
    ];
    let builds = [
        // Two descriptors near the buffers, chained; then the head is offered; then registers.
        [3, queue, 0, 16, 0, 0, 1, 1],
        [3, queue, 64, 255, 1, 1, 2, 0],
        [5, queue, 0, 0, 0, 0, 0, 0],
        [6, 1, 2, 255, 255, 255, 255, 0],
        [0, 0x50, queue, 0, 0, 0, 0, 0],
        [1, 0xff, 2, 1, 1, 1, 0, 0],
        [2, 0x10, 16, 3, 0, 0, 0, 0],
        INPUT,
        [0, 0x70, 0, 0, 0, 0, 0, 0],
    ];
    [&asks[..], &builds[..]]
        .map(|guest| [prefix, guest.as_flattened()].concat())
        .into()
}

/// Shape, position and number of requests; heads; descriptors; an indirect table.
fn queues() -> Vec<Vec<u8>> {
    let descriptor = |address: u64, length: u32, flags: u16, next: u16| {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        bytes
    };
    let direct = [
        vec![2, 8, 2, 0, 0, 2, 0, 0, 0, 0, 0],
        descriptor(0x8000, 16, 1, 1),
        descriptor(0x9000, 512, 3, 3),
        descriptor(0x8100, 64, 2, 0),
        descriptor(0xa000, 1, 2, 0),
    ];
    let indirect = [
        vec![0x81, 0, 1, 0, 0, 0, 0],
        descriptor(0x6000, 32, 4, 0),
        descriptor(0, 0, 0, 0),
        descriptor(0x8000, 16, 1, 1),
        descriptor(0x9000, 512, 2, 0),
    ];
    vec![direct.concat(), indirect.concat()]
}

/// What each device would put into a snapshot, with a guest that goes on.
fn device_states() -> Vec<Vec<u8>> {
    let devices: [(u8, Box<dyn Device>); 2] = [(0, Box::new(Random)), (1, Box::new(Balloon::new(8192)))];
    let goes_on = guests(0, &[]).concat();
    devices
        .into_iter()
        .map(|(kind, device)| {
            let state = Driver::started(device).transport.save();
            let state = postcard::to_allocvec(&state).expect("plain numbers");
            [&[kind][..], &state, &goes_on].concat()
        })
        .collect()
}

/// A machine with a page of memory in its file, two where it is a PC.
fn machine(kind: Kind) -> Vec<u8> {
    let run = |start| Run { start, pages: 1 };
    let (runs, pages) = match kind {
        Kind::Bare => (vec![run(0x10_0000)], 1),
        Kind::Pc => (vec![run(0), run(0x20_0000)], 2),
    };
    let state = State {
        mark: "user mode entry".into(),
        kind,
        memory: 4 << 20,
        runs,
        console: Output::Stdout,
        spoke: false,
        random: Some(0x1000),
        generation: 0,
        kernel_sha256: String::new(),
        program_sha256: None,
        processor: 0,
        vcpus: vec![processor::State::blank(kind)],
        devices: match kind {
            Kind::Bare => Vec::new(),
            Kind::Pc => vec![(Spec::Random, Driver::started(Box::new(Random)).transport.save())],
        },
        pc: (kind == Kind::Pc).then(pc::State::default),
    };
    let state = postcard::to_allocvec(&state).expect("numbers and text");
    [&[pages][..], &state].concat()
}
