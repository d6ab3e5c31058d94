//! The operator `NormDrop` of ONNX Runtime: `y = dropout(act(batchnorm(x) + residual))` with fixed
//! statistics, computed by the crate normdrop on the threads of ONNX Runtime.
//!
//! The library exports one function, `RegisterCustomOps`, which ONNX Runtime calls when a program
//! registers the library with the options of a session. The README has the operator's inputs and
//! attributes.
//!
//! `layer` computes, and knows nothing of ONNX Runtime. `api` has the calls of its C interface,
//! `operator` what it calls back.

mod api;
mod layer;
mod operator;

use std::panic::catch_unwind;
use std::ptr;
use std::sync::Mutex;

use ort_sys::{ORT_API_VERSION, OrtApiBase, OrtCustomOpDomain, OrtErrorCode, OrtSessionOptions, OrtStatusPtr};

use crate::api::{Api, Failure};

/// What ONNX Runtime calls when a program registers this library.
///
/// # Safety
/// `options` and `base` are those that ONNX Runtime gives to such a function.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn RegisterCustomOps(
    options: *mut OrtSessionOptions,
    base: *const OrtApiBase,
) -> OrtStatusPtr {
    // SAFETY: the caller's promise.
    let get_api = unsafe { (*base).GetApi };
    // SAFETY: a function of ONNX Runtime. It returns null if it is too old for this version.
    let Some(api) = (unsafe { Api::new(get_api(ORT_API_VERSION)) }) else {
        // SAFETY: as above. Version 1 is in every ONNX Runtime, and it begins with the functions of a status.
        let status = unsafe { ((*get_api(1)).CreateStatus)(OrtErrorCode::ORT_NOT_IMPLEMENTED, TOO_OLD.as_ptr()) };
        return status;
    };
    // SAFETY: the caller's promise about `options`.
    api.status(catch_unwind(|| unsafe { register(api, options) }))
}

const TOO_OLD: &std::ffi::CStr = c"normdrop: the operator NormDrop needs ONNX Runtime 1.18 or later";

/// Adds the domain to the options.
///
/// # Safety
/// `options` are those of a session.
unsafe fn register(api: Api, options: *mut OrtSessionOptions) -> Result<(), Failure> {
    /// The domain of each ONNX Runtime in this process, which lives as long as the process.
    static DOMAINS: Mutex<Vec<(Api, Domain)>> = Mutex::new(Vec::new());
    let mut domains = DOMAINS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let domain = match domains.iter().find(|(of, _)| *of == api) {
        Some((_, domain)) => domain.0,
        None => {
            let mut domain = ptr::null_mut();
            // SAFETY: `domain` is written by the first call, and the operator lives as long as the process.
            unsafe {
                api.check((api.functions().CreateCustomOpDomain)(c"normdrop".as_ptr(), &raw mut domain))?;
                api.check((api.functions().CustomOpDomain_Add)(domain, operator::operator(api)))?;
            }
            domains.push((api, Domain(domain)));
            domain
        }
    };
    // SAFETY: the caller's promise; the domain is never released.
    unsafe { api.check((api.functions().AddCustomOpDomain)(options, domain)) }
}

struct Domain(*mut OrtCustomOpDomain);

// SAFETY: ONNX Runtime only reads a domain once the operator is in it.
unsafe impl Send for Domain {}
