//! Files that the frameworks wrote, folded, against the frameworks' own outputs; `make.py` wrote both.

use std::collections::BTreeMap;
use std::path::PathBuf;

use normdrop::WeightOrder;
use normdrop_import::formats::{self, caffe, darknet, mxnet, ncnn, paddle, paddle_program, torch};
use normdrop_import::model::{Between, Model, Side, WeightLayer};
use normdrop_import::write::{self, Language};

const CHANNELS: usize = 2;
const SIZE: [usize; 2] = [5, 4];

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

fn read(name: &str) -> Model {
    formats::read(&file(name), None).unwrap_or_else(|fault| panic!("{fault}"))
}

/// An image `[c, h, w]`.
#[derive(Clone)]
struct Image {
    channels: usize,
    size: [usize; 2],
    values: Vec<f64>,
}

impl Image {
    fn at(&self, channel: usize, row: usize, column: usize) -> f64 {
        self.values[(channel * self.size[0] + row) * self.size[1] + column]
    }

    fn map(mut self, of: impl Fn(f64) -> f64) -> Self {
        self.values.iter_mut().for_each(|value| *value = of(*value));
        self
    }

    /// In the order of a file: channels first, or last.
    fn from_file(values: &[f64], channels_last: bool) -> Self {
        let [height, width] = SIZE;
        let place = |c: usize, at: usize| if channels_last { at * CHANNELS + c } else { c * height * width + at };
        let order = (0..CHANNELS).flat_map(|c| (0..height * width).map(move |at| (c, at)));
        Self { channels: CHANNELS, size: SIZE, values: order.map(|(c, at)| values[place(c, at)]).collect() }
    }

    fn in_file(&self, channels_last: bool) -> Vec<f64> {
        let pixels = self.size[0] * self.size[1];
        let place =
            |index: usize| if channels_last { index % self.channels * pixels + index / self.channels } else { index };
        (0..self.values.len()).map(|index| self.values[place(index)]).collect()
    }

    /// A convolution of stride 1. With `pad`, the image is padded to keep its size, each channel with its own value.
    fn convolved(&self, layer: &WeightLayer, pad: Option<&[f32]>) -> Self {
        let (shape, [height, width]) = (layer.shape, self.size);
        let kernel = (1..).find(|kernel| kernel * kernel >= shape.taps).expect("a square kernel");
        let half = if pad.is_some() { kernel / 2 } else { 0 };
        let size = [height + 2 * half + 1 - kernel, width + 2 * half + 1 - kernel];
        let mut values = Vec::new();
        for output in 0..shape.outputs {
            for row in 0..size[0] {
                for column in 0..size[1] {
                    let mut sum = layer.bias.as_ref().map_or(0.0, |bias| f64::from(bias[output]));
                    for input in 0..shape.inputs {
                        for tap in 0..shape.taps {
                            let at = [row + tap / kernel, column + tap % kernel].map(|at| at.checked_sub(half));
                            let value = match at {
                                [Some(row), Some(column)] if row < height && column < width => {
                                    self.at(input, row, column)
                                }
                                _ => f64::from(pad.expect("a place outside only with padding")[input]),
                            };
                            let weight = match shape.order {
                                WeightOrder::OutInTaps => (output * shape.inputs + input) * shape.taps + tap,
                                WeightOrder::TapsInOut => (tap * shape.inputs + input) * shape.outputs + output,
                                other => panic!("{other:?}"),
                            };
                            sum += f64::from(layer.weights[weight]) * value;
                        }
                    }
                    values.push(sum);
                }
            }
        }
        Self { channels: shape.outputs, size, values }
    }

    fn pooled(&self, min: &[bool]) -> Self {
        let size = [self.size[0] - 1, self.size[1] - 1];
        let mut values = Vec::new();
        for (channel, &min) in min.iter().enumerate() {
            for row in 0..size[0] {
                for column in 0..size[1] {
                    let window = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(r, c)| self.at(channel, row + r, column + c));
                    let pick = if min { f64::min } else { f64::max };
                    values.push(window.into_iter().reduce(pick).expect("four values"));
                }
            }
        }
        Self { channels: self.channels, size, values }
    }
}

/// Input and output of a file.
fn recorded(name: &str) -> (Vec<f64>, Vec<f64>) {
    let text = std::fs::read_to_string(file(name)).expect("written by make.py");
    let recorded: BTreeMap<String, Vec<f64>> = serde_json::from_str(&text).expect("two arrays");
    (recorded["input"].clone(), recorded["output"].clone())
}

/// The largest difference, relative to the largest output.
fn difference(actual: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    actual.iter().zip(expected).fold(0.0_f64, |worst, (actual, expected)| worst.max((actual - expected).abs()))
        / largest
}

const ZEROS: [f32; 4] = [0.0; 4];

/// The network of `make.py` without its batch norms.
fn network(model: &Model, padding: &[f32], x: &Image, channels_last: bool) -> Vec<f64> {
    let layer = |name| &model.layers[model.layer(name).expect("a name of make.py")];
    let x = x.convolved(layer("conv1"), Some(&ZEROS)).map(|x| x.max(0.0));
    let x = x.convolved(layer("conv2"), None).map(|x| x.max(0.0));
    x.convolved(layer("conv3"), Some(padding)).in_file(channels_last)
}

fn check(mut model: Model, expected: &str, channels_last: bool) {
    let (input, output) = recorded(expected);
    let x = Image::from_file(&input, channels_last);
    let between = model.fold(false).expect("nothing to refuse");
    let [Between { layer, padding: Some(padding), min_pooled: None }] = &between[..] else { panic!("{between:?}") };
    assert_eq!(layer, "conv3");
    let folded = difference(&network(&model, padding, &x, channels_last), &output);
    println!("{expected}: {folded:.1e}");
    assert!(folded < 1e-6, "{expected}: {folded}");
    // What is usually done, and wrong.
    assert!(difference(&network(&model, &ZEROS, &x, channels_last), &output) > 1e-2);
}

/// Which batch norm is beside which layer, and on which side.
fn sides(model: &Model) -> Vec<(&str, &str, Side)> {
    let of = model.neighbours.iter();
    of.map(|of| (model.batch_norms[of.batch_norm].name.as_str(), model.layers[of.layer].name.as_str(), of.side))
        .collect()
}

