"""Pictures of an attack."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from advgan.attacks.advgan_attack import AdvGANAttack
from advgan.data.datasets import Split, scaled
from advgan.files import write_whole
from advgan.metrics import Rate
from advgan.records.evaluation import CurvePoint, Evaluation, Queries, QueryCurve, QueryPoint, RetrainedPoint
from advgan.records.summary import TowardsClass, mean_success
from advgan.reports.image_grid import class_name, image_grid, show_image
from advgan.reports.style import MISSED, REACHED, UNCOUNTED, colour_of, new_figure, plain_axes, styled

Row = dict[str, Any]
MOST_CLASSES_IN_NUMBERS = 20
MOST_SHOWN = 10
"""Wanted classes on a picture."""
ClassNames = Sequence[str] | None


@dataclass(frozen=True)
class AttackPoint:
    """What an attack on a black box came to, and what it cost."""

    name: str
    queries_per_image: float
    success: Rate


def one_of_each_class(split: Split, predictions: np.ndarray, most: int = 10) -> Split:
    """The first image of each class that is classified correctly, for at most ``most`` classes.

    The target being frozen, the sample never changes during a run.

    Args:
        split: images and labels, n of them.
        predictions: the target's answers on the clean images, shape (n,).
        most: how many classes.
    """
    right = predictions == split.labels
    first = [int(np.argmax(right & (split.labels == label))) for label in np.unique(split.labels[right])[:most]]
    return Split(split.images[first], split.labels[first])


@styled
def sample_grid(attack: AdvGANAttack, sample: Split, title: str, names: ClassNames = None) -> Figure:
    """Draw each image clean, its signed perturbation (grey is none) and adversarial, with the predictions.

    A prediction is green where the attack succeeded, orange where it failed, grey where the image does not count.

    Args:
        attack: the generator against its classifier, with its goal and epsilon.
        sample: a few images, one column each.
        title: above the grid.
        names: of the classes; their numbers without.
    """
    clean = scaled(sample.images)
    adversarial = attack.generate(clean)
    clean_predictions, predictions = attack.classify(clean), attack.classify(adversarial)
    reached = attack.goal.reached(sample.labels, predictions)
    eligible = attack.goal.eligible(sample.labels, clean_predictions)
    colours = [
        UNCOUNTED if not counts else REACHED if fooled else MISSED
        for counts, fooled in zip(eligible, reached, strict=True)
    ]
    before, after = ([class_name(answer, names) for answer in found] for found in (clean_predictions, predictions))
    return image_grid(clean, adversarial, attack.epsilon, title, (before, after), colours)


@styled
def towards_matrix(towards: Sequence[TowardsClass], names: ClassNames = None) -> Figure:
    """Draw how often images of each class are turned into each wanted class, as colour and in percent.

    Args:
        towards: what each wanted class comes to.
        names: of the classes; their numbers without.
    """
    rates = np.array([[source.rate if source.n else np.nan for source in each.by_source] for each in towards]).T
    size = max(4.0, 0.42 * max(rates.shape) + 1.8)
    figure = new_figure(size, size)
    axis = figure.subplots()
    axis.imshow(rates, cmap="Blues", vmin=0, vmax=1)
    axis.set_xlabel("target class")
    axis.set_ylabel("true class")
    axis.set_title(f"Success in percent; mean over the wanted classes {mean_success(towards):.2%}")
    if max(rates.shape) <= MOST_CLASSES_IN_NUMBERS:
        wanted = [class_name(each.wanted, names) for each in towards]
        axis.set_xticks(range(len(wanted)), wanted, rotation=90 if names else 0)
        axis.set_yticks(range(len(rates)), [class_name(number, names) for number in range(len(rates))])
        for row, column in zip(*np.nonzero(~np.isnan(rates)), strict=True):
            colour = "white" if rates[row, column] > 0.5 else "black"
            number = f"{100 * rates[row, column]:.1f}"
            axis.text(column, row, number, ha="center", va="center", fontsize=7, color=colour)
    return figure


@styled
def towards_grid(attack: AdvGANAttack, classes: Sequence[int], sample: Split, title: str, names: ClassNames) -> Figure:
    """Draw each image as it is, and led towards each of at most ten classes, with the classifier's answers.

    An answer is green where it is the wanted class, orange where it is not, grey where the image does not count.

    Args:
        attack: of a generator conditioned on the wanted class, against its classifier.
        classes: those that are wanted.
        sample: a few images, one row each.
        title: above the grid.
        names: of the classes; their numbers without.
    """
    clean = scaled(sample.images)
    before, classes = attack.classify(clean), list(classes)[:MOST_SHOWN]
    figure = new_figure(0.9 * (len(classes) + 1) + 0.4, 1.05 * len(clean) + 0.6)
    figure.suptitle(title)
    axes = figure.subplots(len(clean), len(classes) + 1, squeeze=False)
    for row, image in enumerate(clean):
        show_image(axes[row, 0], image)
        axes[row, 0].set_title(class_name(before[row], names))
    for column, wanted in enumerate(classes, start=1):
        led = attack.towards(wanted)
        adversarial = led.generate(clean)
        after, counts = led.classify(adversarial), led.goal.eligible(sample.labels, before)
        for row, image in enumerate(adversarial):
            colour = UNCOUNTED if not counts[row] else REACHED if after[row] == wanted else MISSED
            show_image(axes[row, column], image)
            axes[row, column].set_title(class_name(after[row], names), color=colour, fontweight="bold")
        axes[-1, column].set_xlabel(f"to {class_name(wanted, names)}")
    axes[-1, 0].set_xlabel("clean")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


@styled
def training_curves(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw the losses, the success rates and what the discriminator gets right, over the steps of a run.

    Args:
        rows: of ``metrics.jsonl``; the validations within the first epoch are shown as those after each.
    """
    validations = [row for row in rows if "validation_success" in row]
    rows = [row for row in rows if row["kind"] == "steps"]
    figure = new_figure(11, 3.4)
    losses, success, discriminator = figure.subplots(1, 3)
    steps = [row["step"] for row in rows]

    def line(axis: object, key: str, label: str) -> None:
        axis.plot(steps, [row[key] for row in rows], label=label, linewidth=1)  # type: ignore[attr-defined]

    line(losses, "loss_adv", "L_adv")
    line(losses, "loss_gan", "L_GAN")
    line(losses, "loss_hinge", "L_hinge")
    line(losses, "loss_discriminator", "L_D")
    losses.set_title("Losses")
    line(success, "batch_success", "training batches")
    success.plot(
        [row["step"] for row in validations],
        [row["validation_success"] for row in validations],
        "o-",
        label="validation images",
    )
    success.set_title("Success rate of the attack")
    line(discriminator, "discriminator_accuracy_real", "right on clean images")
    line(discriminator, "discriminator_accuracy_adversarial", "right on adversarial images")
    discriminator.set_title("The discriminator")
    for axis in (losses, success, discriminator):
        axis.set_xlabel("step of the generator")
        plain_axes(axis, rates=axis is not losses)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, frameon=False)  # it covers no curve
    return figure


