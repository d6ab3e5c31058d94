//! The calls of ONNX Runtime's C interface that the operator needs, with results instead of statuses.

use std::any::Any;
use std::ffi::{CStr, CString, c_int};
use std::ptr;

use ort_sys::{
    ONNXTensorElementDataType, OrtApi, OrtErrorCode, OrtKernelContext, OrtKernelInfo, OrtStatus, OrtStatusPtr,
    OrtTensorTypeAndShapeInfo, OrtValue,
};

/// What ONNX Runtime is told about a call that failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What it has said itself.
    Status(OrtStatusPtr),
    /// What this library says: a graph or an input that is wrong.
    Invalid(String),
}

impl From<normdrop::Error> for Failure {
    fn from(error: normdrop::Error) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// The functions of one ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Api(*const OrtApi);

// SAFETY: the functions may be called from every thread.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

impl Api {
    /// # Safety
    /// `functions` is null or what `OrtApiBase::GetApi` returned for the version of the bindings, which lives as long as the process.
    pub(crate) unsafe fn new(functions: *const OrtApi) -> Option<Self> {
        (!functions.is_null()).then_some(Self(functions))
    }

    pub(crate) fn functions(self) -> &'static OrtApi {
        // SAFETY: the promise to `new`.
        unsafe { &*self.0 }
    }

    /// A status as a result.
    pub(crate) fn check(self, status: OrtStatusPtr) -> Result<(), Failure> {
        if status.0.is_null() { Ok(()) } else { Err(Failure::Status(status)) }
    }

    /// A result, or a panic, as a status.
    pub(crate) fn status(self, result: Result<Result<(), Failure>, Box<dyn Any + Send>>) -> OrtStatusPtr {
        match result {
            Ok(Ok(())) => OrtStatusPtr(ptr::null_mut()),
            Ok(Err(Failure::Status(status))) => status,
            Ok(Err(Failure::Invalid(message))) => self.new_status(OrtErrorCode::ORT_INVALID_ARGUMENT, message),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
                self.new_status(OrtErrorCode::ORT_RUNTIME_EXCEPTION, format!("a mistake of the library: {text}"))
            }
        }
    }

    fn new_status(self, code: OrtErrorCode, message: String) -> OrtStatusPtr {
        let message = CString::new(format!("normdrop: {message}")).unwrap_or_else(|_| c"normdrop: an error".into());
        // SAFETY: ONNX Runtime copies the text.
        unsafe { (self.functions().CreateStatus)(code, message.as_ptr()) }
    }

    /// Releases a status that nobody needs.
    fn forget(self, failure: Failure) {
        if let Failure::Status(OrtStatusPtr(status)) = failure {
            // SAFETY: the status is owned, because ONNX Runtime has returned it.
            unsafe { (self.functions().ReleaseStatus)(status.cast::<OrtStatus>()) };
        }
    }

    /// The type and the shape of an object of ONNX Runtime that has one.
    fn described(self, info: *mut OrtTensorTypeAndShapeInfo) -> Result<(ONNXTensorElementDataType, Vec<i64>), Failure> {
        let mut element = ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let mut rank = 0;
        // SAFETY: `info` is owned and is released below, whatever the calls return; `dims` has `rank` places.
        unsafe {
            let mut result = self.check((self.functions().GetTensorElementType)(info, &raw mut element));
            result = result.and_then(|()| self.check((self.functions().GetDimensionsCount)(info, &raw mut rank)));
            let mut dims = vec![0; rank];
            result = result.and_then(|()| self.check((self.functions().GetDimensions)(info, dims.as_mut_ptr(), rank)));
            (self.functions().ReleaseTensorTypeAndShapeInfo)(info);
            result.map(|()| (element, dims))
        }
    }

    /// The elements of a tensor and its dimensions.
    ///
    /// # Safety
    /// `value` is a tensor in the memory of the CPU that lives as long as `'a`, and nobody writes into it.
    pub(crate) unsafe fn tensor<'a, T: Element>(
        self,
        name: &str,
        value: *const OrtValue,
    ) -> Result<Tensor<'a, T>, Failure> {
        let (data, dims) = self.parts::<T>(name, value)?;
        let elements = elements(&dims)?;
        // SAFETY: the caller's promise; the type was compared.
        Ok((if elements == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, elements) } }, dims))
    }

    /// The address of the elements of a tensor, and its dimensions.
    pub(crate) fn parts<T: Element>(self, name: &str, value: *const OrtValue) -> Result<(*mut T, Vec<i64>), Failure> {
        let mut info = ptr::null_mut();
        // SAFETY: `value` is a tensor of ONNX Runtime; the call writes `info`.
        self.check(unsafe { (self.functions().GetTensorTypeAndShape)(value, &raw mut info) })?;
        let (element, dims) = self.described(info)?;
        if element != T::TYPE {
            return Err(Failure::Invalid(format!("{name} must be a tensor of {}", T::NAME)));
        }
        let mut data = ptr::null_mut();
        // SAFETY: as above. The call writes nothing into the tensor.
        self.check(unsafe { (self.functions().GetTensorMutableData)(value.cast_mut(), &raw mut data) })?;
        Ok((data.cast::<T>(), dims))
    }
}

