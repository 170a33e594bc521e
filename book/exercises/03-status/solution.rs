/// The status a shell shows for the word that waitpid(2) stores: the exit code, or 128 + n for signal n.
pub fn shell_status(word: u32) -> u32 {
    match word & 0x7f {
        0 => word >> 8 & 0xff,
        signal => 128 + signal,
    }
}