@styled
def success_against_epsilon(
    points: Sequence[CurvePoint],
    epsilon: float,
    baselines: Sequence[tuple[str, Rate]],
    retrained: Sequence[RetrainedPoint],
) -> Figure:
    """Draw the curve of the scaled perturbation with its intervals; falls are orange, other attacks are single points.

    Args:
        points: the curve of an evaluation, in rising order.
        epsilon: the trained one, where the other attacks were measured.
        baselines: name and success of each.
        retrained: generators trained at other epsilons, in rising order.
    """
    figure = new_figure(8, 4)
    axis = figure.subplots()
    scaled_up = f"AdvGAN, scaled (n = {points[0].success.n:,})" if points else "AdvGAN, scaled"
    _curve(axis, points, scaled_up, colour_of(0))
    fallen = [point for point in points if point.falls]
    if fallen:
        values, rates = [point.epsilon for point in fallen], [point.success.rate for point in fallen]
        axis.plot(values, rates, "v", color=MISSED, label="falls")
    if retrained:
        values = [point.epsilon for point in retrained]
        rates = [point.success.rate for point in retrained]
        errors = _errors([point.success for point in retrained])
        axis.errorbar(
            values, rates, errors, fmt="s--", color="black", markersize=5, capsize=3, label="AdvGAN, retrained"
        )
    for number, (name, rate) in enumerate(baselines):
        label = f"{name} at {epsilon:.3g} (n = {rate.n:,})"
        axis.plot(epsilon, rate.rate, "Dsx+^P*"[number % 7], color=colour_of(number + 1), label=label)
    axis.axvline(epsilon, color=UNCOUNTED, linewidth=0.8, linestyle="--")
    _epsilon_axes(axis)
    return figure


