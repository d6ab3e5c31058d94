//! The operation: what it does on `flex`, and one node of the graph of autodiff.

use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients as Graph;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, ExtensionType, Flex, TensorData, TensorMetadata, backend_extension,
};
use normdrop::{Error, Layer, Parameters, Relu};

use crate::pass::Pass;

/// How the values are normalised, and what is dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    /// With the statistics of the batch, updating the running ones, and dropout.
    Train { mask_seed: u64 },
    /// With the running statistics.
    Eval,
}

/// What comes of a forward call. On an error the tensors are the arguments.
#[derive(Debug, ExtensionType)]
pub(crate) struct Forward<B: Backend> {
    pub(crate) output: FloatTensor<B>,
    pub(crate) running_mean: FloatTensor<B>,
    pub(crate) running_var: FloatTensor<B>,
    /// What the backward call needs, beside the arguments.
    pub(crate) pass: Result<Arc<Pass<Relu>>, Error>,
}

/// The gradients of input, weight and bias; that of the input only if it was wanted.
pub(crate) struct Gradients<B: Backend> {
    x: Option<FloatTensor<B>>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
}

/// Backends that have the layer.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Fused: Backend {
    fn batch_norm_dropout(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        running_mean: FloatTensor<Self>,
        running_var: FloatTensor<Self>,
        layer: Layer<Relu>,
        mode: Mode,
    ) -> Forward<Self>;
}

/// Backends that have its gradients, which only autodiff calls.
pub(crate) trait FusedBackward: Backend {
    fn batch_norm_dropout_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        grad_output: FloatTensor<Self>,
        pass: &Pass<Relu>,
        input_wanted: bool,
    ) -> Result<Gradients<Self>, Error>;
}

/// A tensor whose numbers are in order; the same one, unless they are not.
fn in_order(tensor: FloatTensor<Flex>) -> FloatTensor<Flex> {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The numbers of a tensor that is in order, where they are. Not f32: none, and normdrop refuses that length.
fn values(tensor: &FloatTensor<Flex>) -> &[f32] {
    tensor.as_slice().unwrap_or_default()
}

fn tensor(values: Vec<f32>, like: &FloatTensor<Flex>) -> FloatTensor<Flex> {
    <FloatTensor<Flex>>::from_data(TensorData::new(values, like.shape()))
}

impl Fused for Flex {
    fn batch_norm_dropout(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        running_mean: FloatTensor<Self>,
        running_var: FloatTensor<Self>,
        layer: Layer<Relu>,
        mode: Mode,
    ) -> Forward<Self> {
        let [x, gamma, beta, running_mean, running_var] = [x, gamma, beta, running_mean, running_var].map(in_order);
        let parameters = Parameters { weight: Some(values(&gamma)), bias: Some(values(&beta)) };
        // Copies of one number per channel: the tensors may be shared.
        let (mut mean, mut var) = (values(&running_mean).to_vec(), values(&running_var).to_vec());
        let result = match mode {
            Mode::Train { mask_seed } => Pass::train(layer, mask_seed, parameters, [&mut mean, &mut var], values(&x))
                .map(|result| {
                    let running = (tensor(mean, &running_mean), tensor(var, &running_var));
                    (result, running)
                }),
            Mode::Eval => Pass::eval(layer, parameters, [mean, var], values(&x))
                .map(|result| (result, (running_mean.clone(), running_var.clone()))),
        };
        match result {
            Ok(((pass, output), (running_mean, running_var))) => {
                Forward { output: tensor(output, &x), running_mean, running_var, pass: Ok(Arc::new(pass)) }
            }
            Err(error) => Forward { output: x, running_mean, running_var, pass: Err(error) },
        }
    }
}

impl FusedBackward for Flex {
    fn batch_norm_dropout_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        grad_output: FloatTensor<Self>,
        pass: &Pass<Relu>,
        input_wanted: bool,
    ) -> Result<Gradients<Self>, Error> {
        // The gradient of a sum is one number, expanded: then there is a copy.
        let [x, gamma, beta, grad_output] = [x, gamma, beta, grad_output].map(in_order);
        let parameters = Parameters { weight: Some(values(&gamma)), bias: Some(values(&beta)) };
        let gradients = pass.backward(parameters, values(&x), values(&grad_output), input_wanted)?;
        Ok(Gradients {
            x: gradients.input.map(|values| tensor(values, &x)),
            gamma: tensor(gradients.weight, &gamma),
            beta: tensor(gradients.bias, &beta),
        })
    }
}

/// The node of the graph. Its state: input, weight and bias, which burn keeps or computes again, and what the forward call left.
#[derive(Debug)]
struct FusedOp;

impl<B: FusedBackward> Backward<B, 3> for FusedOp {
    type State = ([NodeId; 3], Arc<Pass<Relu>>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Graph, checkpointer: &mut Checkpointer) {
        let [x_node, gamma_node, beta_node] = ops.parents;
        let grad_output = grads.consume::<B>(&ops.node);
        let (arguments, pass) = ops.state;
        let [x, gamma, beta] = arguments.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
        let gradients = B::batch_norm_dropout_backward(x, gamma, beta, grad_output, &pass, x_node.is_some())
            // burn has no errors here; and these are the arguments that the forward call has checked.
            .unwrap_or_else(|error| panic!("batch-norm-dropout: {error}"));
        if let (Some(node), Some(gradient)) = (x_node, gradients.x) {
            grads.register::<B>(node.id, gradient);
        }
        if let Some(node) = gamma_node {
            grads.register::<B>(node.id, gradients.gamma);
        }
        if let Some(node) = beta_node {
            grads.register::<B>(node.id, gradients.beta);
        }
    }
}

impl<B: Fused + FusedBackward, C: CheckpointStrategy> Fused for Autodiff<B, C> {
    fn batch_norm_dropout(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        running_mean: FloatTensor<Self>,
        running_var: FloatTensor<Self>,
        layer: Layer<Relu>,
        mode: Mode,
    ) -> Forward<Self> {
        let forward = |x, gamma, beta| {
            B::batch_norm_dropout(
                x,
                gamma,
                beta,
                running_mean.into_primitive(),
                running_var.into_primitive(),
                layer,
                mode,
            )
        };
        let nodes = [x.node(), gamma.node(), beta.node()];
        let (output, result) = match FusedOp.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let arguments = [&x, &gamma, &beta].map(|tensor| prep.checkpoint(tensor));
                let result = forward(x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
                let output = result.output.clone();
                match &result.pass {
                    Ok(pass) => (prep.finish((arguments, Arc::clone(pass)), output), result),
                    Err(_) => (Self::from_inner(output), result),
                }
            }
            OpsKind::UnTracked(prep) => {
                let result = forward(x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
                (prep.finish(result.output.clone()), result)
            }
        };
        Forward {
            output,
            running_mean: Self::from_inner(result.running_mean),
            running_var: Self::from_inner(result.running_var),
            pass: result.pass,
        }
    }
}
