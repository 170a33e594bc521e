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

/// Which of `layers`, topmost first, the file at `path` is taken from. None where there is no such file.
///
/// An entry of a layer is `Entry::File`, or `Entry::Whiteout` where a file of a layer below is gone.
pub fn look_up(layers: &[Layer], path: &str) -> Option<usize> {
    let says = |layer: &Layer| layer.iter().find(|(name, _)| *name == path).map(|(_, entry)| *entry);
    let (index, entry) = layers.iter().enumerate().find_map(|(index, layer)| Some((index, says(layer)?)))?;
    (entry == Entry::File).then_some(index)
}
