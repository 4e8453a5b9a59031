"""The door ``python -m advgan.evaluate``: parse, call, print."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path

from advgan.command_line import add_configuration, command_for, command_parser, run_command
from advgan.config.loading import find_config, load_config, parse_number
from advgan.errors import AdvGANError, BlackBoxFailed, ConfigurationError, Interrupted, OracleUnavailable
from advgan.startup import import_tensorflow

DEFAULT = "mnist.yaml"
JUDGING = "target.check_accuracy"
"""The setting of a run that an evaluation may change: it decides no figure."""
FEW = 2000
"""Test images for a newcomer, who wants to see a whole report soon."""
EXAMPLES = """examples:
  python -m advgan.evaluate                                      the latest run of mnist.yaml, or the one that ships
  python -m advgan.evaluate --run checkpoints/mnist/0
  python -m advgan.evaluate --config mnist_targeted.yaml             the latest finished run of it
  python -m advgan.evaluate --run checkpoints/mnist/0 --images 500   a quick look, marked as such
  python -m advgan.evaluate --run checkpoints/mnist/0 --restarts 10  a stronger PGD beside it
  python -m advgan.evaluate --run checkpoints/mnist/0 --transfer other.keras --transfer saved_model/
  python -m advgan.evaluate --run checkpoints/mnist_blackbox/0 --square-queries 5000
  python -m advgan.evaluate --run checkpoints/mnist/0 --target mine:logits --output mine/
  python -m advgan.evaluate --run checkpoints/mnist/0 --retrain 0.1 0.15 0.2
  python -m advgan.evaluate --compare checkpoints/mnist/0 checkpoints/mnist/1

A CLASSIFIER is a .keras file, the folder of a SavedModel, or module:function (from images in [0, 1] to logits).

--retrain trains the run anew at each epsilon, which takes as long as the run did, into <run>/retrained.
--compare puts runs into one table, in <first run>/comparison; it evaluates first those that were not yet.

The results go into <run>/evaluation (with --images N: <run>/evaluation-first-N): evaluation.json, adversarial.npz,
images/ as PNG sheets and, for MNIST, an array for the MadryLab challenge. docs/evaluation.md describes them. What was
stopped goes on when the same command is given again. Exit code: 0 done, 2 refused, 130 interrupted.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = command_parser(
        "evaluate", "Measure how often a trained AdvGAN fools a classifier on the test images.", EXAMPLES
    )
    add_configuration(parser, required=False)
    parser.add_argument("--run", metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "--compare", metavar="RUN", nargs="+", help="put finished runs into one table; the first is the reference"
    )
    parser.add_argument("--output", metavar="FOLDER", help="where the results go, instead of <run>/evaluation")
    parser.add_argument("--images", metavar="N", help="the first N test images only; the results say so")
    parser.add_argument("--restarts", metavar="N", help="how often PGD starts (1)")
    parser.add_argument(
        "--optimized",
        metavar="N",
        help="how many images the slow attack is tried on: FMN, or Square on a black box (100)",
    )
    parser.add_argument(
        "--square-queries", metavar="N", help="the most images Square asks a black box about for each (1000)"
    )
    parser.add_argument(
        "--target", metavar="CLASSIFIER", help="attack this one instead of the run's own: file, folder or function"
    )
    parser.add_argument(
        "--transfer",
        metavar="CLASSIFIER",
        action="append",
        default=[],
        help="show the images to this one too; repeatable",
    )
    parser.add_argument(
        "--retrain",
        metavar="EPSILON",
        nargs="+",
        default=[],
        help="train the run anew at these, to score success there",
    )
    options = parser.parse_args(arguments)
    if [options.run, options.config, options.compare].count(None) < 2:
        parser.error("give only one of --run RUN, --config FILE and --compare RUN RUN")
    command = f"python -m advgan.evaluate {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    return run_command(lambda: _evaluate(options, command))


def _evaluate(options: argparse.Namespace, command: str) -> int:
    judging = [override for override in options.overrides if override.startswith(f"{JUDGING}=")]
    check_accuracy = load_config(find_config(DEFAULT), judging).target.check_accuracy if judging else None
    overrides = [override for override in options.overrides if override not in judging]
    if options.compare is not None and judging:
        raise ConfigurationError(
            "--set", judging[0], "--compare takes evaluations as they are; evaluate the run with it"
        )
    if (options.run or options.compare) and overrides:
        raise ConfigurationError("--set", overrides[0], f"a run keeps its settings, but for {JUDGING}; leave this out")
    if options.compare is not None:
        if options.square_queries is not None:
            problem = "--compare takes evaluations as they are; evaluate the run with it first"
            raise ConfigurationError("--square-queries", options.square_queries, problem)
        for name in ("target", "transfer", "retrain"):
            if given := getattr(options, name):
                raise ConfigurationError(f"--{name}", given, "--compare takes runs against their own targets only")
    config = None
    if options.run is None and options.compare is None:
        config = load_config(find_config(options.config or DEFAULT), overrides)
    images = None if options.images is None else _count("--images", options.images)
    restarts = None if options.restarts is None else _count("--restarts", options.restarts)
    optimized = None if options.optimized is None else _count("--optimized", options.optimized)
    queries = 1000 if options.square_queries is None else _count("--square-queries", options.square_queries)
    epsilons = tuple(parse_number("--retrain", text) for text in options.retrain)
    output = None if options.output is None else Path(options.output)
    folder = None
    try:
        import_tensorflow()  # takes seconds, so after the options were checked
        if options.compare is not None:
            from advgan.experiments.compare import Comparison, compare

            comparison = Comparison(tuple(map(Path, options.compare)), output, images, restarts, optimized)
            folder = comparison.folder
            compare(comparison, command=command)
            return 0
        from advgan.experiments.console import own_pictures
        from advgan.experiments.evaluate import EvaluationRequest, evaluate_run
        from advgan.run_folder import is_reference_run, run_of

        run = Path(options.run) if config is None else run_of(config)
        if config is not None and images is None and is_reference_run(run):
            images = FEW
            print(f"No finished run of yours: the one that ships, on its first {FEW:,} test images. On all of them:")
            print(f"  its report     {run / 'evaluation' / 'report.html'}")
            print(f"  evaluate it    {command_for('evaluate', '--run', run)}")
        transfer = tuple(options.transfer)
        request = EvaluationRequest(
            run,
            output,
            images,
            restarts or 1,
            optimized or 100,
            queries,
            options.target,
            transfer,
            epsilons,
            check_accuracy,
        )
        folder = request.folder
        evaluate_run(request, command=command)
        print(own_pictures(run))
    except OracleUnavailable as problem:
        print(f"{problem}; what was answered is kept, the same command goes on", file=sys.stderr)
        return 130
    except BlackBoxFailed as failure:
        raise AdvGANError(f"{failure}; what it answered before is kept, the same command continues") from None
    except (KeyboardInterrupt, Interrupted):
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AdvGANError(
            f"{error.filename or folder or 'output'}: {error.strerror or error}; what is done is kept: mend this, "
            "then give the same command again"
        ) from None
    return 0


def _count(option: str, text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise ConfigurationError(option, text, "should be a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
