//! Reading a program: a static ELF file for x86-64 (System V ABI, chapter 5; elf(5)).

/// What the loader needs to know of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program<'a> {
    /// Its bytes.
    pub file: &'a [u8],
    /// Address of the first instruction, as the file has it.
    pub entry: u64,
    /// The file may be put anywhere (static PIE).
    pub relocatable: bool,
    /// Offset of the program headers in the file.
    headers: usize,
    /// How many there are.
    pub header_count: u16,
}

/// A part of the file that belongs in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// At which address, before any relocation.
    pub address: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory; what the file does not fill is zero.
    pub memory_size: u64,
    /// The program reads, writes, executes it ([`READ`], [`WRITE`], [`EXECUTE`]).
    pub flags: u32,
}

/// Segment may be executed.
pub const EXECUTE: u32 = 1;
/// Segment may be written.
pub const WRITE: u32 = 2;
/// Segment may be read.
pub const READ: u32 = 4;

/// Why a file cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not an ELF file.
    NotElf,
    /// An ELF file for another machine or of another kind.
    NotForHere,
    /// It wants a dynamic linker.
    Dynamic,
    /// Its headers contradict each other or the file's length.
    Malformed,
    /// A segment both writable and executable.
    WritableCode,
}

impl Error {
    /// One sentence for the person who chose the file.
    pub const fn reason(self) -> &'static str {
        match self {
            Error::NotElf => "not an ELF file: the lab kernel starts programs, not scripts",
            Error::NotForHere => "not an x86-64 ELF program",
            Error::Dynamic => "dynamically linked: the lab kernel has no dynamic linker; link it statically",
            Error::Malformed => "its ELF headers are broken",
            Error::WritableCode => "a segment is both writable and executable, which the lab kernel refuses",
        }
    }
}

const HEADER_SIZE: usize = 64;
/// Size of a program header in bytes.
pub const PROGRAM_HEADER_SIZE: usize = 56;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;
const X86_64: u16 = 62;
const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;

