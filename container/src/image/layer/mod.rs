//! Layers: what an image is made of. A layer is a tar archive of what changed.
//!
//! | Step | Module |
//! |---|---|
//! | read the bytes, decompress, check the digests | [`stream`], [`zstd`] |
//! | read the archive | [`archive`] |
//! | make files of it, whiteouts included | [`unpack`], [`tree`], [`xattrs`] |
//! | make an archive of a container's changes | [`pack`], [`write`](mod@write) |

pub mod archive;
mod fault;
pub mod pack;
pub mod stream;
pub mod tree;
pub mod unpack;
pub mod write;
pub mod xattrs;
pub mod zstd;
