"""How the example finds, checks and downloads MNIST: against small files and a local server."""

import gzip
import hashlib
import http.server
import struct
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import mnist_data


def idx(array):
    """`array` of unsigned bytes as the content of an IDX file."""
    return struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (60, 28, 28), np.uint8),
        "train_labels": rng.integers(0, 10, 60, np.uint8),
        "test_images": rng.integers(0, 256, (20, 28, 28), np.uint8),
        "test_labels": rng.integers(0, 10, 20, np.uint8),
    }


@pytest.fixture
def originals(arrays, monkeypatch, tmp_path):
    """The four packed files by name, standing in for MNIST's; an empty cache and no mirrors."""
    files = {}
    packed = {}
    for key, array in arrays.items():
        name, content = mnist_data.FILES[key][0], idx(array)
        files[key] = (name, hashlib.sha256(content).hexdigest())
        packed[f"{name}.gz"] = gzip.compress(content)
    monkeypatch.setattr(mnist_data, "FILES", files)
    monkeypatch.setattr(mnist_data, "MIRRORS", ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GPUGRAD_DATA", raising=False)
    return packed


@pytest.fixture
def cache(originals):
    return mnist_data.cache_folder()


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*")}


def assert_is(dataset, arrays):
    assert dataset.name == "MNIST"
    for key, array in arrays.items():
        np.testing.assert_array_equal(getattr(dataset, key), array, strict=True)


class Server(http.server.ThreadingHTTPServer):
    """Serves the entries of `files` at /good/; every other folder misbehaves in its own way."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.asked = []
        self.done = threading.Event()

    def handle_error(self, request, client_address):
        pass  # the client hanging up is what some of the tests are about

    def url(self, folder):
        return f"http://127.0.0.1:{self.server_port}/{folder}/"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        _, folder, name = self.path.split("/")
        content = self.server.files[name]
        if folder == "missing":
            self.send_error(404)
        elif folder == "good":
            self.reply(content, len(content))
        elif folder == "no-length":
            self.reply(content, None)
        elif folder == "cut":
            self.reply(content[: len(content) // 2], len(content))
        elif folder == "cut-no-length":
            self.reply(content[: len(content) // 2], None)
        elif folder == "other":
            self.reply(gzip.compress(b"something else"), None)
        elif folder == "page":
            self.reply(b"<html>Please log in</html>", None)
        elif folder == "huge":
            self.reply(bytes(mnist_data.LARGEST + 1), mnist_data.LARGEST + 1)
        elif folder == "stalls":
            self.reply(content[: len(content) // 2], len(content))
            self.server.done.wait(10)
        elif folder == "trickles":
            self.reply(b"", len(content))
            for byte in content:
                self.wfile.write(bytes([byte]))
                if self.server.done.wait(0.05):
                    break

    def reply(self, content, length):
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server(originals, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server(originals) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.done.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def mirrors(server, monkeypatch):
    def use(*folders):
        monkeypatch.setattr(mnist_data, "MIRRORS", tuple(map(server.url, folders)))

    return use


# ---- finding


@pytest.mark.parametrize("unpacked", [False, True])
def test_files_of_the_user(originals, arrays, monkeypatch, tmp_path, cache, unpacked):
    files = originals
    if unpacked:
        files = {name[:-3]: gzip.decompress(content) for name, content in files.items()}
    write(tmp_path / "own", files)
    monkeypatch.setenv("GPUGRAD_DATA", str(tmp_path / "own"))
    assert_is(mnist_data.load_mnist(), arrays)
    assert contents(tmp_path / "own") == files
    assert not cache.exists()


def test_files_of_the_user_and_the_cache_together(originals, arrays, monkeypatch, tmp_path, cache):
    names = sorted(originals)
    write(tmp_path / "own", {name: originals[name] for name in names[:1]})
    write(cache, {name: originals[name] for name in names[1:]})
    monkeypatch.setenv("GPUGRAD_DATA", str(tmp_path / "own"))
    assert_is(mnist_data.load_mnist(), arrays)


def test_no_such_folder(originals, monkeypatch, tmp_path):
    monkeypatch.setenv("GPUGRAD_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(mnist_data.DataError, match=r"GPUGRAD_DATA: there is no folder .*nowhere"):
        mnist_data.load_mnist()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content[:-20], "truncated after [0-9,]+ bytes"),
        (lambda content: content[:100] + b"?" + content[101:], "damaged gzip data|SHA-256"),
        (lambda content: gzip.compress(b"another file"), "SHA-256 [0-9a-f]{12}"),
        (lambda content: gzip.decompress(content)[:-1], "SHA-256 [0-9a-f]{12}"),
        (lambda content: b"", "SHA-256 [0-9a-f]{12}"),
    ],
    ids=["truncated", "damaged", "another", "unpacked and truncated", "empty"],
)
class TestWrongFile:
    name = "t10k-images-idx3-ubyte.gz"

    def test_of_the_user_is_named_and_kept(
        self, originals, monkeypatch, tmp_path, server, mirrors, spoil, reason
    ):
        files = originals | {self.name: spoil(originals[self.name])}
        write(tmp_path, files)
        monkeypatch.setenv("GPUGRAD_DATA", str(tmp_path))
        mirrors("good")
        with pytest.raises(mnist_data.DataError, match=reason) as caught:
            mnist_data.load_mnist()
        assert str(tmp_path / self.name) in str(caught.value)
        assert {name: (tmp_path / name).read_bytes() for name in files} == files
        assert not server.asked

    def test_in_the_cache_is_named_and_fetched_again(
        self, originals, arrays, cache, server, mirrors, capsys, spoil, reason
    ):
        write(cache, originals | {self.name: spoil(originals[self.name])})
        mirrors("good")
        assert_is(mnist_data.load_mnist(), arrays)
        assert f"{cache / self.name} was wrong" in capsys.readouterr().out
        assert contents(cache) == originals
        assert server.asked == [f"/good/{self.name}"]

    def test_in_the_cache_is_removed_without_a_network(
        self, originals, cache, capsys, spoil, reason
    ):
        write(cache, originals | {self.name: spoil(originals[self.name])})
        with pytest.raises(mnist_data.Unavailable, match=self.name):
            mnist_data.load_mnist()
        assert "has been removed" in capsys.readouterr().out
        assert contents(cache).keys() == originals.keys() - {self.name}


def test_unpacked_file_in_the_cache_is_never_removed(originals, arrays, cache, mirrors, capsys):
    write(cache, originals | {"t10k-labels-idx1-ubyte": b"notes"})
    assert_is(mnist_data.load_mnist(), arrays)
    assert "is wrong (SHA-256" in capsys.readouterr().out
    assert (cache / "t10k-labels-idx1-ubyte").read_bytes() == b"notes"


# ---- downloading


@pytest.mark.parametrize("folder", ["good", "no-length"])
def test_download(originals, arrays, cache, server, mirrors, folder):
    mirrors(folder)
    assert_is(mnist_data.load_mnist(), arrays)
    assert contents(cache) == originals
    assert len(server.asked) == 4
    mirrors()
    assert_is(mnist_data.load_mnist(), arrays)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("missing", "HTTP Error 404"),
        ("cut", r"truncated, [\d,]+ of [\d,]+ bytes"),
        ("cut-no-length", "truncated after"),
        ("other", "SHA-256"),
        ("page", "SHA-256"),
        ("huge", "more than"),
        ("stalls", "timed out"),
        ("trickles", "not complete after"),
    ],
)
def test_bad_mirror(originals, arrays, cache, server, mirrors, monkeypatch, folder, reason):
    monkeypatch.setattr(mnist_data, "STALL", 0.2)
    monkeypatch.setattr(mnist_data, "LONGEST", 0.3)
    if folder == "huge":
        monkeypatch.setattr(mnist_data, "LARGEST", 2**16)

    mirrors(folder)
    start = time.monotonic()
    with pytest.raises(mnist_data.Unavailable, match=reason) as caught:
        mnist_data.load_mnist()
    assert time.monotonic() - start < 5
    assert f"/{folder}/train-images-idx3-ubyte.gz: " in str(caught.value)
    assert len(server.asked) == 1  # without the first file there is no use for the others
    assert not cache.exists()

    mirrors(folder, "good")
    assert_is(mnist_data.load_mnist(), arrays)
    assert contents(cache) == originals


def test_no_server(originals, cache, server, monkeypatch):
    monkeypatch.setattr(mnist_data, "MIRRORS", ("http://127.0.0.1:1/",))
    with pytest.raises(mnist_data.Unavailable, match="refused"):
        mnist_data.load_mnist()
    assert not cache.exists()


def test_interrupted_download_leaves_nothing(cache, mirrors, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    mirrors("good")
    monkeypatch.setattr(mnist_data.Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mnist_data.load_mnist()
    assert contents(cache) == {}


def test_cache_that_cannot_be_written(arrays, cache, mirrors, capsys):
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    mirrors("good")
    assert_is(mnist_data.load_mnist(), arrays)
    assert "could not be kept" in capsys.readouterr().out
    assert cache.parent.is_file()


# ---- the folder, the stand-in, the optional packages


@pytest.mark.parametrize(
    ("platform", "settings", "expected"),
    [
        ("linux", {}, ".cache/gpugrad/mnist"),
        ("linux", {"XDG_CACHE_HOME": "caches"}, "caches/gpugrad/mnist"),
        ("darwin", {}, "Library/Caches/gpugrad/mnist"),
        ("win32", {"LOCALAPPDATA": "Local"}, "Local/gpugrad/mnist"),
        ("win32", {}, "AppData/Local/gpugrad/mnist"),
    ],
)
def test_cache_folder(monkeypatch, tmp_path, platform, settings, expected):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in settings.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setattr(mnist_data.sys, "platform", platform)
    monkeypatch.setattr(mnist_data.Path, "home", lambda: tmp_path)
    assert mnist_data.cache_folder() == tmp_path / expected


def test_digits():
    pytest.importorskip("sklearn")
    digits = mnist_data.load_digits()
    assert digits.train_images.shape == (1438, 8, 8)
    assert digits.test_images.shape == (359, 8, 8)
    assert digits.train_images.dtype == digits.test_labels.dtype == np.uint8
    assert digits.train_images.max() == digits.white
    assert set(digits.test_labels) == set(range(10))


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(SystemExit, match=r'needs tqdm .*pip install "gpugrad\[examples\]"'):
        mnist_data.need("tqdm")