impl<'a> Program<'a> {
    /// Reads the file header.
    pub fn new(file: &'a [u8]) -> Result<Program<'a>, Error> {
        let header = file.first_chunk::<HEADER_SIZE>().ok_or(Error::NotElf)?;
        if &header[..4] != b"\x7fELF" {
            return Err(Error::NotElf);
        }
        let kind = u16_at(header, 16);
        if header[4] != CLASS_64
            || header[5] != LITTLE_ENDIAN
            || u16_at(header, 18) != X86_64
            || (kind != EXECUTABLE && kind != SHARED)
        {
            return Err(Error::NotForHere);
        }
        let headers = u64_at(header, 32) as usize;
        let header_count = u16_at(header, 56);
        let length = usize::from(header_count) * PROGRAM_HEADER_SIZE;
        if usize::from(u16_at(header, 54)) != PROGRAM_HEADER_SIZE
            || headers.checked_add(length).is_none_or(|end| end > file.len())
        {
            return Err(Error::Malformed);
        }
        Ok(Program {
            file,
            entry: u64_at(header, 24),
            relocatable: kind == SHARED,
            headers,
            header_count,
        })
    }

    /// Calls `each` for every segment that belongs in memory, in the file's order.
    pub fn segments(&self, mut each: impl FnMut(Segment) -> Result<(), Error>) -> Result<(), Error> {
        for i in 0..usize::from(self.header_count) {
            let at = self.headers + i * PROGRAM_HEADER_SIZE;
            // `new` checked that all headers lie in the file.
            let Some(header) = self
                .file
                .get(at..)
                .and_then(|rest| rest.first_chunk::<PROGRAM_HEADER_SIZE>())
            else {
                return Err(Error::Malformed);
            };
            match u32_at(header, 0) {
                LOAD => each(self.check(Segment {
                    flags: u32_at(header, 4),
                    offset: u64_at(header, 8),
                    address: u64_at(header, 16),
                    file_size: u64_at(header, 32),
                    memory_size: u64_at(header, 40),
                })?)?,
                INTERPRETER => return Err(Error::Dynamic),
                _ => {}
            }
        }
        Ok(())
    }

    fn check(&self, segment: Segment) -> Result<Segment, Error> {
        let ends_in_file = segment
            .offset
            .checked_add(segment.file_size)
            .is_some_and(|end| end <= self.file.len() as u64);
        let page_offsets_agree = (segment.offset ^ segment.address) & 0xfff == 0;
        let ends_in_space = segment
            .address
            .checked_add(segment.memory_size)
            .is_some_and(|end| end < 1 << 47);
        if !ends_in_file || !page_offsets_agree || !ends_in_space || segment.file_size > segment.memory_size {
            return Err(Error::Malformed);
        }
        if segment.flags & (WRITE | EXECUTE) == WRITE | EXECUTE {
            return Err(Error::WritableCode);
        }
        Ok(segment)
    }

    /// Address of the program headers in memory, before relocation, given a segment that holds them.
    pub fn headers_in(&self, segment: &Segment) -> Option<u64> {
        let inside = (self.headers as u64).checked_sub(segment.offset)?;
        (inside < segment.file_size).then(|| segment.address + inside)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// One load instruction, once the compiler sees that the field lies within the header.
#[inline(always)]
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of two segments: code with the headers, and data with room behind it.
    fn sample() -> Vec<u8> {
        let mut file = vec![0u8; 0x3000];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[16] = 2;
        file[18] = 62;
        file[24..32].copy_from_slice(&0x40_1000u64.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54] = 56;
        file[56] = 2;
        let mut header = |i: usize, flags: u32, offset: u64, address: u64, size: u64, memory: u64| {
            let at = 64 + 56 * i;
            file[at] = 1;
            file[at + 4..at + 8].copy_from_slice(&flags.to_le_bytes());
            for (j, value) in [offset, address, address, size, memory].into_iter().enumerate() {
                file[at + 8 + 8 * j..at + 16 + 8 * j].copy_from_slice(&value.to_le_bytes());
            }
        };
        header(0, READ | EXECUTE, 0, 0x40_0000, 0x2000, 0x2000);
        header(1, READ | WRITE, 0x2000, 0x40_2000, 0x100, 0x5000);
        file
    }

    #[test]
    fn segments_come_in_order() {
        let file = sample();
        let program = Program::new(&file).unwrap();
        let mut seen = vec![];
        program.segments(|segment| {
            let _: () = seen.push(segment);
            Ok(())
        }).unwrap();
        assert_eq!(seen.len(), 2);
        assert_eq!((program.entry, program.relocatable), (0x40_1000, false));
        assert_eq!(program.headers_in(&seen[0]), Some(0x40_0040));
        assert_eq!(program.headers_in(&seen[1]), None);
        assert_eq!(seen[1].memory_size, 0x5000);
    }

    fn broken(change: impl Fn(&mut Vec<u8>)) -> Error {
        let mut file = sample();
        change(&mut file);
        match Program::new(&file) {
            Err(error) => error,
            Ok(program) => program.segments(|_| Ok(())).unwrap_err(),
        }
    }

    #[test]
    fn every_kind_of_wrong_file_has_its_own_reason() {
        assert_eq!(broken(|f| f[1] = b'X'), Error::NotElf);
        assert_eq!(broken(|f| f.truncate(60)), Error::NotElf);
        assert_eq!(broken(|f| f[18] = 3), Error::NotForHere);
        assert_eq!(broken(|f| f[4] = 1), Error::NotForHere);
        assert_eq!(broken(|f| f[64] = 3), Error::Dynamic);
        assert_eq!(broken(|f| f[32..40].fill(0xff)), Error::Malformed);
        assert_eq!(broken(|f| f.truncate(0x2050)), Error::Malformed);
        assert_eq!(broken(|f| f[64 + 8] = 1), Error::Malformed);
        assert_eq!(broken(|f| f[64 + 4] = 7), Error::WritableCode);
        assert_eq!(broken(|f| f[64 + 16 + 7] = 0xff), Error::Malformed);
    }

    #[test]
    fn random_headers_never_panic() {
        let mut state = 7u64;
        for _ in 0..50_000 {
            let mut file = sample();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                file[(state >> 33) as usize % 180] = (state >> 24) as u8;
            }
            if let Ok(program) = Program::new(&file) {
                let _ = program.segments(|_| Ok(()));
            }
        }
    }
}
