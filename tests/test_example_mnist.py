"""The MNIST example on small data: what it prints, writes and refuses, and when it waits."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import mnist
import mnist_data

pytest.importorskip("tqdm")


@pytest.fixture
def data(monkeypatch):
    """400 images of 6 x 6 pixels in ten classes that a small network tells apart."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 256, (10, 6, 6))
    labels = rng.integers(0, 10, 500).astype(np.uint8)
    noisy = centres[labels] + rng.normal(0, 60, (500, 6, 6))
    images = noisy.clip(0, 255).astype(np.uint8)
    made = mnist_data.Dataset(
        "made up", 255, images[:400], labels[:400], images[400:], labels[400:]
    )
    monkeypatch.setattr(mnist_data, "load_mnist", lambda: made)
    return made


def run(*arguments, epochs=3):
    return mnist.main(["--epochs", str(epochs), "--batch-size", "32", *map(str, arguments)])


# ---- training


def test_it_learns_and_reports(data, device, capsys):
    history = run("--hidden", 20, "--device", device, epochs=15)
    assert history[-1].accuracy > 0.9
    assert history[-1].loss < history[0].loss / 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "made up: 400 images of 36 pixels, 100 for the test"
    assert lines[1].startswith("36-20-10, sigmoid, cross-entropy, momentum, learning rate 0.4, ")
    assert f"({device})" in lines[1]
    assert re.fullmatch(r"the step was recorded and compiled in \d+\.\d\d s", lines.pop(2))
    assert len(lines) == 2 + 15 + 1
    assert f"test accuracy {history[-1].accuracy:.2%}, " in lines[2 + 14]
    assert lines[2 + 14].endswith(" images/s")
    assert lines[-1].startswith(f"test accuracy {history[-1].accuracy:.2%}, ")
    assert "s per epoch" in lines[-1]
    assert f"({device})" in lines[-1]


@pytest.mark.parametrize("loss", mnist.LOSSES)
@pytest.mark.parametrize("optimizer", mnist.OPTIMIZERS)
@pytest.mark.parametrize("activation", mnist.ACTIVATIONS)
def test_every_choice_learns(data, loss, optimizer, activation):
    history = run(
        "--device", "cpu", "--loss", loss, "--optimizer", optimizer, "--activation", activation,
        "--no-compile", epochs=12,
    )  # fmt: skip
    assert history[-1].loss < history[0].loss


@pytest.mark.parametrize("loss", mnist.LOSSES)
@pytest.mark.parametrize("optimizer", mnist.OPTIMIZERS)
def test_compiled_it_trains_the_same(data, device, loss, optimizer, capsys):
    def train(compile):
        return run("--device", device, "--loss", loss, "--optimizer", optimizer, compile)

    compiled, eager = train("--compile"), train("--no-compile")
    assert capsys.readouterr().out.count("recorded and compiled") == 1
    for one, other in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(one[:2], other[:2], rtol=1e-5)
        assert one.seconds > 0


def test_seed(data, device):
    def losses(seed):
        return [epoch.loss for epoch in run("--seed", seed, "--device", device)]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


@pytest.mark.parametrize("option", ["--compile", "--no-compile"])
def test_an_epoch_reads_the_device_once(data, device, option, monkeypatch):
    """However many batches there are. Compiling reads the constants of the step."""
    backend = gg.backends.backend_of_kind(device.kind)
    to_host = type(backend).to_host
    reads = []

    def counted(self, array):
        reads.append(array.shape)
        return to_host(self, array)

    monkeypatch.setattr(type(backend), "to_host", counted)

    def count(batch):
        reads.clear()
        run("--batch-size", batch, "--device", device, option)
        return list(reads)

    many, one = count(4), count(400)
    assert many[-9:] == one[-9:] == [()] * 9  # loss, test loss and accuracy; three epochs
    assert len(many) == len(one)
    assert option == "--compile" or len(one) == 9


def test_diverging(data, capsys):
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            SystemExit, match=r"the loss has become (nan|inf): try less than --lr 1e\+30"
        ),
    ):
        run("--activation", "relu", "--optimizer", "sgd", "--lr", "1e30", "--device", "cpu")


def test_learning_rates_fall_as_a_cosine():
    rates = mnist.cosine(0.5, 4)
    np.testing.assert_allclose(rates.get(), 0.25 * (1 + np.cos(np.pi * np.arange(4) / 4)))


# ---- the data


