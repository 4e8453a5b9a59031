"""The attacks that a generator is compared with, on the same images and at the same epsilon: noise, FGSM, PGD, FMN.

On a black box, whose gradient nothing may follow, FGSM and PGD follow the distilled network's, and FMN is left out.

FGSM, PGD and FMN are Foolbox's. Its FGSM has no targeted form, so it is left out where the goal is targeted. FMN
(Pintor et al. 2021) looks for the smallest change under Carlini and Wagner's margin of logits, by optimization in
L_inf; it is slow, so it sees the first few images only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import eagerpy as ep
import foolbox
import numpy as np
import tensorflow as tf
from foolbox.attacks.fast_minimum_norm import LInfFMNAttack
from foolbox.models.tensorflow import TensorFlowModel

from advgan.classifiers.classifier import Classifier
from advgan.data.batches import in_batches
from advgan.environment import has_gpu
from advgan.goals import Goal, Targeted
from advgan.perturbation import measure

Arrays = dict[str, np.ndarray]
Advance = Callable[[int], None]
"""Called with the number of further images done."""

Attack = Callable[[Any, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""From a Foolbox model, images, labels and a source of randomness to images within epsilon."""
STEPS = 40


@dataclass(frozen=True)
class Baseline:
    """An attack to compare with."""

    name: str
    kind: str
    """``noise``, ``single step``, ``iterative`` or ``optimization``; on a black box ``transfer``."""
    settings: dict[str, Any]
    """Everything that determines it. JSON can hold it."""
    attack: Attack
    images: int | None = None
    """It attacks the first so many; None for all."""
    restarts: int = 1
    """How often it starts; an image on which it succeeded is not attacked again."""
    gradients: int = 0
    """How often it evaluates the gradient at an image, each time it starts."""
    continues: str | None = None
    """The attack before it, whose successes it takes over: it attacks the other images."""


def baselines(
    goal: Goal, epsilon: float, restarts: int, optimized_images: int, pgd_steps: int = STEPS
) -> list[Baseline]:
    """The attacks for a goal at an epsilon.

    Args:
        goal: the attacker's.
        epsilon: the largest change of a pixel, in [0, 1].
        restarts: of PGD.
        optimized_images: how many images FMN attacks.
        pgd_steps: of PGD, each of epsilon / 30.
    """
    found = [*noise_baselines(epsilon), *_gradient_baselines(goal, epsilon, restarts, pgd_steps)]
    pgd = found[-1]
    with_margin = {**pgd.settings, "loss": "margin of logits", "attacks": f"what {pgd.name} left"}
    along_margin = pgd_attack(goal, epsilon, pgd_steps, margin=True)
    name = f"{pgd.name} margin"
    found.append(replace(pgd, name=name, settings=with_margin, attack=along_margin, continues=pgd.name))
    fmn = {"steps": 100, "max_stepsize": 1.0, "gamma": 0.05, "norm": "L_inf", "loss": "margin of logits"}
    attack = LInfFMNAttack(steps=100, max_stepsize=1.0, gamma=0.05)
    attacked = _foolbox(attack, goal, epsilon)
    found.append(Baseline("fmn", "optimization", fmn, attacked, images=optimized_images, gradients=100))
    return found


def noise_baselines(epsilon: float) -> list[Baseline]:
    """Those that look at nothing but epsilon."""
    return [
        Baseline("uniform-noise", "noise", {"change": "uniform in [-epsilon, epsilon]"}, _uniform_noise(epsilon)),
        Baseline("sign-noise", "noise", {"change": "-epsilon or epsilon, as a coin falls"}, _sign_noise(epsilon)),
    ]


def black_box_baselines(goal: Goal, epsilon: float, restarts: int, pgd_steps: int = STEPS) -> list[Baseline]:
    """Noise, and FGSM and PGD that are to follow the distilled network; the arguments are those of ``baselines``."""
    found = noise_baselines(epsilon)
    for each in _gradient_baselines(goal, epsilon, restarts, pgd_steps):
        settings = {**each.settings, "follows": "the distilled network"}
        name = f"{each.name} on the distilled network"
        found.append(replace(each, name=name, kind="transfer", settings=settings))
    return found


def _gradient_baselines(goal: Goal, epsilon: float, restarts: int, steps: int) -> list[Baseline]:
    single = _foolbox(foolbox.attacks.FGSM(), goal, epsilon)
    fgsm = Baseline("fgsm", "single step", {"step": epsilon}, single, gradients=1)
    settings = {"steps": steps, "step": epsilon / 30, "random_start": True}
    several = pgd_attack(goal, epsilon, steps)
    pgd = Baseline(f"pgd-{steps}", "iterative", settings, several, restarts=restarts, gradients=steps)
    return [pgd] if isinstance(goal, Targeted) else [fgsm, pgd]


def pgd_attack(goal: Goal, epsilon: float, steps: int = STEPS, margin: bool = False) -> Attack:
    """Foolbox's LinfPGD, by default with its defaults: 40 steps of epsilon / 30 from a random start.

    Args:
        goal: the attacker's.
        epsilon: the largest change of a pixel, in [0, 1].
        steps: how many.
        margin: follow the margin of logits (Carlini and Wagner 2017) in the place of the cross-entropy.
    """
    kind = _MarginPGD if margin else foolbox.attacks.LinfPGD
    return _foolbox(kind(rel_stepsize=1 / 30, steps=steps, random_start=True), goal, epsilon)


