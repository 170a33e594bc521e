//! What a guest can do with virtio devices: any order of registers, any content of rings and buffers.
//!
//! The bytes are a guest, eight for each thing it does: see [`Driver::misbehave`].

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;

use arbitrary::{Arbitrary, Unstructured};
use protocol::marks::Marks;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm::bus::{Bus, Device as _};
use vmm::input::{Gate, Waker};
use vmm::interrupts::Line;
use vmm::layout;
use vmm::virtio::balloon::Balloon;
use vmm::virtio::block::Block;
use vmm::virtio::buffers::Buffers;
use vmm::virtio::console::Console;
use vmm::virtio::device::Device;
use vmm::virtio::disk::{Disk, Mode, Spec};
use vmm::virtio::driver::{Driver, MEMORY};
use vmm::virtio::net::Net;
use vmm::virtio::queue::{Queues, Setup};
use vmm::virtio::random::Random;
use vmm::virtio::{State, Transport};

use super::snapshot::memory_file;

/// The disk's content: 32 sectors, none of zeros.
const DISK: [u8; 16 << 10] = [0x5a; 16 << 10];

thread_local! {
    static FILE: File = memory_file();
    static QUEUE: RefCell<GuestMemoryMmap> =
        RefCell::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("1 MiB"));
}

/// Whatever a guest has done to a device, a reset makes a device of it again.
fn stand(device: Box<dyn Device>, guest: &[u8]) {
    let mut driver = Driver::started(device);
    driver.misbehave(guest);
    driver.negotiate();
    assert_eq!(driver.read(STATUS), FEATURES_OK, "after a reset");
}

/// Offset of the status, and what it is when features are agreed on.
const STATUS: u64 = 0x70;
const FEATURES_OK: u32 = 0xb;

/// Random bytes.
pub fn rng(data: &[u8]) {
    stand(Box::new(Random), data);
}

/// A balloon.
pub fn balloon(data: &[u8]) {
    stand(Box::new(Balloon::new(4096)), data);
}

/// A disk: the first byte says of which kind. What a guest may not write, it has not written.
pub fn block(data: &[u8]) {
    let Some((kind, guest)) = data.split_first() else {
        return;
    };
    let mode = [Mode::Writable, Mode::ReadOnly, Mode::Scratch][usize::from(kind % 3)].clone();
    let read_only = mode != Mode::Writable;
    stand(Box::new(Block::new(disk(mode))), guest);
    let mut now = DISK;
    FILE.with(|file| file.read_exact_at(&mut now, 0)).expect("its length");
    assert!(
        now == DISK || !read_only,
        "the guest wrote to a disk of which it has a view"
    );
}

fn disk(mode: Mode) -> Disk {
    let file = FILE.with(|file| {
        file.write_all_at(&DISK, 0).expect("memory takes 16 KiB");
        format!("/proc/self/fd/{}", file.as_raw_fd()).into()
    });
    Disk::open(&Spec { file, mode }).expect("a disk")
}

/// A network card: the first byte says how long the frames are that wait for the guest.
pub fn net(data: &[u8]) {
    let Some((length, guest)) = data.split_first() else {
        return;
    };
    let (tap, host) = datagrams();
    for longer in 0..3 {
        let _ = host.send(&vec![7; usize::from(*length) * 8 + longer * 1514 + 1]);
    }
    stand(Box::new(Net::new(tap.into(), [2, 0, 0, 0, 0, 1])), guest);
}

/// Both ends of something that keeps frames apart, as a tap does, and never waits.
fn datagrams() -> (OwnedFd, UnixDatagram) {
    let (tap, host) = UnixDatagram::pair().expect("two sockets");
    for end in [&tap, &host] {
        end.set_nonblocking(true).expect("it is a socket");
    }
    (tap.into(), host)
}

/// A console: the first byte says how much was typed.
pub fn console(data: &[u8]) {
    let Some((typed, guest)) = data.split_first() else {
        return;
    };
    let (input, host) = datagrams();
    let _ = host.send(&vec![b'x'; usize::from(*typed) + 1]);
    let output = File::options().write(true).open("/dev/null").expect("/dev/null");
    // SAFETY: the device ends before the two descriptors do.
    let (from, to) = unsafe {
        (
            BorrowedFd::borrow_raw(input.as_raw_fd()),
            BorrowedFd::borrow_raw(output.as_raw_fd()),
        )
    };
    let gate = Gate::new(waker(), true);
    stand(Box::new(Console::between(from, to, gate, marks())), guest);
}

fn marks() -> Marks {
    Marks::new(None, "fuzz")
}

fn waker() -> Waker {
    Waker::new().expect("an event descriptor")
}

