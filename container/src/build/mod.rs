//! `container image build`: from a Dockerfile and a directory to an image.

pub mod dockerfile;
pub mod expand;
pub mod glob;
pub mod heredoc;
pub mod instruction;
pub mod logical;
pub mod source;
