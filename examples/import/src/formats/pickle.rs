//! Pickles that hold dictionaries of tensors and little else, as PyTorch's `torch.save` and Paddle's `paddle.save` write
//! them.
//!
//! A pickle is a program for a machine with a stack (`pickletools.py` of Python has its instructions), and it may call any
//! function by its name. Nothing is called here: the few names that tensors are made of stand for what they make, and every
//! other name and every instruction that those two do not write is refused. The crates for pickles do not read these files,
//! because they refuse all names.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use crate::model::Fault;

/// More values than any state dict has. Each takes some hundred bytes of memory, and as little as one byte of a file.
const MOST_VALUES: usize = 1 << 20;
/// How deep dictionaries stand within dictionaries.
const DEEPEST: usize = 8;
/// The longest path through dictionaries, in bytes. A text of the file can be a key a million times.
const LONGEST_PATH: usize = 256;
/// More dimensions than any tensor has.
const MOST_DIMENSIONS: usize = 8;

/// A value on the stack. What can change has its place in `Pickle::objects`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value<'a> {
    /// None or a floating-point number: nothing that a tensor is made of.
    Other,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Name(Name),
    Object(usize),
}

/// A name that a pickle may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `numpy.core.multiarray._reconstruct` makes an empty array, which is filled later.
    EmptyArray,
    /// `numpy.ndarray`, the first argument of the former.
    ArrayType,
    /// `numpy.dtype`
    ElementType,
    /// `_codecs.encode`, by which older protocols write bytes as text.
    Encode,
    /// `torch._utils._rebuild_tensor_v2`
    Tensor,
    /// `torch._utils._rebuild_parameter`
    Parameter,
    /// `torch.FloatStorage` and its like, by the type of the elements.
    Storage(&'static str),
}

impl Name {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Self::EmptyArray,
            ("numpy", "ndarray") => Self::ArrayType,
            ("numpy", "dtype") => Self::ElementType,
            ("_codecs", "encode") => Self::Encode,
            ("torch._utils", "_rebuild_tensor_v2") => Self::Tensor,
            ("torch._utils", "_rebuild_parameter") => Self::Parameter,
            ("torch", "FloatStorage") => Self::Storage("f32"),
            ("torch", "DoubleStorage") => Self::Storage("f64"),
            ("torch", "HalfStorage") => Self::Storage("f16"),
            ("torch", "BFloat16Storage") => Self::Storage("bf16"),
            ("torch", "LongStorage") => Self::Storage("i64"),
            ("torch", "IntStorage") => Self::Storage("i32"),
            ("torch", "ShortStorage") => Self::Storage("i16"),
            ("torch", "CharStorage") => Self::Storage("i8"),
            ("torch", "ByteStorage") => Self::Storage("u8"),
            ("torch", "BoolStorage") => Self::Storage("bool"),
            _ => return None,
        })
    }
}