const BEFORE_CONV3: Side = Side::Next { max_pooling: false, padding: true };

#[test]
fn a_state_dict_of_pytorch_is_paired_by_its_names_and_by_what_is_said() {
    let mut model = read("torch.safetensors");
    // bn3 is before conv3, which no name says: the guess is refused where the channels do not fit.
    assert_eq!(sides(&model), [("bn1", "conv1", Side::Previous), ("bn2", "conv2", Side::Previous)]);
    assert!(model.remarks.iter().any(|remark| remark.starts_with("bn3: no neighbour known")), "{:?}", model.remarks);
    assert!(model.pair("bn3", "conv1", BEFORE_CONV3).is_err() && model.pair("bn4", "conv1", BEFORE_CONV3).is_err());
    model.pair("bn3", "conv3", BEFORE_CONV3).expect("three channels");
    check(model, "torch.json", false);
}

#[test]
fn the_graph_of_onnx_is_folded_as_it_is() {
    let model = read("onnx.onnx");
    let expected = [("bn1", "conv1", Side::Previous), ("bn2", "conv2", Side::Previous), ("bn3", "conv3", BEFORE_CONV3)];
    assert_eq!(sides(&model), expected);
    check(model, "onnx.json", false);
}

#[test]
fn max_pooling_behind_a_negative_weight_is_refused_or_becomes_min_pooling() {
    let mut model = read("onnx-max-pooling.onnx");
    assert_eq!(sides(&model)[2], ("bn3", "conv3", Side::Next { max_pooling: true, padding: false }));
    let weights = model.layers[0].weights.clone();
    let fault = model.fold(false).expect_err("channel 1 has a negative weight");
    assert!(fault.contains("bn3") && fault.contains("channel 1") && fault.contains("--min-pooling"), "{fault}");
    assert_eq!(model.layers[0].weights, weights, "something was folded");

    let between = model.fold(true).expect("the caller can min-pool");
    let min_pooled = vec![false, true, false];
    assert_eq!(between, [Between { layer: "conv3".to_owned(), padding: None, min_pooled: Some(min_pooled.clone()) }]);
    let (input, output) = recorded("onnx-max-pooling.json");
    let layer = |name| &model.layers[model.layer(name).expect("a name of make.py")];
    let run = |min_pooled: &[bool]| {
        let x = Image::from_file(&input, false).convolved(layer("conv1"), Some(&ZEROS)).map(|x| x.max(0.0));
        let x = x.convolved(layer("conv2"), None).map(|x| x.max(0.0)).pooled(min_pooled);
        difference(&x.convolved(layer("conv3"), None).in_file(false), &output)
    };
    assert!(run(&min_pooled) < 1e-6, "{}", run(&min_pooled));
    assert!(run(&[false; 3]) > 1e-2);
}

#[test]
fn keras_is_folded_in_the_order_of_its_layers() {
    let model = read("keras.keras");
    let expected = [("bn1", "conv1", Side::Previous), ("bn2", "conv2", Side::Previous), ("bn3", "conv3", BEFORE_CONV3)];
    assert_eq!(sides(&model), expected);
    assert!(model.batch_norms.iter().all(|bn| bn.eps == 1e-3), "Keras' own default");
    check(model, "keras.json", true);
}

#[test]
fn the_arrays_of_flax_are_paired_by_their_names_and_by_what_is_said() {
    let mut model = read("flax.npz");
    model.pair("bn3", "conv3", BEFORE_CONV3).expect("three channels");
    check(model, "flax.json", true);
}

/// Compared with `OpenCV`, which adds the `eps` under the root: with variances of 0.01 and more, that is at most 1e-5 of
/// them.
#[test]
fn darknet_reads_its_numbers_in_the_order_of_the_cfg() {
    let mut model = read("darknet.weights");
    let (input, output) = recorded("darknet.json");
    assert_eq!(model.fold(false), Ok(vec![]));
    let layer = |index: usize| &model.layers[index];
    let x = Image::from_file(&input, false).convolved(layer(0), Some(&ZEROS)).map(|x| x.max(0.0));
    let y = x.convolved(layer(1), None).map(|x| x.max(0.0)).in_file(false);
    assert!(difference(&y, &output) < 1e-4, "{}", difference(&y, &output));

    let cfg = std::fs::read_to_string(file("darknet.cfg")).expect("written by make.py");
    let weights = std::fs::read(file("darknet.weights")).expect("written by make.py");
    let fault = darknet::read(&cfg, &weights[..weights.len() - 4]).expect_err("a number too few");
    assert!(fault.contains("are due"), "{fault}");
    let first = cfg.rsplit_once("[convolutional]").expect("two of them").0;
    let fault = darknet::read(first, &weights).expect_err("another network's");
    assert!(fault.contains("are left"), "{fault}");
    let fault = darknet::read(&format!("{cfg}\n[route]\nlayers=-1\n"), &weights).expect_err("no chain");
    assert!(fault.contains("only chains"), "{fault}");
    // The gain of a variance of 1e-6, with the eps outside the root.
    let mut numbers = [0_i32, 2, 5, 0, 0].map(i32::to_le_bytes).concat();
    numbers.extend([0.0_f32, 1.0, 0.0, 1e-6, 1.0].map(f32::to_le_bytes).concat());
    let one = "[net]\nchannels=1\n[convolutional]\nbatch_normalize=1\nfilters=1\nsize=1\n";
    let mut model = darknet::read(one, &numbers).expect("one weight");
    model.fold(false).expect("a variance above 0");
    assert!((model.layers[0].weights[0] - 999.001).abs() < 1e-3);
}

#[test]
fn haikus_statistics_are_its_averages() {
    let mut model = read("haiku.npz");
    assert!(model.batch_norms.iter().all(|bn| bn.weight.is_some() && bn.bias.is_some() && bn.eps == 1e-5));
    model.pair("bn3", "conv3", BEFORE_CONV3).expect("three channels");
    check(model, "haiku.json", true);
}

