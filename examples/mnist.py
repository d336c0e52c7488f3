"""Train a network of one hidden layer to read handwritten digits.

    python examples/mnist.py
    python examples/mnist.py --plot mnist.png --save mnist.npz
    python examples/mnist.py --loss mse

Images and labels go to the device once. An epoch shuffles them there and never waits for the
device: a step finds its batch and its learning rate by a counter that is there too, the loss is
added up where it is computed, and read when the epoch is over. So the step needs nothing from
Python but to be called, and is compiled: recorded in its first call, and then replayed.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import mnist_data
import numpy as np

import gpugrad as gg

ACTIVATIONS = {
    "sigmoid": gg.nn.Sigmoid,
    "tanh": gg.nn.Tanh,
    "relu": gg.nn.ReLU,
    "gelu": gg.nn.GELU,
    "silu": gg.nn.SiLU,
    "softplus": gg.nn.Softplus,
}
LOSSES = {"cross-entropy": gg.nn.cross_entropy, "mse": gg.nn.mean_squared_error}
OPTIMIZERS = {
    "sgd": gg.optim.SGD,
    "momentum": lambda params, lr: gg.optim.SGD(params, lr, momentum=0.9),
    "adam": gg.optim.Adam,
}
# What suits each choice. The mean squared error is for plain gradient descent on small batches, as
# textbooks have it: with momentum its sigmoid outputs saturate early and then learn slowly.
DEFAULTS = {
    "cross-entropy": {"optimizer": "momentum", "batch_size": 128},
    "mse": {"optimizer": "sgd", "batch_size": 32},
}
# For the sigmoid, whose slope is at most 1/4; other activations get a quarter of these.
LEARNING_RATES = {
    ("cross-entropy", "sgd"): 2.0,
    ("cross-entropy", "momentum"): 0.4,
    ("cross-entropy", "adam"): 0.004,
    ("mse", "sgd"): 10.0,
    ("mse", "momentum"): 0.5,
    ("mse", "adam"): 0.004,
}


# of a compiled step: the first one is recorded, and CUDA kernels are compiled, then captured
FIRST_STEPS = 3


class Split(NamedTuple):
    """Examples on the device: images (n, pixels) from 0 to 1, labels (n,), what the loss wants."""

    images: gg.Tensor
    labels: gg.Tensor
    targets: gg.Tensor

    def __len__(self) -> int:
        return self.labels.size


class Epoch(NamedTuple):
    """What an epoch came to. `seconds` is the training alone, without compiling."""

    loss: float
    test_loss: float
    accuracy: float
    seconds: float


def main(argv: Sequence[str] | None = None) -> list[Epoch]:
    """Train with the arguments `argv`, by default those of the command line."""
    args, device = parse_arguments(argv)
    mnist_data.need("tqdm")
    plot = mnist_data.need("mnist_plot").plot if args.plot else None
    data = load_data()
    with device:
        train = to_device(data.train_images, data.train_labels, data.white, args.loss)
        test = to_device(data.test_images, data.test_labels, data.white, args.loss)
        if args.batch_size > len(train):
            raise SystemExit(f"--batch-size {args.batch_size}: there are {len(train):,} images")
        rng = gg.random.Generator(args.seed)
        pixels = train.images.shape[1]
        net = make_network(pixels, args, rng)
        optimizer = OPTIMIZERS[args.optimizer](net.parameters(), args.lr)

        device_name = gg.backends.backend_of_kind(device.kind).name(device)
        print(
            f"{data.name}: {len(train):,} images of {pixels} pixels, {len(test):,} for the test\n"
            f"{pixels}-{args.hidden}-10, {args.activation}, {args.loss}, {args.optimizer}, "
            f"learning rate {args.lr:g}, batches of {args.batch_size}, on {device_name} ({device})"
        )
        history = fit(net, optimizer, train, test, rng, args)
        print(
            f"test accuracy {history[-1].accuracy:.2%}, "
            f"{median(epoch.seconds for epoch in history):.3f} s per epoch, "
            f"on {device_name} ({device})"
        )
        if args.save:
            with mnist_data.replacing(args.save) as file:
                np.savez(file, **net.state_dict())
            print(f"weights: {args.save}")
        if plot:
            with gg.no_grad():
                output = net(test.images)
                scores = output if args.loss == "mse" else gg.softmax(output, axis=1)
            with mnist_data.replacing(args.plot) as file:
                plot(file, history, data, scores.get())
            print(f"plot: {args.plot}")
    return history


def fit(
    net: gg.nn.Module,
    optimizer: Any,
    train: Split,
    test: Split,
    rng: gg.random.Generator,
    args: argparse.Namespace,
) -> list[Epoch]:
    """Train for `args.epochs` epochs, with a test after each.

    Every batch is full: an epoch leaves out what is left over, other images each time.
    """
    loss_of = LOSSES[args.loss]
    batch = args.batch_size
    steps = len(train) // batch
    rates = cosine(args.lr, args.epochs * steps)

    def step(order, done, total):
        """Train on the next batch: `done` steps are before it, and `total` is their loss."""
        rows = gg.take(order, done % steps, axis=0)
        images, targets = (gg.take(x, rows, axis=0) for x in (train.images, train.targets))
        loss = loss_of(net(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = gg.take(rates, done)
        optimizer.step()
        total += loss.detach()
        done += 1

    if args.compile:
        step = gg.compile(step)
    done = gg.zeros((), dtype=gg.int64)
    total = gg.zeros((), dtype=gg.float32)
    order = gg.zeros((steps, batch), dtype=gg.int64)
    history = []
    tqdm = mnist_data.need("tqdm").tqdm
    bar = tqdm(total=args.epochs * steps * batch, unit=" images", unit_scale=True, disable=None)
    with bar:
        for number in range(1, args.epochs + 1):
            start = time.perf_counter()
            total[...] = 0
            order[...] = rng.permutation(len(train))[: steps * batch].reshape(steps, batch)
            for i in range(steps):
                step(order, done, total)
                bar.update(batch)
                if args.compile and number == 1 and i == min(FIRST_STEPS, steps) - 1:
                    seconds = time.perf_counter() - start
                    bar.write(f"the step was recorded and compiled in {seconds:.2f} s")
                    start = time.perf_counter()
            mean_loss = float(total) / steps  # waits for the device, once an epoch
            seconds = time.perf_counter() - start
            if not math.isfinite(mean_loss):
                raise SystemExit(f"the loss has become {mean_loss}: try less than --lr {args.lr:g}")

            with gg.no_grad():
                output = net(test.images)
                test_loss = float(loss_of(output, test.targets))
                accuracy = int(gg.sum(gg.argmax(output, axis=1) == test.labels)) / len(test)
            history.append(Epoch(mean_loss, test_loss, accuracy, seconds))
            bar.set_postfix(loss=f"{mean_loss:.4f}")
            bar.write(
                f"epoch {number:2}: loss {mean_loss:.4f}, test loss {test_loss:.4f}, "
                f"test accuracy {accuracy:.2%}, {steps * batch / seconds:,.0f} images/s"
            )
    return history


def cosine(rate: float, steps: int) -> gg.Tensor:
    """Learning rates that fall from `rate` to 0 along half a cosine (Loshchilov & Hutter 2017)."""
    return rate * (1 + gg.cos(gg.arange(steps, dtype=gg.float64) * (math.pi / steps))) / 2


def make_network(pixels: int, args: argparse.Namespace, rng: gg.random.Generator) -> gg.nn.Module:
    """Pixels, a hidden layer, ten outputs: logits for the cross-entropy, else sigmoid units."""
    layers = [
        gg.nn.Linear(pixels, args.hidden, rng=rng),
        ACTIVATIONS[args.activation](),
        gg.nn.Linear(args.hidden, 10, rng=rng),
    ]
    if args.loss == "mse":
        layers.append(gg.nn.Sigmoid())
    return gg.nn.Sequential(*layers)


def to_device(images: np.ndarray, labels: np.ndarray, white: int, loss: str) -> Split:
    """The examples on the default device; as bytes they travel fastest."""
    on_device = gg.asarray(images.reshape(len(images), -1), device=gg.default_device())
    where = gg.asarray(labels.astype(np.int64), device=gg.default_device())
    targets = gg.take(gg.eye(10, dtype=gg.float32), where, axis=0) if loss == "mse" else where
    return Split(gg.astype(on_device, gg.float32) / white, where, targets)


def load_data() -> mnist_data.Dataset:
    """MNIST, or where it is not to be had the digits of scikit-learn."""
    try:
        return mnist_data.load_mnist()
    except mnist_data.DataError as error:
        raise SystemExit(str(error)) from None
    except mnist_data.Unavailable as error:
        print(
            f"MNIST is not to be had: {error}\n"
            "This run trains on scikit-learn's digits instead, 1,797 images of 8 x 8 pixels.\n"
            f"For MNIST, put its four files into {mnist_data.cache_folder()}, or into a folder "
            "that the setting GPUGRAD_DATA names."
        )
        return mnist_data.load_digits()


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, gg.Device]:
    """The arguments and the device to use; ends the program where they make no sense."""
    parser = argparse.ArgumentParser(
        description="Train a network of one hidden layer to read handwritten digits (MNIST).",
        epilog="In brackets: what is used by default.",
    )
    add = parser.add_argument
    add("--hidden", type=whole(1), default=100, help="units of the hidden layer (%(default)s)")
    add("--activation", choices=ACTIVATIONS, default="sigmoid", help="of that layer (%(default)s)")
    add(
        "--loss",
        choices=LOSSES,
        default="cross-entropy",
        help="of a softmax, or mean squared error of sigmoid units (%(default)s)",
    )
    add(
        "--optimizer",
        choices=OPTIMIZERS,
        help="gradient descent, that with momentum 0.9, or Adam (momentum; for mse: sgd)",
    )
    add("--epochs", type=whole(1), default=20, help="passes over the images (%(default)s)")
    add("--batch-size", type=whole(1), help="images per step (128; for mse: 32)")
    add("--lr", type=rate, help="learning rate at the start, to fall as a cosine (what suits)")
    add("--device", help="cpu, cuda or cuda:1 (the first CUDA device, else the CPU)")
    add("--seed", type=whole(0), default=0, help="of weights and shuffling (%(default)s)")
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="record the training step once and replay it (--compile)",
    )
    add("--plot", type=new_file(".png"), metavar="FILE.png", help="draw curves, confusions, errors")
    add("--save", type=new_file(".npz"), metavar="FILE.npz", help="write the weights to a new file")
    args = parser.parse_args(argv)
    if args.save and args.save.exists():
        parser.error(f"argument --save: {args.save} exists, and would be overwritten")
    for name, value in DEFAULTS[args.loss].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.lr is None:
        args.lr = LEARNING_RATES[args.loss, args.optimizer]
        if args.activation != "sigmoid":
            args.lr /= 4
    try:
        return args, gg.device(args.device) if args.device else gg.default_device()
    except (ValueError, gg.DeviceError) as error:
        parser.error(str(error))


def whole(least: int) -> Callable[[str], int]:
    """A type of argument: integers from `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} up")
        return int(text)

    return parse


def rate(text: str) -> float:
    """A type of argument: positive, finite numbers."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


def new_file(suffix: str) -> Callable[[str], Path]:
    """A type of argument: files with `suffix` in a folder that can be written to."""

    def parse(text: str) -> Path:
        path = Path(text)
        if path.suffix.lower() != suffix:
            raise argparse.ArgumentTypeError(f"{text!r} does not end in {suffix}")
        if path.is_dir():
            raise argparse.ArgumentTypeError(f"{text} is a folder")
        if not path.absolute().parent.is_dir():
            raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
        if not os.access(path.absolute().parent, os.W_OK):
            raise argparse.ArgumentTypeError(f"the folder {path.parent} cannot be written to")
        return path

    return parse


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None
