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
use burn::tensor::{DType, bf16, f16};
use normdrop::{Error, Layer, Parameters, Relu};

use crate::pass::{Order, Pass, eval_prepared, shape_of};

/// How the values are normalised, and what is dropped.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    /// With the statistics of the batch, updating the running ones, and dropout.
    Train { mask_seed: u64 },
    /// With the running statistics.
    Eval,
    /// With running statistics and parameters that were prepared. The tensors of them are not read, and there is no backward
    /// call.
    Prepared(Arc<[f64]>),
}

/// What a forward call leaves for its backward call, and the order of its tensors in memory.
type Passed = Arc<(Pass<Relu>, Order)>;

/// What comes of a forward call. On an error the tensors are the arguments.
#[derive(Debug, ExtensionType)]
pub(crate) struct Forward<B: Backend> {
    pub(crate) output: FloatTensor<B>,
    pub(crate) running_mean: FloatTensor<B>,
    pub(crate) running_var: FloatTensor<B>,
    /// What the backward call needs, beside the arguments, if there can be one.
    pub(crate) pass: Result<Option<Passed>, Error>,
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
        pass: &(Pass<Relu>, Order),
        input_wanted: bool,
    ) -> Result<Gradients<Self>, Error>;
}

/// The types of elements that tensors may have, as burn names them.
trait Number: normdrop::Element + burn::tensor::Element + bytemuck::Pod {}

impl Number for f32 {}
impl Number for bf16 {}
impl Number for f16 {}

