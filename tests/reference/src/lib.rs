#![doc = include_str!("../README.md")]

pub mod activation;
pub mod case;
pub mod classes;
pub mod double;
pub mod errors;
pub mod fold;
pub mod layer;
pub mod mask;
pub mod noise;
pub mod padding;
pub mod prelu;
pub mod random;
pub mod units;
