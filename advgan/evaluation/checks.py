"""Checks against a wrong evaluation: each stops it, or marks it in the results. docs/evaluation.md describes them.

What makes every figure wrong is an error, with the fix: probabilities instead of logits, a random target, one in
training mode, images beyond epsilon, training images among the scored ones. What makes some figures doubtful is marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from advgan.classifiers.checks import marked_if
from advgan.classifiers.query_counter import Purpose
from advgan.data.datasets import AnySplit, Split, images_in_common
from advgan.errors import AdvGANError
from advgan.metrics import PairedDifference, Rate
from advgan.perturbation import FLOAT_TOLERANCE
from advgan.records.finding import NOT_CHECKED, PASS, Finding
from advgan.records.pixel_search import PixelSearch

MOST_TRAINING_IMAGES = 0.01
LEAST_AGREEMENT = 0.9
"""Below it the distilled network answers too seldom as the black box does."""
NO_GRADIENT_USED = "the classifier is a black box: its gradient is not used"
MASKED = "Look at the gradients guard; try --restarts, or another classifier of the same kind with --transfer."


def not_for_a_black_box(guard: str) -> Finding:
    """What a guard that looks at gradients says of a black box."""
    return Finding(guard, NOT_CHECKED, NO_GRADIENT_USED)


def check_same_black_box(digest: str, stated: str) -> Finding:
    """Mark a black box that is, as far as can be seen, another than the run was trained against.

    Args:
        digest: of the one that is asked.
        stated: what the run says.
    """
    reason = f"the digest of what can be seen of it is {digest[:16]}, in the run {stated[:16]}"
    remedy = "Put the black box of the run back, or name the new one with --target."
    return marked_if(digest != stated, "the black box is the run's own", reason, remedy)


def found_pixels(search: PixelSearch) -> Finding:
    """Mark a classifier of which the pixels that it takes could not be found, or its labels or channels seem others.

    Args:
        search: on validation images.
    """
    taken = search.tried[search.taken]
    reason = f"{taken.name}, with {taken.accuracy} validation images classified correctly: {search.reason}"
    doubtful = (search.taken > 0 and not search.decided) or search.remarks
    remedy = " ".join([f"{remark}." for remark in search.remarks] or ["State them with target.bounds."])
    return marked_if(bool(doubtful), f"pixels of {search.classifier}", reason, remedy)


def check_budget(
    spent: int, budget: int | None, journal: Mapping[Purpose, int] | None, stated: Mapping[str, int]
) -> Finding:
    """Mark an attack that made more queries to the black box than it was allowed to, or than it says.

    Args:
        spent: images, all purposes but scoring.
        budget: the most; None for no limit.
        journal: images by purpose as the run's journal holds them; None where it is gone.
        stated: the same as the run's summary says.
    """
    guard = "the attack stayed within its query budget"
    limit = "no budget was set" if budget is None else f"the budget is {budget:,}"
    if journal is None:
        kept = "the run's journal of answers is gone, so this is what its summary says"
    else:
        kept = f"the run's journal holds {sum(journal.values()):,} answers, its summary says {sum(stated.values()):,}"
    wrong = (budget is not None and spent > budget) or (journal is not None and {**journal} != {**stated})
    remedy = "The run's files were changed, or it made more queries than its summary says: train it again."
    return marked_if(wrong, guard, f"{spent:,} queries were made, {limit}; {kept}", remedy)


def check_agreement(clean: Rate) -> Finding:
    """Mark a distilled network that answers too seldom as the black box does.

    Args:
        clean: how often it does on clean test images.
    """
    remedy = "Raise distillation.first_epochs or the query budget."
    return marked_if(
        clean.rate < LEAST_AGREEMENT,
        "distilled network agrees with the black box",
        f"they agree on {clean} clean test images",
        remedy,
    )


def check_bounds(attack: str, linf: np.ndarray, lowest: np.ndarray, highest: np.ndarray, epsilon: float) -> Finding:
    """Raise where adversarial images left the epsilon ball or the pixel box.

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


def check_held_out(scored: Split, used: Sequence[AnySplit], stop: bool = True) -> Finding:
    """Stop an evaluation on images that a network was trained or chosen on.

    Args:
        scored: the images to score.
        used: training and validation images.
        stop: False only marks them, however many they are.

    Raises:
        AdvGANError: more than 1 % of the scored images are among them; fewer are marked.
    """
    found = images_in_common(scored, used)
    reason = f"{found:,} of {len(scored):,} scored images are among the training and validation images"
    if stop and found > MOST_TRAINING_IMAGES * len(scored):
        raise AdvGANError(f"{reason}: success on those says nothing; put others into x_test")
    remedy = "Success on them says nothing: put other images into x_test."
    return marked_if(found > 0, "held-out images", reason, remedy)


def check_iterative(single_step: Rate | None, iterative: Rate | None) -> Finding:
    """Mark an evaluation in which one step does better than many: the many were misled, by masked gradients mostly.

    Args:
        single_step, iterative: success of FGSM and of PGD; None where they were not run.
    """
    return _should_not_beat("iterative beats single step", "FGSM", single_step, "PGD", iterative, MASKED)


def check_losses(cross_entropy: Rate | None, margin: Rate | None) -> Finding:
    """Mark a target on which PGD along the cross-entropy finds less than half of what it finds with the margin's help.

    The gradient of the cross-entropy vanishes where logits are large, whatever the robustness.

    Args:
        cross_entropy: the success of PGD along the cross-entropy; None where it was not run.
        margin: the same, with what it finds along the margin of logits on the images that are left.
    """
    guard = "cross-entropy finds what the margin finds"
    if cross_entropy is None or margin is None:
        return Finding(guard, NOT_CHECKED, "PGD did not run")
    reason = f"PGD along the cross-entropy {cross_entropy.rate:.2%}, with the margin of logits {margin.rate:.2%}"
    remedy = "The cross-entropy's gradient vanishes: trust the attacks along the margin, or scale the logits down."
    wrong = cross_entropy.high < margin.low and cross_entropy.rate < margin.rate / 2
    return marked_if(wrong, guard, reason, remedy)


def check_square(gap: PairedDifference | None, why_not: str = "--square-queries 1000 adds Square") -> Finding:
    """Mark a target that an attack on answers alone fools clearly more often than those along the gradient.

    Args:
        gap: Square's success less that of the attacks along the gradient, image by image; None where it did not run.
        why_not: it did not.
    """
    guard = "gradients find what Square finds"
    if gap is None:
        return Finding(guard, NOT_CHECKED, why_not)
    reason = (
        f"of {gap.first.n:,} images Square alone fools {gap.only_first:,}, attacks along the gradient alone "
        f"{gap.only_second:,}: a difference of {gap}"
    )
    return marked_if(gap.low > 0, guard, reason, MASKED)


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


def _should_not_beat(
    guard: str, weak: str, weaker: Rate | None, strong: str, stronger: Rate | None, remedy: str
) -> Finding:
    if weaker is None or stronger is None:
        return Finding(guard, NOT_CHECKED, f"{weak if weaker is None else strong} did not run")
    reason = f"{weak} {weaker.rate:.2%}, {strong} {stronger.rate:.2%} [{stronger.low:.2%}, {stronger.high:.2%}]"
    return marked_if(weaker.rate > stronger.high, guard, reason, remedy)


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
    return marked_if(left.low > 1 / classes, guard, reason, "Look at the gradients guard.")


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
    return marked_if(bool(clear_falls), guard, f"it falls at epsilon {where}{clearly}", remedy)