#[derive(Debug)]
enum Object<'a> {
    List(Vec<Value<'a>>),
    Tuple(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Bytes(Cow<'a, [u8]>),
    /// `'f4'`, and `<` or `>` once it is known.
    ElementType(&'a str, &'a str),
    /// None until its state is set.
    Array(Option<Array>),
    Storage(Storage<'a>),
    Tensor(Tensor<'a>),
}

/// An array of numpy, whose bytes are another object.
#[derive(Debug, Clone)]
struct Array {
    dims: Vec<usize>,
    element: String,
    bytes: usize,
}

/// Where PyTorch has the numbers of a tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    /// Its name in the archive or in the file.
    pub(super) key: &'a str,
    /// The type of its elements.
    pub(super) element: &'static str,
}

/// A tensor of PyTorch.
#[derive(Debug, Clone)]
pub(super) struct Tensor<'a> {
    pub(super) storage: Storage<'a>,
    /// Counted in elements, as the strides are.
    pub(super) offset: usize,
    pub(super) dims: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// What is at the end of a path through dictionaries.
#[derive(Debug)]
pub(super) enum Leaf<'a, 'p> {
    /// An array of numpy: its dimensions, the type of its elements such as `<f4`, and its bytes.
    Array { dims: &'p [usize], element: &'p str, bytes: &'p [u8] },
    /// A tensor of PyTorch.
    Tensor(&'p Tensor<'a>),
}

/// What a pickle holds.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: Value<'a>,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle at the start of `bytes`, and takes it off.
    pub(super) fn take(bytes: &mut &'a [u8]) -> Result<Self, Fault> {
        let len = bytes.len();
        let mut machine = Machine { bytes, len, ..Machine::default() };
        let result = machine.run();
        let at = len - machine.bytes.len();
        let root = result.map_err(|fault| format!("byte {at} of the pickle: {fault}"))?;
        *bytes = machine.bytes;
        Ok(Self { objects: machine.objects, root })
    }

    /// The storages that it names, as often as it names them.
    pub(super) fn storages(&self) -> impl Iterator<Item = Storage<'a>> {
        self.objects
            .iter()
            .filter_map(|object| if let Object::Storage(storage) = object { Some(*storage) } else { None })
    }

    /// The texts of a list, or `None` if it is no list of texts.
    pub(super) fn texts(&self) -> Option<Vec<&'a str>> {
        let Value::Object(index) = self.root else { return None };
        let Object::List(values) = &self.objects[index] else { return None };
        values.iter().map(|value| if let Value::Text(text) = value { Some(*text) } else { None }).collect()
    }

    /// The tensors in dictionaries and in dictionaries within them, each with its path, joined by dots.
    pub(super) fn leaves(&self) -> Result<BTreeMap<String, Leaf<'a, '_>>, Fault> {
        let mut leaves = BTreeMap::new();
        let mut seen = vec![false; self.objects.len()];
        let mut rest = vec![(String::new(), self.root, 0)];
        while let Some((path, value, depth)) = rest.pop() {
            let Value::Object(index) = value else { continue };
            let leaf = match &self.objects[index] {
                Object::Dict(entries) => {
                    if depth == DEEPEST {
                        return Err(format!("dictionaries within dictionaries, deeper than {DEEPEST}"));
                    }
                    // A dictionary that holds itself, or that is there twice.
                    if std::mem::replace(&mut seen[index], true) {
                        continue;
                    }
                    for &(key, value) in entries {
                        if !matches!(value, Value::Object(_)) {
                            continue;
                        }
                        let key = match key {
                            Value::Text(text) => text.to_owned(),
                            Value::Int(number) => number.to_string(),
                            _ => continue,
                        };
                        let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                        if path.len() > LONGEST_PATH {
                            return Err(format!("a name of {} bytes", path.len()));
                        }
                        rest.push((path, value, depth + 1));
                    }
                    continue;
                }
                Object::Array(Some(Array { dims, element, bytes })) => {
                    let Object::Bytes(bytes) = &self.objects[*bytes] else {
                        return Err(format!("{path}: an array without bytes"));
                    };
                    Leaf::Array { dims, element, bytes }
                }
                Object::Tensor(tensor) => Leaf::Tensor(tensor),
                _ => continue,
            };
            if leaves.insert(path.clone(), leaf).is_some() {
                return Err(format!("two tensors are named {path}"));
            }
        }
        Ok(leaves)
    }
}

/// The machine that a pickle is a program for.
#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: HashMap<usize, Value<'a>>,
    objects: Vec<Object<'a>>,
    values: usize,
    /// The length of the pickle, and the bytes of text that were encoded.
    len: usize,
    encoded: usize,
}

