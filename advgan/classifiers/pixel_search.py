"""``bounds: auto``: which pixels a classifier takes, found by its clean accuracy on a few labelled images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from advgan.classifiers.classifier import Classifier
from advgan.classifiers.pixels import Pixels
from advgan.data.datasets import Split, scaled
from advgan.metrics import Rate, share
from advgan.records.pixel_search import PixelSearch, TriedPixels

SEARCH_IMAGES = 500
"""How many images decide, at most."""
RANGES = {
    "[0, 1]": Pixels(),
    "[-1, 1]": Pixels((-1.0, 1.0)),
    "[0, 255]": Pixels((0.0, 255.0)),
}
FIRST = "[0, 1]"
USUAL_OF_GREY = {
    "MNIST's mean and std": Pixels(mean=(0.1307,), std=(0.3081,)),
    "Fashion-MNIST's mean and std": Pixels(mean=(0.2860,), std=(0.3530,)),
}
USUAL_OF_COLOUR = {
    "ImageNet's mean and std": Pixels(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "CIFAR-10's mean and std": Pixels(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    "CIFAR-100's mean and std": Pixels(mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)),
    "[0, 255] less ImageNet's mean": Pixels((0.0, 255.0), mean=(123.68, 116.779, 103.939)),
}
"""What Keras's, PyTorch's and Caffe's models are usually trained on, by the number of channels."""


def find_pixels(classifier: Classifier, split: Split) -> PixelSearch:
    """Try the usual pixel ranges on a classifier. One is taken whose Wilson interval lies above every other's.

    Where none does, several do equally well, or all badly: then it is [0, 1], unless that is clearly worse; then the
    one with the highest accuracy.

    Args:
        classifier: a white box; its own pixel range is not looked at.
        split: labelled images; the first 500 are used.

    Raises:
        AdvGANError: it does not answer with scores.
    """
    _ = classifier.number_of_classes
    few = split.first(SEARCH_IMAGES)
    images, labels = scaled(few.images), few.labels
    usual = {1: USUAL_OF_GREY, 3: USUAL_OF_COLOUR}.get(images.shape[-1], {})
    candidates = {**RANGES, **usual}

    def answers(pixels: Pixels, shown: np.ndarray) -> np.ndarray:
        return replace(classifier, pixels=pixels).predict(shown)

    answered = {name: answers(pixels, images) for name, pixels in candidates.items()}
    rates = {name: share(found == labels) for name, found in answered.items()}
    best = max(rates, key=lambda name: rates[name].rate)
    equals = [name for name, rate in rates.items() if rate.high >= rates[best].low]
    taken = FIRST if FIRST in equals else best
    equals.remove(taken)
    names = list(candidates)
    remarks = []
    shifts = [
        (share(found == labels + step), where, name)
        for name, found in answered.items()
        for step, where in ((1, "above"), (-1, "below"))
    ]
    shifted, where, name = max(shifts, key=lambda shift: shift[0].rate)
    if shifted.low > 1.5 * rates[best].high:  # one of three rates is the highest by chance too
        remarks.append(
            f"for {shifted} images its prediction is one {where} the label, with {name}: do its classes, or the "
            "labels, start at 1? Shift the labels of the data by one"
        )
    if images.shape[-1] == 3:
        turned = share(answers(candidates[best], images[..., ::-1]) == labels)
        if turned.low > rates[best].high:
            remarks.append(
                f"with the channels in the order blue, green, red it classifies {turned} of the images correctly, with "
                f"{best}: it takes BGR; put the channels of the data in that order, or a layer that does in front of it"
            )
    return PixelSearch(
        version=PixelSearch.newest,
        classifier=classifier.name,
        images=len(labels),
        tried=tuple(_tried(name, candidates[name], rates[name]) for name in names),
        taken=names.index(taken),
        decided=not equals,
        reason=_reason(taken, equals),
        remarks=tuple(remarks),
    )


def with_found_pixels(classifier: Classifier, split: Split) -> tuple[Classifier, PixelSearch]:
    """A classifier with the pixels that were found; see ``find_pixels``."""
    search = find_pixels(classifier, split)
    return replace(classifier, pixels=pixels_taken(search)), search


def pixels_taken(search: PixelSearch) -> Pixels:
    """The pixels that were found."""
    taken = search.tried[search.taken]
    return Pixels(taken.bounds, taken.mean or (), taken.std or ())


def _tried(name: str, pixels: Pixels, accuracy: Rate) -> TriedPixels:
    return TriedPixels(
        name=name, bounds=pixels.bounds, mean=pixels.mean or None, std=pixels.std or None, accuracy=accuracy
    )


def _reason(taken: str, equals: list[str]) -> str:
    if not equals:
        return "its interval lies above every other's"
    others = f"{', '.join(equals)} {'does' if len(equals) == 1 else 'do'} equally well, within their intervals"
    if taken == FIRST:
        return f"taken by default, as the images do not decide: {others}"
    return f"the highest: {others}, and {FIRST} is clearly worse; state it with target.bounds, mean and std"