/// A tensor whose numbers are in memory as its dimensions are; the same one, unless they are not.
fn contiguous(tensor: FloatTensor<Flex>) -> FloatTensor<Flex> {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The order in which a tensor `[N, C, ...]` is in memory, or will be after a copy.
fn order_of(tensor: &FloatTensor<Flex>) -> Order {
    let (layout, rank) = (tensor.layout(), tensor.layout().num_dims());
    let is_last = rank > 2 && !layout.is_contiguous() && layout.permute(&Order::Last.of_memory(rank)).is_contiguous();
    if is_last { Order::Last } else { Order::First }
}

/// A tensor `[N, C, ...]` in this order in memory, its dimensions in the order of memory.
fn in_order(tensor: &FloatTensor<Flex>, order: Order) -> FloatTensor<Flex> {
    contiguous(tensor.permute(&order.of_memory(tensor.layout().num_dims())))
}

/// The numbers of a contiguous tensor, where they are. Of another type: none, and normdrop refuses that length.
fn values<E: Number>(tensor: &FloatTensor<Flex>) -> &[E] {
    tensor.as_slice().unwrap_or_default()
}

/// A tensor of the shape of another one.
fn tensor<E: Number>(values: Vec<E>, like: &FloatTensor<Flex>) -> FloatTensor<Flex> {
    <FloatTensor<Flex>>::from_data(TensorData::new(values, like.shape()))
}

/// The same from one in the order of memory: a view, `[N, C, ...]`.
fn of_order<E: Number>(values: Vec<E>, like: &FloatTensor<Flex>, order: Order) -> FloatTensor<Flex> {
    tensor(values, like).permute(&order.of_tensor(like.layout().num_dims()))
}

/// The layer for a tensor in this order in memory. Its shape is known to be right in the other order.
fn layer_in(layer: Layer<Relu>, x: &FloatTensor<Flex>, order: Order) -> Layer<Relu> {
    match shape_of(&x.shape(), order) {
        Some(Ok(shape)) => layer.with_shape(shape),
        _ => layer,
    }
}

/// The forward call on tensors of one type.
fn forward<E: Number>(tensors: [FloatTensor<Flex>; 5], layer: Layer<Relu>, mode: Mode) -> Forward<Flex> {
    let [x, gamma, beta, running_mean, running_var] = tensors;
    let order = order_of(&x);
    let layer = layer_in(layer, &x, order);
    let input = in_order(&x, order);
    let [gamma, beta, running_mean, running_var] = [gamma, beta, running_mean, running_var].map(contiguous);
    let parameters = Parameters { weight: Some(values(&gamma)), bias: Some(values(&beta)) };
    // Copies of one number per channel: the tensors may be shared.
    let (mut mean, mut var) = (values::<f32>(&running_mean).to_vec(), values::<f32>(&running_var).to_vec());
    let result = match &mode {
        Mode::Train { mask_seed } => {
            Pass::train(layer, *mask_seed, parameters, [&mut mean, &mut var], values::<E>(&input))
        }
        Mode::Eval => Pass::eval(layer, parameters, [mean.clone(), var.clone()], values::<E>(&input)),
        Mode::Prepared(prepared) => {
            return match eval_prepared(&layer, prepared, values::<E>(&input)) {
                Ok(output) => {
                    Forward { output: of_order(output, &input, order), running_mean, running_var, pass: Ok(None) }
                }
                Err(error) => Forward { output: x, running_mean, running_var, pass: Err(error) },
            };
        }
    };
    match result {
        Ok((pass, output)) => {
            let (running_mean, running_var) = match mode {
                Mode::Train { .. } => (tensor(mean, &running_mean), tensor(var, &running_var)),
                _ => (running_mean, running_var),
            };
            let output = of_order(output, &input, order);
            Forward { output, running_mean, running_var, pass: Ok(Some(Arc::new((pass, order)))) }
        }
        Err(error) => Forward { output: x, running_mean, running_var, pass: Err(error) },
    }
}

/// The backward call on tensors of one type.
fn backward<E: Number>(
    [x, gamma, beta, grad_output]: [FloatTensor<Flex>; 4],
    (pass, order): &(Pass<Relu>, Order),
    input_wanted: bool,
) -> Result<Gradients<Flex>, Error> {
    // The gradient of a sum is one number, expanded: then there is a copy.
    let [x, grad_output] = [x, grad_output].map(|tensor| in_order(&tensor, *order));
    let [gamma, beta] = [gamma, beta].map(contiguous);
    let parameters = Parameters { weight: Some(values(&gamma)), bias: Some(values(&beta)) };
    let gradients = pass.backward(parameters, values::<E>(&x), values(&grad_output), input_wanted)?;
    Ok(Gradients {
        x: gradients.input.map(|values| of_order(values, &x, *order)),
        gamma: tensor(gradients.weight, &gamma),
        beta: tensor(gradients.bias, &beta),
    })
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
        let dtype = x.dtype();
        let tensors = [x, gamma, beta, running_mean, running_var];
        match dtype {
            DType::BF16 => forward::<bf16>(tensors, layer, mode),
            DType::F16 => forward::<f16>(tensors, layer, mode),
            _ => forward::<f32>(tensors, layer, mode),
        }
    }
}

impl FusedBackward for Flex {
    fn batch_norm_dropout_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        grad_output: FloatTensor<Self>,
        pass: &(Pass<Relu>, Order),
        input_wanted: bool,
    ) -> Result<Gradients<Self>, Error> {
        let dtype = x.dtype();
        let tensors = [x, gamma, beta, grad_output];
        match dtype {
            DType::BF16 => backward::<bf16>(tensors, pass, input_wanted),
            DType::F16 => backward::<f16>(tensors, pass, input_wanted),
            _ => backward::<f32>(tensors, pass, input_wanted),
        }
    }
}

/// The node of the graph. Its state: input, weight and bias, which burn keeps or computes again, and what the forward call left.
#[derive(Debug)]
struct FusedOp;

impl<B: FusedBackward> Backward<B, 3> for FusedOp {
    type State = ([NodeId; 3], Passed);

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
                    Ok(Some(pass)) => (prep.finish((arguments, Arc::clone(pass)), output), result),
                    Ok(None) | Err(_) => (Self::from_inner(output), result),
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
