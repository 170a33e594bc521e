// ANCHOR: stub
/// Why a vCPU came back.
#[derive(Clone, Copy, Debug)]
pub enum Exit {
    /// The guest wrote a byte to a port.
    IoOut(u16, u8),
    /// The guest waits for an interrupt. There are none here: it waits for ever.
    Hlt,
    /// The guest's processor shut itself down.
    Shutdown,
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It said so, with this status.
    Exit(u8),
    /// It waits for ever.
    Halted,
    /// It crashed.
    Crashed,
}

/// Handles one exit after the other; returns what the guest printed, and how it ended.
pub fn run(exits: impl IntoIterator<Item = Exit>) -> (String, End) {
    let printed = String::new();
    for exit in exits {
        match exit {
            Exit::IoOut(0xf4, status) => return (printed, End::Exit(status)),
            Exit::IoOut(..) | Exit::Hlt | Exit::Shutdown => {}
        }
    }
    (printed, End::Halted)
}
// ANCHOR_END: stub
