"""Draws first.png: a digit and a photograph, what the generator adds, and what the classifier answers before and after.

python docs/images/first.py checkpoints/mnist/0 checkpoints/cifar10/0
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from advgan import AdvGANAttack
from advgan.data.datasets import scaled
from advgan.data.loading import load_dataset
from advgan.reports.image_grid import show_image
from advgan.reports.style import COLOURS, styled
from advgan.run_folder import load_run_config

HEADINGS = ("clean", "what is added", "adversarial")


def shares(attack: AdvGANAttack, image: np.ndarray) -> np.ndarray:
    """The softmax of the classifier's scores."""
    return tf.nn.softmax(attack.target(tf.constant(image[None]))).numpy()[0]


@styled
def draw(runs: list[Path], numbers: list[int]) -> Figure:
    """One row for each run, with the test image of this number."""
    figure = Figure(figsize=(7.2, 2.6 * len(runs)), dpi=130, layout="constrained")
    axes = figure.subplots(len(runs), 3, squeeze=False)
    for row, run, number in zip(axes, runs, numbers, strict=True):
        config = load_run_config(run)
        dataset = load_dataset(config.data)
        attack = AdvGANAttack.load(run)
        image, label = scaled(dataset.test.images[number : number + 1])[0], int(dataset.test.labels[number])
        adversarial = attack.generate(image[None])[0]
        change = adversarial - image
        names = dataset.class_names or [str(each) for each in range(dataset.number_of_classes)]
        show_image(row[0], image)
        if change.shape[-1] == 1:
            row[1].imshow(change[..., 0], cmap="RdBu_r", vmin=-attack.epsilon, vmax=attack.epsilon)
        else:
            row[1].imshow(np.clip(0.5 + change / (2 * attack.epsilon), 0, 1))
        show_image(row[2], adversarial)
        for axis, shown in ((row[0], image), (row[2], adversarial)):
            found = shares(attack, shown)
            answer = int(np.argmax(found))
            colour = COLOURS[2] if answer == label else COLOURS[1]
            axis.set_xlabel(f"{names[answer]}  {found[answer]:.1%}", fontsize=12, color=colour, fontweight="bold")
        limit = "0.3" if attack.epsilon == 0.3 else f"{255 * attack.epsilon:.0f}/255"
        row[1].set_xlabel(f"at most ±{limit}", fontsize=11)
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, heading in zip(axes[0], HEADINGS, strict=True):
        axis.set_title(heading, fontsize=12)
    return figure


def main() -> None:
    """Write the picture beside this file; numbers of test images may follow the runs."""
    given = sys.argv[1:]
    runs = [Path(each) for each in given if not each.isdecimal()]
    numbers = [int(each) for each in given if each.isdecimal()] or [0] * len(runs)
    draw(runs, numbers).savefig(Path(__file__).with_suffix(".png"), metadata={"Software": None})


if __name__ == "__main__":
    main()
