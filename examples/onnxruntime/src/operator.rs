//! The table of functions by which ONNX Runtime knows the operator.

use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use normdrop::{Config, Granularity, seed_for};
use ort_sys::{
    ONNXTensorElementDataType, ORT_API_VERSION, OrtApi, OrtCustomOp, OrtCustomOpInputOutputCharacteristic,
    OrtKernelContext, OrtKernelInfo, OrtMemType, OrtShapeInferContext, OrtStatusPtr,
};

use crate::api::{Api, Context, Element, Failure, Info};
use crate::layer::{Fixed, Settings, Tensors, activation};

/// The inputs, in their order.
const INPUTS: [&str; 7] = ["X", "scale", "B", "input_mean", "input_var", "residual", "seed"];
const REQUIRED: usize = 5;
const X: usize = 0;
const RESIDUAL: usize = 5;
const SEED: usize = 6;

/// The operator for one ONNX Runtime. The table is its first field, so that a pointer to the table is one to the operator.
#[repr(C)]
pub(crate) struct Operator {
    table: OrtCustomOp,
    api: Api,
}

/// The operator, which lives as long as the process.
pub(crate) fn operator(api: Api) -> *const OrtCustomOp {
    let table = OrtCustomOp {
        version: ORT_API_VERSION,
        CreateKernel: None,
        GetName: Some(name),
        GetExecutionProviderType: Some(execution_provider),
        GetInputType: Some(input_type),
        GetInputTypeCount: Some(input_count),
        GetOutputType: Some(output_type),
        GetOutputTypeCount: Some(output_count),
        KernelCompute: None,
        KernelDestroy: Some(destroy),
        GetInputCharacteristic: Some(input_characteristic),
        GetOutputCharacteristic: Some(output_characteristic),
        GetInputMemoryType: Some(input_memory),
        // No input and no output is variadic.
        GetVariadicInputMinArity: Some(zero),
        GetVariadicInputHomogeneity: Some(zero),
        GetVariadicOutputMinArity: Some(zero),
        GetVariadicOutputHomogeneity: Some(zero),
        CreateKernelV2: Some(create),
        KernelComputeV2: Some(compute),
        InferOutputShapeFn: Some(infer_shape),
        GetStartVersion: Some(one),
        GetEndVersion: Some(last_version),
        GetMayInplace: Some(in_place),
        ReleaseMayInplace: Some(release),
        GetAliasMap: Some(no_alias),
        ReleaseAliasMap: Some(release),
    };
    ptr::from_ref(Box::leak(Box::new(Operator { table, api }))).cast()
}

/// The functions that an operator was made with.
///
/// # Safety
/// `table` is what `operator` returned.
unsafe fn api_of(table: *const OrtCustomOp) -> Api {
    // SAFETY: the caller's promise.
    unsafe { (*table.cast::<Operator>()).api }
}

unsafe extern "system" fn name(_: *const OrtCustomOp) -> *const c_char {
    c"NormDrop".as_ptr()
}

/// The CPU.
unsafe extern "system" fn execution_provider(_: *const OrtCustomOp) -> *const c_char {
    ptr::null()
}

unsafe extern "system" fn input_type(_: *const OrtCustomOp, index: usize) -> ONNXTensorElementDataType {
    if index == SEED { i64::TYPE } else { f32::TYPE }
}

unsafe extern "system" fn input_count(_: *const OrtCustomOp) -> usize {
    INPUTS.len()
}

unsafe extern "system" fn output_type(_: *const OrtCustomOp, _: usize) -> ONNXTensorElementDataType {
    f32::TYPE
}

unsafe extern "system" fn output_count(_: *const OrtCustomOp) -> usize {
    1
}

unsafe extern "system" fn input_characteristic(
    _: *const OrtCustomOp,
    index: usize,
) -> OrtCustomOpInputOutputCharacteristic {
    if index < REQUIRED {
        OrtCustomOpInputOutputCharacteristic::INPUT_OUTPUT_REQUIRED
    } else {
        OrtCustomOpInputOutputCharacteristic::INPUT_OUTPUT_OPTIONAL
    }
}

unsafe extern "system" fn output_characteristic(
    _: *const OrtCustomOp,
    _: usize,
) -> OrtCustomOpInputOutputCharacteristic {
    OrtCustomOpInputOutputCharacteristic::INPUT_OUTPUT_REQUIRED
}

unsafe extern "system" fn input_memory(_: *const OrtCustomOp, _: usize) -> OrtMemType {
    OrtMemType::OrtMemTypeDefault
}

unsafe extern "system" fn zero(_: *const OrtCustomOp) -> c_int {
    0
}

unsafe extern "system" fn one(_: *const OrtCustomOp) -> c_int {
    1
}

unsafe extern "system" fn last_version(_: *const OrtCustomOp) -> c_int {
    c_int::MAX
}

/// The output may be written over `X` where nobody reads `X` afterwards.
unsafe extern "system" fn in_place(inputs: *mut *mut c_int, outputs: *mut *mut c_int) -> usize {
    static FIRST: c_int = 0;
    // SAFETY: ONNX Runtime gives two places, and only reads what they then point to.
    unsafe {
        *inputs = (&raw const FIRST).cast_mut();
        *outputs = (&raw const FIRST).cast_mut();
    }
    1
}

unsafe extern "system" fn no_alias(_: *mut *mut c_int, _: *mut *mut c_int) -> usize {
    0
}

/// The index is a static.
unsafe extern "system" fn release(_: *mut c_int, _: *mut c_int) {}

/// A node of a graph.
struct Node {
    api: Api,
    settings: Settings,
    /// The number of the dropout layer, which goes into its seeds.
    number: u64,
    /// The statistics, if all of them are constants of the graph.
    fixed: Option<Fixed>,
}

