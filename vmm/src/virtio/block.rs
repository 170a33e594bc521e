//! A disk.
//!
//! What the guest writes: one chain per request. Sixteen bytes say what and where (type, a word nobody uses, first sector),
//! then come the data's buffers, and the last byte is for the answer: done, failed, or unknown.
//!
//! ```text
//!   | type 4 | 0 4 | sector 8 |    | data: pages of the guest ... |    | status 1 |
//!     readable                       readable (write) or              writable
//!                                    writable (read)
//! ```
//!
//! What the host answers: the data goes between the file and the guest's own pages in one system call, and never through
//! us. The vCPU waits for it, as for the slowest of disks; the host's page cache makes that short.
//!
//! What it costs: 3 exits for a request, be it 4 KiB read, 4 KiB written or a flush: the store to QueueNotify, and the
//! interrupt's two. A disk controller of the 1980s took one for each register and each two bytes of data.

use super::buffers::Buffers;
use super::device::Device;
use super::disk::{Disk, SECTOR};
use super::queue::{Malformed, Queues};

use virtio_bindings::virtio_blk::*;

/// Virtio 1.2, section 5.2.
const ID: u32 = 2;
const QUEUE: usize = 0;
const QUEUE_SIZE: u16 = 256;
/// The first buffer of a request.
const HEADER: usize = 16;
/// Pieces of data in one request: what the queue holds without header and status.
const PIECES_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes of each piece.
const PIECE_MAX: u32 = 64 << 10;
/// Bytes of one request. The guest is told of the two limits above; one that ignores them is not to keep its vCPU here with
/// gigabytes in one go.
const BYTES_MAX: usize = PIECES_MAX as usize * PIECE_MAX as usize;

/// Bytes of one turn. A queue full of the largest requests is 4 GiB, and sectors that alternate between disk and overlay are a
/// system call each: what is left when this is reached waits for the next turn, and whoever wants the device in between gets it.
const TURN_MAX: usize = 4 * BYTES_MAX;

const OK: u8 = VIRTIO_BLK_S_OK as u8;
const FAILED: u8 = VIRTIO_BLK_S_IOERR as u8;
const UNKNOWN: u8 = VIRTIO_BLK_S_UNSUPP as u8;

/// The device.
pub struct Block {
    disk: Disk,
    /// The first failure was reported. A guest can fail as often as it likes, and standard error is often a file.
    complained: bool,
}

impl Block {
    /// A device around this disk.
    pub fn new(disk: Disk) -> Block {
        Block {
            disk,
            complained: false,
        }
    }

    /// Carries a request out: its status, and bytes written to `answer`.
    fn carry_out(&mut self, mut question: Buffers<'_>, answer: Buffers<'_>) -> (u8, usize) {
        let mut header = [0; HEADER];
        if question.read(&mut header) < HEADER {
            return (FAILED, 0);
        }
        let [kind, _] =
            [0, 4].map(|at| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        let mut sector = [0; 8];
        sector.copy_from_slice(&header[8..]);
        let sector = u64::from_le_bytes(sector);
        let room = answer.length();
        let result = match kind {
            VIRTIO_BLK_T_IN if self.fits(sector, room) => self.disk.read(sector, answer).map(|()| room),
            VIRTIO_BLK_T_OUT if self.fits(sector, question.length()) => self.disk.write(sector, question).map(|()| 0),
            VIRTIO_BLK_T_FLUSH => self.disk.flush().map(|()| 0),
            VIRTIO_BLK_T_GET_ID => Ok(identify(answer)),
            VIRTIO_BLK_T_IN | VIRTIO_BLK_T_OUT => return (FAILED, 0),
            _ => return (UNKNOWN, 0),
        };
        match result {
            Ok(written) => (OK, written),
            Err(error) => {
                if !self.complained {
                    self.complained = true;
                    eprintln!(
                        "vmm: {}: {error}. The guest was told, and is told of any later failure",
                        self.disk
                    );
                }
                (FAILED, 0)
            }
        }
    }

    /// Whether this many bytes are whole sectors of the disk, and not too many.
    fn fits(&self, sector: u64, bytes: usize) -> bool {
        let sectors = bytes as u64 / SECTOR;
        let end = sector.checked_add(sectors);
        (bytes as u64).is_multiple_of(SECTOR) && bytes <= BYTES_MAX && end.is_some_and(|end| end <= self.disk.sectors())
    }
}

/// The disk's name, as `/sys/block/vda/serial` gives it.
fn identify(mut answer: Buffers<'_>) -> usize {
    let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
    id[..NAME.len()].copy_from_slice(NAME);
    answer.write(&id)
}

const NAME: &[u8] = b"isolation-lab";

impl Device for Block {
    fn name(&self) -> &'static str {
        "virtio-block"
    }

