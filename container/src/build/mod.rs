//! `container image build`: from a Dockerfile and a directory to an image.

pub mod arguments;
pub mod builder;
pub mod cache;
pub mod config;
pub mod copy;
pub mod dockerfile;
pub mod error;
pub mod expand;
pub mod glob;
pub mod heredoc;
pub mod ignore;
pub mod instruction;
pub mod layer;
pub mod logical;
pub(crate) mod making;
pub mod owner;
pub mod plan;
pub mod progress;
pub mod reason;
pub mod run;
pub mod source;
pub mod sources;
pub mod state;
pub mod tree;
pub mod view;
