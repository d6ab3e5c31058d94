//! flax and haiku as `.npz`: one array a variable, named by its path.
//!
//! flax' `params/bn1/scale` and `batch_stats/bn1/mean`, from `flax.traverse_util.flatten_dict(variables, sep="/")`. haiku's
//! parameters and states, from `haiku.data_structures.traverse` with the name of a module and the one of a parameter
//! joined by `/`: the statistics are `bn/~/mean_ema/average`, not `hidden`. There is no `eps` and no graph in it.

use std::collections::BTreeMap;
use std::io::Cursor;

use normdrop::{WeightOrder, WeightShape};

use super::numbers::product;
use crate::model::{BatchNorm, Fault, Model, WeightLayer};

/// What the layers of both have unless they are given another.
const EPS: f32 = 1e-5;

/// An array.
struct Array {
    dims: Vec<usize>,
    values: Vec<f32>,
}

/// Reads the batch norms, the dense layers and the convolutions.
///
/// # Errors
/// Names the array that is wrong.
pub fn read(bytes: &[u8], eps: Option<f32>) -> Result<Model, Fault> {
    let mut arrays = arrays(bytes)?;
    let mut model = Model::default();
    if eps.is_none() {
        model.remarks.push(format!("an archive of arrays has no eps: {EPS:e} is taken, --eps says another"));
    }
    for key in arrays.keys().cloned().collect::<Vec<_>>() {
        let (flax, haiku) = (key.strip_suffix("/mean"), key.strip_suffix("/~/mean_ema/average"));
        let (name, var, bias) = match (flax, haiku) {
            (Some(path), _) => {
                let name = path.strip_prefix("batch_stats/").unwrap_or(path);
                (name.to_owned(), format!("{path}/var"), "bias")
            }
            (_, Some(path)) => (path.to_owned(), format!("{path}/~/var_ema/average"), "offset"),
            _ => continue,
        };
        let mut of = |key: &str| arrays.remove(key).map(|array| array.values);
        let missing = || format!("{key} is there, and {var} is not");
        let mean = of(&key).unwrap_or_default();
        let var = of(&var).ok_or_else(missing)?;
        let mut parameter = |part: &str| of(&format!("params/{name}/{part}")).or_else(|| of(&format!("{name}/{part}")));
        let (weight, bias) = (parameter("scale"), parameter(bias));
        model.batch_norms.push(BatchNorm { name, weight, bias, mean, var, eps: eps.unwrap_or(EPS) });
    }
    for key in arrays.keys().cloned().collect::<Vec<_>>() {
        let Some((path, bias)) =
            key.strip_suffix("/kernel").map(|path| (path, "bias")).or(key.strip_suffix("/w").map(|path| (path, "b")))
        else {
            continue;
        };
        let Array { dims, values } = arrays.remove(&key).unwrap_or(Array { dims: vec![], values: vec![] });
        let [taps @ .., inputs, outputs] = &dims[..] else {
            return Err(format!("{key} has fewer than two dimensions"));
        };
        let taps = product(taps);
        model.layers.push(WeightLayer {
            name: path.strip_prefix("params/").unwrap_or(path).to_owned(),
            shape: WeightShape { order: WeightOrder::TapsInOut, outputs: *outputs, inputs: *inputs, taps, groups: 1 },
            dims,
            weights: values,
            bias: arrays.remove(&format!("{path}/{bias}")).map(|array| array.values),
        });
    }
    model.guess();
    Ok(model)
}

fn arrays(bytes: &[u8]) -> Result<BTreeMap<String, Array>, Fault> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let (mut arrays, mut most) = (BTreeMap::new(), super::most_unpacked(bytes));
    for index in 0..archive.len() {
        let file = archive.by_index(index).map_err(|error| error.to_string())?;
        let name = file.name().map_err(|error| error.to_string())?.trim_end_matches(".npy").to_owned();
        let bytes = super::unpacked(file, &mut most).map_err(|fault| format!("{name}: {fault}"))?;
        // Counters are integers, and none of them is read here.
        if let Some(array) = array(&bytes).map_err(|fault| format!("{name}: {fault}"))? {
            arrays.insert(name, array);
        }
    }
    Ok(arrays)
}

