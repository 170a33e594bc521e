pub fn check() {
    const MIB: u64 = 1 << 20;
    let costs = Costs {
        vm: 40 * MIB,
        first: 10 * MIB,
        more: 2 * MIB,
    };
    assert_eq!(tenants(1000 * MIB, 1, &costs), 20);
    // 40 + 10 + 4 * 2 = 58
    assert_eq!(tenants(1000 * MIB, 5, &costs), 17);
    assert_eq!(tenants(1000 * MIB, 0, &costs), 25);
    assert_eq!(tenants(49 * MIB, 1, &costs), 0);
}