/// A queue by itself: rings, descriptors and indirect tables as the bytes say.
///
/// What is taken must lie in guest memory, and no more may be taken than was offered.
pub fn queue(data: &[u8]) {
    const DESCRIPTORS: u64 = 0x1000;
    const AVAILABLE: u64 = 0x3000;
    const USED: u64 = 0x4000;
    const TABLES: u64 = 0x6000;
    let Some((&[shape, first, offered], content)) = data.split_first_chunk::<3>() else {
        return;
    };
    let size = 1u16 << (shape % 5);
    // Around the place where positions start again from 0.
    let taken = u16::MAX.wrapping_add(u16::from(first % 16)).wrapping_sub(8);
    let setup = Setup {
        size,
        descriptors: DESCRIPTORS,
        available: AVAILABLE,
        used: USED,
        ready: true,
        taken,
        given_back: taken,
    };
    QUEUE.with_borrow(|memory| {
        let put = |bytes: &[u8], at| memory.write_slice(bytes, GuestAddress(at)).expect("it is memory");
        put(&[0; 0x7000], DESCRIPTORS);
        let (heads, rest) = content.split_at(content.len().min(usize::from(size) * 2));
        let (descriptors, tables) = rest.split_at(rest.len().min(usize::from(size) * 16));
        put(
            &taken.wrapping_add(u16::from(offered % 20)).to_le_bytes(),
            AVAILABLE + 2,
        );
        put(heads, AVAILABLE + 4);
        put(descriptors, DESCRIPTORS);
        put(&tables[..tables.len().min(0x2000)], TABLES);
        let mut queues = [Some(setup.build(16, shape & 0x80 != 0, memory).expect("a queue"))];
        let mut queues = Queues::new(memory, &mut queues);
        let mut count = 0;
        while let Ok(Some(chain)) = queues.take(0) {
            count += 1;
            assert!(
                count <= offered % 20 && u16::from(count) <= size,
                "{count} of {offered}"
            );
            check(memory, chain.readable.clone());
            check(memory, chain.writable.clone());
            queues
                .give_back(0, &chain, chain.writable.length())
                .expect("its ring is memory");
        }
        let used: u16 = memory.read_obj(GuestAddress(USED + 2)).expect("it is memory");
        assert_eq!(
            used,
            if count == 0 {
                0
            } else {
                taken.wrapping_add(count.into())
            }
        );
        let _ = (queues.waiting(0), queues.interrupt_wanted());
    });
}

/// These buffers are guest memory, and what is taken off them is gone.
fn check(memory: &GuestMemoryMmap, mut buffers: Buffers<'_>) {
    let start = memory.get_host_address(GuestAddress(0)).expect("it is memory") as usize;
    for piece in buffers.iter() {
        let at = piece.ptr_guard().as_ptr() as usize;
        assert!(at >= start && at + piece.len() <= start + MEMORY as usize && !piece.is_empty());
    }
    let length = buffers.length();
    let mut bytes = [0; 40];
    let read = buffers.read(&mut bytes);
    assert_eq!((read, buffers.length()), (length.min(40), length - length.min(40)));
    if buffers.split_off_last().is_some() {
        assert_eq!(buffers.length(), length - read - 1);
    }
    let (half, rest) = (buffers.length() / 2, buffers.length().div_ceil(2));
    assert_eq!((buffers.split_off_front(half).length(), buffers.length()), (half, rest));
}

/// A load or store somewhere around the devices' pages.
#[derive(Arbitrary, Debug)]
struct Access {
    page: u8,
    offset: u16,
    width: u8,
    value: [u8; 8],
    store: bool,
}

/// Addresses: every device of the machine, the places around them, and all the rest.
pub fn bus(data: &[u8]) {
    let memory = QUEUE.with_borrow(Clone::clone);
    let (tap, _host) = datagrams();
    let devices: [Box<dyn Device>; 4] = [
        Box::new(Random),
        Box::new(Balloon::new(0)),
        Box::new(Block::new(disk(Mode::Scratch))),
        Box::new(Net::new(tap.into(), [2, 0, 0, 0, 0, 1])),
    ];
    let count = devices.len() as u64;
    let mut bus = Bus::default();
    for device in devices {
        let line = Line::unconnected().expect("an event descriptor");
        bus.attach(Box::new(Transport::new(device, memory.clone(), line, waker())));
    }
    let mut choices = Unstructured::new(data);
    while let (false, Ok(access)) = (choices.is_empty(), Access::arbitrary(&mut choices)) {
        let mut value = access.value;
        let data = &mut value[..1 << (access.width % 4)];
        let length = data.len() as u64;
        let offset = u64::from(access.offset) % layout::PAGE;
        // One page before the first to one behind the last, or anywhere.
        let address = match access.page {
            0xff => u64::from_le_bytes(access.value),
            page => (layout::DEVICES + u64::from(page) % (count + 2) * layout::PAGE + offset) - layout::PAGE,
        };
        let devices = layout::DEVICES..layout::DEVICES + count * layout::PAGE;
        let inside = devices.contains(&address) && address % layout::PAGE + length <= layout::PAGE;
        assert_eq!(bus.name_at(address).is_some(), devices.contains(&address));
        match access.store {
            true => bus.write(address, data),
            false => {
                bus.read(address, data);
                assert!(inside || data.iter().all(|&byte| byte == 0xff), "{address:#x}");
            }
        }
    }
}

/// A device's state from a snapshot, and the guest that goes on with it.
pub fn device_state(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let Ok((state, guest)) = postcard::take_from_bytes::<State>(bytes) else {
        return;
    };
    let (tap, _host) = datagrams();
    let device: Box<dyn Device> = match kind % 4 {
        0 => Box::new(Random),
        1 => Box::new(Balloon::new(0)),
        2 => Box::new(Block::new(disk(Mode::ReadOnly))),
        _ => Box::new(Net::new(tap.into(), [2, 0, 0, 0, 0, 1])),
    };
    let mut driver = Driver::new(device);
    if driver.transport.restore(&state).is_ok() {
        // What was waiting is looked at first.
        let _ = driver.transport.input();
        driver.misbehave(guest);
    }
    driver.negotiate();
    assert_eq!(driver.read(STATUS), FEATURES_OK, "after a reset");
}
