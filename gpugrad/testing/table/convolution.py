"""Rows of the table: convolution and pooling of images."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ...ops import convolution
from ..rows import FLOATING, case, signed


def _patches(x: Any, size: Any, stride: Any, padding: Any, dilation: Any, fill: Any = 0) -> Any:
    """By loops over everything."""
    images, channels = x.shape[:2]
    if x.dtype.kind == "i" and fill:
        fill = -(2**40)
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=fill)
    counts = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[2:], size, stride, dilation, strict=True)
    ]
    out = np.empty((channels, *size, images, *counts), x.dtype)
    for c, i, j, n, row, column in itertools.product(*map(range, out.shape)):
        place = row * stride[0] + i * dilation[0], column * stride[1] + j * dilation[1]
        out[c, i, j, n, row, column] = x[(n, c, *place)]
    return out


def _patch_sums(x: Any, lengths: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """The transpose of the matrix of `_patches`."""
    channels, *size, images = x.shape[:4]
    count = images * channels * lengths[0] * lengths[1]
    numbers = np.arange(1, count + 1).reshape(images, channels, *lengths)
    found = _patches(numbers, size, stride, padding, dilation)
    out = np.zeros(count + 1, x.dtype)
    np.add.at(out, found, x)
    return out[1:].reshape(numbers.shape)


def _both(x: Any) -> Any:
    return (x, x) if isinstance(x, int) else x


def _conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    options = map(_both, (stride, padding, dilation))
    seen = np.split(_patches(x, weight.shape[2:], *options), groups)
    outputs = np.split(weight, groups)
    parts = [np.einsum("ocij,cijnrs->nors", w, s) for w, s in zip(outputs, seen, strict=True)]
    out = np.concatenate(parts, axis=1)
    return out if bias is None else out + bias[:, None, None]


def _conv1d(x: Any, weight: Any, bias: Any = None, **options: int) -> Any:
    pairs = {k: v if k == "groups" else (int(k != "padding"), v) for k, v in options.items()}
    return _conv2d(x[:, :, None], weight[:, :, None], bias, **pairs)[:, :, 0]


def _pool(reduce: Any, fill: float) -> Any:
    def reference(x: Any, size: Any, stride: Any = None, padding: Any = 0) -> Any:
        size = _both(size)
        seen = _patches(x, size, _both(stride or size), _both(padding), (1, 1), fill)
        return reduce(seen, axis=(1, 2)).swapaxes(0, 1)

    return reference


ROWS = [
    *(
        case(
            "patches",
            signed(*shape),
            dtypes="qfdFD",
            function=convolution.patches,
            reference=_patches,
            **dict(zip(("size", "stride", "padding", "dilation"), options, strict=True)),
        )
        for shape, options in [
            ((2, 2, 3, 4), ((2, 2), (1, 1), (0, 0), (1, 1))),
            ((1, 2, 5, 4), ((3, 2), (2, 3), (1, 2), (2, 1))),
            ((2, 1, 2, 2), ((1, 3), (1, 2), (0, 3), (1, 2))),
            ((1, 1, 1, 1), ((2, 2), (3, 1), (2, 1), (1, 1))),
            ((0, 2, 3, 3), ((2, 2), (1, 1), (0, 0), (1, 1))),
        ]
    ),
    *(
        case(
            "patch_sums",
            signed(*shape),
            dtypes=FLOATING,
            function=convolution.patch_sums,
            reference=_patch_sums,
            **dict(zip(("lengths", "stride", "padding", "dilation"), options, strict=True)),
        )
        for shape, options in [
            ((2, 2, 2, 1, 2, 3), ((3, 4), (1, 1), (0, 0), (1, 1))),
            ((1, 3, 2, 2, 2, 3), ((5, 4), (2, 3), (1, 2), (2, 1))),
        ]
    ),
    *(
        case(
            "nn.conv2d",
            *(signed(*shape) for shape in shapes),
            dtypes=FLOATING,
            reference=_conv2d,
            **options,
        )
        for shapes, options in [
            (((2, 2, 3, 4), (3, 2, 2, 2)), {}),
            (((1, 2, 4, 3), (2, 2, 3, 2), (2,)), {"stride": (2, 1), "padding": (1, 0)}),
            (((2, 4, 3, 3), (4, 2, 2, 2), (4,)), {"groups": 2, "padding": 1, "stride": 2}),
            (((1, 2, 4, 4), (2, 1, 2, 2)), {"groups": 2, "dilation": (2, 3)}),
        ]
    ),
    case("nn.conv1d", signed(2, 2, 5), signed(3, 2, 3), dtypes=FLOATING, reference=_conv1d),
    case(
        "nn.conv1d",
        *(signed(2, 4, 5), signed(4, 2, 2), signed(4)),
        reference=_conv1d,
        stride=2,
        padding=1,
        dilation=2,
        groups=2,
    ),
    *(
        case(name, signed(2, 2, 4, 5), dtypes=dtypes, reference=reference, **options)
        for name, dtypes, reference in [
            ("nn.max_pool2d", "qfd", _pool(np.max, -np.inf)),
            ("nn.avg_pool2d", FLOATING, _pool(np.mean, 0)),
        ]
        for options in [
            {"size": 2},
            {"size": (3, 2), "stride": (1, 2)},
            {"size": 3, "stride": 2, "padding": (1, 0)},
        ]
    ),
]
