//! Linux error numbers (asm-generic/errno.h), those this kernel has a use for.

/// An error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u16);

macro_rules! errnos {
    ($($name:ident = $number:literal: $text:literal;)*) => {
        $(#[doc = $text] pub const $name: Errno = Errno($number);)*
    };
}

errnos! {
    EPERM = 1: "Operation not permitted";
    ENOENT = 2: "No such file or directory";
    ESRCH = 3: "No such process";
    EINTR = 4: "Interrupted system call";
    EIO = 5: "Input/output error";
    ENXIO = 6: "No such device";
    EBADF = 9: "Bad file descriptor";
    EAGAIN = 11: "Try again";
    ENOMEM = 12: "Out of memory";
    EACCES = 13: "Permission denied";
    EFAULT = 14: "Bad address";
    EEXIST = 17: "File exists";
    ENODEV = 19: "No such device, or one that cannot do this";
    ENOTDIR = 20: "Not a directory";
    EISDIR = 21: "Is a directory";
    EINVAL = 22: "Invalid argument";
    EMFILE = 24: "Too many open files";
    ENOTTY = 25: "Not a terminal";
    ENOSPC = 28: "No space left on device";
    ESPIPE = 29: "Cannot seek";
    EROFS = 30: "Read-only file system";
    EPIPE = 32: "Broken pipe";
    ERANGE = 34: "Result does not fit";
    ENAMETOOLONG = 36: "File name too long";
    ENOSYS = 38: "No such system call";
    ELOOP = 40: "Too many symbolic links";
}
