//! What a guest can get wrong, case by case. What comes of any order of registers and any content of memory, the fuzz
//! targets try (`fuzz/bodies/virtio.rs`).

use super::balloon::Balloon;
use super::driver::{BUFFERS, Driver, INDIRECT, MEMORY, NEXT, WRITE};
use super::random::Random;
use crate::bus::Device as _;

/// What a guest may do wrong with a chain. Each stops the device, and a reset starts it again.
#[test]
fn broken_chains_stop_the_device_until_it_is_reset() {
    let rings = Driver::rings(0);
    type Break = fn(&mut Driver, u64);
    let breaks: &[(&str, Break)] = &[
        ("a loop", |driver, table| {
            driver.describe(table, &[(BUFFERS, 16, WRITE | NEXT, 1), (BUFFERS, 16, WRITE | NEXT, 0)]);
            driver.offer(0, 0);
        }),
        ("next outside the table", |driver, table| {
            driver.describe(table, &[(BUFFERS, 16, WRITE | NEXT, 8)]);
            driver.offer(0, 0);
        }),
        ("head outside the table", |driver, _| driver.offer(0, 8)),
        ("an address beyond memory", |driver, table| {
            driver.describe(table, &[(MEMORY - 8, 16, WRITE, 0)]);
            driver.offer(0, 0);
        }),
        ("an address that overflows", |driver, table| {
            driver.describe(table, &[(u64::MAX - 3, 16, WRITE, 0)]);
            driver.offer(0, 0);
        }),
        ("a huge length", |driver, table| {
            driver.describe(table, &[(BUFFERS, u32::MAX, WRITE, 0)]);
            driver.offer(0, 0);
        }),
        ("lengths beyond 4 GiB", |driver, table| {
            driver.describe(table, &[(0, 1 << 19, WRITE | NEXT, 0)]);
            driver.offer(0, 0);
        }),
        ("readable behind writable", |driver, table| {
            driver.describe(table, &[(BUFFERS, 16, WRITE | NEXT, 1), (BUFFERS, 16, 0, 0)]);
            driver.offer(0, 0);
        }),
        ("an indirect table in an indirect table", |driver, table| {
            driver.describe(BUFFERS, &[(BUFFERS, 16, INDIRECT, 0)]);
            driver.describe(table, &[(BUFFERS, 16, INDIRECT, 0)]);
            driver.offer(0, 0);
        }),
        ("an indirect table of no whole number", |driver, table| {
            driver.describe(table, &[(BUFFERS, 17, INDIRECT, 0)]);
            driver.offer(0, 0);
        }),
        ("an empty indirect table", |driver, table| {
            driver.describe(table, &[(BUFFERS, 0, INDIRECT, 0)]);
            driver.offer(0, 0);
        }),
        ("an indirect table longer than the queue", |driver, table| {
            let long: Vec<_> = (1..=9).map(|next| (BUFFERS, 1, WRITE | NEXT, next)).collect();
            driver.describe(BUFFERS, &long);
            driver.describe(table, &[(BUFFERS, 9 * 16, INDIRECT, 0)]);
            driver.offer(0, 0);
        }),
        ("more offered than there is room for", |driver, table| {
            driver.describe(table, &[(BUFFERS, 16, WRITE, 0)]);
            (0..9).for_each(|_| driver.add(0, 0));
            driver.offer(0, 0);
        }),
    ];
    for (what, break_it) in breaks {
        let mut driver = Driver::started(Box::new(Random));
        break_it(&mut driver, rings);
        assert!(driver.stopped(), "{what}");
        assert_eq!(driver.read(0x60) & 2, 2, "{what}: the guest is told");
        driver.put(BUFFERS, &[0; 64]);
        let before = driver.done(0).len();
        driver.request(0, &[(BUFFERS, 64)], 0);
        assert_eq!(driver.done(0).len(), 0, "{what}: {before} before");

        let mut driver = driver.again();
        driver.request(0, &[(BUFFERS, 64)], 0);
        assert_eq!(driver.done(0), [(0, 64)], "{what}");
    }
}

