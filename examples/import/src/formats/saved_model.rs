//! TensorFlow's variables: those of a `SavedModel`, and those of a checkpoint of Keras 2 or of `tf.train`.
//!
//! `NAME.index` is a table of names (`table_format.txt` of `LevelDB`, without compression: `tensor_bundle.cc`), whose entries
//! say where in `NAME.data-00000-of-00001` the numbers are. No crate reads it without the C library of TensorFlow. The `eps`
//! and the graph are in `saved_model.pb`, which is not read.

use std::collections::BTreeMap;
use std::path::Path;

use normdrop::{WeightOrder, WeightShape};
use prost::Message;

use super::numbers::{floats, product};
use crate::model::{BatchNorm, Fault, Model, WeightLayer};

/// What the layers of Keras have unless they are given another.
const EPS: f32 = 1e-3;
/// At the end of a table, of so many bytes.
const MAGIC: u64 = 0xDB47_7524_8B80_FB57;
const FOOTER: usize = 48;
/// Longer than any name. Each name is stored by how it differs from the one before it.
const LONGEST_NAME: usize = 1024;
/// What the objects of Keras add to the name of a variable.
const VARIABLE: &str = "/.ATTRIBUTES/VARIABLE_VALUE";
const OBJECTS: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";
const F32: i32 = 1;
const TEXT: i32 = 7;

#[derive(Clone, PartialEq, Message)]
struct BundleHeader {
    #[prost(int32, tag = "1")]
    shards: i32,
    /// 1 is big.
    #[prost(int32, tag = "2")]
    endianness: i32,
}

#[derive(Clone, PartialEq, Message)]
struct BundleEntry {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShape>,
    #[prost(int32, tag = "3")]
    shard: i32,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    size: i64,
    /// The parts of a variable that is cut into several.
    #[prost(bytes = "vec", repeated, tag = "7")]
    slices: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShape {
    #[prost(message, repeated, tag = "2")]
    dims: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, tag = "1")]
    size: i64,
}

/// The objects of Keras, which know the names of variables.
#[derive(Clone, PartialEq, Message)]
struct ObjectGraph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<TrackedObject>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackedObject {
    #[prost(message, repeated, tag = "2")]
    attributes: Vec<SerializedTensor>,
}

#[derive(Clone, PartialEq, Message)]
struct SerializedTensor {
    /// `bn1/gamma`
    #[prost(string, tag = "2")]
    full_name: String,
    /// `layer_with_weights-1/gamma/.ATTRIBUTES/VARIABLE_VALUE`
    #[prost(string, tag = "3")]
    checkpoint_key: String,
}

/// An entry of a table.
type NameAndValue<'a> = (Vec<u8>, &'a [u8]);
/// The dimensions and the numbers of a variable.
type Variable = (Vec<usize>, Vec<f32>);

/// Reads the variables in the folder `variables` of a `SavedModel`.
///
/// # Errors
/// Names the file or the variable that is wrong.
pub fn read(folder: &Path, eps: Option<f32>) -> Result<Model, Fault> {
    read_checkpoint(&folder.join("variables.index"), eps)
}

/// Reads a checkpoint, of which the table is given.
///
/// # Errors
/// Names the file or the variable that is wrong.
pub fn read_checkpoint(index: &Path, eps: Option<f32>) -> Result<Model, Fault> {
    let file = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let entries = entries(&file(index)?)?;
    let header = entries.get("").ok_or("its table has no header")?;
    let header = BundleHeader::decode(&header[..]).map_err(|error| error.to_string())?;
    if header.endianness != 0 {
        return Err("it was written on a machine of the other byte order".to_owned());
    }
    let shards = (0..header.shards).map(|shard| {
        let extension = format!("data-{shard:05}-of-{:05}", header.shards);
        file(&index.with_extension(extension))
    });
    let shards = shards.collect::<Result<Vec<_>, _>>()?;
    read_variables(&entries, &shards, eps)
}

