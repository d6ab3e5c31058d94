//! A network of two weight layers with batch norm, ReLU and dropout between them, on a microcontroller: it recognises
//! handwritten digits and learns to read them turned.
//!
//! All that computes is the same code on a device and on the desktop, and so are the bits that come out.
#![no_std]

pub mod classify;
pub mod digits;
pub mod learn;
pub mod linear;
pub mod network;
pub mod platform;
pub mod print;
