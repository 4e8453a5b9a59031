"""Success against visibility: what the discriminator and the hinge buy. Trains a run for each setting, draws the front.

    python benchmarks/visibility.py --output visibility/                       # MNIST; resumes where it stopped
    python benchmarks/visibility.py --output visibility/ --config cifar10_resnet32.yaml --settings "loss.alpha=2"

Each setting is a run of the configuration with two epochs; success, SSIM, L2 and the pixels changed are means over
those of 2,000 validation images that count, so that a setting can be chosen by them. visibility.json holds a row for
each run, visibility.png the picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from advgan.startup import import_tensorflow

import_tensorflow()
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from advgan.attacks.advgan_attack import AdvGANAttack  # noqa: E402
from advgan.config.loading import find_config, load_config  # noqa: E402
from advgan.data.datasets import scaled  # noqa: E402
from advgan.data.loading import load_dataset  # noqa: E402
from advgan.evaluation.distortion import distortion  # noqa: E402
from advgan.evaluation.scores import score_attack  # noqa: E402
from advgan.experiments.train import train_and_evaluate  # noqa: E402
from advgan.files import read_json, write_json  # noqa: E402
from advgan.reports.plots import save_figure  # noqa: E402

SCORED = 2000
SETTINGS = (
    *(f"loss.alpha={alpha}" for alpha in (0, 0.2, 0.5, 1, 2, 4, 8)),
    *(f"loss.alpha=0 loss.beta=1 loss.c={c}" for c in (4, 3, 2.5, 2)),
    *(f"loss.beta=1 loss.c={c}" for c in (4, 3, 2.5, 2)),
    *(f"loss.alpha=2 loss.beta=1 loss.c={c}" for c in (3, 2.5)),
    *(f"loss.alpha=2 discriminator.learning_rate={rate}" for rate in (3e-4, 3e-3)),
    *(f"loss.alpha=2 discriminator.noise={noise}" for noise in (0.1, 0.3)),
)


GROUPS = (
    "discriminator alone (loss.alpha beside the points)",
    "hinge alone (loss.c, alpha 0)",
    "both",
    "alpha 2, D's learning rate or noise",
)


def _group(changes: str) -> str:
    if "discriminator" in changes:
        return GROUPS[3]
    if "loss.c" not in changes:
        return GROUPS[0]
    return GROUPS[1] if changes.startswith("loss.alpha=0 ") else GROUPS[2]


def measure(configuration: str, changes: str, seed: int, epochs: int, output: Path) -> dict[str, Any]:
    """Train a run, and measure it."""
    overrides = [*changes.split(), f"seed={seed}", f"training.epochs={epochs}", f"output.directory={output}"]
    config = load_config(find_config(configuration), overrides)
    run = output / "runs" / f"{changes.replace(' ', '_')}-seed-{seed}"
    train_and_evaluate(config, run)
    attack, split = AdvGANAttack.load(run), load_dataset(config.data).validation.first(SCORED)
    images = scaled(split.images)
    counted = attack.goal.eligible(split.labels, attack.classify(images))
    found = distortion(images, attack.generate(images), counted)
    return {
        "settings": changes,
        "seed": seed,
        "success": score_attack(attack, split).success.rate,
        "ssim": found.mean_ssim,
        "l2": found.mean_l2,
        "pixels": found.mean_l0,
    }


def _missed(row: dict[str, Any]) -> float:
    return max(100 * (1 - row["success"]), 100 / SCORED)  # none is drawn as one


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """What is not fooled against SSIM and against L2, a point for each run."""
    figure = Figure(figsize=(12, 5.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, key, label in zip(axes, ("ssim", "l2"), ("mean SSIM (quieter to the right)", "mean L2"), strict=True):
        for name, marker in zip(GROUPS, "os^D", strict=True):
            here = [row for row in rows if _group(row["settings"]) == name]
            axis.plot([row[key] for row in here], [_missed(row) for row in here], marker, label=name, alpha=0.8)
            for row in here if name == GROUPS[0] else ():
                value = row["settings"].rpartition("=")[2]
                axis.annotate(value, (row[key], _missed(row)), (5, 5), textcoords="offset points", fontsize=8)
        axis.set_xlabel(label)
        axis.set_yscale("log")
        axis.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50], ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50"])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("images that are not fooled, %")
    axes[0].legend(fontsize=9)
    save_figure(figure, path)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--config", default="mnist.yaml")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help='each such as "loss.alpha=2 loss.c=3"')
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    record = options.output / "visibility.json"
    rows = read_json(record) if record.exists() else []
    for seed in options.seeds:
        for changes in options.settings:
            if not any((row["settings"], row["seed"]) == (changes, seed) for row in rows):
                rows.append(measure(options.config, changes, seed, options.epochs, options.output))
                write_json(record, rows)
                print(json.dumps(rows[-1]), flush=True)
    draw(rows, options.output / "visibility.png")


if __name__ == "__main__":
    main()