/// The entries of a table.
fn entries(table: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, Fault> {
    let at = table.len().checked_sub(FOOTER).ok_or("the table is cut off")?;
    let (blocks, mut footer) = table.split_at(at);
    if footer[FOOTER - 8..] != MAGIC.to_le_bytes() {
        return Err("it is no table of TensorFlow, or it is cut off".to_owned());
    }
    // Before the index of blocks stands another index, which is empty.
    let _ = (varint(&mut footer)?, varint(&mut footer)?);
    let mut entries = BTreeMap::new();
    for (_, mut handle) in block(blocks, &mut footer)? {
        for (name, value) in block(blocks, &mut handle)? {
            let name = String::from_utf8(name).map_err(|error| error.to_string())?;
            // Sorted: a table that names a block twice ends here.
            if entries.last_key_value().is_some_and(|(last, _): (&String, _)| *last >= name) {
                return Err(format!("{name} is not in the order of the table"));
            }
            entries.insert(name, value.to_vec());
        }
    }
    Ok(entries)
}

/// The entries of the block that a handle says the place of.
fn block<'a>(blocks: &'a [u8], handle: &mut &[u8]) -> Result<Vec<NameAndValue<'a>>, Fault> {
    let cut = "a block of the table is cut off";
    let (offset, len) = (varint(handle)?, varint(handle)?);
    let contents = blocks.get(offset..).and_then(|rest| rest.split_at_checked(len)).ok_or(cut)?;
    if contents.1.first() != Some(&0) {
        return Err("a block of the table is compressed, which TensorFlow does not do".to_owned());
    }
    let (rest, count) = contents.0.split_last_chunk().ok_or(cut)?;
    let restarts = usize::try_from(u32::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(4));
    let end = restarts.and_then(|restarts| rest.len().checked_sub(restarts)).ok_or(cut)?;
    let mut rest = &rest[..end];
    let (mut name, mut entries) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let (shared, own, len) = (varint(&mut rest)?, varint(&mut rest)?, varint(&mut rest)?);
        if shared > name.len() || own > LONGEST_NAME || shared + own > LONGEST_NAME {
            return Err(format!("a name of {shared} and {own} bytes"));
        }
        name.truncate(shared);
        name.extend_from_slice(rest.split_off(..own).ok_or(cut)?);
        entries.push((name.clone(), rest.split_off(..len).ok_or(cut)?));
    }
    Ok(entries)
}

