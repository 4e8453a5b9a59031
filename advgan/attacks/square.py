"""Square Attack (Andriushchenko et al. 2020) in L_inf, from the Adversarial Robustness Toolbox, each query counted.

It uses nothing but the answers to queries. ART evaluates the same images repeatedly; what counts as a query here is
an image that was not queried before, so an image costs one query for itself, one for the first stripes and
at most one for each square that is tried.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from advgan.attacks.baselines import Advance, Arrays
from advgan.classifiers.classifier import Classifier
from advgan.errors import AdvGANError
from advgan.goals import Goal, Targeted
from advgan.perturbation import measure

ART = "adversarial-robustness-toolbox"
INSTALL = f"pip install {ART}"
FIRST_SQUARE = 0.8
"""The share of an image that the first square covers; ART's default."""
SMALLEST = 1e-30
"""What an answer of 0 is taken for, so that it has a logarithm."""
FEWEST_QUERIES = 3
"""The image, the stripes, a square."""


def why_not_square(shape: tuple[int, int, int]) -> str:
    """Why ART's Square Attack cannot run on images of a shape; empty where it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about packages that other parts of ART would want
            importlib.import_module("art.attacks.evasion.square_attack")
    except ImportError:
        return f"not measured: {INSTALL}"
    height, width, _ = shape
    if round(math.sqrt(FIRST_SQUARE * height * width)) >= min(height, width):
        return f"not measured: images of {height}x{width} are too narrow for its first square"
    return ""


def square_settings(queries: int, logits: bool = False) -> dict[str, Any]:
    """Everything that determines the attack; JSON can hold it."""
    return {
        "queries_per_image": queries,
        "loss": "margin of logits" if logits else "margin of the logarithms of the answers",
        "p_init": FIRST_SQUARE,
        "art": version(ART),
    }


def run_square(
    classifier: Classifier,
    goal: Goal,
    images: np.ndarray,
    labels: np.ndarray,
    clean: np.ndarray,
    epsilon: float,
    queries: int,
    seed: int,
    logits: bool = False,
) -> Callable[[Advance], Arrays]:
    """The work of a stage: attack the images that count, and keep how many queries each took.

    Args:
        classifier: the black box; its scores are probabilities, or one-hot labels, or logits.
        goal: the attacker's.
        images, labels: float32 in [0, 1], shape (n, height, width, channels); integers of shape (n,).
        clean: the black box's answers on the images, integers of shape (n,).
        epsilon: the largest change of a pixel.
        queries: the most for each image.
        seed: of all randomness.
        logits: whether the scores are those.

    Returns:
        A function that advances by an image when it is done with, and returns what ``run_baseline``'s returns and
        ``asked``, different images asked about for each image: until one reached the goal, which ``reached`` tells, or
        in vain; 0 where an image does not count and was not attacked.
    """

    def work(advance: Advance) -> Arrays:
        counted = np.flatnonzero(goal.eligible(labels, clean))
        search = _Search(classifier, goal, images[counted], labels[counted], advance, logits)
        start = time.perf_counter()
        if len(counted):
            search.run(epsilon, queries, seed)
        seconds = time.perf_counter() - start
        advance(len(images) - int(search.reached.sum()))
        made, asked, reached = images.copy(), np.zeros(len(images), np.int64), np.zeros(len(images), bool)
        made[counted], asked[counted], reached[counted] = search.best, search.asked, search.reached
        flat = made.reshape(len(made), -1)
        return {
            "predictions": classifier.predict(made),
            "linf": measure(images, made).linf,
            "lowest": flat.min(axis=1),
            "highest": flat.max(axis=1),
            "seconds": np.array(seconds),
            "asked": asked,
            "reached": reached,
        }

    return work


class _Search:
    """ART's search on some images, whose places among each other ART carries along in place of labels."""

    def __init__(
        self,
        classifier: Classifier,
        goal: Goal,
        images: np.ndarray,
        labels: np.ndarray,
        advance: Advance,
        logits: bool = False,
    ) -> None:
        self._classifier, self._goal, self._images, self._labels = classifier, goal, images, labels
        self._advance, self._logits = advance, logits
        self._known: list[dict[bytes, np.ndarray]] = [{} for _ in images]
        self.asked, self.reached = np.zeros(len(images), np.int64), np.zeros(len(images), bool)
        self.best = images.copy()
        """The first image that reached the goal, else the last that came nearer."""

    def run(self, epsilon: float, queries: int, seed: int) -> None:
        """Attack; NumPy's global randomness, which ART draws from, is afterwards as it was."""
        attack_of = importlib.import_module("art.attacks.evasion.square_attack").SquareAttack
        attack = attack_of(
            _estimator(self.answers, self._images.shape[1:]),
            adv_criterion=self._is_reached,
            loss=self._loss,
            max_iter=queries - 2,
            eps=epsilon,
            p_init=FIRST_SQUARE,
            verbose=False,
        )
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            found = attack.generate(self._images, np.arange(len(self._images)))
        finally:
            np.random.set_state(before)
        self.best = np.where(self.reached[:, None, None, None], self.best, found)

    def answers(self, images: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
        """The classifier's answers, asked for where they are not known; images are those of ``places``, or all."""
        places = np.arange(len(self._images)) if places is None else places
        images = np.ascontiguousarray(images, np.float32)
        keys = [hashlib.sha256(image.tobytes()).digest() for image in images]
        new = [i for i, (key, place) in enumerate(zip(keys, places, strict=True)) if key not in self._known[place]]
        if new:
            for i, answer in zip(new, np.asarray(self._classifier.logits(images[new])), strict=True):
                self._keep(int(places[i]), keys[i], images[i], answer)
        return np.stack([self._known[place][key] for key, place in zip(keys, places, strict=True)])

    def _keep(self, place: int, key: bytes, image: np.ndarray, answer: np.ndarray) -> None:
        self._known[place][key] = answer
        if self.reached[place]:
            return
        self.asked[place] += 1
        if self._goal.reached(self._labels[place], answer.argmax()):
            self.reached[place], self.best[place] = True, image
            self._advance(1)

    def _is_reached(self, answers: np.ndarray, places: np.ndarray) -> np.ndarray:
        return np.asarray(self._goal.reached(self._labels[places], answers.argmax(axis=1))) | self.reached[places]

    def _loss(self, images: np.ndarray, places: np.ndarray) -> np.ndarray:
        """What the search makes smaller: how far the answers are from the goal; shape (n,)."""
        answers = self.answers(images, places)
        logarithms = answers.astype(np.float64) if self._logits else np.log(np.maximum(answers, SMALLEST))
        here = (np.arange(len(places)), self._goal.margin_class(self._labels[places]))
        own = logarithms[here]
        logarithms[here] = -np.inf
        others = logarithms.max(axis=1)
        return np.asarray(others - own if isinstance(self._goal, Targeted) else own - others)


def _estimator(answers: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> Any:
    """What ART takes for a classifier: it answers all images of the search and has nothing else to give."""
    module = importlib.import_module("art.estimators.estimator")

    class Answers(module.NeuralNetworkMixin, module.BaseEstimator):  # type: ignore[misc, name-defined]
        input_shape = shape

        def predict(self, x: np.ndarray, **_: Any) -> np.ndarray:
            return answers(x)

        def fit(self, *_: Any, **__: Any) -> None:
            raise AdvGANError("a black box learns nothing here")

        def get_activations(self, *_: Any, **__: Any) -> np.ndarray:
            raise AdvGANError("a black box shows nothing but its answers")

    return Answers(model=None, clip_values=(0.0, 1.0), channels_first=False)
