"""The attack as an object: a trained generator with its goal, epsilon and bounds, and the classifier it is tried on."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from advgan.attacks.inputs import checked_bounds, checked_images, class_indices
from advgan.classifiers.adaptation import Shape
from advgan.classifiers.classifier import Classifier, classifier_of
from advgan.classifiers.loading import load_classifier
from advgan.classifiers.pixels import Pixels
from advgan.classifiers.run_target import has_target, run_target
from advgan.classifiers.source import AS_IT_IS
from advgan.config.loading import parse_config
from advgan.config.settings import AttackSettings
from advgan.data.batch_parts import side_by_side
from advgan.data.batches import in_batches
from advgan.errors import AdvGANError
from advgan.networks.forward import forward
from advgan.networks.keras_file import load_network
from advgan.perturbation import UNIT, Bounds, perturb
from advgan.run_folder import RUN_OF_THIS_KERAS, RunFolder, load_run_config


class Attacked(NamedTuple):
    """What an attack made of n images, as Foolbox's attacks return it."""

    raw: np.ndarray
    """x + p, before the pixel box; float32 of the images' shape, in their units."""
    projected: np.ndarray
    """x_A: the same clipped to the bounds, within epsilon of x; the classifier's input."""
    success: np.ndarray | None
    """Whether the target's prediction on x_A meets the goal, booleans of shape (n,); None without a target."""


