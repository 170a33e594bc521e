/// How far a container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being made.
    Creating,
    /// Everything is there but the program.
    Created,
    /// The program runs.
    Running,
    /// It has ended.
    Stopped,
}

/// What an engine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Have the first process become the program.
    Start,
    /// Send a signal.
    Kill,
    /// Remove what is left, without force.
    Delete,
}

// ANCHOR: stub
/// Whether the runtime specification allows an operation in a state.
///
/// `start` wants a container that is created, `kill` one that has a process to signal (created or running), `delete` one that
/// has stopped.
pub fn allowed(operation: Operation, status: Status) -> bool {
    match operation {
        Operation::Start => status != Status::Creating,
        Operation::Kill => status == Status::Running,
        Operation::Delete => status == Status::Stopped,
    }
}
// ANCHOR_END: stub
