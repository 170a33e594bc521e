//! State of a kernel with one processor and no interrupts.

use core::cell::UnsafeCell;

/// A static that only one piece of code touches at a time, because there is only one piece of code: one processor, and
/// exceptions come from the program or end the kernel.
#[repr(transparent)]
pub struct Lone<T>(UnsafeCell<T>);

// SAFETY: one processor, interrupts never on (RFLAGS.IF is clear from the first instruction and in SFMASK): no two
// threads of execution exist. Host-side tests use it from one thread each.
unsafe impl<T> Sync for Lone<T> {}

impl<T> Lone<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Lone<T> {
        Lone(UnsafeCell::new(value))
    }

    /// Lends the value to `work`, which must not ask for it again meanwhile.
    #[inline(always)]
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: see `Sync` above; every caller is at the top of a stack (entry, exception, system call) and hands the
        // reference down.
        work(unsafe { &mut *self.0.get() })
    }
}
