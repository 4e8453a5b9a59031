"""Guards against a wrong evaluation: each refuses it, or marks it in the results. docs/evaluation.md describes them.

What makes every figure wrong is refused, with the fix: probabilities instead of logits, a random target, one in
training mode, images beyond epsilon, training images among the scored ones. What makes some figures doubtful is marked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from advgan.data.datasets import Split
from advgan.errors import AdvGANError
from advgan.evaluation.scores import Rate
from advgan.oracles.classifiers import Classifier
from advgan.perturbation import FLOAT_TOLERANCE

PASS, WARN, NOT_CHECKED = "pass", "warn", "not checked"
PROBE_IMAGES = 100
"""How many images the guards ask the target about."""
ALONE_IMAGES = 5
"""How many of them are asked about one by one."""
ANSWER_TOLERANCE = 1e-3
"""How far two answers on the same image may differ, as a share of the largest score."""
SUM_TOLERANCE = 1e-3
VANISHING = 1e-12
"""A gradient whose largest component is below this vanishes."""
MOST_VANISHING = 0.1
MOST_TRAINING_IMAGES = 0.01
MASKED = "Look at the gradients guard; try --restarts, or another classifier of the same kind with --transfer."


@dataclass(frozen=True)
class Finding:
    """What a guard found."""

    guard: str
    status: str
    """``pass``, ``warn`` or ``not checked``."""
    reason: str
    remedy: str = ""
    """What to do where it warns; empty elsewhere."""


def check_answers(
    classifier: Classifier, images: np.ndarray, classes: int, gradients_asked: bool = True
) -> list[Finding]:
    """Refuse a target whose answers cannot be scored.

    Args:
        classifier: the target.
        images: float32 in [0, 1], shape (n, height, width, channels); the first 100 are asked about.
        classes: how many the data have.
        gradients_asked: whether attacks follow its gradient; where they do not, probabilities do no harm.

    Raises:
        AdvGANError: scores of another shape, not finite, probabilities, random, or dependent on the rest of a batch.
    """
    batch = tf.constant(images[:PROBE_IMAGES])
    first = np.asarray(classifier.scores(batch), np.float64)
    name = classifier.name
    if first.shape[:1] != (len(batch),) or first.ndim != 2 or first.shape[1] < classes:
        raise AdvGANError(
            f"{name} answers {len(batch)} images with shape {first.shape}; it should be (images, classes), with "
            f"{classes} classes or more"
        )
    if not np.isfinite(first).all():
        raise AdvGANError(f"{name} answers with NaN or infinity; give a classifier whose logits are finite")
    if gradients_asked and (first >= -SUM_TOLERANCE).all() and np.abs(first.sum(axis=1) - 1).max() <= SUM_TOLERANCE:
        raise AdvGANError(
            f"{name} returns probabilities, whose gradients vanish; give it without its softmax, so that it returns "
            "logits"
        )
    slack = ANSWER_TOLERANCE * max(1.0, float(np.abs(first).max()))
    again = max(_difference(first, classifier.scores(batch)) for _ in range(2))
    if again > slack:
        raise AdvGANError(
            f"{name} is random: its answers on the same images differ by {again:.2g}; switch its dropout and noise off "
            "(inference mode), or fix their seed"
        )
    few = range(min(ALONE_IMAGES, len(batch)))
    alone = max(_difference(first[i : i + 1], classifier.scores(batch[i : i + 1])) for i in few)
    if alone > slack:
        raise AdvGANError(
            f"{name} is in training mode: its answer on an image depends on the rest of the batch, by {alone:.2g}; "
            "call it with training=False"
        )
    return [
        Finding("logits", PASS, f"the scores of {len(batch)} images are no probabilities"),
        Finding("repeats", PASS, f"three calls on {len(batch)} images differ by {again:.1g} at most"),
        Finding("inference mode", PASS, f"{len(few)} images asked about alone differ by {alone:.1g} at most"),
    ]


def _difference(scores: np.ndarray, others: object) -> float:
    return float(np.abs(scores - np.asarray(others, np.float64)).max())


def has_gradient(classifier: Classifier, images: np.ndarray) -> bool:
    """Whether attacks can follow the target's gradient at all."""
    batch = tf.constant(images[:1])
    with tf.GradientTape() as tape:
        tape.watch(batch)
        scores = tf.reduce_sum(tf.convert_to_tensor(classifier.scores(batch)))
    return tape.gradient(scores, batch) is not None


def check_gradients(classifier: Classifier, images: np.ndarray, labels: np.ndarray) -> Finding:
    """Mark a target whose gradients say nothing: attacks that follow them fail, whatever its robustness.

    Args:
        classifier: the target.
        images, labels: the first 100 are used; labels are integers of shape (n,).
    """
    batch, classes = tf.constant(images[:PROBE_IMAGES]), tf.constant(labels[:PROBE_IMAGES])
    with tf.GradientTape() as tape:
        tape.watch(batch)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, tf.convert_to_tensor(classifier.scores(batch)))
    gradient = tape.gradient(loss, batch)
    if gradient is None:
        reason = "the target has no gradient: FGSM, PGD and FMN cannot attack it"
        return Finding("gradients", WARN, reason, "Replace the part that has no gradient.")
    largest = np.abs(gradient.numpy().reshape(len(batch), -1)).max(axis=1)
    share = float(np.mean(~(largest >= VANISHING)))  # NaN counts as vanishing
    reason = f"the gradient is below {VANISHING:g} on {share:.0%} of {len(batch)} images"
    remedy = "Scale the logits down, or replace the part whose gradient vanishes."
    return _marked_if(share > MOST_VANISHING, "gradients", reason, remedy)


