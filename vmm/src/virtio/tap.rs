//! A tap: the host's end of a network cable whose other end is a file descriptor (tun(4); Documentation/networking/tuntap.rst).
//!
//! What we write into it, the host's kernel takes for a frame that arrived on that interface; what the host sends there, we
//! read. Making one needs CAP_NET_ADMIN, using one that was made for us does not: so we take it by name.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::buffers::Buffers;

/// Bytes before each frame: `struct virtio_net_hdr_v1`. The tap speaks it, too, so that checksums left to the other side and
/// segments of 64 KiB pass from guest to host as they are.
pub const HEADER: usize = 12;

/// Offloads we may ask the tap to leave to us (linux/if_tun.h): checksums of what the host sends.
pub const CHECKSUMS: libc::c_ulong = 0x01;

/// A tap could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such name.
    #[error(
        "there is no network interface {0}. As root: ip tuntap add dev {0} mode tap user $USER && ip address add 10.0.0.1/24 dev {0} && ip link set {0} up"
    )]
    Missing(String),
    /// Not a name.
    #[error("{0:?} is no name of a network interface: 1 to 15 bytes, no slash, no space")]
    Name(String),
    /// No tun.
    #[error("cannot open /dev/net/tun: {0}. Load the module (modprobe tun), or let this user read and write the file")]
    Device(io::Error),
    /// Not ours, not a tap, or in use.
    #[error("cannot take the interface {name}: {source}{cure}")]
    Take {
        /// Which.
        name: String,
        /// Why not.
        source: io::Error,
        /// What to do.
        cure: &'static str,
    },
}

/// An open tap.
pub struct Tap {
    file: File,
}

impl Tap {
    /// Takes the tap of this name.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(name: &str) -> Result<Tap, Error> {
        let bad = || Error::Name(name.into());
        let c_name = CString::new(name).map_err(|_| bad())?;
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', ' ']) {
            return Err(bad());
        }
        // The ioctl below would make an interface that does not exist, where we are allowed to, and it would be gone with us.
        // SAFETY: a NUL-terminated string, only read.
        if unsafe { libc::if_nametoindex(c_name.as_ptr()) } == 0 {
            return Err(Error::Missing(name.into()));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(Error::Device)?;
        let taken = |source: io::Error| Error::Take {
            name: name.into(),
            cure: match source.raw_os_error() {
                Some(libc::EPERM) => ". It belongs to another user: make it with `ip tuntap add ... user $USER`",
                Some(libc::EBUSY) => ". Another VM has it: give each its own",
                Some(libc::EINVAL) => ". It is not a tap: make one with `ip tuntap add ... mode tap`",
                _ => "",
            },
            source,
        };
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
        for (to, &from) in request.ifr_name.iter_mut().zip(c_name.as_bytes()) {
            *to = from as libc::c_char;
        }
        // Frames of Ethernet, without a word of protocol before them, but with a virtio header.
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        let header = HEADER as libc::c_int;
        // SAFETY: each ioctl reads the structure or number it is given, and TUNSETIFF writes the name back.
        unsafe {
            check(libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request)).map_err(taken)?;
            check(libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header)).map_err(taken)?;
        }
        Ok(Tap { file })
    }

    /// Says which work the host's kernel may leave to us.
    ///
    /// # Errors
    /// The ioctl's.
    pub fn leave(&self, offloads: libc::c_ulong) -> io::Result<()> {
        // SAFETY: takes a number.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) })
    }
}

impl Tap {
    /// Sends a frame with its header.
    ///
    /// # Errors
    /// The kernel's: it checks what the header says.
    pub fn send(&self, frame: &mut Buffers<'_>) -> io::Result<usize> {
        // SAFETY: the list is of memory that outlives the call.
        frame.transfer(|list, count| unsafe { libc::writev(self.file.as_raw_fd(), list, count) })
    }

    /// Receives one frame with its header; its length.
    ///
    /// # Errors
    /// EAGAIN when none has come.
    pub fn receive(&self, room: &mut Buffers<'_>) -> io::Result<usize> {
        // SAFETY: as above.
        room.transfer(|list, count| unsafe { libc::readv(self.file.as_raw_fd(), list, count) })
    }
}

/// A tap that somebody else has opened.
impl From<OwnedFd> for Tap {
    fn from(descriptor: OwnedFd) -> Tap {
        Tap {
            file: descriptor.into(),
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