#[test]
fn a_state_dict_of_paddle_has_other_names_and_linear_weights_the_other_way_round() {
    let mut model = read("paddle.safetensors");
    assert_eq!(sides(&model), [("bn1", "conv1", Side::Previous), ("bn2", "conv2", Side::Previous)]);
    let fc = &model.layers[model.layer("fc").expect("there")];
    assert_eq!((fc.shape.outputs, fc.shape.inputs, &fc.weights[..2]), (3, 2, &[1.0, 2.0][..]));
    assert_eq!([0, 1, 2, 3].map(|index| fc.output_of(index)), [0, 1, 2, 0]);
    model.pair("bn3", "conv3", BEFORE_CONV3).expect("three channels");
    check(model, "paddle.json", false);
}

#[test]
fn a_program_of_paddle_is_folded_as_it_is() {
    let mut model = read("paddle-program.pdiparams");
    // Paddle numbers the layers of each kind in a process.
    let name = |kind: &str, number: usize, names: Vec<&str>| {
        let of_kind: Vec<&str> = names.into_iter().filter(|name| name.starts_with(kind)).collect();
        of_kind[number].to_owned()
    };
    let batch_norms =
        |model: &Model, number| name("batch_norm2d_", number, model.batch_norms.iter().map(|bn| &*bn.name).collect());
    let convolutions =
        |model: &Model, number| name("conv2d_", number, model.layers.iter().map(|layer| &*layer.name).collect());
    let found: Vec<_> =
        sides(&model).iter().map(|&(bn, layer, side)| (bn.to_owned(), layer.to_owned(), side)).collect();
    let expected = [(0, 0, Side::Previous), (1, 1, Side::Previous), (2, 2, BEFORE_CONV3)];
    let expected = expected.map(|(bn, conv, side)| (batch_norms(&model, bn), convolutions(&model, conv), side));
    assert_eq!(found, expected, "{:?}", model.remarks);
    assert_eq!([0, 1, 2].map(|index: usize| model.batch_norms[index].eps), [1e-5; 3]);
    for (number, layer) in model.layers.iter_mut().enumerate() {
        layer.name = format!("conv{}", number + 1);
    }
    check(model, "paddle.json", false);

    let program = std::fs::read_to_string(file("paddle-program.json")).expect("written by make.py");
    let params = std::fs::read(file("paddle-program.pdiparams")).expect("written by make.py");
    let fault = |program: &str, params: &[u8]| paddle_program::read(program, params).expect_err("not read");
    for len in 0..params.len() {
        assert!(fault(&program, &params[..len]).contains("cut off"), "{len} bytes");
    }
    assert!(fault(&program, &[&params[..], &[0]].concat()).contains("1 bytes are left"));
    for at in 0..params.len() {
        let mut changed = params.clone();
        changed[at] ^= [0xFF, 0x80, 0x01, 0x20][at % 4];
        // Either it is refused, or another number was read; nothing panics.
        if let Ok(mut model) = paddle_program::read(&program, &changed) {
            let _ = model.fold(false);
        }
    }
    assert!(fault("{}", &params).contains("no program of Paddle 3"));
    let training = program.replace("true", "false");
    assert!(fault(&training, &params).contains("is in training mode"));
    assert!(fault(&program.replace("NCHW", "NHWC"), &params).contains("channels last"));
    assert!(read_as("a.pdiparams", &params).expect_err("no program").contains(".pdmodel of Paddle 2"));
}

/// Everything of a model but its remarks.
fn contents(model: &Model) -> String {
    format!("{:?}\n{:?}", model.batch_norms, model.layers)
}

#[test]
fn what_torch_and_paddle_save_is_the_state_dict_in_safetensors() {
    for (name, expected, prefix) in [
        ("torch.pt", "torch.safetensors", ""),
        // Of before PyTorch 1.6.
        ("torch-old.pth", "torch.safetensors", ""),
        // Among other things, and with weights whose channels are innermost in memory.
        ("torch-checkpoint.pth", "torch.safetensors", "state_dict."),
        ("paddle.pdparams", "paddle.safetensors", ""),
        ("paddle-protocol-2.pdparams", "paddle.safetensors", ""),
    ] {
        let model = read(name);
        assert_eq!(model.batch_norms.len(), 3, "{name}");
        assert!(model.batch_norms.iter().all(|bn| bn.name.starts_with(prefix)), "{name}");
        let found = contents(&model).replace(&format!("\"{prefix}"), "\"");
        assert_eq!(found, contents(&read(expected)), "{name}");
        assert_eq!(sides(&model).len(), 2, "{name}: the names are as good as those in safetensors");
    }
}

#[test]
fn halves_are_widened() {
    let expected = read("torch.safetensors");
    for (name, error) in [("torch-f16.pt", 2.0_f32.powi(-11)), ("torch-bf16.safetensors", 2.0_f32.powi(-8))] {
        let model = read(name);
        let all = |model: &Model| -> Vec<f32> {
            let of_layers = model.layers.iter().flat_map(|layer| layer.weights.clone());
            let of_batch_norms = model.batch_norms.iter().flat_map(|bn| [bn.mean.clone(), bn.var.clone()].concat());
            of_layers.chain(of_batch_norms).collect()
        };
        let (found, exact) = (all(&model), all(&expected));
        assert_eq!(found.len(), exact.len());
        // Rounded to halves twice, the second time to fewer bits.
        let near = |(&half, &exact): (&f32, &f32)| (half - exact).abs() <= 1.1 * error * exact.abs();
        assert!(found.iter().zip(&exact).all(near) && found != exact, "{name}");
    }
    let module = std::fs::read(file("torch-f16.pt")).expect("written by make.py");
    let place = module.windows(11).position(|window| window == b"HalfStorage").expect("its class");
    let mut other = module.clone();
    other[place..place + 11].copy_from_slice(b"ByteStorage");
    assert!(torch::read(&other, None).expect_err("integers").contains("is u8, and only f32, f16 and bf16"));
}