@styled
def queries_of_run(
    queries: Queries,
    success: Rate,
    square: QueryCurve | None,
    validated: Sequence[QueryPoint],
    images: int,
    square_images: int,
) -> Figure:
    """Draw what success in one run cost in queries to the black box: AdvGAN's way and its point, and Square's curve.

    Args:
        queries, success: of the attack.
        square: the curve of the other attack, where it ran.
        validated: points of the attack while it was trained, in the form of the curve's.
        images: how many were scored.
        square_images: how many Square attacked.
    """
    figure = new_figure(8, 4)
    axis = figure.subplots()
    if square is not None and square.points:
        asked, rates = _in_order(square.points)
        name = f"{square.name}, the first {square_images:,} images: each costs queries of its own"
        axis.step(asked, rates, where="post", color=colour_of(1), label=name)
        axis.plot(asked[-1], rates[-1], "o", color=colour_of(1), markersize=4)
    if validated:
        asked, rates = _in_order(validated)
        axis.plot(
            asked,
            rates,
            "o-",
            color=colour_of(0),
            linewidth=0.8,
            markersize=3,
            label="AdvGAN while training, validation",
        )
    point = f"AdvGAN, {images:,} images: {queries.attack_total:,} queries in training for all"
    errors = _errors([success])
    axis.errorbar(queries.per_image, success.rate, errors, fmt="D", color=colour_of(0), capsize=3, label=point)
    axis.set_xscale("log")
    axis.set_xlabel("queries per attacked image (bar: Wilson 95 %)")
    axis.set_ylabel("success rate")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    plain_axes(axis)
    axis.legend(loc="best")
    return figure


def _in_order(points: Sequence[QueryPoint]) -> tuple[list[float], list[float]]:
    return [point.queries_per_image for point in points], [point.rate for point in points]


def _errors(rates: Sequence[Rate]) -> np.ndarray:
    """How far each interval reaches below and above its rate: shape (2, n)."""
    return np.array([[rate.rate - rate.low, rate.high - rate.rate] for rate in rates]).T


