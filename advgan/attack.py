"""The command ``python -m advgan.attack``: parse, call, print."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from advgan.command_line import (
    SAME_COMMAND,
    add_configuration,
    command_parser,
    continued_by,
    parse,
    run_command,
    settings_are_kept,
)
from advgan.config.loading import described_classifier, find_config, load_config
from advgan.startup import import_tensorflow

DEFAULT = "mnist.yaml"
SOME_LEFT_OUT = 1
"""Exit code where some pictures could not be used."""
EXAMPLES = """examples:
  python -m advgan.attack my_digits/ --output adversarial/         the latest run of mnist.yaml, or the one that ships
  python -m advgan.attack my_digits/ --run checkpoints/mnist/0 --output adversarial/
  python -m advgan.attack photo.jpg --run checkpoints/mnist/0 --output adversarial/ --resize
  python -m advgan.attack images.npz --run checkpoints/mnist/0 --output adversarial/
  python -m advgan.attack my_digits/ --run checkpoints/mnist/0 --output adversarial/ --target other.keras
  python -m advgan.attack my_digits/ --run checkpoints/mnist_every_class/0 --output adversarial/ --to 7

INPUT is a picture (PNG, JPEG, BMP, WebP, GIF), a folder of pictures, an .npy file, or an .npz file that holds x, or
x_test, and perhaps y, or y_test. Sub-folders of a folder name the classes; without labels, success means that the
classifier's answer changed. A CLASSIFIER is a .keras or .h5 file, the folder of a SavedModel, or module:function; its
pixel range is detected, or given by --set target.bounds=[0,255] (docs/classifiers.md).

The output holds each picture as a PNG, or the array, and attack.csv, attack.png and attack.json. docs/attack.md
describes them. To continue after a stop, run the same command again. Exit code: 0 done, 1 some pictures
could not be used, 2 invalid input, 130 interrupted.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = command_parser("attack", "Attack your own pictures or arrays with a trained AdvGAN.", EXAMPLES)
    parser.add_argument("input", metavar="INPUT", type=Path, help="a picture, a folder of them, an .npy or .npz file")
    add_configuration(parser, required=False)
    parser.add_argument("--run", metavar="RUN", type=Path, help="run directory of a finished run")
    parser.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="where the adversarial images go")
    parser.add_argument("--target", metavar="CLASSIFIER", help="attack this classifier instead of the run's target")
    parser.add_argument(
        "--resize", action="store_true", help="convert pictures of other sizes, and colour pictures for a greyscale run"
    )
    parser.add_argument(
        "--to", metavar="CLASS", help="the target class, by name or number, where the generator has several"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what another attack wrote")
    options = parse(parser, arguments)
    if options.run is not None and options.config is not None:
        parser.error("give only one of --run RUN and --config FILE")
    return run_command(_attack, options)


def _attack(options: argparse.Namespace) -> int:
    reading, options.overrides = described_classifier(options.target, options.overrides)
    config = None
    if options.run is None:
        config = load_config(find_config(options.config or DEFAULT), options.overrides)
    else:
        settings_are_kept(options, ", except those that describe --target, such as target.bounds")
    import_tensorflow()  # takes seconds, so after the options were checked
    from advgan.data.image_files import open_images
    from advgan.experiments.attack import AttackRequest, attack_files
    from advgan.reports.terminal import attack_results
    from advgan.run_folder import run_of

    images = open_images(options.input)
    run = options.run if config is None else run_of(config)
    request = AttackRequest(
        run, images, options.output, options.target, reading, options.to, options.resize, options.overwrite
    )
    with continued_by(SAME_COMMAND, options.output):
        record = attack_files(request, options.command)
        print("\n".join(attack_results(record, request.output)))
    return SOME_LEFT_OUT if record.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