unsafe extern "system" fn create(
    table: *const OrtCustomOp,
    _: *const OrtApi,
    info: *const OrtKernelInfo,
    kernel: *mut *mut c_void,
) -> OrtStatusPtr {
    // SAFETY: the table of the operator.
    let api = unsafe { api_of(table) };
    api.status(catch_unwind(|| {
        // SAFETY: a kernel is being made.
        let info = unsafe { Info::new(api, info) };
        let node = Node::new(api, info).map_err(|failure| match failure {
            Failure::Invalid(message) => Failure::Invalid(format!("{message} (node {:?})", info.node())),
            status @ Failure::Status(_) => status,
        })?;
        // SAFETY: a place for the pointer. `destroy` takes the node back.
        unsafe { *kernel = Box::into_raw(Box::new(node)).cast() };
        Ok(())
    }))
}

unsafe extern "system" fn destroy(kernel: *mut c_void) {
    // SAFETY: `create` has made it, and ONNX Runtime gives it back once.
    drop(unsafe { Box::from_raw(kernel.cast::<Node>()) });
}

unsafe extern "system" fn compute(kernel: *mut c_void, context: *mut OrtKernelContext) -> OrtStatusPtr {
    // SAFETY: `create` has made it. Several runs may share it.
    let node = unsafe { &*kernel.cast_const().cast::<Node>() };
    // SAFETY: the run goes on.
    let context = unsafe { Context::new(node.api, context) };
    node.api.status(catch_unwind(AssertUnwindSafe(|| node.compute(context))))
}

impl Node {
    fn new(api: Api, info: Info) -> Result<Self, Failure> {
        let activation =
            activation(&info.attribute(c"activation", String::from("identity"))?, info.optional_attribute(c"alpha")?)
                .map_err(Failure::Invalid)?;
        let granularity = match info.attribute(c"granularity", String::from("element"))?.as_str() {
            "element" => Granularity::Element,
            "channel" => Granularity::Channel,
            "sample" => Granularity::Sample,
            other => {
                let names = "\"element\", \"channel\" or \"sample\"";
                return Err(Failure::Invalid(format!("the attribute granularity must be {names} but is {other:?}")));
            }
        };
        let eps = info.attribute(c"epsilon", Config::DEFAULT.eps)?;
        let p = f64::from(info.attribute(c"p", 0.0)?);
        let settings = Settings::new(activation, Config { eps, p, granularity, ..Config::DEFAULT })?;
        let mut statistics = [None; 4];
        for ((statistic, name), index) in statistics.iter_mut().zip(&INPUTS[1..]).zip(1..) {
            *statistic = info.constant(name, index)?;
        }
        let fixed = match statistics {
            [Some(weight), Some(bias), Some(mean), Some(var)] => Some(settings.prepare(weight, bias, mean, var)?),
            _ => None,
        };
        // The bits of a number: every int is a layer of its own.
        Ok(Self { api, settings, number: info.attribute(c"layer", 0_i64)?.cast_unsigned(), fixed })
    }

    fn compute(&self, context: Context) -> Result<(), Failure> {
        let missing = |index: usize| Failure::Invalid(format!("the input {} is missing", INPUTS[index]));
        let (x, dims) = context.api().parts::<f32>(INPUTS[X], context.input(X)?.ok_or_else(|| missing(X))?)?;
        let residual = context.tensor::<f32>(INPUTS[RESIDUAL], RESIDUAL)?;
        if let Some((_, other)) = &residual
            && *other != dims
        {
            let message = format!("residual must have the dimensions of X, {dims:?}, but has {other:?}");
            return Err(Failure::Invalid(message));
        }
        let seed = match context.tensor::<i64>(INPUTS[SEED], SEED)? {
            None => None,
            Some(([seed], _)) => Some(seed_for(seed.cast_unsigned(), self.number, 0, 0)),
            Some((_, dims)) => {
                return Err(Failure::Invalid(format!("seed must be one number but has the dimensions {dims:?}")));
            }
        };
        let computed;
        let fixed = match &self.fixed {
            Some(fixed) => fixed,
            None => {
                let mut statistics = [&[][..]; 4];
                for (statistic, index) in statistics.iter_mut().zip(1..) {
                    *statistic = context.tensor(INPUTS[index], index)?.ok_or_else(|| missing(index))?.0;
                }
                let [weight, bias, mean, var] = statistics;
                computed = self.settings.prepare(weight, bias, mean, var)?;
                &computed
            }
        };
        let parts = self.settings.parts(&dims, fixed)?;
        let y = context.output(&dims)?;
        if residual.as_ref().is_some_and(|(values, _)| values.as_ptr() == y && !values.is_empty()) {
            return Err(Failure::Invalid("Y must not be written over the residual".into()));
        }
        // SAFETY: `x`, `y` and the residual have the elements of `dims` and live as long as the run. `y` is `x` or apart from it.
        let tensors = unsafe { Tensors::new(x, y, residual.map(|(residual, _)| residual)) };
        parts.run(&tensors, seed, |count, work| context.for_each(count, &work))
    }
}

/// The output has the type and the dimensions of `X`, their names included.
unsafe extern "system" fn infer_shape(table: *const OrtCustomOp, context: *mut OrtShapeInferContext) -> OrtStatusPtr {
    // SAFETY: the table of the operator.
    let api = unsafe { api_of(table) };
    let functions = api.functions();
    let mut info = ptr::null_mut();
    // SAFETY: the context of a graph that is being checked, and of this node; `info` is the context's own.
    api.status(Ok(unsafe {
        api.check((functions.ShapeInferContext_GetInputTypeShape)(context, X, &raw mut info))
            .and_then(|()| api.check((functions.ShapeInferContext_SetOutputTypeShape)(context, 0, info)))
    }))
}
