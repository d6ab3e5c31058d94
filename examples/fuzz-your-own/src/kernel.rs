//! The kernel under test: its declarations, and memory around them.

use normdrop_reference::case::Case;

/// `layer` of the kernel.
#[repr(C)]
struct Layer {
    outer: usize,
    channels: usize,
    inner: usize,
    eps: f32,
}

type Forward = unsafe extern "C" fn(*const Layer, *const f32, *const f32, *const f32, *mut f32, *mut f32, *mut f32);

unsafe extern "C" {
    fn one_pass_forward(
        layer: *const Layer,
        weight: *const f32,
        bias: *const f32,
        x: *const f32,
        mean: *mut f32,
        var: *mut f32,
        y: *mut f32,
    );
    fn two_pass_forward(
        layer: *const Layer,
        weight: *const f32,
        bias: *const f32,
        x: *const f32,
        mean: *mut f32,
        var: *mut f32,
        y: *mut f32,
    );
    fn backward(
        layer: *const Layer,
        weight: *const f32,
        x: *const f32,
        dy: *const f32,
        dx: *mut f32,
        d_weight: *mut f32,
        d_bias: *mut f32,
    );
}

/// The kernels.
#[derive(Debug, Clone, Copy)]
pub enum Kernel {
    /// With the variance in one pass.
    OnePass,
    /// Without that mistake.
    TwoPass,
}

/// What a kernel has written.
pub(crate) struct Made {
    pub(crate) mean: Vec<f32>,
    pub(crate) var: Vec<f32>,
    pub(crate) y: Vec<f32>,
    pub(crate) dx: Vec<f32>,
    pub(crate) d_weight: Vec<f32>,
    pub(crate) d_bias: Vec<f32>,
}

impl Kernel {
    /// Forward and backward.
    pub(crate) fn run(self, case: &Case) -> Made {
        let Case { weight, bias, x, dy, .. } = case;
        let shape = case.layer.shape;
        let layer = Layer { outer: shape.outer, channels: shape.channels, inner: shape.inner, eps: case.layer.eps };
        assert_eq!((weight.len(), bias.len()), (shape.channels, shape.channels));
        assert_eq!((x.len(), dy.len()), (shape.len(), shape.len()));
        // NaN shows what was left unwritten.
        let (channels, elements) = (vec![f32::NAN; shape.channels], vec![f32::NAN; shape.len()]);
        let mut made = Made {
            mean: channels.clone(),
            var: channels.clone(),
            y: elements.clone(),
            dx: elements,
            d_weight: channels.clone(),
            d_bias: channels,
        };
        let forward: Forward = match self {
            Self::OnePass => one_pass_forward,
            Self::TwoPass => two_pass_forward,
        };
        let (mean, var, y) = (made.mean.as_mut_ptr(), made.var.as_mut_ptr(), made.y.as_mut_ptr());
        let (dx, d_weight, d_bias) = (made.dx.as_mut_ptr(), made.d_weight.as_mut_ptr(), made.d_bias.as_mut_ptr());
        // SAFETY: every pointer is to as many values as the shape says, which was checked for those of the case, and those
        // that are written belong to nobody else.
        unsafe {
            forward(&raw const layer, weight.as_ptr(), bias.as_ptr(), x.as_ptr(), mean, var, y);
            backward(&raw const layer, weight.as_ptr(), x.as_ptr(), dy.as_ptr(), dx, d_weight, d_bias);
        }
        made
    }
}