#[test]
fn a_pickle_with_anything_but_tensors_is_refused_and_nothing_of_it_is_called() {
    let module = formats::read(&file("torch-module.pth"), None).expect_err("a whole module");
    assert!(module.contains("torch.nn.modules.conv.Conv2d") && module.contains("save the state dict"), "{module}");
    let fault = |pickle: &[u8]| paddle::read(pickle, None).expect_err("nothing that can be read");
    let remove = fault(b"\x80\x02cos\nremove\nX\x01\x00\x00\x00x\x85R.");
    assert!(remove.contains("os.remove"), "{remove}");
    // The same by the names of protocol 4, by a class of a persistent number, by an instance, and by an extension.
    assert!(fault(b"\x80\x04\x8c\x02os\x8c\x06remove\x93.").contains("os.remove"));
    for (pickle, instruction) in [
        (&b"\x80\x02(ios\nremove\n."[..], "0x69"),
        (b"\x80\x02)\x81.", "0x81"),
        (b"\x80\x02P1\n.", "0x50"),
        (b"\x80\x02\x82\x01.", "0x82"),
        (b"\x80\x02I1\n.", "0x49"),
    ] {
        assert!(fault(pickle).contains(&format!("instruction {instruction}")), "{}", fault(pickle));
    }
    assert!(fault(b"\x80\x05N.").contains("protocol 5"));
    assert!(fault(b"\x80\x02N.N").contains("1 bytes are left"));
    // Wrong arguments, an empty stack, values below a mark, an integer that is too large.
    for pickle in [
        &b"\x80\x02."[..],
        b"\x80\x02N(.",
        b"\x80\x02e.",
        b"\x80\x02}NNNu.",
        b"\x80\x02h\x07.",
        b"\x80\x02]N(NNNs.",
        b"\x80\x02ccollections\nOrderedDict\nN\x85R.",
        b"\x80\x02cnumpy\ndtype\n)R.",
        b"\x80\x02NR.",
        b"\x80\x02NQ.",
        b"\x80\x02)Q.",
        b"\x80\x02\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01.",
        b"\x80\x02B\xff\xff\xff\xff.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
    ] {
        fault(pickle);
    }
}

