"""The MNIST handwritten digits: four IDX files, found, checked, or else downloaded.

A file counts only if its unpacked content has the SHA-256 of the original, so whatever is returned
is MNIST to the byte.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import importlib
import os
import sys
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

# Content, name, and SHA-256 of the unpacked file. http://yann.lecun.com/exdb/mnist
FILES = {
    "train_images": (
        "train-images-idx3-ubyte",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train_labels": (
        "train-labels-idx1-ubyte",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "test_images": (
        "t10k-images-idx3-ubyte",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "test_labels": (
        "t10k-labels-idx1-ubyte",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
STALL = 15.0  # seconds without a byte before a mirror is given up
LONGEST = 300.0  # seconds for one file, however slowly it trickles in
LARGEST = 16 * 2**20  # bytes; the largest of the packed files has 9.9 million


class DataError(Exception):
    """A file or folder of the user's that is not what it should be; the message says which."""


class Unavailable(Exception):
    """MNIST is neither on this machine nor can it be downloaded; the message says why."""


class WrongFile(Exception):
    """Content that is not the original file; the message says in what way."""


class Dataset(NamedTuple):
    """Images as uint8 (n, height, width) from 0 to `white`, labels as uint8 (n,) from 0 to 9."""

    name: str
    white: int
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_mnist() -> Dataset:
    """MNIST from the folder `GPUGRAD_DATA`, else from the cache folder, else from a mirror.

    A wrong file in the cache is removed and downloaded again; one in `GPUGRAD_DATA` is the user's
    and is left alone.

    Raises:
        DataError: if `GPUGRAD_DATA` is no folder, or has a wrong file, or a file cannot be read.
        Unavailable: if a file is in neither folder and no mirror gives it.
    """
    setting = os.environ.get("GPUGRAD_DATA")
    own = Path(setting).expanduser() if setting else None
    if own and not own.is_dir():
        raise DataError(f"GPUGRAD_DATA: there is no folder {own}")
    arrays = {key: _load(name, sha256, own) for key, (name, sha256) in FILES.items()}
    return Dataset("MNIST", 255, **arrays)


def load_digits() -> Dataset:
    """The 1,797 digits of 8 x 8 pixels that scikit-learn brings along, a fifth for the test."""
    images, labels = need("sklearn.datasets").load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = images.reshape(-1, 8, 8).astype(np.uint8)[order]
    labels = labels.astype(np.uint8)[order]
    n = len(labels) // 5
    return Dataset("scikit-learn's digits", 16, images[n:], labels[n:], images[:n], labels[:n])


def cache_folder() -> Path:
    """Where this system keeps files that can be downloaded again."""
    if setting := os.environ.get("XDG_CACHE_HOME"):
        base = Path(setting)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "gpugrad" / "mnist"


def need(module: str) -> Any:
    """An optional module; ends the program with the command that installs it if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise SystemExit(
            f'this example needs {missing} ({error}): pip install "gpugrad[examples]"'
        ) from None


def _load(name: str, sha256: str, own: Path | None) -> np.ndarray:
    cache = cache_folder()
    for folder in filter(None, (own, cache)):
        for path in (folder / name, folder / f"{name}.gz"):
            if not path.is_file():
                continue
            try:
                return parse(path.read_bytes(), sha256)
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error}") from None
            except WrongFile as error:
                if folder is own:
                    raise DataError(
                        f"{path} is not the MNIST file of that name: {error}. It was left as it "
                        "is; replace it, or unset GPUGRAD_DATA"
                    ) from None
                if path.suffix == ".gz":  # the only kind that is ever downloaded
                    path.unlink(missing_ok=True)
                    print(f"{path} was wrong ({error}) and has been removed")
                else:
                    print(f"{path} is wrong ({error}) and is not used")
    return _download(f"{name}.gz", sha256, cache)


def parse(content: bytes, sha256: str) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, packed with gzip or not.

    Raises:
        WrongFile: if the content is truncated, or not what it should be.
    """
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except EOFError:
            raise WrongFile(f"truncated after {len(content):,} bytes") from None
        except (OSError, zlib.error) as error:
            raise WrongFile(f"damaged gzip data, {error}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WrongFile(f"SHA-256 {found[:12]}... instead of {sha256[:12]}...")
    # Two zeros, the type (8: unsigned byte), the number of axes, then big-endian lengths.
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _download(file: str, sha256: str, cache: Path) -> np.ndarray:
    failures = []
    for mirror in MIRRORS:
        try:
            content = _fetch(mirror + file)
            array = parse(content, sha256)
        except (OSError, http.client.HTTPException, WrongFile) as error:
            failures.append(f"{mirror + file}: {error}")
        else:
            _keep(cache / file, content)
            return array
    raise Unavailable("\n  ".join([f"{file} could not be downloaded", *failures]))


def _fetch(url: str) -> bytes:
    """All of a file in memory: whatever goes wrong, no part of it is on the disk."""
    tqdm = need("tqdm").tqdm
    content = bytearray()
    deadline = time.monotonic() + LONGEST
    with urllib.request.urlopen(url, timeout=STALL) as response:
        length = int(response.headers.get("Content-Length") or 0)
        name = url.rpartition("/")[2]
        with tqdm(total=length or None, desc=name, unit="B", unit_scale=True, disable=None) as bar:
            while chunk := response.read1(2**16):
                content += chunk
                bar.update(len(chunk))
                if len(content) > LARGEST:
                    raise WrongFile(f"more than {LARGEST:,} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not complete after {LONGEST:.0f} s")
    if len(content) < length:
        raise WrongFile(f"truncated, {len(content):,} of {length:,} bytes")
    return bytes(content)


def _keep(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        print(f"{path} could not be kept for the next time: {error}")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to: it takes the place of `path` once it is whole, and vanishes otherwise."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
