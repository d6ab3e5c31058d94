//! Paddle's `paddle.save` of a state dict, `.pdparams`: a pickle of arrays of numpy. Nothing of it is executed (`pickle`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::pickle::{Leaf, Pickle};
use super::state_dict::{self, Tensor};
use crate::model::{Fault, Model};

/// Reads the batch norms and weight layers of a `.pdparams` file.
///
/// # Errors
/// Names the tensor or what else the file holds.
pub fn read(bytes: &[u8], eps: Option<f32>) -> Result<Model, Fault> {
    let mut rest = bytes;
    let pickle = Pickle::take(&mut rest)?;
    if !rest.is_empty() {
        return Err(format!("{} bytes are left", rest.len()));
    }
    let mut tensors = BTreeMap::new();
    for (name, leaf) in pickle.leaves()? {
        // Arrays of more than 1 GiB in the protocols 2 and 3.
        if name.starts_with("UnpackBigParamInfor@@") {
            return Err("its large arrays are cut in pieces: save it with protocol=4".to_owned());
        }
        let Leaf::Array { dims, element, bytes } = leaf else { continue };
        let element = match element {
            "<f4" => "f32",
            "<f2" => "f16",
            // Halves of the other kind are stored as integers, and not read.
            other => other,
        };
        tensors.insert(name, Tensor { dims: dims.to_vec(), element: element.to_owned(), bytes: Cow::Borrowed(bytes) });
    }
    state_dict::check_shared(&tensors, bytes.len())?;
    state_dict::read_tensors(&tensors, eps)
}
