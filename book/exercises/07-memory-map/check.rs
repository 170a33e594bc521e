pub fn check() {
    const GIB: u64 = 1 << 30;
    assert_eq!(ram(64 << 20), [0..0x9_fc00, 0x10_0000..0x400_0000]);
    // Just up to the devices: nothing is left for above.
    assert_eq!(ram(3 * GIB), [0..0x9_fc00, 0x10_0000..0xc000_0000]);
    assert_eq!(ram(4 * GIB), [0..0x9_fc00, 0x10_0000..0xc000_0000, 4 * GIB..5 * GIB]);
}
