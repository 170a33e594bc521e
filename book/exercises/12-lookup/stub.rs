/// What a layer, or a container's upper directory, says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Here is a file.
    File,
    /// A file of a layer below is gone.
    Whiteout,
}

/// A layer: paths, and what it says about them.
pub type Layer = &'static [(&'static str, Entry)];

// ANCHOR: stub
/// Which of `layers`, topmost first, the file at `path` is taken from. None where there is no such file.
///
/// An entry of a layer is `Entry::File`, or `Entry::Whiteout` where a file of a layer below is gone.
pub fn look_up(layers: &[Layer], path: &str) -> Option<usize> {
    let has = |layer: &Layer| layer.iter().any(|(name, entry)| *name == path && *entry == Entry::File);
    layers.iter().rposition(has)
}
// ANCHOR_END: stub