/// The array of a `.npy` file, if it is of f32.
///
/// The header is a Python dictionary that numpy always writes in the same way (`numpy.lib.format`, versions 1 to 3). The
/// crates for it bring a parser of Python, which compiles assembly.
fn array(bytes: &[u8]) -> Result<Option<Array>, Fault> {
    let cut = "the file is cut off";
    let header = bytes.strip_prefix(b"\x93NUMPY").ok_or("no .npy file")?;
    let (start, len) = match header {
        [1, _, a, b, ..] => (10, usize::from(u16::from_le_bytes([*a, *b]))),
        [2 | 3, _, a, b, c, d, ..] => (12, usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).map_err(|_| cut)?),
        _ => return Err("a version of .npy that is not known".to_owned()),
    };
    let (header, data) = bytes.get(start..).and_then(|rest| rest.split_at_checked(len)).ok_or(cut)?;
    let header = std::str::from_utf8(header).map_err(|error| error.to_string())?;
    let value =
        |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start()).ok_or_else(|| format!("no {key}"));
    if !value("'descr':")?.starts_with("'<f4'") {
        return Ok(None);
    }
    if !value("'fortran_order':")?.starts_with("False") {
        return Err("in Fortran order: store numpy.ascontiguousarray of it".to_owned());
    }
    let dims = value("'shape':")?.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or("no shape")?.0;
    let dims = dims.split(',').map(str::trim).filter(|dim| !dim.is_empty()).map(str::parse::<usize>);
    let dims = dims.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let (values, rest) = data.as_chunks();
    let expected = dims.iter().try_fold(1_usize, |len, &dim| len.checked_mul(dim));
    if expected != Some(values.len()) || !rest.is_empty() {
        return Err("not as many numbers as its shape has".to_owned());
    }
    Ok(Some(Array { dims, values: values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `.npy` file of version 1 as numpy writes it.
    fn npy(descr: &str, fortran: &str, shape: &str, values: &[f32]) -> Vec<u8> {
        let header = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let len = u16::try_from(header.len()).expect("short");
        let data = values.iter().flat_map(|value| value.to_le_bytes());
        let start = b"\x93NUMPY\x01\x00".iter().copied().chain(len.to_le_bytes());
        start.chain(header.into_bytes()).chain(data).collect()
    }

    #[test]
    fn an_array_is_read_in_c_order_alone_and_as_long_as_its_shape_says() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        for (shape, dims) in [("(6,)", vec![6]), ("(2, 3)", vec![2, 3]), ("(3, 1, 2)", vec![3, 1, 2])] {
            let read = array(&npy("'<f4'", "False", shape, &values)).expect("right").expect("f32");
            assert_eq!((read.dims, read.values), (dims, values.to_vec()));
        }
        assert_eq!(array(&npy("'<f4'", "False", "()", &[7.0])).expect("right").expect("f32").values, [7.0]);
        assert!(array(&npy("'<i4'", "False", "(6,)", &values)).expect("not wanted").is_none());
        assert!(array(&npy("'>f4'", "False", "(6,)", &values)).expect("not wanted").is_none());
        for (fortran, shape) in
            [("True", "(2, 3)"), ("False", "(7,)"), ("False", "(5,)"), ("False", "(-1,)"), ("False", "6")]
        {
            assert!(array(&npy("'<f4'", fortran, shape, &values)).is_err(), "{fortran} {shape}");
        }
        let whole = npy("'<f4'", "False", "(6,)", &values);
        for len in 0..whole.len() {
            assert!(array(&whole[..len]).is_err(), "{len} bytes");
        }
    }
}
