//! The snapshot's file.
//!
//! ```text
//!   0     magic, format, length of the state, length of the file, checksum of all the rest     (one header, 40 bytes)
//!   40    state: registers, controllers, list of runs                                          (postcard)
//!   page  run 0 of guest memory, page by page, then run 1, ...                                  (to be mapped)
//! ```
//!
//! It is written beside its name and renamed into place when it is complete and on the disk, so that under its name there
//! is a whole snapshot or none. A copy may still be torn or rot: lengths and a checksum over every byte are checked before
//! anything is believed. XXH64 finds accidents; it is no protection against somebody who forges a snapshot, and neither
//! is anything else here: a snapshot is a program, to be trusted as one.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Error, State};
use crate::machine::Kind;
use crate::virtio::{self, disk::Mode};
use crate::{layout, memory};

const MAGIC: [u8; 8] = *b"LABSNAP\0";
/// Raised whenever a reader of the old format would misread the new.
pub const FORMAT: u32 = 2;
const HEADER: usize = 40;
const CHECKSUM_AT: usize = 32;
/// More state than 32 vCPUs and every device have.
const STATE_MAX: u32 = 4 << 20;
/// Untouched pages between two runs below this number are written too: every run is a mapping of its own in every clone,
/// and a mapping costs as much as a few pages.
const GAP: u64 = 8;
/// How much is read at a time to be checked.
const CHUNK: usize = 256 << 10;

/// A stretch of guest memory in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Guest-physical address, page-aligned.
    pub start: u64,
    /// Pages.
    pub pages: u64,
}

impl Run {
    /// Bytes.
    pub fn length(self) -> u64 {
        self.pages * layout::PAGE
    }
}

/// A snapshot that has been checked.
pub struct Opened {
    /// The file, for mapping.
    pub file: File,
    /// The machine.
    pub state: State,
    /// Where in the file the first run lies.
    pub memory_at: u64,
}

/// Writes the snapshot; fills in the state's list of runs.
pub fn write(path: &Path, state: &mut State, ram: &GuestMemoryMmap) -> Result<(), Error> {
    let failed = |what| {
        move |source| Error::File {
            what,
            path: path.into(),
            source,
        }
    };
    state.runs = used(ram)?;
    let bytes = postcard::to_allocvec(state).map_err(|_| Error::Damaged {
        path: path.into(),
        what: "its state cannot be written down",
    })?;
    let memory_at = ((HEADER + bytes.len()) as u64).next_multiple_of(layout::PAGE);
    let pages: u64 = state.runs.iter().map(|run| run.pages).sum();
    let length = memory_at + pages * layout::PAGE;

    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new("."))).map_err(failed("write"))?;
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    header[16..24].copy_from_slice(&length.to_le_bytes());
    let mut sum = XxHash64::with_seed(0);
    sum.write(&header[..CHECKSUM_AT]);
    let mut put = |file: &mut File, bytes: &[u8]| {
        sum.write(bytes);
        file.write_all(bytes).map_err(failed("write"))
    };
    let out = file.as_file_mut();
    out.seek(SeekFrom::Start(HEADER as u64)).map_err(failed("write"))?;
    put(out, &bytes)?;
    put(out, &vec![0; memory_at as usize - HEADER - bytes.len()])?;
    let mut page = [0; layout::PAGE as usize];
    for run in &state.runs {
        for number in 0..run.pages {
            ram.read_slice(&mut page, GuestAddress(run.start + number * layout::PAGE))?;
            put(out, &page)?;
        }
    }
    header[CHECKSUM_AT..].copy_from_slice(&sum.finish().to_le_bytes());
    out.write_all_at(&header, 0).map_err(failed("write"))?;
    out.sync_all().map_err(failed("write"))?;
    file.persist(path).map_err(|error| failed("write")(error.error))?;
    Ok(())
}

/// The stretches of guest memory that hold anything but zeros.
fn used(ram: &GuestMemoryMmap) -> Result<Vec<Run>, Error> {
    let mut runs: Vec<Run> = Vec::new();
    let mut page = [0; layout::PAGE as usize];
    for range in memory::regions(ram) {
        for start in range.step_by(layout::PAGE as usize) {
            ram.read_slice(&mut page, GuestAddress(start))?;
            if page.iter().all(|&byte| byte == 0) {
                continue;
            }
            match runs.last_mut() {
                Some(last) if start - (last.start + last.length()) <= GAP * layout::PAGE => {
                    last.pages = (start - last.start) / layout::PAGE + 1;
                }
                _ => runs.push(Run { start, pages: 1 }),
            }
        }
    }
    Ok(runs)
}

