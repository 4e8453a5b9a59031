"""A black-box attack on a classifier in another process, of which nothing comes here but answers over HTTP.

    python examples/attack_served_classifier.py
    python examples/attack_served_classifier.py my_classifier.keras --query-budget 10000
    python examples/attack_served_classifier.py --training-images 2000 --epochs 1 --rounds 2 --query-budget 3000

Starts serve_classifier.py with the classifier on a free port of this machine, attacks its URL as
``mnist_blackbox.yaml`` says, and compares the queries that the run reports with those the server counted. The
target that ships was trained on the attacker's images too; for figures give one that was not, or see
oracle.training_images. For a model that is served already:

    python -m advgan.train --config mnist_blackbox.yaml --set oracle.black_box=http://host:8501/v1/models/name:predict
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import ProxyHandler, build_opener

from advgan.command_line import run_command
from advgan.config.loading import find_config, load_config
from advgan.errors import AdvGANError
from advgan.startup import import_tensorflow

SERVER = Path(__file__).with_name("serve_classifier.py")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "classifier", nargs="?", type=Path, metavar="FILE", help="a .keras file (default: the target that ships)"
    )
    parser.add_argument("--labels", action="store_true", help="the server returns class numbers only")
    parser.add_argument("--training-images", metavar="N", help="how many images the attacker has (default: all)")
    parser.add_argument("--test-images", metavar="N", help="how many images the attack is scored on (default: all)")
    parser.add_argument("--rounds", metavar="N", help="of distilling, then training the generator")
    parser.add_argument("--epochs", metavar="N", help="of the generator in each round")
    parser.add_argument("--query-budget", metavar="N", help="the most queries to the classifier in training")
    parser.add_argument("--output", metavar="DIR", default="checkpoints", help="where runs go (default: checkpoints)")
    return run_command(_attack, parser.parse_args(arguments))


def _attack(options: argparse.Namespace) -> int:
    chosen = {
        "data.training_images": options.training_images,
        "data.test_images": options.test_images,
        "distillation.rounds": options.rounds,
        "training.epochs": options.epochs,
        "oracle.query_budget": options.query_budget,
        "oracle.answers": "labels" if options.labels else None,
    }
    overrides = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    overrides += ["name=mnist_served", f"output.directory={options.output}"]
    load_config(find_config("mnist_blackbox.yaml"), overrides)  # wrong settings are found before anything starts
    import_tensorflow()  # takes seconds
    from advgan import reference_run
    from advgan.experiments.train import train_and_evaluate
    from advgan.reports.terminal import run_results
    from advgan.run_folder import new_run_directory

    with served(options.classifier or reference_run() / "target.keras", options.labels) as url:
        print(f"Served         {url}")
        config = load_config(find_config("mnist_blackbox.yaml"), [*overrides, f"oracle.black_box={url}"])
        run_directory = new_run_directory(config)
        summary = train_and_evaluate(config, run_directory)
        assert summary.black_box is not None
        queries = summary.black_box.queries
        print("\n".join(run_results(summary, run_directory)))
        print(f"Success        {summary.test.success.rate:.2%} of the test images")
        print(f"Queries        {queries}, {sum(queries.values())} in all")
        print(f"Server counted {counted_by_the_server(url)}")
    return 0


@contextmanager
def served(classifier: Path, labels: bool = False) -> Iterator[str]:
    """The URL of a classifier that is served by a process of its own, which ends with the block.

    Raises:
        AdvGANError: it cannot be served.
    """
    command = [sys.executable, str(SERVER), str(classifier), "--port", "0", *(["--labels"] if labels else [])]
    # A session of its own: Ctrl-C stops the attack, which then stops the server.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            if not url:
                raise AdvGANError(f"{classifier} cannot be served; the server says why above")
            yield url
        finally:
            server.terminate()


def counted_by_the_server(url: str) -> int:
    """Images it answered so far."""
    with build_opener(ProxyHandler({})).open(urljoin(url, "/queries"), timeout=10) as response:
        return int(json.load(response)["images"])


if __name__ == "__main__":
    sys.exit(main())
