//! What `create` and the container's first process tell each other until the container is created.
//!
//! One pair of sockets, as in [`crate::channel`], with more to say: hooks run on both sides and in turn. When one side
//! dies, the other reads the end of the stream; a first process whose `create` is gone ends itself.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

/// Longer messages are cut: enough for every message with a path of the greatest length, PATH_MAX.
const LONGEST_MESSAGE: usize = 8192;

/// As many descriptors as the kernel passes at once (SCM_MAX_FD in `net/scm.h`).
pub const MOST_DESCRIPTORS: usize = 253;

/// What is said, by its first byte.
#[derive(Debug)]
pub enum Word {
    /// Launcher: the users are mapped. With it come mounts that only the launcher could make.
    Go(Vec<OwnedFd>),
    /// First process: the root is built; the hooks that come before the pivot may run now.
    Built,
    /// Launcher: they have run.
    HooksDone,
    /// First process: all is done but the program.
    Ready,
    /// Launcher: the state is on disk. From here on the first process lives without its launcher.
    Recorded,
    /// First process: the status to exit with, what failed, on what, why, and what to do about it.
    Failed(u8, String),
}

impl Word {
    fn code(&self) -> u8 {
        match self {
            Word::Go(_) => b'g',
            Word::Built => b'b',
            Word::HooksDone => b'h',
            Word::Ready => b'r',
            Word::Recorded => b'k',
            Word::Failed(..) => b'f',
        }
    }
}

/// One end.
#[derive(Debug)]
pub struct End(OwnedFd);

/// Makes both ends. Packets keep their boundaries; both ends close at exec.
pub fn pair() -> Result<(End, End), Errno> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((End(ours), End(theirs)))
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl End {
    /// An end made elsewhere: an accepted connection of the socket `start` comes by.
    pub fn of(socket: OwnedFd) -> End {
        End(socket)
    }

    /// Says `word`.
    pub fn say(&self, word: &Word) -> Result<(), Errno> {
        let descriptors: Vec<RawFd> = match word {
            Word::Go(descriptors) => descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
            _ => Vec::new(),
        };
        let mut packet = vec![word.code()];
        if let Word::Failed(status, message) = word {
            packet.push(*status);
            packet.extend(&message.as_bytes()[..message.len().min(LONGEST_MESSAGE)]);
        }
        send(&self.0, &packet, &descriptors)
    }

    /// Waits for the next word. `None`: the other side is gone.
    pub fn hear(&self) -> Option<Word> {
        let mut packet = [0; 2 + LONGEST_MESSAGE];
        let (length, descriptors) = receive(&self.0, &mut packet).ok()?;
        let (code, rest) = packet.get(..length)?.split_first()?;
        Some(match code {
            b'g' => Word::Go(descriptors),
            b'b' => Word::Built,
            b'h' => Word::HooksDone,
            b'r' => Word::Ready,
            b'k' => Word::Recorded,
            _ => {
                let (status, message) = rest.split_first()?;
                Word::Failed(*status, String::from_utf8_lossy(message).into_owned())
            }
        })
    }
}

/// Sends `packet` and descriptors over a local socket.
pub fn send(socket: &OwnedFd, packet: &[u8], descriptors: &[RawFd]) -> Result<(), Errno> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(packet)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map(drop)
}

/// Receives a packet and the descriptors that come with it.
pub fn receive(socket: &OwnedFd, packet: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut control = nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let mut buffers = [IoSliceMut::new(packet)];
    loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut control), flags) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let rights = message.cmsgs()?.flat_map(|control| match control {
            ControlMessageOwned::ScmRights(descriptors) => descriptors,
            _ => Vec::new(),
        });
        // SAFETY: the kernel made these descriptors for us when it delivered the message.
        let descriptors = rights.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
        return Ok((message.bytes, descriptors));
    }
}

/// A descriptor for something another value owns, to be sent.
pub fn copy(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    descriptor
        .try_clone_to_owned()
        .map_err(|error| crate::errno::of(&error))
}
