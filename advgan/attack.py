"""The command ``python -m advgan.attack``: parse, call, print."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from advgan.command_line import add_configuration, command_parser, run_command
from advgan.config.loading import find_config, load_config
from advgan.errors import AdvGANError, ConfigurationError, Interrupted
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

INPUT is a picture (PNG, JPEG, BMP, WebP, GIF), a folder of pictures, an .npy file, or an .npz file that holds x, or
x_test, and perhaps y, or y_test. Sub-folders of a folder name the classes; without labels, success means that the
classifier's answer changed. A CLASSIFIER is a .keras file, the folder of a SavedModel, or module:function.

The output holds each picture as a PNG, or the array, and attack.csv, attack.png and attack.json. docs/attack.md
describes them. What was stopped is continued when the same command is given again. Exit code: 0 done, 1 some pictures
could not be used, 2 invalid input, 130 interrupted.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = command_parser("attack", "Attack your own pictures or arrays with a trained AdvGAN.", EXAMPLES)
    parser.add_argument("input", metavar="INPUT", help="a picture, a folder of pictures, an .npy or .npz file")
    add_configuration(parser, required=False)
    parser.add_argument("--run", metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="where the adversarial images go")
    parser.add_argument(
        "--target", metavar="CLASSIFIER", help="show the images to this one instead of the run's own classifier"
    )
    parser.add_argument(
        "--resize", action="store_true", help="convert pictures of another size, and coloured ones for a grey run"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what another attack wrote")
    options = parser.parse_args(arguments)
    if options.run is not None and options.config is not None:
        parser.error("give only one of --run RUN and --config FILE")
    command = f"python -m advgan.attack {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    return run_command(lambda: _attack(options, command))


def _attack(options: argparse.Namespace, command: str) -> int:
    from advgan.data.image_files import open_images

    if options.run is not None and options.overrides:
        raise ConfigurationError("--set", options.overrides[0], "a run keeps its settings; leave this out")
    config = None
    if options.run is None:
        config = load_config(find_config(options.config or DEFAULT), options.overrides)
    images = open_images(Path(options.input))
    output = Path(options.output)
    try:
        import_tensorflow()  # takes seconds, so after the options were checked
        from advgan.experiments.attack import AttackRequest, attack_files
        from advgan.run_folder import run_of

        run = Path(options.run) if config is None else run_of(config)
        request = AttackRequest(run, images, output, options.target, options.resize, options.overwrite)
        record = attack_files(request, command=command)
    except (KeyboardInterrupt, Interrupted):
        print("stopped; the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:
        problem = f"{error.filename or output}: {error.strerror or error}"
        raise AdvGANError(f"{problem}; what is done is kept: the same command continues once this is solved") from None
    return SOME_LEFT_OUT if record["left_out"] else 0


if __name__ == "__main__":
    sys.exit(main())