const CUT: &str = "it is cut off";
const NOT_EXPECTED: &str = "an instruction has other arguments than PyTorch and Paddle write";

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value<'a>, Fault> {
        loop {
            let instruction = self.take(1)?[0];
            match instruction {
                // Protocol and frame: how the file is written.
                0x80 => {
                    let protocol = self.take(1)?[0];
                    if !(2..=4).contains(&protocol) {
                        return Err(format!("protocol {protocol}, and 2 to 4 are read"));
                    }
                }
                0x95 => _ = self.take(8)?,
                b'.' => return self.pop(),
                b'(' => {
                    self.count()?;
                    self.marks.push(self.stack.len());
                }
                b'N' => self.push(Value::Other)?,
                0x88 | 0x89 => self.push(Value::Bool(instruction == 0x88))?,
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Other)?;
                }
                b'J' => {
                    let number = i32::from_le_bytes(self.number()?);
                    self.push(Value::Int(number.into()))?;
                }
                b'K' => {
                    let number = self.unsigned(1)?;
                    self.push_len(number)?;
                }
                b'M' => {
                    let number = self.unsigned(2)?;
                    self.push_len(number)?;
                }
                0x8A => {
                    let len = self.unsigned(1)?;
                    let digits = self.take(len)?;
                    let mut number = [if digits.last().is_some_and(|byte| byte & 0x80 != 0) { 0xFF } else { 0 }; 8];
                    number.get_mut(..len).ok_or("an integer of more than 64 bits")?.copy_from_slice(digits);
                    self.push(Value::Int(i64::from_le_bytes(number)))?;
                }
                b'X' => self.text(4)?,
                0x8C => self.text(1)?,
                0x8D => self.text(8)?,
                b'B' => self.raw(4)?,
                b'C' => self.raw(1)?,
                0x8E => self.raw(8)?,
                b')' => self.make(Object::Tuple(Vec::new()))?,
                b']' => self.make(Object::List(Vec::new()))?,
                b'}' => self.make(Object::Dict(Vec::new()))?,
                0x85..=0x87 => {
                    let count = usize::from(instruction - 0x84);
                    let at = self.stack.len().checked_sub(count).ok_or(NOT_EXPECTED)?;
                    let values = self.stack.split_off(at);
                    self.make(Object::Tuple(values))?;
                }
                b't' => {
                    let values = self.marked()?;
                    self.make(Object::Tuple(values))?;
                }
                b'a' | b'e' => {
                    let values = if instruction == b'a' { vec![self.pop()?] } else { self.marked()? };
                    let Object::List(list) = self.top()? else { return Err(NOT_EXPECTED.to_owned()) };
                    list.extend(values);
                }
                b's' | b'u' => {
                    let values = if instruction == b's' {
                        let value = self.pop()?;
                        vec![self.pop()?, value]
                    } else {
                        self.marked()?
                    };
                    let Object::Dict(entries) = self.top()? else { return Err(NOT_EXPECTED.to_owned()) };
                    let (pairs, []) = values.as_chunks() else { return Err(NOT_EXPECTED.to_owned()) };
                    entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
                }
                b'q' | b'r' => {
                    let at = self.unsigned(if instruction == b'q' { 1 } else { 4 })?;
                    self.keep(at)?;
                }
                0x94 => {
                    let at = self.memo.len();
                    self.keep(at)?;
                }
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.name(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (module, name) else {
                        return Err(NOT_EXPECTED.to_owned());
                    };
                    self.name(module, name)?;
                }
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    let Value::Name(function) = function else { return Err(NOT_EXPECTED.to_owned()) };
                    let arguments = self.arguments(arguments).ok_or(NOT_EXPECTED)?;
                    self.call(function, &arguments)?;
                }
                b'b' => {
                    let state = self.pop()?;
                    self.set_state(state)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let id = self.tuple(id).ok_or(NOT_EXPECTED)?;
                    let &[Value::Text("storage"), Value::Name(Name::Storage(element)), Value::Text(key), ref rest @ ..] =
                        id
                    else {
                        return Err(NOT_EXPECTED.to_owned());
                    };
                    // The device, the number of elements, and in old files what the storage is a part of.
                    if rest.get(2).is_some_and(|part| *part != Value::Other) {
                        return Err(
                            "a storage within a storage: load the file and save it with a newer PyTorch".to_owned()
                        );
                    }
                    self.make(Object::Storage(Storage { key, element }))?;
                }
                other => return Err(format!("the instruction {other:#04x}, which neither PyTorch nor Paddle writes")),
            }
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(CUT)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(self.take(N)?.try_into().expect("N bytes were taken"))
    }

    /// A number of so many bytes.
    fn unsigned(&mut self, bytes: usize) -> Result<usize, Fault> {
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(self.take(bytes)?);
        usize::try_from(u64::from_le_bytes(number)).map_err(|_| CUT.to_owned())
    }

    fn push_len(&mut self, number: usize) -> Result<(), Fault> {
        self.push(Value::Int(i64::try_from(number).map_err(|_| NOT_EXPECTED)?))
    }

    fn line(&mut self) -> Result<&'a str, Fault> {
        let end = self.bytes.iter().position(|&byte| byte == b'\n').ok_or(CUT)?;
        let line = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|error| error.to_string())
    }

    fn text(&mut self, bytes: usize) -> Result<(), Fault> {
        let len = self.unsigned(bytes)?;
        let text = std::str::from_utf8(self.take(len)?).map_err(|error| error.to_string())?;
        self.push(Value::Text(text))
    }

    fn raw(&mut self, bytes: usize) -> Result<(), Fault> {
        let len = self.unsigned(bytes)?;
        let bytes = self.take(len)?;
        self.make(Object::Bytes(Cow::Borrowed(bytes)))
    }

    /// Counts something that takes memory.
    fn count(&mut self) -> Result<(), Fault> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err(format!("more than {MOST_VALUES} values: no state dict has so many"));
        }
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), Fault> {
        self.count()?;
        self.stack.push(value);
        Ok(())
    }

    fn make(&mut self, object: Object<'a>) -> Result<(), Fault> {
        self.objects.push(object);
        self.push(Value::Object(self.objects.len() - 1))
    }

    /// Takes the top of the stack, but nothing that is below the last mark.
    fn pop(&mut self) -> Result<Value<'a>, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(NOT_EXPECTED.to_owned());
        }
        self.stack.pop().ok_or_else(|| NOT_EXPECTED.to_owned())
    }

    /// Takes what is above the last mark.
    fn marked(&mut self) -> Result<Vec<Value<'a>>, Fault> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or(NOT_EXPECTED)?;
        Ok(self.stack.split_off(mark))
    }

    /// The object on top of the stack.
    fn top(&mut self) -> Result<&mut Object<'a>, Fault> {
        let Some(Value::Object(index)) = self.stack.last() else { return Err(NOT_EXPECTED.to_owned()) };
        Ok(&mut self.objects[*index])
    }

    fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        let Value::Object(index) = value else { return None };
        if let Object::Tuple(values) = &self.objects[index] { Some(values) } else { None }
    }

    /// The values of a tuple; of a long one the first, which are more than any call takes.
    fn arguments(&self, value: Value<'a>) -> Option<Vec<Value<'a>>> {
        Some(self.tuple(value)?.iter().take(16).copied().collect())
    }

    /// A tuple of lengths.
    fn lengths(&self, value: Value<'a>) -> Option<Vec<usize>> {
        let values = self.tuple(value)?;
        if values.len() > MOST_DIMENSIONS {
            return None;
        }
        values
            .iter()
            .map(|value| if let Value::Int(number) = value { usize::try_from(*number).ok() } else { None })
            .collect()
    }

    /// Keeps the top of the stack, to be read again.
    fn keep(&mut self, at: usize) -> Result<(), Fault> {
        self.count()?;
        let value = *self.stack.last().ok_or(NOT_EXPECTED)?;
        self.memo.insert(at, value);
        Ok(())
    }

    fn recall(&mut self, bytes: usize) -> Result<(), Fault> {
        let at = self.unsigned(bytes)?;
        let value = *self.memo.get(&at).ok_or(NOT_EXPECTED)?;
        self.push(value)
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), Fault> {
        let found = Name::find(module, name);
        let known = found.ok_or_else(|| {
            format!(
                "it names {module}.{name}, and a file with more than tensors is not read: save the state dict alone"
            )
        })?;
        self.push(Value::Name(known))
    }

    /// What a call makes.
    fn call(&mut self, function: Name, arguments: &[Value<'a>]) -> Result<(), Fault> {
        let refused = || NOT_EXPECTED.to_owned();
        match (function, arguments) {
            (Name::OrderedDict, []) => self.make(Object::Dict(Vec::new())),
            (Name::EmptyArray, [Value::Name(Name::ArrayType), ..]) => self.make(Object::Array(None)),
            (Name::ElementType, [Value::Text(kind), ..]) => self.make(Object::ElementType(kind, "")),
            (Name::Encode, [Value::Text(text), Value::Text("latin1")]) => {
                self.encoded += text.len();
                if self.encoded > self.len {
                    return Err("it makes more bytes than it has".to_owned());
                }
                let bytes = text.chars().map(|char| u8::try_from(u32::from(char))).collect::<Result<Vec<u8>, _>>();
                self.make(Object::Bytes(Cow::Owned(bytes.map_err(|_| refused())?)))
            }
            (Name::Tensor, &[Value::Object(storage), Value::Int(offset), dims, strides, ..]) => {
                let Object::Storage(storage) = self.objects[storage] else { return Err(refused()) };
                let offset = usize::try_from(offset).map_err(|_| refused())?;
                let dims = self.lengths(dims).ok_or_else(refused)?;
                let strides =
                    self.lengths(strides).filter(|strides| strides.len() == dims.len()).ok_or_else(refused)?;
                self.make(Object::Tensor(Tensor { storage, offset, dims, strides }))
            }
            (Name::Parameter, [tensor @ Value::Object(_), ..]) => self.push(*tensor),
            _ => Err(refused()),
        }
    }

    /// Sets the state of the object on top of the stack.
    fn set_state(&mut self, state: Value<'a>) -> Result<(), Fault> {
        let refused = || NOT_EXPECTED.to_owned();
        let values = self.arguments(state);
        let new = match (self.top()?, values.as_deref()) {
            // `_metadata` of a state dict: versions of its layers.
            (Object::Dict(_), None) => return Ok(()),
            (&mut Object::ElementType(kind, _), Some(&[_, Value::Text(order), ..])) => Object::ElementType(kind, order),
            (Object::Array(None), Some(&[_, dims, Value::Object(element), fortran, Value::Object(bytes)])) => {
                let dims = self.lengths(dims).ok_or_else(refused)?;
                let Object::ElementType(kind, order) = self.objects[element] else { return Err(refused()) };
                let Object::Bytes(_) = self.objects[bytes] else { return Err(refused()) };
                if fortran != Value::Bool(false) {
                    return Err("an array in Fortran order: store numpy.ascontiguousarray of it".to_owned());
                }
                Object::Array(Some(Array { dims, element: format!("{order}{kind}"), bytes }))
            }
            _ => return Err(refused()),
        };
        *self.top()? = new;
        Ok(())
    }
}
