//! The memory bus: which device answers which guest-physical address.
//!
//! An address that is neither RAM nor a device inside KVM leaves the guest (KVM_EXIT_MMIO), and the vCPU loop asks here.
//! Every device has one page of registers; a vCPU that touches one waits until no other thread is at that device.

use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{layout, mapped, virtio};

/// A device whose registers are memory addresses.
///
/// The guest chooses every offset, width and value: a device answers nonsense with nothing, and never panics.
pub trait Device: Send {
    /// What the ledger and error messages call it, such as `virtio-block`.
    fn name(&self) -> &'static str;

    /// The guest loads `data.len()` bytes (1, 2, 4 or 8) from `offset` within the device's page.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest stores them.
    fn write(&mut self, offset: u64, data: &[u8]);

    /// A descriptor that becomes readable when the world outside has something for the device (a tap, standard input),
    /// or None while the device has no room for it. A device that gets room wakes the input thread
    /// ([`crate::input::Waker`]) to be asked again.
    fn input(&mut self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// [`Device::input`] is readable: take from it what there is room for. Called on the input thread.
    fn receive(&mut self) {}

    /// What it knows, for a snapshot.
    fn save(&self) -> virtio::State;

    /// Takes up what [`Device::save`] of a device like this gave.
    ///
    /// # Errors
    /// When it is not of a device like this, or what it says of guest memory is not so.
    fn restore(&mut self, state: &virtio::State) -> Result<(), virtio::Error>;
}

/// The devices on the bus, each behind a lock of its own: vCPUs and the input thread meet there.
#[derive(Default)]
pub struct Bus {
    devices: Vec<Mutex<Box<dyn Device>>>,
}

/// What a read from an address without memory or device gives.
const NOTHING_THERE: u8 = 0xff;

impl Bus {
    /// Puts `device` on the next free page of registers.
    pub fn attach(&mut self, device: Box<dyn Device>) {
        self.devices.push(Mutex::new(device));
    }

    /// The devices, in the order of their pages.
    pub fn devices(&self) -> impl Iterator<Item = MutexGuard<'_, Box<dyn Device>>> {
        self.devices.iter().map(lock)
    }

    /// The device at `index`.
    pub fn device(&self, index: usize) -> Option<MutexGuard<'_, Box<dyn Device>>> {
        self.devices.get(index).map(lock)
    }

    /// The guest loads from `address`.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((mut device, offset)) => device.read(offset, data),
            None => {
                mapped::check();
                data.fill(NOTHING_THERE);
            }
        }
    }

    /// The guest stores to `address`. A store where nobody is goes nowhere, as on a PC.
    pub fn write(&self, address: u64, data: &[u8]) {
        match self.find(address, data.len()) {
            Some((mut device, offset)) => device.write(offset, data),
            None => mapped::check(),
        }
    }

    /// Which device answers `address`, for whoever keeps a ledger.
    pub fn name_at(&self, address: u64) -> Option<&'static str> {
        self.find(address, 1).map(|(device, _)| device.name())
    }

    fn find(&self, address: u64, length: usize) -> Option<(MutexGuard<'_, Box<dyn Device>>, u64)> {
        let distance = address.checked_sub(layout::DEVICES)?;
        let (page, offset) = (distance / layout::PAGE, distance % layout::PAGE);
        let device = self.devices.get(usize::try_from(page).ok()?)?;
        // An access across the end of the page belongs to nobody.
        (offset + length as u64 <= layout::PAGE).then(|| (lock(device), offset))
    }
}

/// A thread that panicked at a device has ended the program or will; its half-done work is still memory-safe.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(u64);

    impl Device for Echo {
        fn name(&self) -> &'static str {
            "echo"
        }
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&mut self, offset: u64, _: &[u8]) {
            self.0 = offset;
        }
        fn save(&self) -> virtio::State {
            unreachable!("nobody takes a snapshot here")
        }
        fn restore(&mut self, _: &virtio::State) -> Result<(), virtio::Error> {
            unreachable!("nobody takes a snapshot here")
        }
    }

    #[test]
    fn each_device_answers_its_own_page_and_nobody_the_rest() {
        let mut bus = Bus::default();
        bus.attach(Box::new(Echo(0)));
        bus.attach(Box::new(Echo(0)));
        let read = |address| {
            let mut data = [0; 4];
            bus.read(address, &mut data);
            data[0]
        };
        assert_eq!(read(layout::DEVICES + 0x10), 0x10);
        assert_eq!(read(layout::DEVICES + layout::PAGE + 0x20), 0x20);
        for nobody in [
            0,
            layout::DEVICES - 1,
            layout::DEVICES + layout::PAGE - 2,
            layout::DEVICES + 2 * layout::PAGE,
            u64::MAX,
        ] {
            assert_eq!(read(nobody), NOTHING_THERE, "{nobody:#x}");
            bus.write(nobody, &[0; 8]);
        }
        assert_eq!(bus.name_at(layout::DEVICES), Some("echo"));
    }
}
