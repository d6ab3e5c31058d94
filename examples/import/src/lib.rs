//! Batch norms of model files: read, reported, folded into the weights beside them, and written for a program without a
//! framework. `README.md` has the formats; `main.rs` is the program.

pub mod formats;
pub mod graph;
pub mod model;
pub mod write;