def test_stand_in(monkeypatch, tmp_path, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.delenv("GPUGRAD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mnist_data, "MIRRORS", ("http://127.0.0.1:1/",))
    history = mnist.main(["--device", "cpu"])
    assert history[-1].accuracy > 0.95
    out = capsys.readouterr().out
    assert "MNIST is not to be had" in out
    assert "127.0.0.1:1" in out
    assert "trains on scikit-learn's digits instead" in out
    assert "64-100-10" in out


def test_wrong_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GPUGRAD_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="GPUGRAD_DATA: there is no folder"):
        mnist.main([])


def test_batch_that_is_too_large(data):
    with pytest.raises(SystemExit, match="--batch-size 401: there are 400 images"):
        mnist.main(["--batch-size", "401", "--device", "cpu"])


# ---- files


@pytest.mark.parametrize("loss", mnist.LOSSES)
def test_save_and_plot(data, device, tmp_path, loss):
    pytest.importorskip("matplotlib")
    weights, picture = tmp_path / "weights.npz", tmp_path / "picture.png"
    picture.write_bytes(b"an older one")
    history = run(
        "--save", weights, "--plot", picture, "--loss", loss, "--hidden", 7, "--device", device
    )
    assert sorted(tmp_path.iterdir()) == [picture, weights]
    assert picture.read_bytes().startswith(b"\x89PNG")

    layers = [gg.nn.Linear(36, 7), gg.nn.Sigmoid(), gg.nn.Linear(7, 10)]
    net = gg.nn.Sequential(*layers)
    with np.load(weights) as saved:
        net.load_state_dict(saved)
    images = gg.asarray(data.test_images.reshape(100, 36) / np.float32(255), device=device)
    read = gg.argmax(net(images), axis=1).get()
    assert np.mean(read == data.test_labels) == history[-1].accuracy


def test_a_plot_without_mistakes_and_with_one_epoch(data, tmp_path):
    pytest.importorskip("matplotlib")
    from mnist_plot import plot

    scores = np.eye(10)[data.test_labels]
    with open(tmp_path / "picture.png", "wb") as file:
        plot(file, [mnist.Epoch(0.1, 0.1, 1.0, 1.0)], data, scores)
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_files_are_whole_or_as_they_were(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def fail():
        with mnist_data.replacing(path) as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


# ---- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "argument --epochs: '0' is no whole number from 1 up"),
        (["--epochs", "2.5"], "argument --epochs: '2.5' is no whole number from 1 up"),
        (["--hidden", "-1"], "argument --hidden: '-1' is no whole number from 1 up"),
        (["--batch-size", "many"], "argument --batch-size: 'many' is no whole number from 1 up"),
        (["--seed", "-1"], "argument --seed: '-1' is no whole number from 0 up"),
        (["--lr", "0"], "argument --lr: '0' is no positive number"),
        (["--lr", "nan"], "argument --lr: 'nan' is no positive number"),
        (["--lr", "inf"], "argument --lr: 'inf' is no positive number"),
        (["--lr", "fast"], "argument --lr: 'fast' is no positive number"),
        (["--loss", "hinge"], "argument --loss: invalid choice: 'hinge'"),
        (["--activation", "step"], "argument --activation: invalid choice: 'step'"),
        (["--optimizer", "lbfgs"], "argument --optimizer: invalid choice: 'lbfgs'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--plot", "a.jpg"], "argument --plot: 'a.jpg' does not end in .png"),
        (["--plot", "nowhere/a.png"], "argument --plot: there is no folder nowhere"),
        (["--plot", "folder.png"], "argument --plot: folder.png is a folder"),
        (["--save", "weights"], "argument --save: 'weights' does not end in .npz"),
        (["--save", "nowhere/a.npz"], "argument --save: there is no folder nowhere"),
        (["--save", "old.npz"], "argument --save: old.npz exists, and would be overwritten"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_bad_arguments(monkeypatch, tmp_path, capsys, arguments, message):
    def never():
        raise AssertionError("the data were loaded before the arguments were checked")

    monkeypatch.setattr(mnist_data, "load_mnist", never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "old.npz").write_bytes(b"weights")
    with pytest.raises(SystemExit) as caught:
        mnist.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "old.npz").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("missing", "arguments"), [("tqdm", []), ("matplotlib", ["--plot", "a.png"])]
)
def test_missing_package(monkeypatch, data, missing, arguments):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "mnist_plot", raising=False)
    with pytest.raises(SystemExit, match=rf'needs {missing} .*pip install "gpugrad\[examples\]"'):
        mnist.main([*arguments, "--device", "cpu"])


def test_runs_as_a_script_from_any_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, mnist.__file__, "--device", "cpu", "--batch-size", "0"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(gg.__file__).parent.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "--batch-size: '0' is no whole number" in done.stderr
