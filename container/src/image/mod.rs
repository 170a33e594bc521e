//! Images: where a container's files come from.
//!
//! An image is a list of layers and a configuration, both named by their digests in a manifest, which has a name people
//! know. [`store`] keeps them; everything else comes in, goes out, or looks.
//!
//! | What | Module |
//! |---|---|
//! | names: by people, by content | [`reference`](mod@reference), [`digest`] |
//! | the directory on disk, blobs, locks | [`store`] |
//! | manifests, configurations, the index | [`images`] |
//! | layers as directories | [`layers`], [`layer`] |
//! | in and out as files | [`transfer`], [`layout`], [`docker_archive`] |
//! | look inside | [`inspect`] |
//! | what is in use, what can go | [`leases`], [`prune`] |

pub mod digest;
pub mod docker_archive;
pub mod images;
pub mod inspect;
pub mod layer;
pub mod layers;
pub mod layout;
pub mod leases;
pub mod prune;
pub mod reference;
pub mod store;
pub mod transfer;

pub use digest::Digest;
pub use images::Image;
pub use reference::Reference;
pub use store::{Access, Store};
