// ANCHOR: stub
/// The status a shell shows for the word that waitpid(2) stores: the exit code, or 128 + n for signal n.
pub fn shell_status(word: u32) -> u32 {
    word >> 8
}
// ANCHOR_END: stub
