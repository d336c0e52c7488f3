"""What the library tells of itself, in the words of the array API standard."""

import numpy as np
import pytest
from helpers import leaf

import gpugrad as gg


def test_namespace_of_a_tensor(device):
    x = leaf([1.0])
    assert x.__array_namespace__() is gg
    assert x.__array_namespace__(api_version="2025.12") is gg
    assert gg.__array_api_version__ == "2025.12"
    with pytest.raises(ValueError, match="1999.12"):
        x.__array_namespace__(api_version="1999.12")


def test_capabilities_and_devices(device):
    info = gg.__array_namespace_info__()
    assert info.capabilities() == {
        "boolean indexing": True,
        "data-dependent shapes": True,
        "max dimensions": 64,
    }
    assert gg.zeros((1,) * 64).ndim == 64
    assert info.default_device() == device
    assert info.devices() == tuple(gg.devices())
    assert "cpu" in info.devices()


def test_dtypes(device):
    info = gg.__array_namespace_info__()
    assert info.default_dtypes() == {
        "real floating": gg.asarray(1.0).dtype,
        "complex floating": gg.asarray(1j).dtype,
        "integral": gg.asarray(1).dtype,
        "indexing": gg.argmax(gg.asarray([1.0])).dtype,
    }
    assert info.default_dtypes(device="cpu") == info.default_dtypes()
    assert len(info.dtypes()) == 13
    assert info.dtypes(kind="real floating") == {"float32": gg.float32, "float64": gg.float64}
    assert list(info.dtypes(kind=("bool", "complex floating"), device="cpu")) == [
        "bool",
        "complex64",
        "complex128",
    ]
    assert all(isinstance(dtype, np.dtype) for dtype in info.dtypes().values())
    with pytest.raises(ValueError, match="floats"):
        info.dtypes(kind="floats")
    with pytest.raises(ValueError, match="tpu"):
        info.dtypes(device="tpu")


def test_to_device_on_a_stream(device):
    x = leaf([1.0, 2.0])
    if device.kind == "cpu":
        with pytest.raises(ValueError, match="stream"):
            x.to_device("cpu", stream=1)
    else:
        assert x.to_device("cpu", stream=1).device == "cpu"
        assert x.to_device("cpu", stream=1).requires_grad
    assert x.to_device(device, stream=None) is x
