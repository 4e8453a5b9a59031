"""How a classifier resists that was trained to: accuracy under FGSM and PGD, at the epsilon of its training."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from advgan.attacks.gradient_attacks import fgsm, pgd, random_start
from advgan.classifiers.classifier import Classifier
from advgan.data.batch_parts import by_parts
from advgan.data.batches import in_batches
from advgan.data.datasets import Split, scaled
from advgan.metrics import share
from advgan.records.adversarial_training import Robustness

TRIED_IMAGES = 1000


def robustness(classifier: Classifier, split: Split, epsilon: float) -> Robustness:
    """Attack a classifier on the first 1,000 images.

    Args:
        classifier: one that has a gradient.
        split: images that it was not trained on.
        epsilon: the largest change of a pixel, pixels being in [0, 1].
    """
    few = split.first(min(TRIED_IMAGES, len(split)))
    images, labels = scaled(few.images), few.labels

    @tf.function(autograph=False)
    def attacked(images: Any, labels: Any, number: Any) -> Any:
        def of_part(images: Any, labels: Any, start: Any) -> Any:
            made = [
                images,
                fgsm(classifier.logits, images, labels, epsilon),
                pgd(classifier.logits, images, labels, epsilon, start=start),
                pgd(classifier.logits, images, labels, epsilon, start=start, loss="margin"),
            ]
            answers = [tf.argmax(classifier.logits(each), -1, tf.int32) for each in made]
            return tf.stack([each == labels for each in answers], 1)

        start = random_start(images, epsilon, tf.stack([number, 0]))
        return by_parts(of_part, images, labels, start)

    right = np.zeros((len(labels), 4), bool)

    def on_part(part: slice) -> None:
        right[part] = attacked(tf.constant(images[part]), tf.constant(labels[part]), tf.constant(part.start)).numpy()

    in_batches(len(labels), images.shape[1:], on_part)
    clean, single, cross_entropy, margin = right.T
    return Robustness(
        epsilon=epsilon,
        clean=share(clean),
        fgsm=share(single),
        pgd_cross_entropy=share(cross_entropy),
        pgd_margin=share(margin),
        pgd=share(cross_entropy & margin),
    )