/// The elements of a tensor and its dimensions.
pub(crate) type Tensor<'a, T> = (&'a [T], Vec<i64>);

/// The number of elements of a tensor.
pub(crate) fn elements(dims: &[i64]) -> Result<usize, Failure> {
    let sizes = dims.iter().map(|&dim| usize::try_from(dim).ok());
    sizes
        .clone()
        .try_fold(1_usize, |product, size| product.checked_mul(size?))
        .or_else(|| sizes.into_iter().any(|size| size == Some(0)).then_some(0))
        .ok_or_else(|| Failure::Invalid(format!("the dimensions {dims:?} are too large")))
}

/// An element of a tensor.
pub(crate) trait Element: Copy {
    const TYPE: ONNXTensorElementDataType;
    const NAME: &'static str;
}

impl Element for f32 {
    const TYPE: ONNXTensorElementDataType = ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    const NAME: &'static str = "float";
}

impl Element for i64 {
    const TYPE: ONNXTensorElementDataType = ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    const NAME: &'static str = "int64";
}

/// What a kernel may ask while it is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Info {
    api: Api,
    info: *const OrtKernelInfo,
}

impl Info {
    /// # Safety
    /// `info` is that of a kernel that is being made.
    pub(crate) const unsafe fn new(api: Api, info: *const OrtKernelInfo) -> Self {
        Self { api, info }
    }

    fn number<T: Default>(
        self,
        name: &CStr,
        get: unsafe extern "system" fn(*const OrtKernelInfo, *const std::ffi::c_char, *mut T) -> OrtStatusPtr,
    ) -> Option<T> {
        let mut value = T::default();
        // SAFETY: the promise to `new`; the call writes `value`.
        match self.api.check(unsafe { get(self.info, name.as_ptr(), &raw mut value) }) {
            Ok(()) => Some(value),
            Err(failure) => {
                self.api.forget(failure);
                None
            }
        }
    }

    fn real(self, name: &CStr) -> Option<f32> {
        self.number(name, self.api.functions().KernelInfoGetAttribute_float)
    }

    fn integer(self, name: &CStr) -> Option<i64> {
        self.number(name, self.api.functions().KernelInfoGetAttribute_int64)
    }

    fn text(self, name: &CStr) -> Option<String> {
        self.string(|out, size| {
            // SAFETY: the promise to `new`; `out` is null or has `size` bytes.
            unsafe { (self.api.functions().KernelInfoGetAttribute_string)(self.info, name.as_ptr(), out, size) }
        })
    }

    /// The name of the node; empty if it has none.
    pub(crate) fn node(self) -> String {
        // SAFETY: as in `text`.
        self.string(|out, size| unsafe { (self.api.functions().KernelInfo_GetNodeName)(self.info, out, size) })
            .unwrap_or_default()
    }

