//! What is run: shapes and operations.

use serde::{Deserialize, Serialize};

/// A tensor to run the layer on: the workloads of the bench `throughput`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) layout: Layout,
    /// In the order N, C and the rest, whatever the layout.
    pub(crate) dims: &'static [usize],
}

impl Workload {
    pub(crate) const ALL: [Self; 8] = [
        Self::new("A", Layout::Planar, &[256, 1024]),
        Self::new("B", Layout::Planar, &[4096, 4096]),
        Self::new("C", Layout::Planar, &[32, 64, 56, 56]),
        Self::new("D", Layout::Planar, &[32, 256, 14, 14]),
        Self::new("E", Layout::Last, &[32, 64, 56, 56]),
        Self::new("F", Layout::Planar, &[8, 512, 7, 7]),
        Self::new("G", Layout::Planar, &[32, 64]),
        Self::new("H", Layout::Planar, &[16, 32, 4096]),
    ];

    const fn new(name: &'static str, layout: Layout, dims: &'static [usize]) -> Self {
        Self { name, layout, dims }
    }

    pub(crate) fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    pub(crate) const fn channels(&self) -> usize {
        self.dims[1]
    }

    /// The tensor as `[outer, channels, inner]`, row-major.
    pub(crate) fn outer_and_inner(&self) -> (usize, usize) {
        let rest = self.dims[2..].iter().product();
        match self.layout {
            Layout::Planar => (self.dims[0], rest),
            Layout::Last => (self.dims[0] * rest, 1),
        }
    }

    /// Layout and shape as people write them, such as `NHWC 32x56x56x64`.
    pub(crate) fn label(&self) -> String {
        let mut dims = self.dims.to_vec();
        if self.layout == Layout::Last {
            dims[1..].rotate_left(1);
        }
        let letters = match (self.layout, dims.len()) {
            (_, 2) => "NC",
            (_, 3) => "NCL",
            (Layout::Planar, _) => "NCHW",
            (Layout::Last, _) => "NHWC",
        };
        let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
        format!("{letters} {}", dims.join("x"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Channels before the dimensions of space.
    Planar,
    /// Channels last.
    Last,
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Op {
    /// Training forward of batch norm and dropout, with all that backward will need.
    Forward,
    /// Its backward: the gradients of input, weight and bias.
    Backward,
    /// The sum of the two.
    Step,
    /// Training forward of batch norm, ReLU and dropout.
    ReluForward,
    /// Its backward.
    ReluBackward,
    /// The sum of the two.
    ReluStep,
    /// Training forward of batch norm alone.
    NormForward,
    /// Its backward.
    NormBackward,
    /// The sum of the two.
    NormStep,
}

impl Op {
    /// Those that are run; the others are sums.
    pub(crate) const RUN: [Self; 6] =
        [Self::Forward, Self::Backward, Self::ReluForward, Self::ReluBackward, Self::NormForward, Self::NormBackward];
    pub(crate) const SUMS: [(Self, Self, Self); 3] = [
        (Self::Step, Self::Forward, Self::Backward),
        (Self::ReluStep, Self::ReluForward, Self::ReluBackward),
        (Self::NormStep, Self::NormForward, Self::NormBackward),
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Step => "step",
            Self::ReluForward => "relu-forward",
            Self::ReluBackward => "relu-backward",
            Self::ReluStep => "relu-step",
            Self::NormForward => "norm-forward",
            Self::NormBackward => "norm-backward",
            Self::NormStep => "norm-step",
        }
    }

    pub(crate) const fn has_dropout(self) -> bool {
        !matches!(self, Self::NormForward | Self::NormBackward | Self::NormStep)
    }

    pub(crate) const fn has_relu(self) -> bool {
        matches!(self, Self::ReluForward | Self::ReluBackward | Self::ReluStep)
    }

    pub(crate) const fn is_forward(self) -> bool {
        matches!(self, Self::Forward | Self::ReluForward | Self::NormForward)
    }
}

/// The probability to drop, in all of the peers.
pub(crate) const P: f32 = 0.1;
/// What is added to the variance.
pub(crate) const EPS: f32 = 1e-5;
/// The weight of new statistics in running ones.
pub(crate) const MOMENTUM: f32 = 0.1;
