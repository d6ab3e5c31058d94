//! A graph of layers, in which the weight layer beside each batch norm is found.

use crate::model::{Fault, Model, Side};

/// What a layer is to a batch norm beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A batch norm of the model.
    BatchNorm,
    /// A factor and a summand for each channel: a batch norm of the model with mean 0, variance 1 and an `eps` of 0.
    Scale,
    /// A weight layer of the model.
    Weights {
        /// Whether it pads its input with zeros.
        pads: bool,
        /// Whether an activation is a part of it.
        activated: bool,
    },
    /// A transposed convolution of the model.
    Transposed {
        /// Whether an activation is a part of it.
        activated: bool,
    },
    /// Takes a constant per channel through unchanged: dropout, flattening, average pooling without padding.
    Passes,
    /// Takes the largest value.
    MaxPools,
    /// Puts zeros beside values or between them.
    Pads,
    /// Anything else.
    Other,
}

/// A layer.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name in the model.
    pub name: String,
    /// Its kind in the words of the file.
    pub kind: String,
    /// What it is to a batch norm.
    pub role: Role,
    /// The values that it reads, the data first.
    pub inputs: Vec<String>,
    /// The values that it makes.
    pub outputs: Vec<String>,
}

/// The layers of a file, and the values that are outputs of the network.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// The layers.
    pub nodes: Vec<Node>,
    /// The outputs of the network.
    pub outputs: Vec<String>,
}

impl Graph {
    /// The nodes that read a value. An output of the network counts as one that nothing is known of.
    fn consumers(&self, value: &str) -> Vec<Option<&Node>> {
        let nodes = self.nodes.iter().filter(|node| node.inputs.iter().any(|input| input == value)).map(Some);
        let outputs = self.outputs.iter().filter(|output| *output == value).map(|_| None);
        nodes.chain(outputs).collect()
    }

    fn producer(&self, value: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.outputs.iter().any(|output| output == value))
    }

    /// Makes weight and bias of each batch norm what a `Scale` directly after it says, and takes the `Scale` out.
    ///
    /// # Errors
    /// If a node has no layer in the model, or if the channels of the two differ.
    pub fn merge_scales(&mut self, model: &mut Model) -> Result<(), Fault> {
        let scales: Vec<String> =
            self.nodes.iter().filter(|node| node.role == Role::Scale).map(|node| node.name.clone()).collect();
        for scale in scales {
            let Some(at) = self.nodes.iter().position(|node| node.name == scale && node.role == Role::Scale) else {
                continue;
            };
            let value = self.nodes[at].inputs.first().cloned().unwrap_or_default();
            let before = self.nodes.iter().position(|node| node.role == Role::BatchNorm && node.outputs == [&*value]);
            let Some(before) = before.filter(|_| self.consumers(&value).len() == 1) else { continue };
            let scaled = model.batch_norm(&scale)?;
            let scaled = model.batch_norms.remove(scaled);
            let bn = model.batch_norm(&self.nodes[before].name)?;
            let bn = &mut model.batch_norms[bn];
            scaled.check()?;
            bn.check()?;
            let channels = bn.mean.len();
            if scaled.mean.len() != channels {
                return Err(format!("{scale} has {} channels, and {} has {channels}", scaled.mean.len(), bn.name));
            }
            let of = |values: &Option<Vec<f32>>, channel: usize, missing: f64| {
                values.as_ref().map_or(missing, |values| f64::from(values[channel]))
            };
            let (mut weight, mut bias) = (Vec::new(), Vec::new());
            for channel in 0..channels {
                let factor = of(&scaled.weight, channel, 1.0);
                weight.push(rounded(of(&bn.weight, channel, 1.0) * factor));
                bias.push(rounded(of(&bn.bias, channel, 0.0) * factor + of(&scaled.bias, channel, 0.0)));
            }
            (bn.weight, bn.bias) = (Some(weight), Some(bias));
            let taken = self.nodes[at].outputs.clone();
            self.nodes[before].outputs = taken;
            self.nodes.remove(at);
        }
        Ok(())
    }

    /// Pairs every batch norm of the model with the weight layer beside it, or remarks why it stays.
    pub fn pair(&self, model: &mut Model) {
        for node in self.nodes.iter().filter(|node| matches!(node.role, Role::BatchNorm | Role::Scale)) {
            if let Err(why) = self.pair_one(node, model) {
                model.remarks.push(format!("{} stays: {why}", node.name));
            }
        }
    }

    fn pair_one(&self, node: &Node, model: &mut Model) -> Result<(), Fault> {
        let first = |values: &[String]| values.first().cloned().unwrap_or_default();
        let x = first(&node.inputs);
        if let Some(previous) = self.producer(&x)
            && let Role::Weights { activated: false, .. } | Role::Transposed { activated: false } = previous.role
            && self.consumers(&x).len() == 1
        {
            return model.pair(&node.name, &previous.name, Side::Previous);
        }
        let (mut value, mut max_pooling, mut padding) = (first(&node.outputs), false, false);
        // A graph that goes in a circle ends here, too.
        for _ in 0..self.nodes.len() {
            let consumers = self.consumers(&value);
            let [Some(next)] = consumers[..] else {
                return Err(format!("{} other nodes read its output", consumers.len()));
            };
            if next.inputs.first() != Some(&value) {
                return Err(format!("{} uses it as weights", next.name));
            }
            match next.role {
                Role::Weights { pads, .. } => {
                    let padding = padding || pads;
                    return model.pair(&node.name, &next.name, Side::Next { max_pooling, padding });
                }
                Role::Transposed { .. } => {
                    return Err("a transposed convolution after it needs a bias for each place".to_owned());
                }
                Role::Passes => {}
                Role::MaxPools => max_pooling = true,
                Role::Pads => padding = true,
                Role::BatchNorm | Role::Scale | Role::Other => {
                    return Err(format!("a {} stands between it and the weights", next.kind));
                }
            }
            value = first(&next.outputs);
        }
        Err("its output comes back to it".to_owned())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounded once, to nearest")]
fn rounded(value: f64) -> f32 {
    value as f32
}