#[test]
fn queues_that_cannot_be_are_not_ready() {
    for (size, why) in [
        (0, "none"),
        (3, "no power of two"),
        (16, "too many"),
        (65_544, "beyond 16 bits"),
    ] {
        let mut driver = Driver::new(Box::new(Random));
        driver.negotiate();
        driver.set_up(0, size);
        assert_eq!(driver.read(0x44), 0, "{why}");
        assert!(driver.stopped(), "{why}");
    }
    // Rings at the end of memory, around its end, and not aligned.
    for (register, address) in [
        (0x80, MEMORY as u32),
        (0x90, MEMORY as u32 - 4),
        (0xa0, MEMORY as u32 - 8),
        (0x84, u32::MAX),
        (0x80, 0x1008),
        (0x90, 0x1001),
        (0xa0, 0x1002),
    ] {
        let mut driver = Driver::new(Box::new(Random));
        driver.negotiate();
        driver.write(0x30, 0);
        driver.write(0x38, 8);
        for (low, value) in [(0x80, 0x1000), (0x90, 0x2000), (0xa0, 0x3000)] {
            driver.write(low, value);
        }
        driver.write(register, address);
        driver.write(0x44, 1);
        assert_eq!(driver.read(0x44), 0, "{register:#x}: {address:#x}");
        assert!(driver.stopped(), "{register:#x}: {address:#x}");
    }
}

#[test]
fn a_driver_must_keep_to_the_order() {
    // FEATURES_OK before DRIVER, without VERSION_1, with a feature nobody offered: the bit does not stay.
    let mut driver = Driver::new(Box::new(Random));
    driver.write(0x70, 1 | 8);
    assert_eq!(driver.read(0x70), 1);
    driver.write(0x70, 3 | 8);
    assert_eq!(driver.read(0x70), 3);
    driver.write(0x24, 1);
    driver.write(0x20, 1 | 1 << 8);
    driver.write(0x70, 3 | 8);
    assert_eq!(driver.read(0x70), 3);
    // DRIVER_OK before FEATURES_OK.
    driver.write(0x70, 3 | 4);
    assert_eq!(driver.read(0x70), 3);
    // The right choice.
    driver.write(0x20, 1);
    driver.write(0x70, 3 | 8);
    assert_eq!(driver.read(0x70), 0xb);
    // Too late for features; and a queue is not touched before DRIVER_OK.
    driver.write(0x20, 0);
    driver.set_up(0, 8);
    driver.request(0, &[(BUFFERS, 64)], 0);
    assert_eq!(driver.done(0), []);
    // What was offered early is served at the start.
    driver.write(0x70, 0xf);
    assert_eq!(driver.done(0), [(0, 64)]);
    // A queue in use stays as it is.
    driver.write(0x38, 4);
    driver.write(0x80, 0);
    driver.request(0, &[(BUFFERS, 64)], 0);
    assert_eq!(driver.done(0), [(0, 64)]);
}

#[test]
fn interrupts_say_why_until_they_are_acknowledged() {
    let mut driver = Driver::started(Box::new(Random));
    assert_eq!(driver.read(0x60), 0);
    driver.request(0, &[(BUFFERS, 64)], 0);
    assert_eq!(driver.read(0x60), 1);
    driver.write(0x64, 1);
    assert_eq!(driver.read(0x60), 0);
}

#[test]
fn a_saved_device_goes_on_where_it_was() {
    let mut driver = Driver::started(Box::new(Balloon::new(8192)));
    driver.write(0x104, 1);
    driver.put(BUFFERS, &[0; 4]);
    driver.request(0, &[(BUFFERS, 4)], 1);
    assert_eq!(driver.done(0), [(0, 0)]);
    let state = driver.transport.save();
    let mut other = driver.with(Box::new(Balloon::new(0)));
    assert_eq!(other.read(0x70), 0);
    other.transport.restore(&state).unwrap();
    assert_eq!((other.read(0x70), other.read(0x100), other.read(0x104)), (0xf, 2, 1));
    assert_eq!(other.done(0).len(), 0);
    other.request(0, &[(BUFFERS, 4)], 1);
    assert_eq!(other.done(0), [(0, 0)]);

    // Of another kind of device.
    let mut wrong = Driver::new(Box::new(Random));
    let error = wrong.transport.restore(&state).unwrap_err().to_string();
    assert!(
        error.contains("virtio-rng") && error.contains("number of queues"),
        "{error}"
    );
}
