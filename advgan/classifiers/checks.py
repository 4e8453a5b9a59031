"""Checks of a classifier before anything is trained against it or measured on it.

What makes every figure wrong raises, with the fix: probabilities in place of logits, a random classifier, one in
training mode, accuracy at chance. What makes some figures doubtful is marked. docs/evaluation.md describes each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from advgan.classifiers.answers import kind_of
from advgan.classifiers.classifier import Classifier
from advgan.data.batches import images_at_once, slices
from advgan.errors import AdvGANError
from advgan.metrics import Rate
from advgan.records.finding import NOT_CHECKED, PASS, WARN, Finding

PROBE_IMAGES = 100
"""How many images the checks try a classifier on."""
ALONE_IMAGES = 5
"""How many of them one by one."""
ANSWER_TOLERANCE = 1e-3
"""How far two answers on the same image may differ, as a share of the largest score."""
HALF_TOLERANCE = 3e-2
"""The same in float16 and bfloat16."""
FEWEST_JUDGED = 100
"""With fewer images, an accuracy at chance may be an accident."""
VANISHING = 1e-12
"""A gradient whose largest component is below this vanishes."""
MOST_VANISHING = 0.1


def marked_if(wrong: bool, guard: str, reason: str, remedy: str) -> Finding:
    """A finding that warns where something is wrong, and passes elsewhere."""
    return Finding(guard, WARN, reason, remedy) if wrong else Finding(guard, PASS, reason)


def check_answers(
    classifier: Classifier,
    images: np.ndarray,
    classes: int,
    white_box: bool = True,
    uncached: Sequence[Classifier] = (),
) -> list[Finding]:
    """Raise where a classifier's answers cannot be scored.

    Args:
        classifier: the target.
        images: float32 in [0, 1], shape (n, height, width, channels); the first 100 are classified.
        classes: how many the data have.
        white_box: whether attacks follow its gradient; where they do not, probabilities do no harm.
        uncached: where the target keeps its answers and repeats them, the same without that: each classifies the images
            once, but the last, which classifies a few alone. By default the target itself, twice and alone.

    Raises:
        AdvGANError: scores of another shape, not finite, probabilities, random, or dependent on the rest of a batch.
    """
    batch = images[:PROBE_IMAGES]
    first = _scores(classifier, batch)
    name = classifier.name
    if first.shape[:1] != (len(batch),) or first.ndim != 2 or first.shape[1] < classes:
        raise AdvGANError(
            f"{name} returns shape {first.shape} for {len(batch)} images; it should be (images, classes), with "
            f"{classes} classes or more"
        )
    if not np.isfinite(first).all():
        raise AdvGANError(f"{name} answers with NaN or infinity; give a classifier whose logits are finite")
    if white_box and (kind := kind_of(first)) != "logits":
        per_cent = " in per cent" if kind == "per cent" else ""
        raise AdvGANError(
            f"{name} returns probabilities{per_cent}, whose gradients vanish (its scores lie in [{first.min():.3g}, "
            f"{first.max():.3g}]); give it without its softmax or sigmoid, so that it returns logits"
        )
    tolerance = HALF_TOLERANCE if _in_half_precision(first) else ANSWER_TOLERANCE
    slack = tolerance * max(1.0, float(np.abs(first).max()))
    *repeated, for_one = uncached or [classifier] * 3
    again = max(_difference(first, _scores(each, batch)) for each in repeated)
    if again > slack:
        raise AdvGANError(
            f"{name} is random: its answers on the same images differ by {again:.2g}; switch its dropout and noise off "
            "(inference mode), or fix their seed"
        )
    few = range(min(ALONE_IMAGES, len(batch)))
    alone = max(_difference(first[i : i + 1], _scores(for_one, batch[i : i + 1])) for i in few)
    if alone > slack:
        raise AdvGANError(
            f"{name} is in training mode: its answer on an image depends on the rest of the batch, by {alone:.2g}; "
            "call it with training=False"
        )
    return [
        Finding("logits", PASS, f"the scores of {len(batch)} images are no probabilities")
        if white_box
        else Finding("logits", NOT_CHECKED, "no attack follows its gradient, so probabilities are right"),
        Finding("repeats", PASS, f"{1 + len(repeated)} calls on {len(batch)} images differ by {again:.1g} at most"),
        Finding("inference mode", PASS, f"{len(few)} images classified one by one differ by {alone:.1g} at most"),
    ]


def check_accuracy(
    name: str, accuracy: Rate, labels: np.ndarray, images: np.ndarray, stop: bool, hints: Sequence[str] = ()
) -> Finding:
    """Raise where a classifier does no better than chance on clean images: no attack on it can be measured.

    Chance is the share of the largest class among the labels: what answering it always would give.

    Args:
        name: what the user calls the classifier.
        accuracy: the share of n clean images that it classifies correctly.
        labels: integers of shape (n,).
        images: the same images as the data hold them, uint8 or floats in [0, 1]; for the message.
        stop: False only marks it.
        hints: what may be the cause, for the message.

    Raises:
        AdvGANError: there are 100 images or more, and the Wilson interval of the accuracy reaches chance.
    """
    guard = f"clean accuracy of {name}"
    counts = np.bincount(labels)
    if np.count_nonzero(counts) < 2:
        return Finding(guard, NOT_CHECKED, f"{accuracy} images, which are all of one class")
    chance = float(counts.max()) / len(labels)
    reason = f"{accuracy} clean images are classified correctly; always answering the largest class gives {chance:.2%}"
    check = "target.bounds (its pixel range), and that its class numbers are those of the labels"
    check = "; ".join([check, *hints])
    if accuracy.low > chance:
        return marked_if(accuracy.rate < 0.5, guard, reason, f"Check {check}.")
    low, high = float(images.min()), float(images.max())
    pixels = f"{low:g} to {high:g}"
    if images.dtype == np.uint8:
        pixels += f" of 255, so {low / 255:.3g} to {high / 255:.3g} before the classifier's own scaling"
    reason += f", and success would mean nothing; the pixels are {pixels}"
    if accuracy.n >= FEWEST_JUDGED and stop:
        raise AdvGANError(
            f"{name} is no better than chance: {reason}. Check {check}; --set target.check_accuracy=false continues "
            "all the same"
        )
    return Finding(guard, WARN, reason, f"Check {check}.")


def _scores(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """A classifier's scores as float64, batch by batch."""
    batches = [tf.constant(images[part]) for part in slices(len(images), images_at_once(images.shape[1:]))]
    return np.concatenate([np.atleast_1d(np.asarray(classifier.logits(batch), np.float64)) for batch in batches])