class AdvGANAttack:
    """Attack images with one forward pass of a trained generator, batch by batch.

    Images are NumPy arrays (n, height, width, channels), floats within the bounds, n being 0 or more; uint8 too where
    the bounds are 0 and 255. They come back as float32 in the same units.

    Args:
        generator: a Keras model from images in [0, 1] to tanh outputs in [-1, 1] of the same shape; one that is
            conditioned on the wanted class takes that as one-hot rows too.
        target: the classifier: a Keras model, which is called in inference mode, or any function, from float32 images
            within the bounds to scores (n, classes), logits or probabilities; or a ``Classifier``, which has bounds of
            its own; None where no success is asked for.
        settings: goal, epsilon (a share of the pixel range, whatever the bounds) and the form of the output; of
            several target classes the first is the goal, ``towards`` takes another.
        bounds: the smallest and the largest pixel value of the images.

    Raises:
        AdvGANError: these do not fit together.
    """

    def __init__(
        self,
        generator: Any,
        target: Classifier | Callable[[Any], Any] | None,
        settings: AttackSettings,
        bounds: Bounds = UNIT,
    ) -> None:
        condition = condition_size(generator)
        self._known = _known_classes(settings, condition)
        settings = settings.one_goal
        self.epsilon, self.goal = settings.epsilon, settings.objective
        self.bounds = checked_bounds(bounds)
        self.image_shape = image_shape_of(generator)
        if target is None or isinstance(target, Classifier):
            self.classifier = target
        else:
            pixels = Pixels(self.bounds)
            self.classifier = classifier_of(target, self.image_shape, "the target", pixels=pixels)
        self._given = target
        self._classes = None if self.classifier is None else self.classifier.number_of_classes
        low, high = self.bounds
        generate = forward(generator)
        others = [] if condition is None else [tf.TensorSpec([condition], tf.float32)]

        @tf.function(input_signature=[tf.TensorSpec([None, *self.image_shape], tf.float32), *others])
        def perturbed(images: Any, *wanted: Any) -> tuple[Any, Any]:
            inputs = (images - low) / (high - low)
            if wanted:
                inputs = [inputs, tf.tile(wanted[0][tf.newaxis], [tf.shape(images)[0], 1])]
            output = generate(inputs, training=False)
            perturbation, adversarial = perturb(images, output, self.epsilon, settings.output, self.bounds)
            return images + perturbation, adversarial

        self._settings, self._condition = settings, condition
        self._compiled = side_by_side(perturbed, self.image_shape, others)

    def _perturbed(self, images: Any) -> tuple[Any, Any]:
        if self._condition is None:
            return self._compiled(images)
        return self._compiled(images, tf.one_hot(self._settings.target_class, self._condition))

    def towards(self, wanted: int) -> AdvGANAttack:
        """The same attack with another of the generator's target classes; nothing is recompiled.

        Raises:
            AdvGANError: the generator is not conditioned on a class, or does not know this one.
        """
        if wanted not in self._known:
            known = f"allowed: {', '.join(map(str, self._known))}" if self._known else "its generator has one goal"
            raise AdvGANError(f"the attack cannot be targeted at class {wanted} ({known})")
        other = copy(self)
        other._settings = self._settings.model_copy(update={"target_class": int(wanted)})
        other.goal = other._settings.objective
        return other

    @property
    def number_of_classes(self) -> int:
        """The number of classes of the target.

        Raises:
            AdvGANError: there is none.
        """
        if self._classes is None:
            raise AdvGANError("the attack has no target, so the number of classes is unknown; load it with target=")
        return self._classes

    @property
    def target(self) -> Any:
        """The target for other libraries: as it was given, or a Keras model from images in [0, 1] to logits."""
        return self._given.model if isinstance(self._given, Classifier) else self._given

    @classmethod
    def load(
        cls,
        path: str | Path,
        target: Classifier | Callable[[Any], Any] | str | Path | None = None,
        *,
        bounds: Bounds | None = None,
        epsilon: float | str | None = None,
        goal: str | None = None,
        target_class: int | None = None,
        output: str | None = None,
    ) -> AdvGANAttack:
        """Load a finished run, which knows its threat model and its target, or a bare generator, which does not.

        Args:
            path: a run directory, such as ``checkpoints/mnist/0``, or the ``.keras`` file of a generator.
            target: the classifier (see the class), or its name as ``evaluate --target`` takes it; a run's own by
                default, where it is no black box or a file; none for a bare generator.
            bounds: pixel values of the images and of this target, 0 and 1 by default; a run's own target knows what
                it takes.
            epsilon: of a bare generator, where it is needed: a share of the pixel range, 0.3, 8/255 or "8/255".
            goal: of a bare generator, as in the configuration's section ``attack``.
            target_class: the same; a run whose generator is for several classes takes it too, ``towards`` changes it.
            output: the same as goal.

        Raises:
            AdvGANError: the path holds nothing usable, or the arguments do not fit it.
        """
        path = Path(path)
        named = {"epsilon": epsilon, "goal": goal, "target_class": target_class, "output": output}
        given = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in named.items()
            if value is not None
        }
        if not path.exists():
            raise AdvGANError(f"{path} does not exist; pass the folder of a run, or the .keras file of a generator")
        if not path.is_dir():
            if epsilon is None:
                raise AdvGANError(f"{path} does not say its epsilon; pass it, such as epsilon=0.3")
            settings = parse_config({"attack": given}).attack
            generator = load_network(path, RUN_OF_THIS_KERAS)
            return cls(generator, _named(target, generator, bounds), settings, bounds or UNIT)

        run, config = RunFolder(path), load_run_config(path)
        several = config.attack.wanted_classes is not None
        if several:
            given.pop("target_class", None)
        if given:
            raise AdvGANError(f"{next(iter(given))} is set in {run.config}; for another load {run.generator}")
        run.require(run.generator)
        generator = load_network(run.generator, RUN_OF_THIS_KERAS)
        classifier = _named(target, generator, bounds)
        if classifier is None and has_target(config, run):
            classifier = run_target(config, run, image_shape_of(generator))
        attack = cls(generator, classifier, config.attack, bounds or UNIT)
        return attack.towards(target_class) if several and target_class is not None else attack

    def __call__(self, x: Any, y: Any = None) -> Attacked:
        """Attack images and say where it succeeded.

        Args:
            x: the clean images.
            y: their classes, as indices or one-hot; by default the target's predictions on the clean images.

        Raises:
            AdvGANError: invalid images or labels.
        """
        images, labels = self._checked(x, y)
        raw, projected = np.empty(images.shape, np.float32), np.empty(images.shape, np.float32)

        def work(part: slice) -> None:
            raw[part], projected[part] = self._perturbed(_batch(images[part]))

        in_batches(len(images), self.image_shape, work)
        if self.classifier is None:
            return Attacked(raw, projected, None)
        labels = self.classifier.predict(images, self.bounds) if labels is None else labels
        return Attacked(raw, projected, self.goal.reached(labels, self.classifier.predict(projected, self.bounds)))

    def generate(self, x: Any, y: Any = None) -> np.ndarray:
        """Attack images, as ``EvasionAttack.generate`` of ART does; the target is not called.

        Args:
            x: the clean images.
            y: their classes, as indices or one-hot; checked, and not needed otherwise.

        Returns:
            x_A: float32 of the images' shape, in their units.

        Raises:
            AdvGANError: invalid images or labels.
        """
        images, _ = self._checked(x, y)
        adversarial = np.empty(images.shape, np.float32)

        def work(part: slice) -> None:
            adversarial[part] = self._perturbed(_batch(images[part]))[1]

        in_batches(len(images), self.image_shape, work)
        return adversarial

    def classify(self, x: Any) -> np.ndarray:
        """The target's answers on images as they are: class indices, int32 of shape (n,).

        Raises:
            AdvGANError: there is no target, or the images are invalid.
        """
        images, _ = self._checked(x, None)
        if self.classifier is None:
            raise AdvGANError("the attack has no target; load it with target=, a Keras model or a function")
        return self.classifier.predict(images, self.bounds)

    def _checked(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray | None]:
        images = checked_images(x, self.image_shape, self.bounds)
        return images, None if y is None else class_indices(y, len(images), self._classes)


