"""The command ``python -m advgan.train``: parse, call, print."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from advgan.cluster import is_first
from advgan.command_line import add_configuration, command_for, command_parser, continued_by, parse, run_command
from advgan.config.loading import find_config, load_config
from advgan.config.settings import Config
from advgan.errors import ConfigurationError
from advgan.startup import import_tensorflow

EXAMPLES = """examples:
  python -m advgan.train --config mnist.yaml
  python -m advgan.train --config mnist.yaml --set attack.epsilon=8/255 --set training.epochs=6
  python -m advgan.train --config mnist_targeted.yaml --set attack.target_class=7
  python -m advgan.train --config mnist.yaml --dry-run
  python -m advgan.train --resume                        the latest run
  python -m advgan.train --resume checkpoints/mnist/0    that run

A configuration is looked up as a path, then in ./configs, then among those that ship with the package.
Each run has its own directory, checkpoints/<name>/<number>. Exit code: 0 done, 2 invalid input,
130 interrupted.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = command_parser(
        "train", "Train an AdvGAN: a generator that makes adversarial images in one forward pass.", EXAMPLES
    )
    add_configuration(parser, required=False)
    parser.add_argument(
        "--resume", metavar="RUN", nargs="?", const="", help="continue a run: its folder, or the latest when left out"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration, layers, parameters, steps; do nothing"
    )
    options = parse(parser, arguments)
    if options.config is None and options.resume is None:
        parser.error("--config FILE is needed, such as --config mnist.yaml (or --resume)")
    return run_command(_train, options)


def _train(options: argparse.Namespace) -> int:
    config = None if options.config is None else load_config(find_config(options.config), options.overrides)
    import_tensorflow()  # takes seconds, so after the configuration was checked
    from advgan.experiments import console
    from advgan.experiments.plan import check
    from advgan.experiments.train import new_run, train
    from advgan.reports.terminal import run_results
    from advgan.run_folder import latest_run, load_run_config

    run_directory = None
    if options.resume is not None:
        if options.overrides:
            raise ConfigurationError("--set", options.overrides[0], "a resumed run keeps its settings; start a new run")
        if options.resume and options.config:
            raise ConfigurationError("--config", options.config, "a resumed run keeps its settings; leave this out")
        run_directory = Path(options.resume) if options.resume else latest_run(_runs(config))
        config = load_run_config(run_directory)
    assert config is not None
    plan = check(config)
    if options.dry_run:
        print("\n".join(console.dry_run(plan)))
        return 0
    run_directory = run_directory or new_run(plan)
    with continued_by(f"continue with: {command_for('train', '--resume', run_directory)}", run_directory):
        summary = train(plan, run_directory, options.command)
        if is_first():
            print("\n".join(run_results(summary, run_directory)))
    return 0


def _runs(config: Config | None) -> Path:
    return Path("checkpoints") if config is None else Path(config.output.directory) / config.name


if __name__ == "__main__":
    sys.exit(main())