/// Opens a snapshot and checks every byte of it.
pub fn open(path: &Path) -> Result<Opened, Error> {
    let failed = |source| Error::File {
        what: super::READ,
        path: path.into(),
        source,
    };
    let damaged = |what| Error::Damaged {
        path: path.into(),
        what,
    };
    let file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?.len();
    let mut header = [0; HEADER];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) if header[..8] == MAGIC => {}
        Ok(()) => return Err(Error::Foreign(path.into())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Error::Foreign(path.into())),
        Err(error) => return Err(failed(error)),
    }
    let half = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 4)) << 32;
    let (format, state_length, expected) = (half(8), half(12), word(16));
    if format != FORMAT {
        return Err(Error::Version {
            path: path.into(),
            found: format,
            known: FORMAT,
        });
    }
    if found != expected {
        return Err(Error::Length {
            path: path.into(),
            found,
            expected,
        });
    }
    if state_length > STATE_MAX || u64::from(state_length) > found {
        return Err(damaged("the length of its state"));
    }

    let mut sum = XxHash64::with_seed(0);
    sum.write(&header[..CHECKSUM_AT]);
    let mut chunk = vec![0; CHUNK.min(found as usize)];
    let mut state = Vec::with_capacity(state_length as usize);
    let mut at = HEADER as u64;
    while at < found {
        let part = ((found - at) as usize).min(chunk.len());
        file.read_exact_at(&mut chunk[..part], at).map_err(failed)?;
        sum.write(&chunk[..part]);
        let missing = state_length as usize - state.len();
        state.extend_from_slice(&chunk[..part.min(missing)]);
        at += part as u64;
    }
    if sum.finish() != word(CHECKSUM_AT) {
        return Err(damaged("its checksum is wrong"));
    }
    let state: State = postcard::from_bytes(&state).map_err(|_| damaged("its state cannot be read"))?;
    let memory_at = (HEADER as u64 + u64::from(state_length)).next_multiple_of(layout::PAGE);
    check(&state, found.checked_sub(memory_at)).map_err(damaged)?;
    Ok(Opened { file, state, memory_at })
}

