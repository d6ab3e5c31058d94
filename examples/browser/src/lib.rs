//! normdrop for JavaScript: the layer on `Float32Array`s, and the network of the example `digits`, which learns in the
//! tab of a browser with the bits of the desktop.

#[path = "../../digits/data.rs"]
mod data;
#[path = "../../digits/linear.rs"]
mod linear;
#[path = "../../digits/network.rs"]
#[expect(dead_code, reason = "Monte-Carlo dropout is for another example")]
mod network;
#[path = "../../digits/report.rs"]
#[expect(dead_code, reason = "the table of many runs is for the example `digits`")]
mod report;
#[path = "../../digits/stage.rs"]
mod stage;
#[path = "../../digits/training.rs"]
#[expect(dead_code, reason = "many runs side by side are for the example `digits`")]
mod training;

mod digits;
mod layer;

pub use digits::DigitsTraining;
pub use layer::BatchNormDropout;