def condition_size(generator: Any) -> int | None:
    """How many classes a generator is conditioned on; None for one that is not."""
    return int(generator.inputs[1].shape[-1]) if len(generator.inputs) > 1 else None


def _known_classes(settings: AttackSettings, condition: int | None) -> tuple[int, ...]:
    """The classes that a generator can be led towards; none where it has one goal.

    Raises:
        AdvGANError: the goal does not fit the generator.
    """
    if condition is None:
        if settings.wanted_classes is not None:
            raise AdvGANError("the generator is not conditioned on a class; pass one target_class")
        return ()
    known = settings.wanted_classes or tuple(range(condition))
    wanted = known if settings.goal_class is None else (settings.goal_class,)
    if settings.target_class is None or max(wanted) >= condition:
        allowed = f'goal="targeted" and a target_class from 0 to {condition - 1}'
        raise AdvGANError(f"the generator is conditioned on the target class; pass {allowed}")
    return known


def image_shape_of(generator: Any) -> Shape:
    """The shape of the images that a generator takes and makes.

    Raises:
        AdvGANError: it makes others than it takes, or has no size of its own.
    """
    taken, made = tuple(generator.inputs[0].shape), tuple(generator.output_shape)
    if taken != made or len(taken) != 4 or None in taken[1:]:
        raise AdvGANError(f"the generator maps {taken} to {made}; it should map images of one size to the same shape")
    return (taken[1], taken[2], taken[3])


def _named(target: Any, generator: Any, bounds: Bounds | None) -> Any:
    """A target that is named, loaded; any other as it is."""
    if not isinstance(target, (str, Path)):
        return target
    settings = AS_IT_IS.model_copy(update={"bounds": checked_bounds(bounds or UNIT)})
    return load_classifier(target, image_shape_of(generator), settings)


def _batch(images: np.ndarray) -> Any:
    return tf.constant(images.astype(np.float32, copy=False))
