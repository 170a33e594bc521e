pub fn check() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    assert_eq!(shell_status(7 << 8), 7);
    assert_eq!(shell_status(11), 139);
    // With a core file.
    assert_eq!(shell_status(11 | 0x80), 139);
    // What this kernel really stores.
    for (line, status) in [("exit 0", 0), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -TERM $$", 143)] {
        let word = Command::new("sh").args(["-c", line]).status().unwrap().into_raw();
        assert_eq!(shell_status(word as u32), status, "{line}");
    }
}