@styled
def compared_curves(runs: Sequence[Evaluation]) -> Figure:
    """Draw success against epsilon of several runs; a diamond stands at the epsilon that each was trained at."""
    figure = new_figure(8, 4 + 0.15 * len(runs))
    axis = figure.subplots()
    for number, run in enumerate(runs):
        colour = colour_of(number)
        _curve(axis, run.curve, run.run, colour, ("-", "--", ":")[number // 10 % 3])
        axis.plot(run.epsilon, run.success.rate, "D", color=colour, markersize=7)
    _epsilon_axes(axis)
    return figure


@styled
def success_against_queries(points: Sequence[AttackPoint], curves: Sequence[QueryCurve]) -> Figure:
    """Draw success on a black box against the queries that an attack cost for each attacked image, log x axis.

    Args:
        points: one for each attack.
        curves: of attacks that make queries for every image.
    """
    figure = new_figure(8, 4)
    axis = figure.subplots()
    for number, point in enumerate(points):
        axis.errorbar(
            [point.queries_per_image],
            [point.success.rate],
            _errors([point.success]),
            fmt="osD^v"[number % 5],
            color=colour_of(number),
            markersize=6,
            capsize=4,
            label=f"AdvGAN, {point.name}",
        )
    for curve in curves:
        shown = [point for point in curve.points if point.queries_per_image > 0]  # the axis has no 0
        values, rates = _in_order(shown)
        measured = [point.success for point in shown if isinstance(point.success, Rate)]
        if len(measured) == len(shown):
            low, high = [rate.low for rate in measured], [rate.high for rate in measured]
            axis.fill_between(values, low, high, alpha=0.2, color="black", linewidth=0)
        axis.plot(values, rates, "--", color="black", linewidth=1, label=curve.name)
    axis.set_xscale("log")
    axis.set_xlabel("queries for each attacked image (bars: Wilson 95 %)")
    axis.set_ylabel("success rate on the black box")
    plain_axes(axis)
    axis.legend(loc="best")
    return figure


@styled
def distillation_curves(runs: list[tuple[str, list[Row]]]) -> Figure:
    """Draw, for each black-box run, success on the black box and on the distilled network, the gap shaded, by queries.

    Args:
        runs: for each its name and the ``epoch`` rows of its ``metrics.jsonl``; the black box has to have validated.
    """
    figure = new_figure(1 + 5 * len(runs), 3.8)
    axes = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    for axis, (name, rows) in zip(axes, runs, strict=True):
        queries = [row["queries"] for row in rows]
        on_distilled, on_black_box, agreement = (
            [row[key] for row in rows]
            for key in ("validation_success_distilled", "validation_success", "agreement_adversarial")
        )
        axis.fill_between(
            queries, on_black_box, on_distilled, alpha=0.15, color=colour_of(0), linewidth=0, label="the gap"
        )
        axis.plot(queries, on_distilled, "s--", color=colour_of(0), label="success on the distilled network")
        axis.plot(queries, on_black_box, "o-", color=colour_of(1), label="success on the black box")
        axis.plot(queries, agreement, "^:", color=colour_of(2), label="same answer to an adversarial image")
        axis.set_title(name)
        axis.set_xticks(queries, [f"{count:,}" for count in queries])
        axis.set_xlabel("queries so far, after each epoch of the generator")
        plain_axes(axis)
    axes[0].set_ylabel("share of the validation images")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _curve(axis: Any, points: Sequence[CurvePoint], name: str, colour: str, line: str = "-") -> None:
    values = [point.epsilon for point in points]
    rate, low, high = ([getattr(point.success, key) for point in points] for key in ("rate", "low", "high"))
    axis.fill_between(values, low, high, alpha=0.25, color=colour, linewidth=0)
    axis.plot(values, rate, f"o{line}", markersize=3, color=colour, label=name)


def _epsilon_axes(axis: Any) -> None:
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("epsilon: largest change of a pixel, of a range of 1 (bands: Wilson 95 %)")
    axis.set_ylabel("success rate")
    plain_axes(axis)
    axis.legend(loc="lower right")


@styled
def confusion(clean: np.ndarray, attacked: np.ndarray, names: ClassNames = None) -> Figure:
    """Draw which answers each true class gets, before and under attack; colour is the share of the class's images.

    Args:
        clean, attacked: counts by true class (row) and answer (column), shape (classes, classes).
        names: of the classes; their numbers without.
    """
    figure = new_figure(10.5, 5)
    axes = figure.subplots(1, 2)
    for axis, counts, title in zip(axes, (clean, attacked), ("clean", "under attack"), strict=True):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axis.set_title(title)
        axis.set_xlabel("answer")
        axis.set_ylabel("true class")
        if len(counts) <= MOST_CLASSES_IN_NUMBERS:
            labels = [class_name(number, names) for number in range(len(counts))]
            axis.set_xticks(range(len(counts)), labels, rotation=90 if names else 0)
            axis.set_yticks(range(len(counts)), labels)
            for row, column in zip(*np.nonzero(counts), strict=True):
                colour = "white" if shares[row, column] > 0.5 else "black"
                number = str(counts[row, column])
                axis.text(column, row, number, ha="center", va="center", fontsize=7, color=colour)
    return figure


def as_png(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    write_whole(path, lambda temporary: figure.savefig(temporary))