/// A pickle of Paddle with one array, whose numbers many names have.
fn many_names(count: usize, dims: &[u8], fortran: u8) -> Vec<u8> {
    let mut pickle = b"\x80\x02}(".to_vec();
    for index in 0..count {
        let name = format!("bn{index}.running_mean");
        pickle.push(0x8C);
        pickle.push(u8::try_from(name.len()).expect("short"));
        pickle.extend(name.bytes());
        if index > 0 {
            pickle.extend(b"h\x01");
            continue;
        }
        pickle.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87Rq\x01(K\x01");
        pickle.push(b'(');
        dims.iter().for_each(|&dim| pickle.extend([b'K', dim]));
        pickle.extend(
            b"tcnumpy\ndtype\n\x8c\x02f4\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        );
        pickle.push(fortran);
        pickle.extend(b"B\xa0\x00\x00\x00");
        pickle.extend([0; 160]);
        pickle.extend(b"tb");
    }
    pickle.extend(b"u.");
    pickle
}

#[test]
fn a_small_pickle_does_not_fill_the_memory() {
    let read = |pickle: &[u8]| paddle::read(pickle, None).map(|model| model.batch_norms.len());
    let fault = |pickle: &[u8]| read(pickle).expect_err("too much");
    // What is counted here is right: it lacks its variance alone.
    assert!(fault(&many_names(1, &[40], 0x89)).contains("no running_var"));
    assert!(fault(&many_names(3, &[4, 10], 0x89)).contains("no running_var"));
    assert!(fault(&many_names(3000, &[40], 0x89)).contains("more than four times"));
    assert!(fault(&many_names(1, &[40], 0x88)).contains("Fortran"));
    for dims in [&[41][..], &[255, 255, 255, 255, 255, 255, 255, 255], &[0]] {
        assert!(fault(&many_names(1, dims, 0x89)).contains("which its dimensions"), "{dims:?}");
    }
    assert!(fault(&many_names(1, &[1; 9], 0x89)).contains("other arguments"));
    let repeated =
        |start: &[u8], middle: &[u8], count: usize| [b"\x80\x02", start, &middle.repeat(count), b"."].concat();
    for middle in [&b"N"[..], b"]", b"(", b"h\x00", b"r\x00\x00\x00\x00", b"\x94"] {
        let bomb = repeated(b"}q\x00", middle, 1 << 21);
        assert!(fault(&bomb).contains("more than 1048576 values"), "{middle:?}");
    }
    // A text that is encoded again and again, a name that is far too long, dictionaries within dictionaries, and a
    // dictionary that holds itself.
    let text = [b"X\x00\x10\x00\x00", &[b'a'; 4096][..], b"q\x01"].concat();
    let encode = b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R0";
    assert!(fault(&repeated(&text, &encode[..encode.len() - 1], 1000)).contains("more bytes than it has"));
    assert!(fault(&[b"\x80\x02}", &text[..], b"}s."].concat()).contains("a name of 4096 bytes"));
    assert_eq!(read(&[b"\x80\x02}", &text[..], b"K\x01s."].concat()), Ok(0), "of a number");
    let deep = [b"\x80\x02".to_vec(), b"}K\x00".repeat(9), b"}".to_vec(), b"s".repeat(9), b".".to_vec()].concat();
    assert!(fault(&deep).contains("deeper than 8"));
    assert_eq!(read(b"\x80\x02}q\x00K\x01h\x00s."), Ok(0));
}

#[test]
fn a_saved_model_has_the_names_of_its_layers() {
    for (name, prefix) in [("keras-2", ""), ("keras-3", "sequential/")] {
        let mut model = read(&format!("{name}/variables.index"));
        assert_eq!((model.batch_norms.len(), model.layers.len()), (3, 3), "{name}: {:?}", model.remarks);
        assert!(model.remarks[0].contains("1e-3"), "{:?}", model.remarks);
        let named = |short: &str| format!("{prefix}{short}");
        // Keras 2 numbers its layers, Keras 3 has their names alone.
        let found: Vec<_> = sides(&model).iter().map(|(bn, layer, _)| (bn.to_string(), layer.to_string())).collect();
        assert_eq!(found, [(named("bn1"), named("conv1")), (named("bn2"), named("conv2"))], "{name}");
        model.pair(&named("bn3"), &named("conv3"), BEFORE_CONV3).expect("three channels");
        model.layers.iter_mut().for_each(|layer| layer.name = layer.name.trim_start_matches(prefix).to_owned());
        check(model, &format!("{name}.json"), true);
    }
    // The folder of a SavedModel, its graph, and a folder without variables.
    let work = std::env::temp_dir().join(format!("normdrop-import-{}", std::process::id()));
    std::fs::create_dir_all(work.join("variables")).expect("a folder");
    for part in ["variables.index", "variables.data-00000-of-00001"] {
        std::fs::copy(file("keras-2").join(part), work.join("variables").join(part)).expect("two files");
    }
    let expected = contents(&read("keras-2/variables.index"));
    for path in [work.clone(), work.join("saved_model.pb")] {
        assert_eq!(formats::read(&path, None).map(|model| contents(&model)), Ok(expected.clone()), "{path:?}");
    }
    // Cut off, each of the two, and with bytes that were changed.
    let index = work.join("variables/variables.index");
    let data = work.join("variables/variables.data-00000-of-00001");
    for path in [index, data] {
        let whole = std::fs::read(&path).expect("a copy");
        for len in (0..whole.len()).step_by(31).chain([whole.len() - 1]) {
            std::fs::write(&path, &whole[..len]).expect("a copy");
            formats::read(&work, None).expect_err("cut off");
        }
        for at in (0..whole.len()).step_by(3) {
            let mut changed = whole.clone();
            changed[at] ^= [0xFF, 0x80, 0x01][at % 3];
            std::fs::write(&path, &changed).expect("a copy");
            // Either it is refused, or another number was read.
            let _ = formats::read(&work, None);
        }
        std::fs::write(&path, &whole).expect("a copy");
    }
    std::fs::remove_dir_all(&work).expect("its own folder");
    assert!(formats::read(&file(""), None).expect_err("no variables").contains("variables.index"));
}

#[test]
fn files_of_torch_and_paddle_that_are_cut_off_or_changed_are_refused_or_read() {
    type Read = fn(&[u8], Option<f32>) -> Result<Model, String>;
    for (name, read) in [
        ("torch.pt", torch::read as Read),
        ("torch-old.pth", torch::read),
        ("torch-checkpoint.pth", torch::read),
        ("paddle.pdparams", paddle::read),
        ("paddle-protocol-2.pdparams", paddle::read),
    ] {
        let whole = std::fs::read(file(name)).expect("written by make.py");
        // An archive is longer, and takes longer to be opened.
        let step = if whole.starts_with(b"PK") { 37 } else { 1 };
        for len in (0..whole.len()).step_by(step).chain([whole.len() - 1]) {
            read(&whole[..len], None).expect_err("cut off");
        }
        for at in (0..whole.len()).step_by(step) {
            let mut changed = whole.clone();
            changed[at] ^= [0xFF, 0x80, 0x01, 0x20][at % 4];
            // Either it is refused, or another number was read; nothing panics.
            if let Ok(mut model) = read(&changed, None) {
                let _ = model.fold(false);
            }
        }
    }
    assert!(torch::read(b"nothing", None).expect_err("no file of PyTorch").contains("no file of torch.save"));
}

#[test]
fn mxnet_fixes_the_weights_and_has_an_eps_of_1e_3_unless_the_graph_says_otherwise() {
    let model = read("mxnet-0000.params");
    let expected = [("bn1", "conv1", Side::Previous), ("bn2", "conv2", Side::Previous), ("bn3", "conv3", BEFORE_CONV3)];
    assert_eq!(sides(&model), expected);
    assert_eq!(model.batch_norms[1].weight, Some(vec![1.0; 3]));
    assert_eq!([0, 1, 2].map(|index: usize| model.batch_norms[index].eps), [1e-5, 1e-3, 1e-5]);
    assert!(model.remarks.iter().any(|remark| remark.starts_with("bn2: fix_gamma is on")), "{:?}", model.remarks);
    check(model, "mxnet.json", false);

    let symbol = std::fs::read_to_string(file("mxnet-symbol.json")).expect("written by make.py");
    let params = std::fs::read(file("mxnet-0000.params")).expect("written by make.py");
    let fault = |symbol: &str, params: &[u8]| mxnet::read(symbol, params).expect_err("nothing that can be read");
    for len in 0..params.len() {
        mxnet::read(&symbol, &params[..len]).expect_err("cut off");
    }
    assert!(fault(&symbol, &[&params[..], &[0]].concat()).contains("1 bytes are left"));
    assert!(fault("{}", &params).contains("no nodes"));
    assert!(fault(&symbol.replace("conv2_weight", "conv4_weight"), &params).contains("conv4_weight is not in"));
    assert!(fault(&symbol.replace("\"1e-05\"", "\"small\""), &params).contains("eps is not a number"));
    // The output of a batch norm is read by two, or by none and is an output of the network.
    let twice = symbol.replace("\"heads\": [[", "\"heads\": [[INDEX, 0, 0], [");
    let json: serde_json::Value = serde_json::from_str(&symbol).expect("JSON");
    let nodes = json["nodes"].as_array().expect("an array");
    let bn3 = nodes.iter().position(|node| node["name"] == "bn3").expect("there");
    let model = mxnet::read(&twice.replace("INDEX", &bn3.to_string()), &params).expect("read");
    assert!(model.remarks.iter().any(|remark| remark.starts_with("bn3 stays: 2 other")), "{:?}", model.remarks);
}

#[test]
fn caffes_sums_are_divided_and_its_scale_belongs_to_the_batch_norm() {
    let model = read("caffe.caffemodel");
    let expected = [("bn1", "conv1", Side::Previous), ("bn2", "conv2", Side::Previous), ("bn3", "conv3", BEFORE_CONV3)];
    assert_eq!(sides(&model), expected);
    assert_eq!([0, 1, 2].map(|index: usize| model.batch_norms[index].eps), [1e-5, 1e-3, 1e-5]);
    // The same statistics as the file of PyTorch, up to the rounding of sum and quotient.
    for (caffe, torch) in model.batch_norms.iter().zip(&read("torch.safetensors").batch_norms) {
        for (sum, value) in caffe.mean.iter().chain(&caffe.var).zip(torch.mean.iter().chain(&torch.var)) {
            assert!((sum - value).abs() <= 2e-7 * value.abs(), "{sum} {value}");
        }
    }
    check(model, "caffe.json", false);

    let bytes = std::fs::read(file("caffe.caffemodel")).expect("written by make.py");
    assert!(caffe::read(&[], None).expect_err("empty").contains("no layer"));
    // A layer of the old form: field 2.
    assert!(caffe::read(&[18, 0], None).expect_err("old").contains("upgrade_net_proto_binary"));
    // With a .prototxt: its layers and its eps, and the numbers by the names of the layers.
    let text = std::fs::read_to_string(file("caffe-deploy.prototxt")).expect("written by make.py");
    let with = |text: &str| caffe::read(&bytes, Some(text));
    assert_eq!(sides(&with(&text).expect("the same network")), expected);
    check(with(&text).expect("the same network"), "caffe.json", false);
    let other_eps = with(&text.replace("eps: 0.001", "eps: 0.01")).expect("another eps");
    assert_eq!([0, 1, 2].map(|index: usize| other_eps.batch_norms[index].eps), [1e-5, 1e-2, 1e-5]);
    let unpadded = with(&text.replace("pad: 1", "pad: 0")).expect("another convolution");
    assert_eq!(sides(&unpadded)[2].2, Side::Next { max_pooling: false, padding: false });
    // What stands between in the one and not in the other.
    let pooled = text.replace("type: \"Dropout\"", "type: \"Pooling\" pooling_param { pool: MAX kernel_size: 2 }");
    assert_eq!(sides(&with(&pooled).expect("max-pooling"))[2].2, Side::Next { max_pooling: true, padding: true });
    // A layer of training alone, and one of the .caffemodel that the other does not have.
    let training = text.replace("type: \"Dropout\"", "type: \"Power\" include { phase: TRAIN }");
    assert_eq!(sides(&with(&training).expect("not there")), expected);
    let fewer = with(&text.replace("name: \"bn2_scale\"", "name: \"other\""));
    assert!(fewer.expect_err("no numbers").contains("other lacks its blob 0"));
    let renamed = with(&text.replace("name: \"conv3\"", "name: \"conv4\""));
    assert!(renamed.expect_err("no weights").contains("conv4 has no weights"));
    assert!(with("layers { name: 'a' }").expect_err("old").contains("upgrade_net_proto_text"));
    assert!(with("").expect_err("empty").contains("no layer"));
    assert!(with(&text.replace("eps: 0.001", "eps: small")).expect_err("no number").contains("bn2: eps is \"small\""));
    for len in 0..text.len() {
        let _ = with(&text[..len]);
    }

    // A dimension of conv1's weights, 4 of [4, 2, 3, 3], becomes 5.
    let dims = [4, 2, 3, 3];
    let at = bytes.windows(4).position(|window| window == dims).expect("the shape of conv1");
    let mut other = bytes.clone();
    other[at] = 5;
    assert!(caffe::read(&other, None).expect_err("a wrong shape").contains("conv1, blob 0"));
}

#[test]
fn weights_of_keras_alone_are_paired_by_their_names() {
    let mut model = read("keras.weights.h5");
    assert_eq!(sides(&model), [("bn1", "conv1", Side::Previous), ("bn2", "conv2", Side::Previous)]);
    assert!(model.remarks[0].contains("1e-3"), "{:?}", model.remarks);
    model.pair("bn3", "conv3", BEFORE_CONV3).expect("three channels");
    check(model, "keras.json", true);
    assert!(formats::keras::read_weights(vec![0; 64], None).is_err());
}

#[test]
fn ncnn_reads_its_numbers_in_the_order_of_the_param() {
    let model = read("ncnn.param");
    let expected = [("bn1", "conv1", Side::Previous), ("bn2", "conv2", Side::Previous), ("bn3", "conv3", BEFORE_CONV3)];
    assert_eq!(sides(&model), expected);
    check(model, "ncnn.json", false);

    let param = std::fs::read_to_string(file("ncnn.param")).expect("written by make.py");
    let bin = std::fs::read(file("ncnn.bin")).expect("written by make.py");
    let fault = |param: &str, bin: &[u8]| ncnn::read(param, bin).expect_err("nothing that can be read");
    assert!(fault(&param, &bin[..bin.len() - 4]).contains("are due"));
    assert!(fault(&param, &[&bin[..], &[0; 4]].concat()).contains("are left"));
    assert!(fault(&param[1..], &bin).contains("7767517"));
    assert!(fault(&param.replace("10 10", "11 10"), &bin).contains("there are 10 layers"));
    assert!(fault(&param.replace("ReLU relu1", "LSTM relu1"), &bin).contains("relu1, a LSTM"));
    assert!(fault(&param.replace("0=4 1=3", "0=5 1=3"), &bin).contains("are not 5 outputs"));
    assert!(
        fault(&param.replace("0=4 1=3", "0=18446744073709551615 1=3"), &bin).contains("are not 18446744073709551615")
    );
    let half = [&0x0130_6B47_u32.to_le_bytes(), &bin[4..]].concat();
    assert!(fault(&param, &half).contains("f16"));
    // An activation that is a part of the convolution stands between the two, and what pads with 1 is no zero padding.
    let model = ncnn::read(&param.replace("5=0 6=72", "5=0 6=72 9=1"), &bin).expect("read");
    assert_eq!(model.neighbours.len(), 2);
    assert!(model.remarks.iter().any(|remark| remark.contains("bn1 stays: a ReLU stands")), "{:?}", model.remarks);
    assert!(fault(&param.replace("5=1 6=54", "5=1 6=54 18=1.0"), &bin).contains("another value than 0"));
    // Padding as a layer of its own, with zeros and by reflection.
    let side = |keys: &str| {
        let param = param.replace("Dropout dropout 1 1 g h", &format!("Padding pad 1 1 g h {keys}"));
        let model = ncnn::read(&param.replace("1=3 4=1 5=1", "1=3 4=0 5=1"), &bin).expect("read");
        model.neighbours.last().expect("bn3").side
    };
    assert_eq!(side("0=1 1=1 2=1 3=1"), BEFORE_CONV3);
    assert_eq!(side("0=1 1=1 2=1 3=1 4=2"), Side::Next { max_pooling: false, padding: false });
}

/// A network of one batch norm of one channel, and a convolution with the weight 1.
fn small_ncnn(line: &str, numbers: &[f32]) -> Model {
    let param = format!("7767517\n4 4\nInput data 0 1 x\nConvolution conv 1 1 x a 0=1 1=1 6=1\n{line}\n");
    let bin: Vec<u8> = [0.0, 1.0].iter().chain(numbers).flat_map(|number: &f32| number.to_le_bytes()).collect();
    ncnn::read(&param, &bin).unwrap_or_else(|fault| panic!("{fault}"))
}

#[test]
fn a_root_of_0_in_ncnn_is_1e_4() {
    let mut model = small_ncnn("BatchNorm bn 1 1 a b 0=1\nReLU relu 1 1 b y", &[1.0, 0.0, 0.0, 0.5]);
    assert!(model.remarks[0].contains("channels [0]"), "{:?}", model.remarks);
    model.fold(false).expect("a variance of 1e-8");
    let WeightLayer { weights, bias, .. } = &model.layers[0];
    // Seen in ncnn: gain 1e4.
    assert!((weights[0] - 1e4).abs() < 1e-2 && bias.as_deref() == Some(&[0.5]), "{weights:?} {bias:?}");
}

#[test]
fn a_scale_belongs_to_the_batch_norm_directly_before_it() {
    // (x - 3)/2*10 + 1, times 0.5, plus 7.
    let numbers = [10.0, 3.0, 4.0, 1.0, 0.5, 7.0];
    let mut model = small_ncnn("BatchNorm bn 1 1 a b 0=1\nScale scale 1 1 b y 0=1 1=1", &numbers);
    assert_eq!(sides(&model), [("bn", "conv", Side::Previous)]);
    model.fold(false).expect("one batch norm");
    assert_eq!((&model.layers[0].weights[..], model.layers[0].bias.as_deref()), (&[2.5][..], Some(&[0.0][..])));
    // Another layer between the two: both stay what they are, and only the first one is beside the convolution.
    let lines = "BatchNorm bn 1 1 a b 0=1\nScale scale 1 1 c y 0=1 1=1";
    let model = small_ncnn(lines, &numbers);
    assert_eq!((model.batch_norms.len(), sides(&model)), (2, vec![("bn", "conv", Side::Previous)]));
}

#[test]
fn unusual_numbers_are_named_with_their_channel() {
    let mut bn = read("onnx.onnx").batch_norms[2].clone();
    assert_eq!(bn.warnings(), Vec::<String>::new());
    bn.var = vec![-1e-3, 0.0, 1e-9];
    bn.weight = Some(vec![0.0, 1e-40, f32::NAN]);
    bn.mean = vec![0.0, 0.0, f32::INFINITY];
    let warnings = bn.warnings().join("\n");
    for part in [
        "negative variance",
        "variance of 0",
        "far below eps",
        "dead weight",
        "subnormal weight",
        "weight that is not",
        "mean that is not",
    ] {
        assert!(warnings.contains(part), "{part} is missing:\n{warnings}");
    }
}

#[test]
fn files_that_are_cut_off_or_foreign_are_refused() {
    for name in [
        "torch.safetensors",
        "onnx.onnx",
        "keras.keras",
        "keras.weights.h5",
        "flax.npz",
        "caffe.caffemodel",
        "darknet.weights",
    ] {
        let bytes = std::fs::read(file(name)).expect("written by make.py");
        for len in [0, 1, 7, bytes.len() / 2, bytes.len() - 1] {
            let cut = &bytes[..len];
            let result = match name.rsplit_once('.').map(|(_, extension)| extension) {
                Some("safetensors") => formats::state_dict::read(cut, None),
                Some("onnx") => formats::onnx::read(cut),
                Some("keras") => formats::keras::read(cut),
                Some("h5") => formats::keras::read_weights(cut.to_vec(), None),
                Some("npz") => formats::npz::read(cut, None),
                Some("caffemodel") => caffe::read(cut, None),
                _ => darknet::read("[net]\nchannels=2\n[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\n", cut),
            };
            assert!(result.is_err(), "{len} bytes of {name}");
        }
    }
    assert!(formats::read(&file("darknet.cfg"), None).expect_err("no model").contains("none of"));
}

/// Reads bytes as a file of this name, by the name alone.
fn read_as(name: &str, bytes: &[u8]) -> Result<Model, String> {
    let folder = std::env::temp_dir().join(format!("normdrop-import-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join(name), bytes).expect("a file");
    let model = formats::read(&folder.join(name), None);
    std::fs::remove_dir_all(&folder).expect("its own folder");
    model
}

#[test]
fn numbers_and_names_that_do_not_belong_together_are_refused() {
    // Two convolutions of one name: which one a batch norm is beside is not known.
    let bytes = std::fs::read(file("caffe.caffemodel")).expect("written by make.py");
    let at = bytes.windows(5).position(|window| window == b"conv1").expect("its name");
    let mut renamed = bytes.clone();
    renamed[at + 4] = b'3';
    assert!(read_as("a.caffemodel", &renamed).expect_err("two names").contains("two layers are named conv3"));
    assert!(read_as("a.caffemodel", &bytes).is_ok());
    // A batch norm with three variances and four means.
    let zeros = [0; 16];
    let view = |len: usize| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![len], &zeros[..4 * len]);
        view.expect("as many numbers as its shape has")
    };
    let bytes = safetensors::serialize([("bn.running_mean", view(4)), ("bn.running_var", view(3))], None);
    let bytes = bytes.expect("two tensors");
    assert!(read_as("a.safetensors", &bytes).expect_err("too few").contains("bn: 4 means, 3 variances"));
    // The numbers of a version in Darknet's file.
    let mut weights = std::fs::read(file("darknet.weights")).expect("written by make.py");
    weights[..4].copy_from_slice(&i32::MAX.to_le_bytes());
    let cfg = std::fs::read_to_string(file("darknet.cfg")).expect("written by make.py");
    assert!(darknet::read(&cfg, &weights).is_ok(), "of a later version");
    // Weights that are no whole number of outputs have no scale for each.
    let mut layer = read("onnx.onnx").layers[0].clone();
    assert_eq!(layer.check(), Ok(()));
    layer.shape.groups = 0;
    assert!(layer.check().expect_err("no group").contains("in 0 groups"));
    layer.shape.groups = 1;
    layer.bias = Some(vec![0.0; 5]);
    assert!(layer.check().expect_err("another bias").contains("a bias of 5 values, and 4 outputs"));
}

/// An archive of one file of zeros, compressed.
fn zeros(name: &str, len: usize) -> Vec<u8> {
    use std::io::Write as _;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.start_file(name, zip::write::SimpleFileOptions::default()).expect("a name");
    archive.write_all(&vec![0; len]).expect("in memory");
    archive.finish().expect("in memory").into_inner()
}

#[test]
fn an_archive_that_is_small_only_because_it_is_compressed_does_not_fill_the_memory() {
    let fault = formats::npz::read(&zeros("bn/mean.npy", 1 << 20), None).expect_err("a thousand times as long");
    assert!(fault.contains("over a hundred times as long"), "{fault}");
    let fault = formats::keras::read(&zeros("config.json", 1 << 20)).expect_err("a thousand times as long");
    assert!(fault.contains("over a hundred times as long"), "{fault}");
    // Nothing of an archive of PyTorch is compressed.
    assert!(
        torch::read(&zeros("archive/data.pkl", 1 << 20), None).expect_err("compressed").contains("it is compressed")
    );
}

#[test]
fn what_is_written_is_what_was_folded() {
    let mut model = read("onnx.onnx");
    let between = model.fold(false).expect("nothing to refuse");
    let bytes = write::safetensors(&model, &between).expect("names of their own");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("what was written");
    let values = |name: &str| -> Vec<f32> {
        let data = tensors.tensor(name).expect("a tensor of this name").data().to_vec();
        data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    };
    assert_eq!(tensors.tensor("conv1.weight").expect("there").shape(), [4, 2, 3, 3]);
    assert_eq!(values("conv1.weight"), model.layers[0].weights);
    assert_eq!(Some(values("conv1.bias")), model.layers[0].bias, "the bias that the batch norm brought");
    assert_eq!(Some(&values("conv3.padding")), between[0].padding.as_ref());

    // The constants are read as the same f32.
    let numbers = |text: &str, open: &str| -> Vec<f32> {
        let body = text.split_once(open).unwrap_or_else(|| panic!("{open} is not in\n{text}")).1;
        let body = body.split([']', '}']).next().expect("a part");
        body.split(',')
            .map(|number| number.trim().trim_end_matches('f'))
            .filter(|number| !number.is_empty())
            .map(|number| number.parse().expect("a number"))
            .collect()
    };
    let rust = write::constants(&model, &between, Language::Rust, false);
    assert_eq!(numbers(&rust, "pub const CONV1_WEIGHT: [f32; 72] = ["), model.layers[0].weights);
    let c = write::constants(&model, &between, Language::C, false);
    assert_eq!(numbers(&c, "static const float conv1_weight[72] = {"), model.layers[0].weights);
    assert_eq!(Some(numbers(&c, "static const float conv3_padding[3] = {")), between[0].padding);
}

#[test]
fn eight_bits_have_a_scale_for_each_output() {
    for name in ["onnx.onnx", "keras.keras"] {
        let mut model = read(name);
        // A channel of a tiny variance takes the whole range.
        model.batch_norms[0].var[2] = 1e-9;
        model.fold(false).expect("nothing to refuse");
        let layer = &model.layers[0];
        let quantised = write::quantise(layer);
        for (index, (&value, &weight)) in quantised.values.iter().zip(&layer.weights).enumerate() {
            let scale = quantised.scales[layer.output_of(index)];
            assert!((f32::from(value) * scale - weight).abs() <= 0.5001 * scale, "{name}, weight {index}");
        }
        assert!(quantised.error < 0.51 / 127.0, "{name}: {}", quantised.error);
        assert!(quantised.error_of_one_scale > 5.0 * quantised.error, "{name}: {quantised:?}");
        let text = write::constants(&model, &[], Language::C, true);
        assert!(
            text.contains("static const signed char conv1_weight[72]") && text.contains("conv1_scale[4]"),
            "{text}"
        );
    }
}

#[test]
fn a_mean_without_a_variance_is_refused() {
    let bytes = std::fs::read(file("flax.npz")).expect("written by make.py");
    // The archive has each name twice, and its files as they are.
    let mut renamed = bytes;
    for place in 0..renamed.len() - 11 {
        if &renamed[place..place + 11] == b"bn1/var.npy" {
            renamed[place + 4..place + 7].copy_from_slice(b"vat");
        }
    }
    let fault = formats::npz::read(&renamed, None).expect_err("no variance");
    assert!(fault.contains("bn1/var is not"), "{fault}");
}

/// A linear layer behind a flattened image: which of its inputs belong to a channel.
#[test]
fn the_order_of_a_flattening_decides_which_weights_a_channel_has() {
    let mut model = read("torch.safetensors");
    let features = 3 * 2;
    let weights: Vec<f32> = (0..features).map(|index| f32::from(u8::try_from(index).expect("small")) + 1.0).collect();
    let mut linear = model.layers[0].clone();
    linear.shape = normdrop::WeightShape { outputs: 1, inputs: features, taps: 1, ..linear.shape };
    (linear.name, linear.dims, linear.weights, linear.bias) = ("linear".to_owned(), vec![1, features], weights, None);
    model.layers.push(linear);
    let bn = model.batch_norm("bn3").expect("there");
    let bn = &mut model.batch_norms[bn];
    (bn.weight, bn.bias, bn.var, bn.eps) = (Some(vec![1.0, 10.0, 100.0]), None, vec![1.0; 3], 0.0);
    let side = Side::Next { max_pooling: false, padding: false };
    let folded = |channels_last: bool| {
        let mut model = model.clone();
        model.neighbours.clear();
        if channels_last {
            model.channels_last("linear").expect("a linear layer");
        }
        model.pair("bn3", "linear", side).expect("two pixels of three channels");
        assert_eq!(model.fold(false), Ok(vec![]));
        model.layers.pop().expect("the linear layer").weights
    };
    assert_eq!(folded(false), [1.0, 2.0, 30.0, 40.0, 500.0, 600.0]);
    assert_eq!(folded(true), [1.0, 20.0, 300.0, 4.0, 50.0, 600.0]);
    assert!(model.clone().channels_last("conv1").is_err());
}