class _MarginPGD(foolbox.attacks.LinfPGD):
    """Along the margin by which the best other class exceeds the given one, which Foolbox has lowered for a goal."""

    def get_loss_fn(self, model: Any, labels: Any) -> Callable[[Any], Any]:
        def loss(inputs: Any) -> Any:
            logits = model(inputs)
            own = ep.onehot_like(logits, labels) == 1
            others = ep.where(own, -np.inf, logits).max(axis=-1)
            return (others - ep.where(own, logits, 0.0).sum(axis=-1)).sum()

        return loss


def foolbox_model(classifier: Classifier) -> Any:
    """The classifier as Foolbox takes it; pixels in [0, 1]."""
    device = "/GPU:0" if has_gpu() else "/CPU:0"  # Foolbox's own question is deprecated
    return TensorFlowModel(classifier.logits, bounds=(0, 1), device=device)


def run_baseline(
    baseline: Baseline,
    classifier: Classifier,
    goal: Goal,
    images: np.ndarray,
    labels: np.ndarray,
    seed: int,
    followed: Classifier | None = None,
    first: int = 0,
    before: Arrays | None = None,
) -> Callable[[Advance], Arrays]:
    """The work of a stage: attack images, keep per image what the classifier answers and how large the change is.

    Args:
        baseline: the attack.
        classifier: which is attacked, and asked whether that succeeded.
        goal: the attacker's.
        images, labels: float32 in [0, 1], shape (n, height, width, channels); integers of shape (n,).
        seed: of all randomness, which is a function of it, the restart and the number of the first image of a batch.
        followed: whose gradient the attack follows; that of ``classifier`` by default.
        first: number of the first image, where these are a part of all.
        before: what the attack left on the same images that this one continues.

    Returns:
        A function that advances by every image at every start, and returns ``predictions`` (on the first start that
        succeeds, on the last otherwise), ``linf`` (the largest over all starts, float64), ``lowest`` and ``highest``
        pixel, all of shape (n,); ``seconds``, and ``gradients``, how many it evaluated. What it continues is included.
    """

    def work(advance: Advance) -> Arrays:
        model = foolbox_model(followed or classifier)
        count = len(images)
        predictions, reached = np.zeros(count, np.int32), np.zeros(count, bool)
        linf, lowest, highest = np.zeros(count), np.zeros(count), np.ones(count)
        seconds, gradients = 0.0, 0
        if before is not None:
            predictions, linf, lowest, highest = (
                before[name].copy() for name in ("predictions", "linf", "lowest", "highest")
            )
            reached = goal.reached(labels, predictions)
            seconds, gradients = float(before["seconds"]), int(before["gradients"])
        if count:
            baseline.attack(model, images[:1], labels[:1], np.random.default_rng(seed))  # compiled off the clock

        def start_on(part: slice, restart: int) -> None:
            nonlocal seconds, gradients
            here = np.arange(part.start, part.stop)[~reached[part]]
            if len(here):
                random = np.random.default_rng([seed, restart, first + part.start])
                start = time.perf_counter()
                made = baseline.attack(model, images[here], labels[here], random)
                seconds += time.perf_counter() - start
                gradients += baseline.gradients * len(here)
                predictions[here] = classifier.predict(made)
                reached[here] = goal.reached(labels[here], predictions[here])
                linf[here] = np.maximum(linf[here], measure(images[here], made).linf)
                flat = made.reshape(len(here), -1)
                lowest[here] = np.minimum(lowest[here], flat.min(axis=1))
                highest[here] = np.maximum(highest[here], flat.max(axis=1))
            advance(part.stop - part.start)

        for restart in range(baseline.restarts):
            in_batches(count, images.shape[1:], partial(start_on, restart=restart))
        return {
            "predictions": predictions,
            "linf": linf,
            "lowest": lowest,
            "highest": highest,
            "seconds": np.array(seconds),
            "gradients": np.array(gradients),
        }

    return work


def _foolbox(attack: Any, goal: Goal, epsilon: float) -> Attack:
    def attacked(model: Any, images: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        tf.random.set_seed(int(random.integers(2**31)))
        classes = tf.constant(labels.astype(np.int64))  # Foolbox cannot mix integer types under NumPy 2
        criterion: Any
        if isinstance(goal, Targeted):
            criterion = foolbox.criteria.TargetedMisclassification(tf.fill(classes.shape, np.int64(goal.target_class)))
        else:
            criterion = foolbox.criteria.Misclassification(classes)
        _, clipped, _ = attack(model, tf.constant(images), criterion, epsilons=epsilon)
        return np.asarray(clipped.numpy())

    return attacked


def _uniform_noise(epsilon: float) -> Attack:
    def attacked(model: Any, images: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:  # noqa: ARG001
        return np.clip(images + random.uniform(-epsilon, epsilon, images.shape), 0, 1).astype(np.float32)

    return attacked


def _sign_noise(epsilon: float) -> Attack:
    def attacked(model: Any, images: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:  # noqa: ARG001
        return np.clip(images + random.choice([-epsilon, epsilon], images.shape), 0, 1).astype(np.float32)

    return attacked
