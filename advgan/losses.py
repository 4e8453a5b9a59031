"""The losses of AdvGAN, symbol for symbol (Xiao et al., IJCAI 2018).

``L = L_adv + alpha * L_GAN + beta * L_hinge``. Every loss is a mean over the batch, so the weights alpha and beta mean
the same at any batch size. All tensors are float32 (float64 in, float64 out); every function returns a scalar.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from advgan.goals import Goal

Tensor = Any


def margin(scores: Tensor, classes: Tensor, temperature: Tensor = 0.0) -> Tensor:
    """How far each image is from being classified as its class: ``max_{i != k} s_i - s_k``.

    At a temperature T above 0 the maximum over the other classes becomes ``T log mean_{i != k} exp(s_i / T)``, which is
    their mean for large T and their maximum for T = 0: all other classes receive some gradient, not the best one alone.

    Args:
        scores: logits or probabilities, shape (n, number of classes).
        classes: the class k of each image, integers of shape (n,).
        temperature: T, a number or a scalar tensor, in the units of the scores.

    Returns:
        Shape (n,); negative where class k wins.
    """
    is_class = tf.one_hot(classes, tf.shape(scores)[-1], on_value=True, off_value=False)
    of_class = tf.reduce_sum(tf.where(is_class, scores, tf.zeros_like(scores)), axis=-1)
    others = tf.where(is_class, scores.dtype.min, scores)
    of_others = tf.reduce_max(others, axis=-1)
    if isinstance(temperature, tf.Tensor) or temperature > 0:
        temperature = tf.cast(temperature, scores.dtype)
        # The branch that is not taken must be finite too, or its gradient would be NaN.
        safe = tf.maximum(temperature, 1e-3)
        count = tf.cast(tf.shape(scores)[-1] - 1, scores.dtype)
        mean = safe * (
            tf.reduce_logsumexp(tf.where(is_class, scores.dtype.min, scores / safe), -1) - tf.math.log(count)
        )
        of_others = tf.where(temperature > 0, mean, of_others)
    return of_others - of_class


def falling_temperature(start: float, cooling: float, step: Tensor, steps: int) -> Tensor:
    """A temperature that falls in a straight line from ``start`` to 0, which it reaches after a share of a run.

    Args:
        start: the temperature at the first step.
        cooling: the share of the run after which it is 0, in (0, 1].
        step: number of the step, from 1.
        steps: steps in the whole run.
    """
    return start * tf.maximum(0.0, 1.0 - (tf.cast(step, tf.float32) - 1.0) / (cooling * steps))


def adversarial_loss(
    logits: Tensor, labels: Tensor, goal: Goal, kappa: float, form: str = "f6", temperature: Tensor = 0.0
) -> Tensor:
    """L_adv, the Carlini-Wagner margin loss: batch mean of ``max(margin, -kappa)``.

    ``f6`` takes the margin on logits, ``f2`` on softmax probabilities (Carlini & Wagner 2017, section V-A). Untargeted,
    the margin is ``s_y - max_{i != y} s_i``; targeted, it is ``max_{i != t} s_i - s_t``.

    Args:
        logits: the target classifier's logits on the adversarial images, shape (n, number of classes).
        labels: true classes, integers of shape (n,).
        goal: untargeted or targeted.
        kappa: confidence; the loss stops pushing once the margin is -kappa.
        form: ``f6`` or ``f2``.
        temperature: above 0, the maximum is softened, see ``margin``.
    """
    scores = logits if form == "f6" else tf.nn.softmax(logits)
    margins = goal.margin_sign * margin(scores, goal.margin_class(labels), temperature)
    return tf.reduce_mean(tf.maximum(margins, -kappa))


def discriminator_loss(on_real: Tensor, on_adversarial: Tensor) -> Tensor:
    """What D minimizes: ``1/2 E (D(x) - 1)^2 + 1/2 E D(x_A)^2`` (least squares, Mao et al. 2017, equation 9).

    Args:
        on_real: D's outputs on clean images, shape (n, 1).
        on_adversarial: D's outputs on adversarial images, shape (n, 1).
    """
    return 0.5 * tf.reduce_mean(tf.square(on_real - 1.0)) + 0.5 * tf.reduce_mean(tf.square(on_adversarial))


def gan_loss(on_adversarial: Tensor) -> Tensor:
    """L_GAN, G's side: ``1/2 E (D(x_A) - 1)^2`` (Mao et al. 2017, equation 9).

    Args:
        on_adversarial: D's outputs on adversarial images, shape (n, 1).
    """
    return 0.5 * tf.reduce_mean(tf.square(on_adversarial - 1.0))


def hinge_loss(perturbation: Tensor, c: float) -> Tensor:
    """L_hinge: batch mean of ``max(0, ||p||_2 - c)``, p before the pixel box is applied.

    Args:
        perturbation: p, shape (n, height, width, channels), in pixel units.
        c: the L2 norm below which a perturbation costs nothing, in pixel units.
    """
    squares = tf.reduce_sum(tf.square(perturbation), axis=[1, 2, 3])
    # The square root has no finite gradient at 0; below the smallest norm that matters it gets none.
    norms = tf.sqrt(tf.maximum(squares, 1e-24))
    return tf.reduce_mean(tf.maximum(norms - c, 0.0))


def distillation_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """H(f(x), b(x)): batch mean of the cross-entropy between a black box's answers and the distilled network's.

    Args:
        logits: of the distilled network f, shape (n, number of classes).
        answers: the black box's probabilities b(x), or one-hot labels, same shape.
    """
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(answers, logits))
