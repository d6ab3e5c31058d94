//! PyTorch's `torch.save` of a state dict, or of dictionaries that have one in them: an archive with a pickle of names and
//! shapes and a file for each storage, or, before PyTorch 1.6, one after the other. Nothing of it is executed (`pickle`).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;

use super::pickle::{Leaf, Pickle, Tensor as InPickle};
use super::state_dict::{self, Tensor};
use crate::model::{Fault, Model};

/// The first pickle of a file of before PyTorch 1.6: a number that stands for this format.
const OLD: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// Reads the batch norms and weight layers of a file of `torch.save`.
///
/// # Errors
/// Names the tensor or what else the file holds.
pub fn read(bytes: &[u8], eps: Option<f32>) -> Result<Model, Fault> {
    if let Some(rest) = bytes.strip_prefix(OLD) {
        return read_old(rest, eps);
    }
    if !bytes.starts_with(b"PK") {
        return Err("it is no file of torch.save".to_owned());
    }
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    // Its files are in a folder, which has the name of the file.
    let mut places = HashMap::new();
    for index in 0..archive.len() {
        let file = archive.by_index(index).map_err(|error| error.to_string())?;
        let name = file.name().map_err(|error| error.to_string())?.into_owned();
        let Some((_, name)) = name.split_once('/') else { continue };
        places.insert(name.to_owned(), index);
    }
    // Stored as it is: in the file itself.
    let mut stored = |name: &str| -> Result<Option<&[u8]>, Fault> {
        let Some(&index) = places.get(name) else { return Ok(None) };
        let fault = |what: &dyn std::fmt::Display| format!("{name} in the archive: {what}");
        let file = archive.by_index(index).map_err(|error| fault(&error))?;
        if file.compression() != zip::CompressionMethod::Stored {
            return Err(fault(&"it is compressed, which torch.save does not do"));
        }
        let (start, len) = (file.data_start().ok_or_else(|| fault(&"it has no place"))?, file.size());
        let range = usize::try_from(start).ok().zip(usize::try_from(len).ok());
        let data = range.and_then(|(start, len)| bytes.get(start..)?.get(..len));
        data.map(Some).ok_or_else(|| fault(&"it is cut off"))
    };
    if stored("byteorder")?.is_some_and(|order| order != b"little") {
        return Err("it was written on a machine of the other byte order".to_owned());
    }
    let mut pickle = stored("data.pkl")?.ok_or("there is no data.pkl in the archive")?;
    let pickle = Pickle::take(&mut pickle)?;
    let storage = |key: &str| stored(&format!("data/{key}"));
    let tensors = tensors(&pickle, bytes.len(), storage)?;
    state_dict::check_shared(&tensors, bytes.len())?;
    state_dict::read_tensors(&tensors, eps)
}

/// Four pickles (the protocol, the machine, the tensors and the names of storages), and the storages one after the other.
fn read_old(mut rest: &[u8], eps: Option<f32>) -> Result<Model, Fault> {
    let len = rest.len();
    Pickle::take(&mut rest)?;
    Pickle::take(&mut rest)?;
    let pickle = Pickle::take(&mut rest)?;
    let keys = Pickle::take(&mut rest)?;
    let elements: HashMap<&str, &str> = pickle.storages().map(|storage| (storage.key, storage.element)).collect();
    let mut storages = HashMap::new();
    for key in keys.texts().ok_or("its list of storages is none")? {
        let count = rest.split_off(..8).and_then(|count| Some(u64::from_le_bytes(count.try_into().ok()?)));
        let size = match elements.get(key) {
            Some(&("f64" | "i64")) => 8,
            Some(&("f32" | "i32")) => 4,
            Some(&("f16" | "bf16" | "i16")) => 2,
            Some(_) => 1,
            None => return Err(format!("no tensor has the storage {key}")),
        };
        let data = count.and_then(|count| usize::try_from(count).ok()).and_then(|count| count.checked_mul(size));
        let data = data.and_then(|len| rest.split_off(..len)).ok_or("the file is cut off")?;
        storages.insert(key, data);
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes are left", rest.len()));
    }
    let tensors = tensors(&pickle, len, |key| Ok(storages.get(key).copied()))?;
    state_dict::check_shared(&tensors, len)?;
    state_dict::read_tensors(&tensors, eps)
}

/// The tensors of a pickle in a file of `len` bytes, with the numbers of those that are read.
fn tensors<'a>(
    pickle: &Pickle<'_>,
    len: usize,
    mut storage: impl FnMut(&str) -> Result<Option<&'a [u8]>, Fault>,
) -> Result<BTreeMap<String, Tensor<'a>>, Fault> {
    let mut tensors = BTreeMap::new();
    let mut copied = 0_usize;
    for (name, leaf) in pickle.leaves()? {
        let Leaf::Tensor(tensor) = leaf else { continue };
        let mut bytes = Cow::Borrowed(&[][..]);
        if let Some(size) = state_dict::size_of(tensor.storage.element) {
            let numbers = storage(tensor.storage.key)?;
            let numbers = numbers.ok_or_else(|| format!("{name}: there is no storage {}", tensor.storage.key))?;
            bytes = gathered(tensor, size, numbers).ok_or_else(|| {
                format!(
                    "{name}: its dimensions {:?} and strides {:?} do not fit its storage",
                    tensor.dims, tensor.strides
                )
            })?;
        }
        copied = copied.saturating_add(if let Cow::Owned(bytes) = &bytes { bytes.len() } else { 0 });
        if copied > state_dict::most_bytes(len) {
            return Err(state_dict::SHARED.to_owned());
        }
        tensors.insert(name, Tensor { dims: tensor.dims.clone(), element: tensor.storage.element.to_owned(), bytes });
    }
    Ok(tensors)
}

/// The numbers of a tensor, each of `size` bytes, in the order of its dimensions, or `None` if its storage does not have
/// them.
fn gathered<'a>(tensor: &InPickle<'_>, size: usize, storage: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let InPickle { offset, dims, strides, .. } = tensor;
    let storage = storage.get(offset.checked_mul(size)?..)?;
    let bytes = dims.iter().try_fold(size, |len, &dim| len.checked_mul(dim))?;
    // No number of a tensor that was trained is there twice: as many as there are, at most.
    if bytes > storage.len() {
        return None;
    }
    if bytes == 0 {
        return Some(Cow::Borrowed(&[]));
    }
    let mut in_order = 1;
    let contiguous = dims.iter().zip(strides).rev().all(|(&dim, &stride)| {
        let expected = in_order;
        in_order *= dim;
        dim == 1 || stride == expected
    });
    if contiguous {
        return Some(Cow::Borrowed(&storage[..bytes]));
    }
    let far = |sum: usize, (&dim, &stride): (&usize, &usize)| (dim - 1).checked_mul(stride)?.checked_add(sum);
    let last = dims.iter().zip(strides).try_fold(0_usize, far)?;
    if last.checked_add(1)?.checked_mul(size)? > storage.len() {
        return None;
    }
    let mut gathered = Vec::with_capacity(bytes);
    for index in 0..bytes / size {
        let (mut rest, mut at) = (index, 0);
        for (&dim, &stride) in dims.iter().zip(strides).rev() {
            at += rest % dim * stride;
            rest /= dim;
        }
        gathered.extend_from_slice(&storage[size * at..size * at + size]);
    }
    Some(Cow::Owned(gathered))
}
