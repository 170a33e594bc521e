//! `container image build`: from a Dockerfile and a directory to an image.

pub mod arguments;
pub mod config;
pub mod copy;
pub mod dockerfile;
pub mod expand;
pub mod glob;
pub mod heredoc;
pub mod ignore;
pub mod instruction;
pub mod layer;
pub mod logical;
pub mod owner;
pub mod plan;
pub mod source;
pub mod sources;
pub mod tree;
