"""The command ``python -m advgan.evaluate``: parse, call, print."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from advgan.cluster import work_alone
from advgan.command_line import (
    SAME_COMMAND,
    add_configuration,
    command_for,
    command_parser,
    continued_by,
    parse,
    run_command,
    settings_are_kept,
    whole_number,
)
from advgan.config.loading import described_classifier, find_config, load_config
from advgan.config.values import number_from_text
from advgan.errors import ConfigurationError
from advgan.startup import import_tensorflow

logger = logging.getLogger(__name__)
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
  python -m advgan.evaluate --run checkpoints/mnist/0 --restarts 10  a stronger PGD too; or --pgd-steps 100
  python -m advgan.evaluate --run checkpoints/mnist/0 --transfer other.keras --transfer saved_model/
  python -m advgan.evaluate --run checkpoints/mnist_blackbox/0 --square-queries 5000
  python -m advgan.evaluate --run checkpoints/mnist/0 --target mine:logits --output mine/
  python -m advgan.evaluate --run checkpoints/mnist/0 --retrain 0.1 0.15 0.2
  python -m advgan.evaluate --run checkpoints/mnist_every_class/0 --to 7
  python -m advgan.evaluate --compare checkpoints/mnist/0 checkpoints/mnist/1
  python -m advgan.evaluate --run checkpoints/mnist/0 --shard 2/8      the second of eight parts, on any machine
  python -m advgan.evaluate --run checkpoints/mnist/0 --merge checkpoints/mnist/0/evaluation/shards/*

A CLASSIFIER is a .keras or .h5 file, the folder of a SavedModel, module:function (a function of images, or one that
returns a Keras model), or robust_mnist. Its pixel range is detected on the validation images. For --target it can be
given: --set target.bounds=[0,255], likewise target.mean, std, output, module and trust (docs/classifiers.md).

--retrain trains the run again at each epsilon, which takes as long as the run did, into <run>/retrained.
--compare puts runs into one table, in <first run>/comparison; it evaluates first those that were not yet.

The results go into <run>/evaluation (with --images N: <run>/evaluation-first-N): evaluation.json, adversarial.npz,
images/ as PNG sheets and, for MNIST, an array for the MadryLab challenge. docs/evaluation.md describes them. To
continue after a stop, run the same command again. Exit code: 0 done, 2 invalid input, 130 interrupted.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = command_parser(
        "evaluate", "Measure how often a trained AdvGAN fools a classifier on the test images.", EXAMPLES
    )
    add_configuration(parser, required=False)
    parser.add_argument("--run", metavar="RUN", type=Path, help="run directory of a finished run")
    parser.add_argument(
        "--compare",
        metavar="RUN",
        type=Path,
        nargs="+",
        help="put finished runs into one table; the first is the reference",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, help="where the results go, instead of <run>/evaluation"
    )
    parser.add_argument(
        "--images", metavar="N", type=whole_number, help="the first N test images only; the results say so"
    )
    parser.add_argument("--restarts", metavar="N", type=whole_number, help="how often PGD starts (1)")
    parser.add_argument("--pgd-steps", metavar="N", type=whole_number, help="steps of PGD, of epsilon / 30 each (40)")
    parser.add_argument(
        "--optimized",
        metavar="N",
        type=whole_number,
        help="number of images for the slow attacks, FMN and Square (100)",
    )
    parser.add_argument(
        "--square-queries",
        metavar="N",
        type=whole_number,
        help="most queries of Square per image (1000 for a black box; Square does not run on others by default)",
    )
    parser.add_argument(
        "--target", metavar="CLASSIFIER", help="attack this classifier instead of the run's: file, folder or function"
    )
    parser.add_argument(
        "--transfer",
        metavar="CLASSIFIER",
        action="append",
        default=[],
        help="also measure transfer to this classifier; repeatable",
    )
    parser.add_argument(
        "--retrain",
        metavar="EPSILON",
        type=_epsilon,
        nargs="+",
        default=[],
        help="train the run again at each epsilon and score it",
    )
    parser.add_argument(
        "--to", metavar="CLASS", help="the target class, by name or number, where the generator has several"
    )
    parser.add_argument(
        "--shard", metavar="K/N", type=_shard, help="attack only part K of N of the images; --merge combines the parts"
    )
    parser.add_argument(
        "--merge", metavar="FOLDER", type=Path, nargs="+", help="combine the N parts of --shard; give all their folders"
    )
    options = parse(parser, arguments)
    if [options.shard, options.merge, options.compare].count(None) < 2:
        parser.error("give only one of --shard K/N, --merge FOLDER ... and --compare RUN RUN")
    if [options.run, options.config, options.compare].count(None) < 2:
        parser.error("give only one of --run RUN, --config FILE and --compare RUN RUN")
    return run_command(_evaluate if options.compare is None else _compare, options)


def _epsilon(text: str) -> float:
    try:
        return float(number_from_text(text))  # type: ignore[arg-type]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _shard(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) <= 100_000):
        raise argparse.ArgumentTypeError(f"{text!r} should be K/N, such as 2/8 for the second of eight parts")
    return int(number), int(of)


def _evaluate(options: argparse.Namespace) -> int:
    judging = [override for override in options.overrides if override.startswith(f"{JUDGING}=")]
    options.overrides = [override for override in options.overrides if override not in judging]
    check_accuracy = load_config(find_config(DEFAULT), judging).target.check_accuracy if judging else None
    named = options.target or next(iter(options.transfer), None)
    reading, options.overrides = described_classifier(named, options.overrides)
    config = None
    if options.run is None:
        config = load_config(find_config(options.config or DEFAULT), options.overrides)
    else:
        settings_are_kept(options, f", except {JUDGING} and those that describe --target, such as target.bounds")
    work_alone()
    import_tensorflow()  # takes seconds, so after the options were checked
    from advgan.evaluation.shards import Shard
    from advgan.evaluation.subject import EvaluationRequest
    from advgan.experiments.evaluate import evaluate_part, evaluate_run
    from advgan.reports.terminal import evaluation_results, own_pictures
    from advgan.run_folder import is_reference_run, run_of

    run, images = options.run, options.images
    if config is not None:
        run = run_of(config)
        if images is None and is_reference_run(run):
            images = FEW
            logger.info(
                f"No finished run found: the shipped one, on its first {FEW:,} test images. On all of them:\n"
                f"  its report     {run / 'evaluation' / 'report.html'}\n"
                f"  evaluate it    {command_for('evaluate', '--run', run)}"
            )
    request = EvaluationRequest(
        run,
        options.output,
        images,
        options.restarts or 1,
        options.optimized or 100,
        options.square_queries,
        options.target,
        tuple(options.transfer),
        tuple(options.retrain),
        reading,
        options.to,
        options.pgd_steps or 40,
        check_accuracy,
    )
    with continued_by(SAME_COMMAND, request.folder):
        if options.shard is not None:
            folder = evaluate_part(request, Shard(*options.shard))
            print(f"Part {options.shard[0]}/{options.shard[1]} is in {folder}; put all of them together with --merge")
            return 0
        record = evaluate_run(request, options.command, options.merge or ())
        print("\n".join([*evaluation_results(record, request.folder), own_pictures(run, options.to)]))
    return 0


def _compare(options: argparse.Namespace) -> int:
    settings_are_kept(options, ", and --compare takes evaluations as they are")
    for name in ("square_queries", "pgd_steps"):
        if (value := getattr(options, name)) is not None:
            problem = "--compare takes evaluations as they are; evaluate the run with it first"
            raise ConfigurationError(f"--{name.replace('_', '-')}", value, problem)
    for name in ("target", "transfer", "retrain", "to"):
        if given := getattr(options, name):
            raise ConfigurationError(f"--{name}", given, "--compare takes runs against their own targets only")
    work_alone()
    import_tensorflow()  # takes seconds, so after the options were checked
    from advgan.experiments.compare import Comparison, compare
    from advgan.reports.terminal import comparison_results

    comparison = Comparison(tuple(options.compare), options.output, options.images, options.restarts, options.optimized)
    with continued_by(SAME_COMMAND, comparison.folder):
        record = compare(comparison, options.command)
        print("\n".join(comparison_results(record, comparison.folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
