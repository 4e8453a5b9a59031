"""The picture of an attack: images clean, their change and adversarial, one column each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from advgan.data.pictures import printable
from advgan.goals import Goal
from advgan.records.attack import Row
from advgan.reports.style import MISSED, REACHED, UNCOUNTED, new_figure, styled

LETTERS = 11
"""Of a title, in an inch."""
MOST_LETTERS = 10
"""Of a class's name on a picture."""


def class_name(number: int, names: Sequence[str] | None) -> str:
    """The name of a class as far as there is room for it; its number where it has none."""
    if names is None or number >= len(names):
        return str(number)
    name = names[number]
    short = name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
    return printable(short).replace("$", r"\$")  # which begins a formula


def rows_grid(
    clean: np.ndarray,
    adversarial: np.ndarray,
    epsilon: float,
    goal: Goal,
    rows: list[Row],
    names: tuple[str, ...] | None,
) -> Figure:
    """Draw images of an attack on files.

    Args:
        clean, adversarial: float images in [0, 1], shape (n, height, width, channels).
        epsilon: the largest change of a pixel.
        goal: of the attack.
        rows: what became of these n images.
        names: of the classes, where they have names.
    """

    def named(answer: int | None) -> str:
        return "None" if answer is None else class_name(answer, names)

    title, answers = f"AdvGAN, epsilon {epsilon:.3g}, {goal}", None
    if all(row.clean is not None for row in rows):
        arrow = " → " if names is None else "\n→ "
        changed = [f"{named(row.clean)}{arrow}{named(row.adversarial)}" for row in rows]
        answers = ([named(row.clean) for row in rows], changed)
        title += "\nabove an image: the classifier's answer (green: success, orange: failure, grey: not counted)"
    colours = [UNCOUNTED if not row.counts else REACHED if row.success else MISSED for row in rows]
    return image_grid(clean, adversarial, epsilon, title, answers, colours)


@styled
def image_grid(
    clean: np.ndarray,
    adversarial: np.ndarray,
    epsilon: float,
    title: str,
    answers: tuple[list[str], list[str]] | None,
    colours: list[str] | None = None,
) -> Figure:
    """Draw each image clean, its signed change (grey or white is none) and adversarial, one column each.

    Args:
        clean, adversarial: float images in [0, 1], shape (n, height, width, channels).
        epsilon: the largest change of a pixel, which sets the scale of the change.
        title: above the grid.
        answers: what stands above each clean and each adversarial image; None leaves both out.
        colours: of the text above each adversarial image; needed with ``answers``.
    """
    change = adversarial - clean
    columns = len(clean)
    width = max(1.05 * columns + 1.5, 3.0)
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, int(LETTERS * width))]
    figure = new_figure(width, 4.3 + 0.17 * (len(lines) - 1))
    figure.suptitle("\n".join(lines))
    axes = figure.subplots(3, columns, squeeze=False)
    signed = None
    for column in range(columns):
        show_image(axes[0, column], clean[column])
        if change.shape[-1] == 1:
            limits = {"vmin": -epsilon, "vmax": epsilon}
            signed = axes[1, column].imshow(change[column, ..., 0], cmap="RdBu_r", **limits)
        else:
            axes[1, column].imshow(np.clip(0.5 + change[column, ..., :3] / (2 * epsilon), 0, 1))
        show_image(axes[2, column], adversarial[column])
        if answers is not None and colours is not None:
            axes[0, column].set_title(answers[0][column])
            axes[2, column].set_title(answers[1][column], color=colours[column], fontweight="bold")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    above = "" if answers is None else "\nand prediction"
    scale = "(signed)" if change.shape[-1] == 1 else f"(grey: none,\nwhite: +{epsilon:.3g},\nblack: −{epsilon:.3g})"
    for row, label in enumerate((f"clean{above}", f"perturbation\n{scale}", f"adversarial{above}")):
        axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
    if signed is not None:
        bar = figure.colorbar(signed, ax=axes, shrink=0.28, aspect=12, pad=0.01)  # all rows, so that columns align
        bar.set_ticks([-epsilon, 0, epsilon])
        bar.set_ticklabels([f"−{epsilon:.3g}", "0", f"+{epsilon:.3g}"])
    return figure


def show_image(axis: object, image: np.ndarray) -> None:
    """Draw an image on an axis: grey where it has one channel or two, else its first three as colours."""
    picture = image[..., 0] if image.shape[-1] in (1, 2) else image[..., :3]
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1)  # type: ignore[attr-defined]
