use std::collections::HashMap;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// A machine's memory, started from a snapshot that others use too.
pub struct Clone<'snapshot> {
    snapshot: &'snapshot [[u8; PAGE]],
    own: HashMap<usize, [u8; PAGE]>,
}

impl<'snapshot> Clone<'snapshot> {
    /// A clone that has written nothing.
    pub fn new(snapshot: &'snapshot [[u8; PAGE]]) -> Clone<'snapshot> {
        Clone {
            snapshot,
            own: HashMap::new(),
        }
    }

    /// The byte at `address`.
    pub fn read(&self, address: usize) -> u8 {
        let number = address / PAGE;
        self.own.get(&number).unwrap_or(&self.snapshot[number])[address % PAGE]
    }

    /// Changes the byte at `address`, for this clone alone.
    pub fn write(&mut self, address: usize, byte: u8) {
        let number = address / PAGE;
        let page = self.own.entry(number).or_insert(self.snapshot[number]);
        page[address % PAGE] = byte;
    }

    /// Pages that this clone has to itself.
    pub fn own_pages(&self) -> usize {
        self.own.len()
    }
}
