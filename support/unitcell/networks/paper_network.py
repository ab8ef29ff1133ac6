"""The network of Laanait 2019: twelve layers that regress (α, β, γ), signs and all.

Figure S2, its layer table, is not in the paper's text. The layers are those of the authors' public configuration of
2017 (nlaanait/stemdl, network_regressor.json), which has the same depth: five 4 × 4 convolutions of 64 filters, an
average pooling, two of 64 and three of 128 filters, an average pooling, 512 units with tanh, and three linear outputs.
"""

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from unitcell.errors import InputError

PAPER_SHAPE = (60, 80)  # pixels of the authors' crops, 2a × 2√2a
KERNEL = 4
POOLING = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}


class PaperNetwork(nn.Module):
    """Ten convolutions with batch normalisation before each ReLU, two poolings, a tanh layer, a linear layer.

    Parameters
    ----------
    filters : int
        Of the first seven convolutions; the last three have twice as many. The paper's: 64.
    hidden : int
        Units of the tanh layer. The paper's: 512.
    shape : (int, int)
        Pixels of a window.
    pooling : "average" or "max"
        The paper found that maxima learn badly.
    outputs : int
        Three, for α, β and γ.
    padding : "same" or "valid"
        The paper's "same" puts zeros around each window, which no pass over a whole image can repeat. "valid" has none:
        what the network says of a window is then the same inside any larger image, see `unitcell.tilts.dense`.
    kernel : int
        Pixels of a convolution's edge. The paper's: 4.

    Raises
    ------
    InputError
        A window too small for convolutions without padding.
    """

    def __init__(
        self, filters=64, hidden=512, shape=PAPER_SHAPE, pooling="average", outputs=3, padding="same", kernel=KERNEL
    ):
        super().__init__()
        self.shape, self.padding = tuple(shape), padding
        same = padding == "same"
        layers, previous = [], 1
        for widths in ((filters,) * 5, (filters,) * 2 + (2 * filters,) * 3):
            for width in widths:
                # Padding 'SAME' of an even kernel is one pixel more after than before: of 4, one and two. TensorFlow's
                # decay of 0.9 for running means is a momentum of 0.1 here.
                around = ((kernel - 1) // 2, kernel // 2) * 2
                layers += [nn.ZeroPad2d(around)] if same else []
                layers += [
                    nn.Conv2d(previous, width, kernel, bias=False),
                    nn.BatchNorm2d(width, eps=1e-3, momentum=0.1),
                    nn.ReLU(),
                ]
                previous = width
            layers.append(POOLING[pooling](2, ceil_mode=same))
        self.features = nn.Sequential(*layers)  # (B, 1, 60, 80) → (B, 128, 15, 20)
        self.grid = tuple(-(-n // 4) if same else _left_over(n, kernel) for n in shape)
        self.hidden = nn.Linear(previous * self.grid[0] * self.grid[1], hidden)
        self.outputs = nn.Linear(hidden, outputs)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, windows):
        """Standardised windows (B, rows, columns) → (α, β, γ) (B, 3) [degrees]."""
        return self.outputs(torch.tanh(self.hidden(self.features(windows[:, None]).flatten(1))))


def _left_over(pixels, kernel):
    """Pixels of an edge that five convolutions without padding and a pooling, twice, leave."""
    first = (pixels - 5 * (kernel - 1)) // 2
    last = (first - 5 * (kernel - 1)) // 2
    if last < 1:
        raise InputError(
            f"A window edge of {pixels} pixels is too short for ten {kernel} × {kernel} convolutions without padding: "
            f"give at least {15 * (kernel - 1) + 4} pixels, or a smaller kernel."
        )
    return last


def a_trous(network, device="cpu", dtype=torch.float32):
    """The layers of a network of padding "valid" for every window of an image at once.

    Each is dilated by the strides of the poolings before it, and the poolings have none; normalisations are part of the
    convolutions before them.

    Parameters
    ----------
    network : PaperNetwork
    device : str or torch.device
    dtype : torch.dtype

    Returns
    -------
    list of functions
        One after the other, they take a tensor (1, 1, H, W) to (1, outputs, H − h + 1, W − w + 1) for windows of
        h × w pixels, and a few rows and columns more where the poolings of a window leave a remainder.
    """
    layers, step, modules = [], 1, list(network.features)
    for layer, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(layer, nn.Conv2d):
            layers.append(_convolution(*_normalised(layer, following), step, torch.relu_, device, dtype))
        elif isinstance(layer, nn.AvgPool2d | nn.MaxPool2d):
            layers.append(_pooling(isinstance(layer, nn.MaxPool2d), step))
            step *= 2
    # The tanh layer has a weight for each pixel of a window's last feature map: a convolution of that map's size.
    weight = network.hidden.weight.unflatten(1, (-1, *network.grid))
    layers.append(_convolution(weight, network.hidden.bias, step, torch.tanh_, device, dtype))
    weight = network.outputs.weight[:, :, None, None]
    return [*layers, _convolution(weight, network.outputs.bias, step, torch.clone, device, dtype)]


def _normalised(convolution, norm):
    """Weight and bias of a convolution and the batch normalisation after it, in double precision."""
    numbers = (convolution.weight, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    weight, mean, variance, scale, shift = (number.double() for number in numbers)
    return fuse_conv_bn_weights(weight, None, mean, variance, norm.eps, scale, shift)


def _convolution(weight, bias, step, activation, device, dtype):
    weight, bias = weight.detach().to(device, dtype), bias.detach().to(device, dtype)
    return lambda x: activation(functional.conv2d(x, weight, bias, dilation=step))


def _pooling(maximum, step):
    """2 × 2 pooling around every pixel, of pixels `step` apart."""

    def pool(x):
        for axis in (-2, -1):
            near, far = x.narrow(axis, 0, x.shape[axis] - step), x.narrow(axis, step, x.shape[axis] - step)
            x = torch.maximum(near, far) if maximum else (near + far) / 2
        return x

    return pool


def layer_table(network):
    """Figure S2 from the live network: one row per layer, with kernel, stride, filters, output shape and parameters."""
    rows, hooks = [], []

    def note(layer, _, output):
        kernel, stride = getattr(layer, "kernel_size", ""), getattr(layer, "stride", "")
        rows.append(
            {
                "layer": type(layer).__name__,
                "kernel": " × ".join(map(str, np.broadcast_to(kernel, 2))) if kernel else "",
                "stride": " × ".join(map(str, np.broadcast_to(stride, 2))) if kernel else "",
                "output": " × ".join(map(str, output.shape[1:])),
                "parameters": sum(parameter.numel() for parameter in layer.parameters()),
            }
        )

    shown = (nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d, nn.MaxPool2d, nn.Linear)
    for layer in network.modules():
        if isinstance(layer, shown):
            hooks.append(layer.register_forward_hook(note))
    with torch.inference_mode():
        network.eval()(torch.zeros(1, *network.shape, device=next(network.parameters()).device))
    for hook in hooks:
        hook.remove()
    return pd.DataFrame(rows)


@torch.inference_mode()
def activation_map(network, window, upsampling=8):
    """Figure 3B: what each place of an up-sampled window says, fully connected layers turned into 1 × 1 convolutions.

    The tanh layer has a weight for every pixel of the last feature map. As a 1 × 1 convolution it gets their sum: its
    answer at a pixel is what the layer would say if the whole window looked like that pixel.

    Parameters
    ----------
    network : PaperNetwork
    window : tensor (rows, columns)
        Standardised.
    upsampling : int

    Returns
    -------
    ndarray (rows · upsampling / 4, columns · upsampling / 4)
        Mean over the three outputs, its absolute value, scaled to [0, 1].
    """
    size = [n * upsampling for n in window.shape]
    large = functional.interpolate(window[None, None], size=size, mode="bicubic", align_corners=False)
    features = network.eval().features(large)
    weight = network.hidden.weight.unflatten(1, (-1, *network.grid)).sum((2, 3))[:, :, None, None]
    hidden = torch.tanh(functional.conv2d(features, weight, network.hidden.bias))
    outputs = functional.conv2d(hidden, network.outputs.weight[:, :, None, None], network.outputs.bias)
    activation = outputs[0].mean(0).abs()
    activation = activation - activation.min()
    return (activation / activation.max().clamp_min(1e-12)).cpu().numpy()


def edge_share(kernels, threshold=0.5):
    """Share of kernels that are edge filters, and how much of each kernel is one.

    A kernel is called an edge filter where a linear gradient in some direction explains more than `threshold` of its
    variance about its mean. Of random kernels of 4 × 4 a gradient explains 2/15 on average.

    Parameters
    ----------
    kernels : ndarray (n, k, k)
    threshold : float

    Returns
    -------
    share : float
    explained : ndarray (n,)
    """
    kernels = np.asarray(kernels, dtype=float)
    side = np.arange(kernels.shape[-1]) - (kernels.shape[-1] - 1) / 2
    slope = np.stack(np.meshgrid(side, side, indexing="ij")).reshape(2, -1)
    slope /= np.linalg.norm(slope, axis=1, keepdims=True)
    centred = (kernels - kernels.mean((1, 2), keepdims=True)).reshape(len(kernels), -1)
    power = (centred**2).sum(1)
    explained = ((centred @ slope.T) ** 2).sum(1) / np.maximum(power, np.finfo(float).tiny)
    return float((explained > threshold).mean()), explained
