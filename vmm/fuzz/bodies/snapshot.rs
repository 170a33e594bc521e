//! What is read from a file somebody calls a snapshot.

use std::fs::File;
use std::hash::Hasher;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::PathBuf;

use vmm::virtio::Spec;
use vmm::virtio::disk::Mode;
use vmm::{memory, snapshot as file};

/// A snapshot: as it is, and as the state of a file whose version, lengths and checksum are right. The first byte says
/// how many pages of memory there are.
pub fn snapshot(data: &[u8]) {
    read(data);
    let Some((pages, state)) = data.split_first() else {
        return;
    };
    let mut whole = b"LABSNAP\0".to_vec();
    whole.extend(file::FORMAT.to_le_bytes());
    whole.extend((state.len() as u32).to_le_bytes());
    let length = (HEADER + state.len()).next_multiple_of(4096) + usize::from(pages % 4) * 4096;
    whole.extend((length as u64).to_le_bytes());
    whole.extend([0; 8]);
    let mut sum = twox_hash::XxHash64::with_seed(0);
    let mut rest = state.to_vec();
    rest.resize(length - HEADER, 0);
    sum.write(&whole);
    sum.write(&rest);
    whole.extend(sum.finish().to_le_bytes());
    whole.extend(rest);
    read(&whole);
}

/// Bytes before a snapshot's state.
const HEADER: usize = 40;
/// Guest memory that is worth mapping for a test.
const SMALL: u64 = 64 << 20;

/// What is accepted can be mapped, byte for byte, and names nothing that the guest could write to.
fn read(bytes: &[u8]) {
    let mut content = memory_file();
    content.write_all(bytes).expect("memory takes a few pages");
    let path = PathBuf::from(format!("/proc/self/fd/{}", content.as_raw_fd()));
    let Ok(opened) = file::open(&path) else { return };
    let pages: u64 = opened.state.runs.iter().map(|run| run.pages).sum();
    assert_eq!(opened.memory_at + pages * 4096, bytes.len() as u64);
    for (spec, _) in &opened.state.devices {
        assert!(
            !matches!(spec, Spec::Disk(disk) if disk.mode != Mode::ReadOnly),
            "{spec:?}"
        );
    }
    if opened.state.memory > SMALL {
        return;
    }
    let ram = memory::reserve(opened.state.memory).expect("a size that was checked");
    let mut offset = opened.memory_at;
    for run in &opened.state.runs {
        memory::map_file(
            &ram,
            run.start,
            &opened.file,
            offset,
            run.length(),
            &vmm::mapped::SNAPSHOT,
        )
        .expect("a place that was checked");
        offset += run.length();
    }
}

/// A file that is only memory.
pub fn memory_file() -> File {
    unsafe extern "C" {
        fn memfd_create(name: *const std::ffi::c_char, flags: std::ffi::c_uint) -> std::ffi::c_int;
    }
    // SAFETY: the name ends with a NUL and the call only reads it.
    let fd = unsafe { memfd_create(c"fuzz".as_ptr(), 0) };
    assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was just made and is nobody else's.
    unsafe { File::from_raw_fd(fd) }
}