    fn id(&self) -> u32 {
        ID
    }

    /// FLUSH: the guest may ask that what it wrote be on the disk, and must, to be sure.
    fn features(&self) -> u64 {
        let read_only = u64::from(!self.disk.writable()) << VIRTIO_BLK_F_RO;
        read_only | 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_SIZE_MAX | 1 << VIRTIO_BLK_F_FLUSH
    }

    fn queues(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    /// `struct virtio_blk_config`: sectors, most bytes of a piece, most pieces.
    fn configuration(&self) -> Vec<u8> {
        let mut configuration = self.disk.sectors().to_le_bytes().to_vec();
        configuration.extend(PIECE_MAX.to_le_bytes());
        configuration.extend(PIECES_MAX.to_le_bytes());
        configuration
    }

    fn serve(&mut self, _: usize, queues: &mut Queues<'_>) -> Result<(), Malformed> {
        let mut bytes = 0;
        for _ in 0..queues.size(QUEUE) {
            if bytes >= TURN_MAX {
                break;
            }
            let Some(mut chain) = queues.take(QUEUE)? else { break };
            bytes += chain.readable.length().max(chain.writable.length());
            let (question, mut answer) = (chain.readable.clone(), std::mem::take(&mut chain.writable));
            let Some(status) = answer.split_off_last() else {
                return Err(Malformed("a disk request has no room for its status"));
            };
            let (code, written) = self.carry_out(question, answer);
            status.copy_from(&[code]);
            // The status is written even where no data was: all up to it counts as written.
            queues.give_back(QUEUE, &chain, written + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::disk::{Mode, Spec};
    use super::super::driver::{BUFFERS, Driver};
    use super::*;

    const HEADER_AT: u64 = BUFFERS;
    const DATA_AT: u64 = BUFFERS + 0x1000;
    const STATUS_AT: u64 = BUFFERS + 0x800;

    fn driver(file: &Path, mode: Mode) -> Driver {
        let spec = Spec {
            file: file.into(),
            mode,
        };
        Driver::started(Box::new(Block::new(Disk::open(&spec).unwrap())))
    }

    /// A file of eight sectors, each filled with its number.
    fn file() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..8).flat_map(|sector| [sector; SECTOR as usize]).collect();
        fs::write(file.path(), content).unwrap();
        file
    }

    /// One request; its status and how much was written to it, status included.
    fn request(driver: &mut Driver, kind: u32, sector: u64, data: u32) -> (u8, u32) {
        driver.put(
            HEADER_AT,
            &[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat(),
        );
        driver.put(STATUS_AT, &[0xee]);
        let readable = if kind == VIRTIO_BLK_T_OUT { 2 } else { 1 };
        let buffers = [(HEADER_AT, 16), (DATA_AT, data), (STATUS_AT, 1)];
        match data {
            0 => driver.request(0, &[buffers[0], buffers[2]], 1),
            _ => driver.request(0, &buffers, readable),
        }
        let done = driver.done(0);
        (
            driver.get(STATUS_AT, 1)[0],
            done.first().map_or(0, |&(_, written)| written),
        )
    }

    #[test]
    fn reads_and_writes_go_to_the_file() {
        let file = file();
        let mut driver = driver(file.path(), Mode::Writable);
        assert_eq!(driver.read(0x100), 8, "capacity");
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_IN, 3, 1024), (OK, 1025));
        assert_eq!(driver.get(DATA_AT, 1024), [[3; 512], [4; 512]].concat());
        driver.put(DATA_AT, &[0xaa; 512]);
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_OUT, 7, 512), (OK, 1));
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_FLUSH, 0, 0), (OK, 1));
        assert_eq!(fs::read(file.path()).unwrap()[7 * 512..], [0xaa; 512]);
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_GET_ID, 0, 20), (OK, 21));
        assert!(driver.get(DATA_AT, 20).starts_with(NAME));
    }

    #[test]
    fn what_does_not_fit_fails_and_moves_nothing() {
        let file = file();
        let before = fs::read(file.path()).unwrap();
        let mut driver = driver(file.path(), Mode::Writable);
        for (kind, sector, data) in [
            (VIRTIO_BLK_T_IN, 8, 512),
            (VIRTIO_BLK_T_IN, 7, 1024),
            (VIRTIO_BLK_T_IN, u64::MAX, 512),
            (VIRTIO_BLK_T_IN, 0, 511),
            (VIRTIO_BLK_T_OUT, 8, 512),
            (VIRTIO_BLK_T_OUT, 1 << 60, 512),
            (VIRTIO_BLK_T_OUT, 0, 100),
        ] {
            assert_eq!(
                request(&mut driver, kind, sector, data),
                (FAILED, 1),
                "{kind} {sector} {data}"
            );
        }
        assert_eq!(request(&mut driver, 99, 0, 512), (UNKNOWN, 1));
        assert_eq!(fs::read(file.path()).unwrap(), before);
        // A header cut short is answered; a chain without room for an answer stops the device.
        driver.request(0, &[(HEADER_AT, 15), (STATUS_AT, 1)], 1);
        assert_eq!(driver.get(STATUS_AT, 1), [FAILED]);
        driver.request(0, &[(HEADER_AT, 16)], 1);
        assert!(driver.stopped());
    }

    #[test]
    fn a_request_of_gigabytes_is_refused() {
        let file = file();
        file.as_file().set_len(1 << 30).unwrap();
        let mut driver = driver(file.path(), Mode::ReadOnly);
        driver.put(HEADER_AT, &[0; 16]);
        let mut buffers = vec![(HEADER_AT, 16)];
        buffers.extend([(0x2_0000, 0x1_0000 + 512); 254]);
        driver.request(0, &buffers, 1);
        assert_eq!(driver.done(0).len(), 1);
        // The last byte of the last buffer is the status, and what is left is no whole sector: one more byte makes it so.
        buffers.pop();
        buffers.extend([(0x2_0000, 0x1_0000 + 512), (STATUS_AT, 1)]);
        driver.request(0, &buffers, 1);
        assert_eq!(driver.get(STATUS_AT, 1), [FAILED]);
    }

    #[test]
    fn a_read_only_disk_says_so_and_refuses() {
        let file = file();
        let before = fs::read(file.path()).unwrap();
        let mut driver = driver(file.path(), Mode::ReadOnly);
        driver.write(0x14, 0);
        assert_ne!(driver.read(0x10) & 1 << VIRTIO_BLK_F_RO, 0);
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_OUT, 0, 512), (FAILED, 1));
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_IN, 1, 512), (OK, 513));
        assert_eq!(fs::read(file.path()).unwrap(), before);
    }

    #[test]
    fn a_copy_on_write_disk_shows_what_was_written_and_the_file_never_changes() {
        let file = file();
        let before = fs::read(file.path()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let overlay = folder.path().join("overlay");
        for mode in [Mode::Scratch, Mode::Overlay(overlay.clone())] {
            let mut driver = driver(file.path(), mode);
            driver.put(DATA_AT, &[0xbb; 1024]);
            assert_eq!(request(&mut driver, VIRTIO_BLK_T_OUT, 2, 1024), (OK, 1));
            assert_eq!(request(&mut driver, VIRTIO_BLK_T_IN, 0, 4096), (OK, 4097));
            let seen = driver.get(DATA_AT, 4096);
            assert_eq!(seen[..1024], before[..1024]);
            assert_eq!(seen[1024..2048], [0xbb; 1024]);
            assert_eq!(seen[2048..], before[2048..]);
        }
        assert_eq!(fs::read(file.path()).unwrap(), before);
        // The named one is still there, and so is what it holds.
        let mut again = driver(file.path(), Mode::Overlay(overlay));
        assert_eq!(request(&mut again, VIRTIO_BLK_T_IN, 2, 512), (OK, 513));
        assert_eq!(again.get(DATA_AT, 512), [0xbb; 512]);
    }
}
