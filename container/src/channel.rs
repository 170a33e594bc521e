//! What launcher and container tell each other before the program runs.
//!
//! One pair of sockets, so that neither can wait for the other in vain: when one side dies, the other reads the end of
//! the stream. The launcher says "go" once the user map is written, and hands over the image's mount where there is
//! one. The container says nothing when all is well; when a step fails it sends its exit status and the message.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, send, sendmsg,
    socketpair,
};

/// The launcher's end.
pub struct LauncherEnd(OwnedFd);

/// The container's end.
pub struct ContainerEnd(OwnedFd);

/// What the container says when it could not run the program.
#[derive(Debug)]
pub struct Failure {
    /// The status the launcher is to exit with.
    pub status: u8,
    /// What failed, on what, why, and what to do about it.
    pub message: String,
}

/// Longer messages are cut: enough for every message with a path of the greatest length, PATH_MAX.
const LONGEST_MESSAGE: usize = 8192;

/// Makes both ends. Packets keep their boundaries; both ends close at exec.
pub fn pair() -> Result<(LauncherEnd, ContainerEnd), Errno> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((LauncherEnd(ours), ContainerEnd(theirs)))
}

impl LauncherEnd {
    /// Tells the container that its users are mapped, and hands it `image` if there is one.
    pub fn go(&self, image: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let payload = [IoSlice::new(b"go")];
        let descriptors: Vec<RawFd> = image.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(self.0.as_raw_fd(), &payload, control, MsgFlags::MSG_NOSIGNAL, None).map(drop)
    }

    /// The container's failure, if it reported one. Call it when the container has ended: it does not wait.
    pub fn failure(&self) -> Option<Failure> {
        let mut packet = [0; 1 + LONGEST_MESSAGE];
        let mut receive = || recv(self.0.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT);
        let length = match receive() {
            // A container that failed before it read "go" left it unread; the kernel says so first, once.
            Err(Errno::ECONNRESET) => receive(),
            other => other,
        };
        let length = length.ok()?;
        let (status, message) = packet.get(..length)?.split_first()?;
        Some(Failure {
            status: *status,
            message: String::from_utf8_lossy(message).into_owned(),
        })
    }
}

impl ContainerEnd {
    /// Waits for "go". `None` means that the launcher is gone.
    pub fn wait_for_go(&self) -> Option<Option<OwnedFd>> {
        let mut payload = [0; 2];
        let mut payload = [IoSliceMut::new(&mut payload)];
        let mut control = nix::cmsg_space!(RawFd);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.0.as_raw_fd(), &mut payload, Some(&mut control), flags).ok()?;
        if message.bytes == 0 {
            return None;
        }
        let rights = message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
            _ => None,
        });
        // SAFETY: the kernel made this descriptor for us when it delivered the message.
        Some(rights.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Whether the launcher still holds its end.
    pub fn launcher_is_there(&self) -> bool {
        let mut nothing = [0; 1];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
        recv(self.0.as_raw_fd(), &mut nothing, flags) == Err(Errno::EAGAIN)
    }

    /// Reports why the program will not run. Nobody is left to tell if this fails too.
    pub fn report(&self, failure: &Failure) {
        let mut message = failure.message.as_bytes();
        message = &message[..message.len().min(LONGEST_MESSAGE)];
        let packet = [&[failure.status], message].concat();
        let _ = send(self.0.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL);
    }
}