def check_bounds(attack: str, linf: np.ndarray, lowest: np.ndarray, highest: np.ndarray, epsilon: float) -> Finding:
    """Refuse adversarial images that left the epsilon ball or the pixel box.

    Args:
        attack: its name.
        linf: the largest change of each image, float64.
        lowest, highest: each image's extreme pixels.
        epsilon: the largest change allowed.

    Raises:
        AdvGANError: they did; their success says nothing.
    """
    change = float(linf.max(initial=0.0))
    if not change <= epsilon + FLOAT_TOLERANCE:
        raise AdvGANError(
            f"{attack} changes a pixel by {change:.6g}, epsilon is {epsilon:.6g}: its success would not count; "
            "give a generator whose output ends in tanh, or attack.output: clipped"
        )
    low, high = float(lowest.min(initial=0.0)), float(highest.max(initial=1.0))
    if not (low >= 0 and high <= 1):
        raise AdvGANError(f"{attack} makes pixels from {low:.6g} to {high:.6g}: clip its images to [0, 1]")
    return Finding(f"bounds of {attack}", PASS, f"the largest change is {change:.7f}, pixels in [{low:g}, {high:g}]")


def check_held_out(scored: Split, used: list[Split]) -> Finding:
    """Refuse an evaluation on images that a network was trained or chosen on.

    Args:
        scored: the images to score.
        used: training and validation images.

    Raises:
        AdvGANError: more than 1 % of the scored images are among them; fewer are marked.
    """
    seen = {image.tobytes() for split in used for image in split.images}
    found = sum(image.tobytes() in seen for image in scored.images)
    reason = f"{found:,} of {len(scored):,} scored images are among the training and validation images"
    if found > MOST_TRAINING_IMAGES * len(scored):
        raise AdvGANError(f"{reason}: success on those says nothing; put others into x_test")
    return _marked_if(found > 0, "held-out images", reason, "Put other images into x_test.")


def check_iterative(single_step: Rate | None, iterative: Rate | None) -> Finding:
    """Mark an evaluation in which one step does better than many: the many were misled, by masked gradients mostly.

    Args:
        single_step, iterative: success of FGSM and of PGD; None where they were not run.
    """
    return _should_not_beat("iterative beats single step", "FGSM", single_step, "PGD", iterative, MASKED)


def check_white_box(noise: Rate | None, white_box: Rate | None, transferred: Rate | None = None) -> Finding:
    """Mark an evaluation in which attacks that do not know the target do better than those that do.

    Args:
        noise: the best success of noise.
        white_box: the best success of attacks that follow the gradient.
        transferred: the success of a generator that was trained against another classifier; None where it was not.
    """
    name, best = "noise", noise
    if transferred is not None and (noise is None or transferred.rate > noise.rate):
        name, best = "AdvGAN, trained against another classifier,", transferred
    return _should_not_beat("white-box beats black-box", name, best, "the white-box attacks", white_box, MASKED)


def check_generator(noise: Rate | None, advgan: Rate) -> Finding:
    """Mark a generator that noise of the same epsilon beats."""
    remedy = "Train longer, or look at curves.png."
    return _should_not_beat("advgan beats noise", "noise", noise, "AdvGAN", advgan, remedy)


def _marked_if(wrong: bool, guard: str, reason: str, remedy: str) -> Finding:
    return Finding(guard, WARN, reason, remedy) if wrong else Finding(guard, PASS, reason)


def _should_not_beat(
    guard: str, weak: str, weaker: Rate | None, strong: str, stronger: Rate | None, remedy: str
) -> Finding:
    if weaker is None or stronger is None:
        return Finding(guard, NOT_CHECKED, f"{weak if weaker is None else strong} did not run")
    reason = f"{weak} {weaker.rate:.2%}, {strong} {stronger.rate:.2%} [{stronger.low:.2%}, {stronger.high:.2%}]"
    return _marked_if(weaker.rate > stronger.high, guard, reason, remedy)


def check_full_range(left: Rate | None, classes: int) -> Finding:
    """Mark a target that keeps more accuracy than chance when any pixel may take any value.

    Args:
        left: accuracy under PGD with epsilon 1; None where it did not run.
        classes: how many there are.
    """
    guard = "full range reaches chance"
    if left is None:
        return Finding(guard, NOT_CHECKED, "PGD at epsilon 1 did not run")
    reason = f"PGD at epsilon 1 leaves an accuracy of {left.rate:.1%} on {left.n} images; chance is {1 / classes:.1%}"
    return _marked_if(left.low > 1 / classes, guard, reason, "Look at the gradients guard.")


def check_curve(falls: list[float], clear_falls: list[float]) -> Finding:
    """Mark a generator whose perturbation succeeds less when it is made larger.

    Args:
        falls: the epsilons at which success is lower than before.
        clear_falls: those where the intervals are apart.
    """
    guard = "success rises with epsilon"
    if not falls:
        return Finding(guard, PASS, "it never falls from epsilon 0 to 1")
    where = ", ".join(f"{epsilon:.3g}" for epsilon in falls)
    clearly = ", beyond its interval" if clear_falls else ", within its interval"
    remedy = "Read the curve up to the trained epsilon, or train at larger ones too with --retrain."
    return _marked_if(bool(clear_falls), guard, f"it falls at epsilon {where}{clearly}", remedy)