/// A right checksum says that the file is as it was written, not by whom.
fn check(state: &State, memory_bytes: Option<u64>) -> Result<(), &'static str> {
    if !(layout::MEMORY_MIN..=layout::MEMORY_MAX).contains(&state.memory) || !state.memory.is_multiple_of(layout::PAGE)
    {
        return Err("how much memory the machine has");
    }
    let below = state.memory.min(layout::DEVICE_HOLE);
    let ram = [0..below, layout::ABOVE_4G..layout::ABOVE_4G + (state.memory - below)];
    let mut end = 0;
    let mut pages = 0u64;
    for run in &state.runs {
        let length = run.pages.checked_mul(layout::PAGE).ok_or("a run's length")?;
        if run.start % layout::PAGE != 0 || run.start < end || run.pages == 0 {
            return Err("a run's place");
        }
        end = run.start.checked_add(length).ok_or("a run's end")?;
        if !ram.iter().any(|range| range.start <= run.start && end <= range.end) {
            return Err("a run that is not in the machine's memory");
        }
        pages = pages.checked_add(run.pages).ok_or("the number of pages")?;
    }
    if pages.checked_mul(layout::PAGE) != memory_bytes {
        return Err("the size of its memory");
    }
    if state.vcpus.is_empty() || state.vcpus.len() > layout::CPUS_MAX.into() {
        return Err("the number of vCPUs");
    }
    let whole = match state.kind {
        Kind::Bare => state.pc.is_none() && state.devices.is_empty() && state.vcpus.len() == 1,
        Kind::Pc => state.pc.is_some(),
    };
    if !whole || state.vcpus.iter().any(|vcpu| vcpu.kind() != state.kind) {
        return Err("what kind of machine it is");
    }
    // Restoring opens every disk by the name in here. We never write a snapshot of a machine that may write to one; a file
    // that says otherwise would have us open any file of the user's for writing, or make an overlay in any place.
    let written = |spec: &virtio::Spec| matches!(spec, virtio::Spec::Disk(disk) if disk.mode != Mode::ReadOnly);
    if state.devices.iter().any(|(spec, _)| written(spec)) {
        return Err("a disk that its guest could write to");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Device as _;
    use crate::serial::Output;
    use crate::snapshot::{pc, processor};
    use crate::virtio::Spec;
    use crate::virtio::disk;
    use crate::virtio::driver::Driver;
    use crate::virtio::random::Random;

    fn state(kind: Kind) -> State {
        let random = Driver::started(Box::new(Random)).transport.save();
        State {
            mark: "user mode entry".into(),
            kind,
            memory: 8 << 20,
            runs: vec![Run { start: 0, pages: 1 }],
            console: Output::Stdout,
            spoke: false,
            random: None,
            generation: 0,
            kernel_sha256: String::new(),
            program_sha256: None,
            processor: 0,
            vcpus: vec![processor::State::blank(kind)],
            devices: match kind {
                Kind::Bare => Vec::new(),
                Kind::Pc => vec![(Spec::Random, random)],
            },
            pc: (kind == Kind::Pc).then(pc::State::default),
        }
    }

    /// Whoever can make a snapshot can make its checksum.
    #[test]
    fn what_no_machine_of_ours_would_say_is_refused() {
        type Forge = fn(&mut State);
        let accepted = |state: &State| check(state, Some(4096 * state.runs.iter().map(|run| run.pages).sum::<u64>()));
        for kind in [Kind::Bare, Kind::Pc] {
            assert_eq!(accepted(&state(kind)), Ok(()));
        }
        let disk = |state: &mut State, mode| {
            let file = "/etc/passwd".into();
            state.devices[0].0 = Spec::Disk(disk::Spec { file, mode });
        };
        let mut reads = state(Kind::Pc);
        disk(&mut reads, Mode::ReadOnly);
        assert_eq!(accepted(&reads), Ok(()));
        for mode in [Mode::Writable, Mode::Scratch, Mode::Overlay("/etc/overlay".into())] {
            let mut writes = state(Kind::Pc);
            disk(&mut writes, mode);
            assert_eq!(accepted(&writes), Err("a disk that its guest could write to"));
        }
        let forgeries: &[(&str, Forge)] = &[
            ("no memory", |state| state.memory = 0),
            ("all memory", |state| state.memory = u64::MAX - 4095),
            ("half a page", |state| state.memory += 2048),
            ("a run behind memory", |state| state.runs[0].start = 8 << 20),
            ("a run across its end", |state| {
                state.runs[0] = Run {
                    start: (8 << 20) - 4096,
                    pages: 2,
                };
            }),
            ("a run that overflows", |state| state.runs[0].pages = u64::MAX / 4096),
            ("a run within a page", |state| state.runs[0].start = 1),
            ("an empty run", |state| state.runs[0].pages = 0),
            ("runs out of order", |state| state.runs.push(Run { start: 0, pages: 1 })),
            ("no processor", |state| state.vcpus.clear()),
            ("a PC without controllers", |state| state.pc = None),
            ("a PC that is not one", |state| state.kind = Kind::Bare),
            ("a PC's processor without an APIC", |state| {
                state.vcpus[0] = processor::State::blank(Kind::Bare);
            }),
        ];
        for (what, forge) in forgeries {
            let mut state = state(Kind::Pc);
            forge(&mut state);
            let bytes = state.runs.iter().map(|run| run.pages.wrapping_mul(4096)).sum();
            assert!(check(&state, Some(bytes)).is_err(), "{what}");
        }
        // Above the hole for devices, a run may lie only where memory goes on.
        let mut large = state(Kind::Bare);
        large.memory = layout::DEVICE_HOLE + 4096;
        large.runs = vec![Run {
            start: layout::ABOVE_4G,
            pages: 1,
        }];
        assert_eq!(accepted(&large), Ok(()));
        large.runs[0].start = layout::DEVICE_HOLE;
        assert!(accepted(&large).is_err());
    }
}