    /// A string whose length is asked for first.
    fn string(self, get: impl Fn(*mut std::ffi::c_char, *mut usize) -> OrtStatusPtr) -> Option<String> {
        let mut size = 0;
        let mut bytes = Vec::new();
        let result = self.api.check(get(ptr::null_mut(), &raw mut size)).and_then(|()| {
            bytes.resize(size, 0_u8);
            self.api.check(get(bytes.as_mut_ptr().cast(), &raw mut size))
        });
        match result {
            // With a 0 at the end.
            Ok(()) => Some(String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(&bytes)).into_owned()),
            Err(failure) => {
                self.api.forget(failure);
                None
            }
        }
    }

    /// An attribute, or `default` if the node does not have it.
    pub(crate) fn attribute<T: Attribute>(self, name: &CStr, default: T) -> Result<T, Failure> {
        Ok(self.optional_attribute(name)?.unwrap_or(default))
    }

    /// An attribute, or `None` if the node does not have it. ONNX Runtime fails in the same way if an attribute is of another type.
    pub(crate) fn optional_attribute<T: Attribute>(self, name: &CStr) -> Result<Option<T>, Failure> {
        let value = T::of(self, name);
        if value.is_none() && (self.real(name).is_some() || self.integer(name).is_some() || self.text(name).is_some()) {
            return Err(Failure::Invalid(format!("the attribute {} must be {}", name.to_string_lossy(), T::NAME)));
        }
        Ok(value)
    }

    /// The elements of an input that is a constant of the graph.
    pub(crate) fn constant<T: Element>(self, name: &str, index: usize) -> Result<Option<&[T]>, Failure> {
        let (mut is_constant, mut value) = (0 as c_int, ptr::null());
        let get = self.api.functions().KernelInfoGetConstantInput_tensor;
        // SAFETY: the promise to `new`; the call writes both.
        self.api.check(unsafe { get(self.info, index, &raw mut is_constant, &raw mut value) })?;
        if is_constant == 0 || value.is_null() {
            return Ok(None);
        }
        // SAFETY: a constant lives longer than the making of a kernel, and nobody writes into it.
        Ok(Some(unsafe { self.api.tensor(name, value) }?.0))
    }
}

/// The type of an attribute.
pub(crate) trait Attribute: Sized {
    const NAME: &'static str;
    fn of(info: Info, name: &CStr) -> Option<Self>;
}

impl Attribute for f32 {
    const NAME: &'static str = "a float";
    fn of(info: Info, name: &CStr) -> Option<Self> {
        info.real(name)
    }
}

impl Attribute for i64 {
    const NAME: &'static str = "an int";
    fn of(info: Info, name: &CStr) -> Option<Self> {
        info.integer(name)
    }
}

impl Attribute for String {
    const NAME: &'static str = "a string";
    fn of(info: Info, name: &CStr) -> Option<Self> {
        info.text(name)
    }
}

/// One run of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    api: Api,
    context: *mut OrtKernelContext,
}

impl Context {
    /// # Safety
    /// `context` is that of a run that goes on.
    pub(crate) const unsafe fn new(api: Api, context: *mut OrtKernelContext) -> Self {
        Self { api, context }
    }

    /// An input, or `None` if the node does not have it.
    pub(crate) fn input(self, index: usize) -> Result<Option<*const OrtValue>, Failure> {
        let (mut count, mut value) = (0, ptr::null());
        // SAFETY: the promise to `new`; the calls write both.
        unsafe {
            self.api.check((self.api.functions().KernelContext_GetInputCount)(self.context, &raw mut count))?;
            if index < count {
                self.api.check((self.api.functions().KernelContext_GetInput)(self.context, index, &raw mut value))?;
            }
        }
        Ok((!value.is_null()).then_some(value))
    }

    /// The elements of an input and its dimensions.
    pub(crate) fn tensor<T: Element>(&self, name: &str, index: usize) -> Result<Option<Tensor<'_, T>>, Failure> {
        // SAFETY: inputs live as long as the run. The only one that is written is `X`, in place, and nobody asks for its elements here.
        self.input(index)?.map(|value| unsafe { self.api.tensor(name, value) }).transpose()
    }

    /// The address of the elements of an output of these dimensions.
    pub(crate) fn output(self, dims: &[i64]) -> Result<*mut f32, Failure> {
        let mut value = ptr::null_mut();
        let get = self.api.functions().KernelContext_GetOutput;
        // SAFETY: the promise to `new`; the call writes `value`.
        self.api.check(unsafe { get(self.context, 0, dims.as_ptr(), dims.len(), &raw mut value) })?;
        Ok(self.api.parts("Y", value)?.0)
    }

    /// Calls `work` with each number below `count`, on the threads of the session.
    pub(crate) fn for_each<W: Fn(usize) + Sync>(self, count: usize, work: &W) -> Result<(), Failure> {
        unsafe extern "C" fn one<W: Fn(usize) + Sync>(work: *mut std::ffi::c_void, index: usize) {
            // SAFETY: `work` is the one below, which outlives the call of `KernelContext_ParallelFor`.
            unsafe { (*work.cast::<W>().cast_const())(index) };
        }
        let for_each = self.api.functions().KernelContext_ParallelFor;
        let data = ptr::from_ref(work).cast_mut().cast();
        // SAFETY: the promise to `new`. With 0 batches, ONNX Runtime divides the work among its threads itself.
        self.api.check(unsafe { for_each(self.context, one::<W>, count, 0, data) })
    }

    pub(crate) const fn api(self) -> Api {
        self.api
    }
}
