//! Buffers of a request: pieces of guest memory, each checked to be memory, in the order the guest gave them.
//!
//! They go to the host's kernel as they are (preadv, writev and their kin take exactly such a list), so that a disk's
//! block or a packet is copied once, between the guest's page and the kernel, and never through us.

use std::collections::VecDeque;
use std::io;

use vm_memory::VolatileSlice;

/// A list of pieces of guest memory, consumed from the front.
#[derive(Clone, Debug, Default)]
pub struct Buffers<'m> {
    pieces: VecDeque<VolatileSlice<'m>>,
}

impl<'m> Buffers<'m> {
    /// Adds a piece at the end.
    pub fn push(&mut self, piece: VolatileSlice<'m>) {
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// Bytes left. A chain's sum fits: it is at most 4 GiB, as [`crate::virtio::queue`] checked.
    pub fn length(&self) -> usize {
        self.pieces.iter().map(VolatileSlice::len).sum()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The pieces.
    pub fn iter(&self) -> impl Iterator<Item = &VolatileSlice<'m>> {
        self.pieces.iter()
    }

    /// Takes the first `count` bytes off, or all there are.
    pub fn split_off_front(&mut self, mut count: usize) -> Buffers<'m> {
        let mut front = Buffers::default();
        while let Some(piece) = self.pieces.pop_front() {
            match piece.split_at(count.min(piece.len())) {
                Ok((taken, left)) => {
                    count -= taken.len();
                    front.push(taken);
                    if !left.is_empty() {
                        self.pieces.push_front(left);
                        break;
                    }
                }
                // The cut is within the piece.
                Err(_) => break,
            }
        }
        front
    }

    /// Takes the last byte off: where some requests want their status.
    pub fn split_off_last(&mut self) -> Option<VolatileSlice<'m>> {
        let piece = self.pieces.pop_back()?;
        let (rest, last) = piece.split_at(piece.len().checked_sub(1)?).ok()?;
        self.push(rest);
        Some(last)
    }

    /// Copies the first bytes into `bytes` and takes them off; how many there were.
    pub fn read(&mut self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.split_off_front(bytes.len()).pieces {
            done += piece.copy_to(&mut bytes[done..]);
        }
        done
    }

    /// Copies `bytes` over the first bytes and takes them off; how many found room.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        for piece in self.split_off_front(bytes.len()).pieces {
            piece.copy_from(&bytes[done..]);
            done += piece.len();
        }
        done
    }

    /// Hands the list to a system call that moves bytes, given as `call(first iovec, how many)`, and takes off what it moved.
    ///
    /// # Errors
    /// The call's.
    pub fn transfer(
        &mut self,
        mut call: impl FnMut(*const libc::iovec, libc::c_int) -> libc::ssize_t,
    ) -> io::Result<usize> {
        let list: Vec<_> = self
            .pieces
            .iter()
            .map(|piece| libc::iovec {
                iov_base: piece.ptr_guard_mut().as_ptr().cast(),
                iov_len: piece.len(),
            })
            .collect();
        loop {
            match call(list.as_ptr(), list.len() as libc::c_int) {
                moved @ 0.. => {
                    self.split_off_front(moved as usize);
                    return Ok(moved as usize);
                }
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces<'m>(memory: &'m mut [u8], lengths: &[usize]) -> Buffers<'m> {
        let mut rest = VolatileSlice::from(memory);
        let mut buffers = Buffers::default();
        for &length in lengths {
            let (piece, left) = rest.split_at(length).unwrap();
            buffers.push(piece);
            rest = left;
        }
        buffers
    }

    #[test]
    fn bytes_cross_the_borders_of_pieces() {
        let mut memory = *b"abcdefgh";
        let mut buffers = pieces(&mut memory, &[1, 0, 3, 4]);
        assert_eq!(buffers.length(), 8);
        let mut first = [0; 2];
        assert_eq!(buffers.read(&mut first), 2);
        assert_eq!(&first, b"ab");
        assert_eq!(buffers.write(b"CDE"), 3);
        assert_eq!(buffers.split_off_last().unwrap().len(), 1);
        assert_eq!(buffers.length(), 2);
        let mut rest = [0; 9];
        assert_eq!(buffers.read(&mut rest), 2);
        assert!(buffers.is_empty() && buffers.split_off_last().is_none());
        assert_eq!(buffers.write(b"x"), 0);
        assert_eq!(&memory, b"abCDEfgh");
    }

    #[test]
    fn a_cut_at_a_border_leaves_nothing_empty_behind() {
        let mut memory = [0; 4];
        let mut buffers = pieces(&mut memory, &[2, 2]);
        assert_eq!(buffers.split_off_front(2).length(), 2);
        assert_eq!(buffers.iter().count(), 1);
        assert_eq!(buffers.split_off_front(9).length(), 2);
        assert!(buffers.is_empty());
        assert_eq!(buffers.split_off_front(0).length(), 0);
    }
}
