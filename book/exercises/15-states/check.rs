pub fn check() {
    use Operation::{Delete, Kill, Start};
    use Status::{Created, Creating, Running, Stopped};
    let table = [
        // operation, and whether it is allowed: creating, created, running, stopped
        (Start, [false, true, false, false]),
        (Kill, [false, true, true, false]),
        (Delete, [false, false, false, true]),
    ];
    for (operation, row) in table {
        for (status, expected) in [Creating, Created, Running, Stopped].into_iter().zip(row) {
            assert_eq!(allowed(operation, status), expected, "{operation:?} while {status:?}");
        }
    }
}
