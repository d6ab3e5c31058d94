"""Batch norm folded into PyTorch's layers, of every kind that has weights, against the unfolded network in float64.

The layers are PyTorch's own, and so is what they compute; only the weights and the bias are folded, by this package.
"""

import copy
import zlib

import numpy
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

import normdrop

U = 2.0**-24


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads cost more than tensors this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
AXES = {1: "L", 2: "HW", 3: "DHW"}


def layout_of(layer):
    """The order of the dimensions of a module's weights."""
    if isinstance(layer, nn.Linear):
        return "OI"
    transposed = isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    return ("IO" if transposed else "OI") + AXES[layer.weight.dim() - 2]


def channels_of(layer):
    """The inputs and the outputs of a module."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def batch_norm(dimensions, channels):
    made = BATCH_NORMS[dimensions](channels).eval()
    made.weight.data, made.bias.data = torch.randn(channels), torch.randn(channels)
    made.running_mean, made.running_var = torch.randn(channels), torch.rand(channels) + 0.25
    return made


def folded(layer, norm, fold, layout=None, view=None):
    """A copy of a module that has taken a batch norm over; `view` are its weights with the axes of the layout."""
    made = copy.deepcopy(layer)
    if made.bias is None:
        made.bias = nn.Parameter(torch.zeros(channels_of(made)[1]))
    weights = made.weight.detach().numpy()
    arrays = {name: getattr(norm, name).detach().numpy() for name in ("weight", "bias", "running_mean", "running_var")}
    fold(weights if view is None else weights.reshape(view), made.bias.detach().numpy(), arrays["running_mean"],
         arrays["running_var"], layout=layout or layout_of(layer), groups=getattr(layer, "groups", 1),
         weight=arrays["weight"], shift=arrays["bias"], eps=norm.eps)
    return made


def gap(actual, wanted, layer, x):
    """The largest difference of two outputs, in u of the magnitudes that the sums of the folded layer have."""
    actual, wanted = actual(x), wanted(x)
    sizes = copy.deepcopy(layer).double()
    for parameter in sizes.parameters():
        parameter.data = parameter.data.abs()
    return ((actual - wanted).abs() / (U * sizes(x.abs()) + 1e-12)).max().item()


def in_float64(*modules):
    return nn.Sequential(*(copy.deepcopy(module).double() for module in modules))


# Inputs, outputs and groups: as many of one as of the other, and not.
PLAIN = [(4, 4, 1), (3, 5, 1)]
GROUPED = [(4, 4, 1), (3, 5, 1), (4, 4, 2), (6, 4, 2), (3, 9, 3), (4, 4, 4)]
CONVOLUTIONS = [
    (kind, dimensions, sizes, options)
    for dimensions, kinds in enumerate([(nn.Conv1d, nn.ConvTranspose1d), (nn.Conv2d, nn.ConvTranspose2d),
                                        (nn.Conv3d, nn.ConvTranspose3d)], 1)
    for kind in kinds
    for sizes in (GROUPED if dimensions < 3 else GROUPED[1:3])
    for options in [{}, {"stride": 2}, {"padding": 1}, {"dilation": 2, "bias": False}]
]


def random_layer(kind, sizes, options):
    torch.manual_seed(zlib.crc32(repr((kind.__name__, sizes, options)).encode()))
    inputs, outputs, groups = sizes
    return kind(inputs, outputs, 3, groups=groups, **options)


@pytest.mark.parametrize("kind, dimensions, sizes, options", CONVOLUTIONS)
def test_a_convolution_takes_the_batch_norm_after_it(kind, dimensions, sizes, options):
    layer = random_layer(kind, sizes, options)
    norm = batch_norm(dimensions + 2, sizes[1])
    made = folded(layer, norm, normdrop.fold_into_previous)
    x = torch.randn(2, sizes[0], *[6, 7, 5][:dimensions], dtype=torch.float64)
    assert gap(in_float64(made), in_float64(layer, norm), made, x) <= 1.01


@pytest.mark.parametrize("kind, dimensions, sizes, options", CONVOLUTIONS)
def test_a_convolution_takes_the_batch_norm_before_it_where_every_output_sees_every_tap(kind, dimensions, sizes, options):
    layer = random_layer(kind, sizes, options)
    norm = batch_norm(dimensions + 2, sizes[0])
    x = torch.randn(2, sizes[0], *[6, 7, 5][:dimensions], dtype=torch.float64)
    made = folded(layer, norm, normdrop.fold_into_next)
    exact = gap(in_float64(made), in_float64(norm, layer), made, x) <= 1.01
    assert exact == (not layer.transposed and options.get("padding", 0) == 0)
    # Without a shift it does not matter.
    norm.bias.data = torch.zeros(sizes[0])
    norm.running_mean = torch.zeros(sizes[0])
    made = folded(layer, norm, normdrop.fold_into_next)
    assert gap(in_float64(made), in_float64(norm, layer), made, x) <= 1.01


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_that_copies_values_is_exact(mode):
    layer = random_layer(nn.Conv2d, (3, 5, 1), {"padding": 1, "padding_mode": mode})
    norm = batch_norm(4, 3)
    made = folded(layer, norm, normdrop.fold_into_next)
    assert gap(in_float64(made), in_float64(norm, layer), made, torch.randn(2, 3, 6, 7).double()) <= 1.01


def test_zero_padding_becomes_the_padding_of_the_documentation():
    layer = random_layer(nn.Conv2d, (3, 5, 1), {"padding": 1})
    norm = batch_norm(4, 3)
    made = folded(layer, norm, normdrop.fold_into_next)
    value = norm.running_mean.double() - norm.bias.double() * (norm.running_var.double() + norm.eps).sqrt() / norm.weight.double()
    x = torch.randn(2, 3, 6, 7).double()
    padded = value.detach().reshape(1, 3, 1, 1).expand(2, 3, 8, 9).clone()
    padded[:, :, 1:-1, 1:-1] = x
    made.padding = (0, 0)
    wanted = in_float64(norm, layer)(x)
    assert (in_float64(made)(padded) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d])
def test_a_transposed_convolution_that_cuts_its_edges_off_takes_the_batch_norm_before_it(kind):
    dimensions = 1 if kind is nn.ConvTranspose1d else 2
    for options in [{"padding": 2}, {"padding": 4, "dilation": 2}]:
        layer = random_layer(kind, (4, 6, 2), options)
        norm = batch_norm(dimensions + 2, 4)
        made = folded(layer, norm, normdrop.fold_into_next)
        x = torch.randn(2, 4, *[9] * dimensions).double()
        assert gap(in_float64(made), in_float64(norm, layer), made, x) <= 1.01


@pytest.mark.parametrize("sizes", PLAIN)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers(sizes, bias):
    torch.manual_seed(1)
    layer, x = nn.Linear(*sizes[:2], bias=bias), torch.randn(10, sizes[0]).double()
    for fold, channels in [(normdrop.fold_into_previous, sizes[1]), (normdrop.fold_into_next, sizes[0])]:
        norm = batch_norm(2, channels)
        made = folded(layer, norm, fold)
        wanted = in_float64(layer, norm) if fold is normdrop.fold_into_previous else in_float64(norm, layer)
        assert gap(in_float64(made), wanted, made, x) <= 1.01


@pytest.mark.parametrize("last", [False, True])
def test_a_linear_layer_after_a_flattening(last):
    torch.manual_seed(2)
    layer, norm = nn.Linear(3 * 4 * 5, 6), batch_norm(4, 3)
    view, layout = ((6, 4, 5, 3), "OHWI") if last else ((6, 3, 4, 5), "OIHW")
    made = folded(layer, norm, normdrop.fold_into_next, layout, view)
    x = torch.randn(7, 3, 4, 5).double()
    flat = lambda images: (images.permute(0, 2, 3, 1) if last else images).reshape(7, -1)
    assert (made.double()(flat(x)) - layer.double()(flat(norm.double()(x)))).abs().max() < 1e-5
    # The other order of the same weights is another network.
    wrong = folded(layer.float(), norm.float(), normdrop.fold_into_next, "OIHW" if last else "OHWI",
                   (6, 3, 4, 5) if last else (6, 4, 5, 3))
    assert (wrong.double()(flat(x)) - layer.double()(flat(norm.double()(x)))).abs().max() > 0.1


def test_what_pytorch_fuses_is_the_same():
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for kind, transpose in [(nn.Conv2d, False), (nn.ConvTranspose2d, True)]:
        layer = random_layer(kind, (4, 4, 1), {}).eval()
        norm = batch_norm(4, 4)
        theirs, ours = fuse_conv_bn_eval(layer, norm, transpose), folded(layer, norm, normdrop.fold_into_previous)
        assert torch.allclose(theirs.weight, ours.weight, rtol=1e-6) and torch.allclose(theirs.bias, ours.bias, rtol=1e-5, atol=1e-6)
