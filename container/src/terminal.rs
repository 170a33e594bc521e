//! The user's own terminal, while a program in a container has it.
//!
//! A terminal edits lines, echoes, and turns keys into signals. The container's terminal does all that itself, so the
//! outer one must do none of it: raw mode (termios(3)). What it was before is put back when this value goes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// A terminal in raw mode.
pub struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    /// Switches it on; fails with ENOTTY when `terminal` is none.
    pub fn enter(terminal: BorrowedFd<'a>) -> Result<RawMode<'a>, Errno> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(terminal, SetArg::TCSANOW, &raw)?;
        Ok(RawMode { terminal, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

/// Lines, and characters in each; `None` when it is no terminal.
pub fn size(terminal: impl AsFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes a winsize.
    let asked = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (asked == 0).then_some((size.ws_row, size.ws_col))
}

/// The size of the terminal this process was started from.
pub fn own_size() -> Option<(u16, u16)> {
    size(std::io::stdin()).or_else(|| size(std::io::stdout()))
}

/// The keys that leave a container's terminal and let its program go on: Ctrl-P Ctrl-Q, as docker has it.
pub struct DetachKeys {
    seen_first: bool,
}

const CTRL_P: u8 = 0x10;
const CTRL_Q: u8 = 0x11;

impl DetachKeys {
    /// None of them pressed yet.
    pub fn new() -> DetachKeys {
        DetachKeys { seen_first: false }
    }

    /// What of `typed` is for the program; `None` when both keys were pressed. A Ctrl-P waits for the next key.
    pub fn filter(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            match (self.seen_first, byte) {
                (true, CTRL_Q) => return None,
                (true, _) => passed.push(CTRL_P),
                (false, _) => {}
            }
            self.seen_first = byte == CTRL_P;
            if !self.seen_first {
                passed.push(byte);
            }
        }
        Some(passed)
    }
}

impl Default for DetachKeys {
    fn default() -> DetachKeys {
        DetachKeys::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keys_in_a_row_detach_and_one_alone_is_passed_on() {
        let mut keys = DetachKeys::new();
        assert_eq!(keys.filter(b"ls\x10"), Some(b"ls".to_vec()));
        assert_eq!(keys.filter(b"x\x11"), Some(b"\x10x\x11".to_vec()));
        assert_eq!(keys.filter(b"\x10\x10"), Some(b"\x10".to_vec()));
        assert_eq!(keys.filter(b"\x11"), None);
    }
}
