"""``loss.scale: auto``: how large a classifier's margins are, compared with those of the architectures here."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from advgan.classifiers.classifier import Classifier
from advgan.data.batches import in_batches
from advgan.data.datasets import Split, scaled
from advgan.losses import margin

USUAL_MARGIN = 10.0
"""The median margin of the architectures here on clean MNIST images; see docs/experiments.md."""


def margin_scale(classifier: Classifier, split: Split) -> float:
    """What a classifier's logits are divided by, so that its median clean margin is that of the architectures here.

    The margin of an image is the largest logit less the second; the median over the images that are classified
    correctly, so that neither a few outliers nor mistakes count. Three significant digits; 1 where nothing is correct.

    Args:
        classifier: a white box.
        split: labelled images.
    """
    images, labels = scaled(split.images), split.labels
    margins = np.empty(len(labels), np.float32)

    def measure(part: slice) -> None:
        logits = tf.convert_to_tensor(classifier.logits(tf.constant(images[part])))
        margins[part] = -margin(logits, labels[part]).numpy()

    in_batches(len(labels), images.shape[1:], measure)
    correct = margins[margins > 0]
    return float(f"{np.median(correct) / USUAL_MARGIN:.3g}") if len(correct) else 1.0