/// A number in groups of seven bits, the lowest first.
fn varint(bytes: &mut &[u8]) -> Result<usize, Fault> {
    let mut number = 0_usize;
    for shift in (0..35).step_by(7) {
        let byte = usize::from(*bytes.split_off_first().ok_or("the table is cut off")?);
        number |= (byte & 0x7F) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("a length of the table that is none".to_owned())
}

fn read_variables(entries: &BTreeMap<String, Vec<u8>>, shards: &[Vec<u8>], eps: Option<f32>) -> Result<Model, Fault> {
    let entry = |key: &str| -> Result<Option<(BundleEntry, &[u8])>, Fault> {
        let Some(bytes) = entries.get(key) else { return Ok(None) };
        let entry = BundleEntry::decode(&bytes[..]).map_err(|error| format!("{key}: {error}"))?;
        let place = usize::try_from(entry.offset).ok().zip(usize::try_from(entry.size).ok());
        let data = usize::try_from(entry.shard).ok().and_then(|shard| shards.get(shard)).zip(place);
        let data = data.and_then(|(shard, (offset, size))| shard.get(offset..)?.get(..size));
        Ok(Some((entry, data.ok_or_else(|| format!("{key}: its file of data is cut off"))?)))
    };
    // The names that Keras gave, as long as no two are the same.
    let mut names = BTreeMap::new();
    if let Some((BundleEntry { dtype: TEXT, .. }, mut data)) = entry(OBJECTS)? {
        // A text has its length and a sum of it before it.
        let len = varint(&mut data)?;
        let graph = data.get(4..).and_then(|data| data.get(..len)).ok_or("the graph of objects is cut off")?;
        let graph = ObjectGraph::decode(graph).map_err(|error| format!("the graph of objects: {error}"))?;
        for SerializedTensor { full_name, checkpoint_key } in graph.nodes.into_iter().flat_map(|node| node.attributes) {
            names.insert(checkpoint_key, full_name);
        }
    }
    let mut keys = BTreeMap::new();
    let mut total = 0_usize;
    for key in entries.keys().filter(|key| !key.is_empty() && *key != OBJECTS) {
        // What an optimiser keeps for each variable is no layer.
        if key.contains(".OPTIMIZER_SLOT") || key.starts_with("optimizer/") {
            continue;
        }
        total = total.saturating_add(entry(key)?.map_or(0, |(_, data)| data.len()));
        let given = names.get(key).filter(|name| name.contains('/'));
        let name = given.map_or_else(|| key.strip_suffix(VARIABLE).unwrap_or(key), String::as_str);
        // Keras 3 stores each variable twice.
        if let Some(other) = keys.insert(name.to_owned(), key)
            && entry(key)?.map(|(_, data)| data) != entry(other)?.map(|(_, data)| data)
        {
            return Err(format!("two variables are named {name}"));
        }
    }
    if total > shards.iter().map(Vec::len).sum() {
        return Err("its variables are longer than its files of data".to_owned());
    }
    let variable = |name: &str| -> Result<Option<Variable>, Fault> {
        let Some((entry, data)) = keys.get(name).map(|key| entry(key)).transpose()?.flatten() else { return Ok(None) };
        if entry.dtype != F32 || !entry.slices.is_empty() {
            return Err(format!("{name} is not of f32 or is in parts (type {}), which is not read", entry.dtype));
        }
        let dims = entry.shape.unwrap_or_default().dims.into_iter().map(|dim| usize::try_from(dim.size));
        let dims = dims.collect::<Result<Vec<_>, _>>().map_err(|_| format!("{name}: a negative dimension"))?;
        if dims.iter().try_fold(4_usize, |len, &dim| len.checked_mul(dim)) != Some(data.len()) {
            return Err(format!("{name} has {} bytes, which its dimensions {dims:?} do not", data.len()));
        }
        Ok(Some((dims, floats(data))))
    };
    let values = |name: &str| Ok::<_, Fault>(variable(name)?.map(|(_, values)| values));
    let mut model = Model::default();
    if eps.is_none() {
        model
            .remarks
            .push(format!("variables have no eps: the default of Keras, {EPS:e}, is taken, --eps says another"));
    }
    for name in keys.keys() {
        if let Some(layer) = name.strip_suffix("/moving_mean") {
            let of = |part: &str| values(&format!("{layer}/{part}"));
            let var =
                of("moving_variance")?.ok_or_else(|| format!("{layer} has a moving_mean and no moving_variance"))?;
            let (mean, eps) = (values(name)?.unwrap_or_default(), eps.unwrap_or(EPS));
            let (weight, bias) = (of("gamma")?, of("beta")?);
            model.batch_norms.push(BatchNorm { name: layer.to_owned(), weight, bias, mean, var, eps });
        } else if let Some((layer, part @ ("kernel" | "weights" | "depthwise_kernel"))) = name.rsplit_once('/') {
            let Some((dims, weights)) = variable(name)? else { continue };
            let [taps @ .., inputs, last] = &dims[..] else { continue };
            // [k, in, out]; [k, in, m] of a depthwise convolution, which has in*m outputs; [k, out, in] if transposed. Keras 3
            // calls all three a kernel: its own names of layers tell.
            let is = |what: &str| part.contains(what) || layer.contains(what);
            let (order, inputs, outputs, groups) = match () {
                () if is("depthwise") => (WeightOrder::TapsInOut, *inputs, inputs.saturating_mul(*last), *inputs),
                () if is("transpose") => (WeightOrder::TapsOutIn, *last, *inputs, 1),
                () => (WeightOrder::TapsInOut, *inputs, *last, 1),
            };
            let shape = WeightShape { order, outputs, inputs, taps: product(taps), groups };
            let bias = if part == "weights" { "biases" } else { "bias" };
            let bias = values(&format!("{layer}/{bias}"))?;
            model.layers.push(WeightLayer { name: layer.to_owned(), dims, shape, weights, bias });
        }
    }
    // Keras 2 numbers the layers that have variables.
    let numbers: BTreeMap<usize, &str> = keys
        .iter()
        .filter_map(|(name, key)| {
            let number = key.strip_prefix("layer_with_weights-")?.split_once('/')?.0.parse().ok()?;
            Some((number, name.rsplit_once('/')?.0))
        })
        .collect();
    if numbers.is_empty() {
        model.guess();
        return Ok(model);
    }
    let before = |batch_norm: &str| {
        let at = numbers.iter().find(|(_, name)| **name == batch_norm).and_then(|(at, _)| at.checked_sub(1));
        at.and_then(|at| numbers.get(&at)).map(|name| (*name).to_owned()).into_iter().collect()
    };
    model.guess_from(before, "because it is the next one with variables");
    Ok(model)
}
