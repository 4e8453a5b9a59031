"""The command ``python -m advgan.export``: parse, call, print."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from advgan.command_line import add_configuration, command_parser, parse, run_command, settings_are_kept
from advgan.config.loading import find_config, load_config
from advgan.startup import import_tensorflow

NAMES = ("keras", "savedmodel", "onnx", "tflite")
EXAMPLES = """examples:
  python -m advgan.export --run checkpoints/mnist/0 --format onnx
  python -m advgan.export --run checkpoints/mnist/0 --format keras --format savedmodel --format tflite
  python -m advgan.export --run checkpoints/mnist/0 --format onnx --output attack.onnx --overwrite
  python -m advgan.export --config mnist.yaml --format keras        the latest finished run of it

The export maps float32 images in [0, 1], shape (n, height, width, channels), for any n, to adversarial images
clip(x + p, 0, 1); it needs no part of this package. It goes to <run>/export: attack.keras, attack/ (a SavedModel),
attack.onnx, attack.tflite. Each file is run on test images and compared with the run itself; one that differs by more
than 1e-4 or leaves epsilon is removed. ONNX needs: pip install tf2onnx onnxruntime. docs/export.md says how to use the
files. Exit code: 0 done, 2 invalid input.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = command_parser(
        "export", "Write a trained AdvGAN, with its projection, as a file for other programs.", EXAMPLES
    )
    add_configuration(parser, required=False)
    parser.add_argument("--run", metavar="RUN", type=Path, help="run directory of a finished run")
    parser.add_argument(
        "--format",
        choices=NAMES,
        action="append",
        required=True,
        dest="formats",
        help="what to write; repeatable",
    )
    parser.add_argument(
        "--output", metavar="PATH", type=Path, help="the file (savedmodel: the folder) to write; for one format only"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    options = parse(parser, arguments)
    if (options.run is None) == (options.config is None):
        parser.error("one of --run RUN and --config FILE is needed, such as --run checkpoints/mnist/0")
    return run_command(_export, options)


def _export(options: argparse.Namespace) -> int:
    if options.run is not None:
        settings_are_kept(options)
    config = None if options.config is None else load_config(find_config(options.config), options.overrides)
    import_tensorflow()  # takes seconds, so after the options were checked
    from advgan.experiments.export import export_run
    from advgan.run_folder import run_of

    run = options.run if config is None else run_of(config)
    for path, difference in export_run(run, tuple(options.formats), options.output, options.overwrite).items():
        print(f"{path}: {difference}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
