//! The phases of a layer: each is the order of a call from top to bottom, for a plan and arguments
//! that have been checked.

pub(crate) mod alpha;
pub(crate) mod backward;
pub(crate) mod eval;
pub(crate) mod masked;
pub(crate) mod moments;
pub(crate) mod prepare;
pub(crate) mod train;
