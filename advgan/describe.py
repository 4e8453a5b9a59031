"""The command ``python -m advgan.describe``: every layer of a configuration's networks, or what a classifier is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from advgan.command_line import add_configuration, command_parser, parse, run_command, whole_number
from advgan.config.loading import described_classifier, find_config, load_config, override_config
from advgan.errors import ConfigurationError
from advgan.startup import import_tensorflow

EXAMPLES = """examples:
  python -m advgan.describe --config mnist.yaml
  python -m advgan.describe --config mnist.yaml --image 32x32x3 --set target.architecture=resnet32
  python -m advgan.describe --config mnist.yaml --set discriminator.padding=valid     an error: why, and at which layer
  python -m advgan.describe --config mnist.yaml --json
  python -m advgan.describe --target my_classifier.keras --data mnist         a classifier of your own
  python -m advgan.describe --target my_module:function --data images.npz --set target.bounds=[0,255]

With --target: its inputs and outputs, its pixel range, logits or probabilities, classes, parameters, clean
accuracy on --data, and the lines of configuration that go with it (docs/classifiers.md).

For the generator, the discriminator and the target, and for one image: each layer's kernel, stride, padding on the four
sides (top, bottom, left, right; added around the input, or around the output of a transposed convolution; negative: cut
off), output shape, parameters (trained + kept), floating-point operations (a multiply-add counts as 2) and bytes of
output. Worked out by advgan.networks.convolution and compared with what Keras builds. Exit code: 0 done, 2 does not
fit.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = command_parser(
        "describe",
        "Show what every layer of the networks gives, or why they do not fit; or what a classifier is.",
        EXAMPLES,
    )
    add_configuration(parser, required=False)
    parser.add_argument(
        "--target", metavar="CLASSIFIER", help="a classifier of your own: .keras, .h5, SavedModel or module:function"
    )
    parser.add_argument("--data", metavar="DATA", help="with --target: labelled images, as data.dataset takes them")
    parser.add_argument("--image", metavar="HxWxC", type=_image, help="image shape, else that of the data")
    parser.add_argument(
        "--classes", metavar="N", type=_classes, help="number of classes, else that of the data (10 with --image)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parse(parser, arguments)
    if (options.config is None) == (options.target is None):
        parser.error("give one of --config FILE and --target CLASSIFIER")
    if options.target is None and options.data is not None:
        parser.error("--data is for --target; a configuration names its own data")
    if options.target is not None and options.classes is not None:
        parser.error("--classes is for --config; a classifier has its own")
    return run_command(_describe if options.target is None else _describe_classifier, options)


def _describe(options: argparse.Namespace) -> int:
    config = load_config(find_config(options.config), options.overrides)
    import_tensorflow()  # takes seconds, so after the configuration was checked
    from advgan.data.loading import load_dataset
    from advgan.experiments.console import layer_table, not_shown
    from advgan.experiments.plan import build_networks
    from advgan.networks.description import describe

    image, classes = options.image, options.classes
    if image is None:
        dataset = load_dataset(config.data)
        image, classes = dataset.image_shape, classes or dataset.number_of_classes
    networks = build_networks(image, classes or 10, config)
    descriptions = {role: describe(network) for role, network in networks.of_known_layers(config).items()}
    if options.json:
        print(json.dumps({role: _as_json(network) for role, network in descriptions.items()}, indent=1))
    else:
        print("\n\n".join("\n".join(layer_table(network)) for network in descriptions.values()))
        for line in not_shown(networks, config):
            print(f"\n{line}")
    return 0


def _describe_classifier(options: argparse.Namespace) -> int:
    settings, left = described_classifier(options.target, options.overrides)
    if others := [override for override in left if not override.startswith("data.")]:
        raise ConfigurationError("--set", others[0], "describes neither the classifier nor the data; leave it out")
    data = override_config({"data": {"dataset": options.data or "mnist"}}, left).data
    import_tensorflow()  # takes seconds, so after the options were checked
    from advgan.data.loading import load_dataset
    from advgan.experiments.describe_classifier import describe_classifier, description_lines

    dataset = None if options.data is None else load_dataset(data)
    found = describe_classifier(options.target, settings, dataset, options.image)
    print(json.dumps(found.model_dump(mode="json"), indent=1) if options.json else "\n".join(description_lines(found)))
    return 0


def _image(text: str) -> tuple[int, int, int]:
    """Height, width and channels, for argparse."""
    sizes = text.split("x")
    whole = len(sizes) == 3 and all(size.isdecimal() and size.isascii() for size in sizes)
    height, width, channels = map(int, sizes) if whole else (0, 0, 0)
    if not (0 < height < 10**5 and 0 < width < 10**5 and 0 < channels < 10**4):
        raise argparse.ArgumentTypeError(
            f"{text!r} should be height x width x channels, such as 28x28x1 (allowed: up to 99999x99999x9999)"
        )
    return height, width, channels


def _classes(text: str) -> int:
    if not 2 <= (number := whole_number(text)) < 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number of classes (allowed: 2 to 999999)")
    return number


def _as_json(network: Any) -> dict[str, Any]:
    totals = ("trained_parameters", "kept_parameters", "operations", "activation_bytes")
    content = {**dataclasses.asdict(network), **{name: getattr(network, name) for name in totals}}
    for layer in content["layers"]:
        layer["padding"] = layer["padding"] and layer["padding"]._asdict()
    return content


if __name__ == "__main__":
    sys.exit(main())
