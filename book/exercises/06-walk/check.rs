pub fn check() {
    use std::collections::HashMap;

    // Tables at 0x1000 to 0x4000, as a VMM would write them: a large page for the second 2 MiB, and one page of 4 KiB.
    let memory = HashMap::from([
        (0x1000, 0x2000 | PRESENT),
        (0x2000, 0x3000 | PRESENT),
        (0x3000, 0x4000 | PRESENT),
        (0x3008, 0x20_0000 | PRESENT | LARGE),
        (0x4000 + 8 * 5, 0x9000 | PRESENT),
        // Bit 63, "not to be executed", is no part of the address.
        (0x4000 + 8 * 6, 0xa000 | PRESENT | 1 << 63),
        // The large bit means something else in the last table.
        (0x4000 + 8 * 7, 0xb000 | PRESENT | LARGE),
    ]);
    let walk = |address| walk(|at| memory.get(&at).copied().unwrap_or(0), 0x1000, address);
    assert_eq!(walk(0x5123), Some(0x9123));
    assert_eq!(walk(0x6fff), Some(0xafff));
    assert_eq!(walk(0x7001), Some(0xb001));
    assert_eq!(walk(0x21_2345), Some(0x21_2345));
    assert_eq!(walk(0x0), None);
    assert_eq!(walk(0x40_0000), None);
    assert_eq!(walk(0x8000_0000_0000 - 1), None);
}
