//! What each descriptor of a tracee stands for: kept from the calls that made them, as `write(4)` alone tells nothing.

use std::collections::BTreeMap;

use super::decode::Decoded;

/// The descriptors of one process by number.
#[derive(Clone, Debug)]
pub struct Descriptors(BTreeMap<i32, String>);

impl Descriptors {
    /// Those every process starts with.
    pub fn standard() -> Descriptors {
        let streams = ["standard input", "standard output", "standard error"];
        Descriptors((0..).zip(streams.map(str::to_owned)).collect())
    }

    /// What this one is.
    pub fn name(&self, fd: i32) -> Option<&str> {
        self.0.get(&fd).map(String::as_str)
    }

    /// Takes note of a call that has succeeded. `pair` reads the two descriptors socketpair(2) and pipe(2) made.
    pub fn after(
        &mut self,
        call: &Decoded,
        arguments: &[u64; 6],
        result: i64,
        pair: impl FnOnce(u64) -> Option<[i32; 2]>,
    ) {
        if result < 0 {
            return;
        }
        let made = result as i32;
        let path = || call.strings.last().cloned().unwrap_or_default();
        let name = match call.name.as_str() {
            "open" | "openat" | "openat2" | "creat" => path(),
            "open_tree" => format!("a mount of {}", path()),
            "memfd_create" => format!("memory {}", path()),
            "fsopen" => format!("a new {}", path()),
            "fsmount" => "a new mount".into(),
            "socket" => format!("{} socket", call.arguments.first().cloned().unwrap_or_default()),
            "signalfd4" => "signals".into(),
            "dup" | "dup2" | "dup3" => path(),
            "close" => {
                self.0.remove(&(arguments[0] as i32));
                return;
            }
            "close_range" if arguments[2] == 0 => {
                let closed = arguments[0]..=arguments[1];
                self.0.retain(|&fd, _| !closed.contains(&(fd as u64)));
                return;
            }
            "socketpair" | "pipe" | "pipe2" => {
                let address = if call.name == "socketpair" {
                    arguments[3]
                } else {
                    arguments[0]
                };
                let ends = if call.name == "socketpair" {
                    ["socket pair, first end", "socket pair, second end"]
                } else {
                    ["reading end", "writing end"]
                };
                for (fd, name) in pair(address).into_iter().flatten().zip(ends) {
                    self.0.insert(fd, name.into());
                }
                return;
            }
            _ => return,
        };
        self.0.insert(made, name);
    }
}
