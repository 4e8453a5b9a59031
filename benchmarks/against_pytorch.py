"""How fast the training step and the generation of images are, next to PyTorch with the same networks.

    pip install -e '.[bench]'                              # adds PyTorch
    python benchmarks/against_pytorch.py                                  # MNIST, batch 128
    python benchmarks/against_pytorch.py --batch 64 --turns 5
    python benchmarks/against_pytorch.py --images cifar10                 # 32x32x3, a ResNet-32 as the target, batch 64

Both sides have the same generator, discriminator, target, losses, Adam, batch, number type (float32) and number of
threads. PyTorch starts from the weights of the TensorFlow networks, and the losses of the first step are compared
(1e-4). Then they are timed in turns; of PyTorch the best counts: eager with channels last, eager as usual, compiled
modules. Prints images per second and the ratio, floating-point operations per image (a multiply-add is 2; a backward
pass counts twice its forward pass), the share of the machine's matrix rate, which is measured in the same run, and how
long 1,000 images take from NumPy to NumPy. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from advgan.startup import import_tensorflow

import_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from advgan.attacks.advgan_attack import AdvGANAttack  # noqa: E402
from advgan.classifiers.architectures import build_classifier  # noqa: E402
from advgan.classifiers.classifier import Classifier, classifier_of  # noqa: E402
from advgan.config.loading import find_config, load_config  # noqa: E402
from advgan.config.settings import Config  # noqa: E402
from advgan.data.datasets import scaled  # noqa: E402
from advgan.data.loading import load_dataset  # noqa: E402
from advgan.environment import parts_of, prepare_environment  # noqa: E402
from advgan.networks.description import describe  # noqa: E402
from advgan.training.loop import STEPS_PER_CALL, several_steps  # noqa: E402
from advgan.training.state import TrainingState, build_state  # noqa: E402
from advgan.training.step import training_step  # noqa: E402
from advgan.training.trainer import step_settings  # noqa: E402

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AGREE = 1e-4
"""How far the losses of the first step may differ, relatively."""
GENERATED = 1000


# --- The same networks in PyTorch --------------------------------------------------------------------------------


class Same(nn.Module):
    """A convolution with TensorFlow's SAME padding, which is larger at the end; the weights of a Keras layer."""

    def __init__(self, layer: Any, size: tuple[int, int]) -> None:
        super().__init__()
        kernel, bias = _weights(layer)
        self.stride = layer.strides[0]
        self.transposed = type(layer).__name__ == "Conv2DTranspose"
        self.weight = nn.Parameter(torch.tensor(kernel.transpose(3, 2, 0, 1)))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(bias))
        width = kernel.shape[0]
        self.size = [here * self.stride for here in size]
        pads = [max((-(-here // self.stride) - 1) * self.stride + width - here, 0) for here in size]
        if layer.padding == "valid":
            pads = [0, 0]
        top, left = (pad // 2 for pad in pads)
        self.pad = (left, pads[1] - left, top, pads[0] - top)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.transposed:  # what SAME cuts off is at the end
            made = functional.conv_transpose2d(x, self.weight, self.bias, stride=self.stride)
            return made[:, :, : self.size[0], : self.size[1]]
        left, right, top, bottom = self.pad
        if left == right and top == bottom:
            return functional.conv2d(x, self.weight, self.bias, stride=self.stride, padding=(top, left))
        return functional.conv2d(functional.pad(x, self.pad), self.weight, self.bias, stride=self.stride)


class Norm(nn.Module):
    """Instance normalization with the weights of a Keras layer."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        values = {weight.path.rsplit("/", 1)[-1]: np.array(weight) for weight in layer.weights}
        self.weight, self.bias = (nn.Parameter(torch.tensor(values[name])) for name in ("gamma", "beta"))
        self.epsilon = layer.epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.epsilon)


class Generator(nn.Module):
    """The paper's generator, from the weights of the Keras one."""

    def __init__(self, network: Any, residual_blocks: int) -> None:
        super().__init__()
        self.blocks = residual_blocks
        self.parts = nn.ModuleDict()
        for layer in network.layers:
            kind = type(layer).__name__
            if kind in ("Conv2D", "Conv2DTranspose"):
                self.parts[layer.name] = Same(layer, tuple(layer.input.shape[1:3]))
            elif kind == "GroupNormalization":
                self.parts[layer.name] = Norm(layer)
        self.downs = sum(name[0] == "d" and "_" not in name for name in self.parts)

    def block(self, x: torch.Tensor, name: str, activate: bool = True) -> torch.Tensor:
        x = self.parts[f"{name}_norm"](self.parts[name](x))
        return functional.relu(x) if activate else x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(x, "c0")
        for number in range(1, self.downs + 1):
            x = self.block(x, f"d{number}")
        for number in range(1, self.blocks + 1):
            x = functional.relu(x + self.block(self.block(x, f"r{number}a"), f"r{number}b", activate=False))
        for number in range(1, self.downs + 1):
            x = self.block(x, f"u{number}")
        return torch.tanh(self.parts["c1"](x))


class Chain(nn.Module):
    """Layers one after the other, from the weights of a Keras network: the discriminator and the small classifier."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        made: list[nn.Module] = []
        for layer in network.layers:
            kind = type(layer).__name__
            if kind == "Conv2D":
                made.append(Same(layer, tuple(layer.input.shape[1:3])))
            elif kind == "GroupNormalization":
                made.append(Norm(layer))
            elif kind == "Dense":
                made.append(_dense(layer))
            elif kind == "MaxPooling2D":
                made.append(nn.MaxPool2d(layer.pool_size[0]))
            elif kind == "LeakyReLU":
                made.append(nn.LeakyReLU(layer.negative_slope))
            elif kind == "ReLU":
                made.append(nn.ReLU())
            elif kind == "Flatten":
                made.append(Flat())
            if kind == "Dense" and layer.activation.__name__ == "relu":
                made.append(nn.ReLU())
        self.layers = nn.Sequential(*made)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Flat(nn.Module):
    """Flattens height, width, channels in this order, as TensorFlow does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class Residual(nn.Module):
    """The CIFAR ResNet of ``classifiers/resnet.py`` with its normalization inside, from its Keras weights."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.parts, self.names = nn.ModuleDict(), [layer.name for layer in network.layers]
        for layer in network.layers:
            kind = type(layer).__name__
            if kind == "Conv2D":
                weight = nn.Parameter(torch.tensor(_weights(layer)[0].transpose(3, 2, 0, 1)))
                self.parts[layer.name] = conv = nn.Conv2d(1, 1, 3, layer.strides[0], 1, bias=False)
                conv.weight = weight
            elif kind == "BatchNormalization":
                gamma, beta, mean, variance = (torch.tensor(value) for value in layer.get_weights())
                norm = nn.BatchNorm2d(len(gamma), eps=layer.epsilon)
                norm.load_state_dict({"weight": gamma, "bias": beta, "running_mean": mean, "running_var": variance})
                self.parts[layer.name] = norm
            elif kind == "Dense":
                self.parts[layer.name] = _dense(layer)
        mean, std = (np.array(values, np.float32) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.blocks = sorted({name.rsplit("_", 1)[0] for name in self.parts if name.startswith("stage")})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.mean) / self.std
        first = [name for name in self.parts if not name.startswith("stage") and name != "logits"]
        for name in first:
            x = self.parts[name](x)
        x = functional.relu(x)
        for block in self.blocks:
            y = functional.relu(self.parts[f"{block}_norm1"](self.parts[f"{block}_convolution1"](x)))
            y = self.parts[f"{block}_norm2"](self.parts[f"{block}_convolution2"](y))
            if y.shape != x.shape:
                extra = (y.shape[1] - x.shape[1]) // 2
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))
            x = functional.relu(x + y)
        return self.parts["logits"](x.mean((2, 3)))


def _weights(layer: Any) -> tuple[np.ndarray, np.ndarray | None]:
    kernel, *bias = layer.get_weights()
    return kernel, bias[0] if bias else None


def _dense(layer: Any) -> nn.Linear:
    kernel, bias = _weights(layer)
    made = nn.Linear(*kernel.shape)
    made.weight = nn.Parameter(torch.tensor(kernel.T.copy()))
    if bias is not None:
        made.bias = nn.Parameter(torch.tensor(bias))
    return made


# --- The step in PyTorch -----------------------------------------------------------------------------------------


class Torch:
    """Networks, optimizers and the training step in PyTorch, in one of three forms."""

    def __init__(self, state: TrainingState, target: Any, config: Config, form: str) -> None:
        self.config, self.form = config, form
        self.generator = Generator(state.networks.generator, config.generator.residual_blocks)
        self.discriminator = Chain(state.networks.discriminator)
        self.target = (Residual if config.target.architecture.startswith("resnet") else Chain)(target).eval()
        self.target.requires_grad_(False)
        self.layout = torch.channels_last if form != "eager" else torch.contiguous_format
        networks: list[Any] = [self.generator, self.discriminator, self.target]
        networks = [network.to(memory_format=self.layout) for network in networks]
        if form == "compiled":
            networks = [torch.compile(network) for network in networks]
        self.generate, self.judge, self.classify = networks
        trained: tuple[Any, ...] = (self.generator, self.discriminator)
        settings = (config.generator, config.discriminator)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=each.learning_rate, betas=(each.beta_1, 0.999), eps=1e-7)
            for network, each in zip(trained, settings, strict=True)
        ]

    def taken(self, images: np.ndarray) -> torch.Tensor:
        """NumPy images, channels last, as PyTorch takes them."""
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=self.layout)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """One update of D and of G."""
        loss, epsilon = self.config.loss, self.config.attack.epsilon
        optimizer_g, optimizer_d = self.optimizers
        perturbation = epsilon * self.generate(images)
        adversarial = (images + perturbation).clamp(0, 1)
        optimizer_d.zero_grad(set_to_none=True)
        on_real, on_fake = self.judge(images), self.judge(adversarial.detach())
        loss_d = 0.5 * (on_real - 1).square().mean() + 0.5 * on_fake.square().mean()
        loss_d.backward()
        optimizer_d.step()
        self.discriminator.requires_grad_(False)  # its weights need no gradient here
        optimizer_g.zero_grad(set_to_none=True)
        logits = self.classify(adversarial)
        of_class = logits.gather(1, labels[:, None])[:, 0]
        others = logits.scatter(1, labels[:, None], torch.finfo(logits.dtype).min).max(1).values
        loss_adv = (of_class - others).clamp(min=-loss.kappa).mean()
        loss_gan = 0.5 * (self.judge(adversarial) - 1).square().mean()
        norms = perturbation.flatten(1).square().sum(1).clamp(min=1e-24).sqrt()
        loss_hinge = (norms - loss.c).clamp(min=0).mean()
        (loss_adv + loss.alpha * loss_gan + loss.beta * loss_hinge).backward()
        optimizer_g.step()
        self.discriminator.requires_grad_(True)
        names = ("loss_adv", "loss_gan", "loss_hinge", "loss_discriminator")
        return dict(zip(names, (loss_adv, loss_gan, loss_hinge, loss_d), strict=True))

    def attacked(self, images: np.ndarray) -> np.ndarray:
        """Adversarial images, NumPy to NumPy."""
        with torch.inference_mode():
            x = self.taken(images)
            made = (x + self.config.attack.epsilon * self.generate(x)).clamp(0, 1)
            return np.ascontiguousarray(made.permute(0, 2, 3, 1).numpy())


# --- Measuring ---------------------------------------------------------------------------------------------------


def tensorflow_step(
    state: TrainingState, images: np.ndarray, labels: np.ndarray, config: Config
) -> Callable[..., dict[str, np.ndarray]]:
    """Steps as training makes them, several in a call, on one batch that is ready in memory."""
    x, y, settings = tf.constant(images), tf.constant(labels), step_settings(config, 1000)

    def step(_batch: Any, number: Any) -> dict[str, Any]:
        return training_step(state.networks, state.optimizers, x, y, number, settings)

    steps = several_steps(step)
    return lambda count=STEPS_PER_CALL: steps(np.zeros(count, np.int32), 1)


def seconds(call: Callable[[], Any], times: int) -> float:
    """Seconds of one call, over so many."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def matrix_rate() -> float:
    """Floating-point operations per second of large products, one for each core, the best of some turns."""
    size = 2048
    factors = [tf.random.normal([size, size], seed=number) for number in range(parts_of(10**6))]

    @tf.function(autograph=False)
    def products() -> list[Any]:
        return [each @ each for each in factors]

    products()
    return max(len(factors) * 2 * size**3 / seconds(products, 3) for _ in range(7))


def operations(networks: list[Any]) -> float:
    """Of a step, for one image: G forward and backward, D on two images and once more, the target's input gradient."""
    generator, discriminator, target = (describe(network).operations for network in networks)
    return 3 * generator + (2 * 3 + 2) * discriminator + 2 * target


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", choices=("mnist", "cifar10"), default="mnist")
    parser.add_argument("--batch", type=int, help="images in a batch (128; cifar10: 64)")
    parser.add_argument("--steps", type=int, default=50, help="steps per turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--forms", nargs="+", default=["channels last", "eager", "compiled"], help="of PyTorch")
    options = parser.parse_args()
    colour = options.images == "cifar10"
    size = options.batch or (64 if colour else 128)
    changes = [f"training.batch_size={size}", "generator.schedule=constant"]
    if colour:
        changes += ["target.architecture=resnet32", "attack.epsilon=8/255", "loss.alpha=0.02"]
    config = load_config(find_config("mnist.yaml"), changes)
    environment = prepare_environment(config.training)
    if colour:
        random = np.random.default_rng(0)
        images, labels = random.random((GENERATED, 32, 32, 3), np.float32), random.integers(0, 10, GENERATED)
    else:
        test = load_dataset(config.data).test.first(GENERATED)
        images, labels = scaled(test.images), test.labels
    labels = labels.astype(np.int32)
    shape = images.shape[1:]
    torch.set_num_threads(int(environment["cores"]))
    network = build_classifier(shape, 10, config.target)
    target: Classifier = classifier_of(network, shape, "target")
    state = build_state(shape, target.logits, config, 1000)
    torches = [Torch(state, network, config, form) for form in options.forms]
    batch = images[:size], labels[:size]

    step = tensorflow_step(state, *batch, config)
    ours = {name: float(value[0]) for name, value in step(1).items()}
    calls: dict[str, Callable[[], Any]] = {"TensorFlow": step}
    for each in torches:
        x, y = each.taken(batch[0]), torch.from_numpy(batch[1]).long()
        for name, value in each.step(x, y).items():
            difference = abs(float(value) - ours[name]) / max(abs(ours[name]), 1e-6)
            if difference > AGREE:
                print(f"error: {name} of PyTorch, {each.form}, differs by {difference:.1e}", file=sys.stderr)
                return 1
        calls[f"PyTorch, {each.form}"] = lambda each=each, x=x, y=y: each.step(x, y)  # type: ignore[misc]
    versions = f"TensorFlow {tf.__version__}, PyTorch {torch.__version__}"
    print(f"{environment['device']}, {environment['cores']} cores, {versions}")
    print(f"losses of the first step agree to {AGREE:g}")
    attack = AdvGANAttack(state.networks.generator, None, config.attack)
    generating: dict[str, Callable[[], Any]] = {"TensorFlow": lambda: attack.generate(images)}
    for each in torches:
        generating[f"PyTorch, {each.form}"] = lambda each=each: each.attacked(images)  # type: ignore[misc]
        difference = np.abs(each.attacked(images[:8]) - attack.generate(images[:8])).max()
        assert difference < 0.1, difference  # after one step each
    several = {name: call if call is step else partial(_repeated, call) for name, call in calls.items()}
    rounds = max(1, options.steps // STEPS_PER_CALL)
    _print_table(f"training step, batch {size}", several, STEPS_PER_CALL, size, rounds, options.turns)
    flops = operations([state.networks.generator, state.networks.discriminator, network])
    rate = matrix_rate()
    _print_table(f"{GENERATED} images, NumPy to NumPy", generating, 1, GENERATED, 5, options.turns)
    print(f"{flops / 1e6:.1f} million operations per image; matrix rate {rate / 1e9:.0f} GFLOP/s")
    return 0


def _repeated(step: Callable[[], dict[str, Any]]) -> None:
    """As many steps as one call makes on our side, and a look at their losses."""
    for values in [step() for _ in range(STEPS_PER_CALL)]:
        for value in values.values():
            float(value)


def _print_table(
    title: str, calls: dict[str, Callable[[], Any]], each: int, images: int, times: int, turns: int
) -> None:
    """Time the calls in turns, print images per second (median; lowest and highest turn) and the ratio to the best.

    Args:
        title: of the table.
        calls: by name.
        each: what is timed happens so often in a call.
        images: that it takes.
        times: calls in a turn.
        turns: of which the median counts.
    """
    for call in calls.values():
        call()
    measured: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            measured[name].append(seconds(call, times) / each)
    medians = {name: statistics.median(values) for name, values in measured.items()}
    best = min(value for name, value in medians.items() if name != "TensorFlow")
    print(f"\n{title}")
    for name, values in measured.items():
        low, high = images / max(values), images / min(values)
        print(
            f"  {name:<24}{medians[name] * 1e3:8.1f} ms {images / medians[name]:8.0f} images/s "
            f"({low:.0f} to {high:.0f})   {best / medians[name]:.2f} x PyTorch's best"
        )


if __name__ == "__main__":
    sys.exit(main())