def _in_half_precision(scores: np.ndarray) -> bool:
    """Whether scores were computed in float16 or bfloat16, whose rounding depends on the size of a batch."""
    if np.array_equal(scores, np.rint(scores)):  # whole numbers fit into any type
        return False
    single = scores.astype(np.float32)
    bfloat16 = not (single.view(np.uint32) & 0xFFFF).any()  # the upper half of a float32
    with np.errstate(over="ignore"):
        return bfloat16 or np.array_equal(single.astype(np.float16), single)


def _difference(scores: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(scores - others).max())


def check_gradients(classifier: Classifier, images: np.ndarray, labels: np.ndarray) -> Finding:
    """Mark a target whose gradients say nothing: attacks that follow them fail, whatever its robustness.

    Args:
        classifier: the target.
        images, labels: the first 100 are used; labels are integers of shape (n,).
    """
    images, labels = images[:PROBE_IMAGES], labels[:PROBE_IMAGES]
    largest = np.empty(len(images))
    for part in slices(len(images), images_at_once(images.shape[1:])):
        batch, classes = tf.constant(images[part]), tf.constant(labels[part])
        with tf.GradientTape() as tape:
            tape.watch(batch)
            scores = tf.convert_to_tensor(classifier.logits(batch))
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, scores)
        gradient = tape.gradient(loss, batch)
        if gradient is None:
            reason = "the target has no gradient: FGSM, PGD and FMN cannot attack it"
            return Finding("gradients", WARN, reason, "Replace the part that has no gradient.")
        largest[part] = np.abs(gradient.numpy().reshape(len(batch), -1)).max(axis=1)
    share = float(np.mean(~(largest >= VANISHING)))  # NaN counts as vanishing
    reason = f"the gradient is below {VANISHING:g} on {share:.0%} of {len(images)} images"
    remedy = "Scale the logits down, or replace the part whose gradient vanishes."
    return marked_if(share > MOST_VANISHING, "gradients", reason, remedy)
