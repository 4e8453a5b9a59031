"""Classifiers in files: ``.keras`` and ``.h5``, and the folders of SavedModels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from advgan.classifiers.adaptation import Shape, listed
from advgan.classifiers.classifier import Classifier, classifier_of, compiled
from advgan.classifiers.pixels import pixels_of
from advgan.classifiers.source import BlackBoxReading, Source, answers_of, in_short
from advgan.config.settings import TargetSettings
from advgan.config.values import KINDS
from advgan.data.batches import images_at_once
from advgan.errors import AdvGANError
from advgan.files import file_digest, folder_digest
from advgan.networks.keras_file import GIVE_ANOTHER, load_network, weights_digest

SERVING = "serving_default"


def keras_classifier(
    given: str, shape: Shape, settings: TargetSettings, remedy: str = GIVE_ANOTHER, as_it_answers: bool = False
) -> Classifier:
    """The classifier of a ``.keras`` or ``.h5`` file.

    Args:
        given: the file.
        shape: of one image.
        settings: how it is to be read.
        remedy: what the user should do where it cannot be loaded.
        as_it_answers: see ``classifier_of``.

    Raises:
        AdvGANError: it cannot be loaded, or does not take the images.
    """
    path = _there(given, Path.is_file)
    network = load_network(path, remedy, module=settings.module, trust=settings.trust)
    pixels, weights = pixels_of(settings), weights_digest(network)
    digest = file_digest(path)
    try:
        return classifier_of(network, shape, given, digest, pixels, weights, settings.output, as_it_answers)
    except AdvGANError:
        raise
    except Exception as error:  # a network of no layers, with code of its own
        if getattr(network, "inputs", None):
            raise AdvGANError(f"{given} fails on images of {shape} ({in_short(error)})") from None
        raise AdvGANError(
            f"{given} does not state its input shape, and fails on images of {shape} ({in_short(error)}); build it on "
            f"keras.Input{shape} and save it again"
        ) from None


def saved_model(
    given: str, shape: Shape, settings: TargetSettings, _: str = "", as_it_answers: bool = False
) -> Classifier:
    """The classifier in the folder of a SavedModel; its variables become constants, so it stays as it is.

    Args:
        given: the folder.
        shape, settings, as_it_answers: see ``keras_classifier``.

    Raises:
        AdvGANError: it cannot be loaded, or does not take the images.
    """
    folder = _there(given, Path.is_dir)
    try:
        loaded = tf.saved_model.load(given)
    except Exception as error:  # TensorFlow raises nearly anything here
        raise AdvGANError(f"{given} is not a loadable SavedModel ({in_short(error)})") from None
    call, takes, dtype, inputs = _way_in(loaded, given, shape)
    named = Classifier(given, folder_digest(folder), shape, call, pixels_of(settings), inputs=inputs)
    named.pixels.check_channels(shape[-1])
    try:
        return compiled(call, named, takes, dtype, settings.output, as_it_answers)
    except AdvGANError:
        raise
    except Exception as error:
        raise AdvGANError(f"{given} does not take images of {shape} as a classifier ({in_short(error)})") from None


def _way_in(loaded: Any, given: str, shape: Shape) -> tuple[Callable[[Any], Any], Sequence[int | None], tf.DType, str]:
    """How a loaded SavedModel is called: the function, the shape and the type it takes, its inputs in words."""
    signatures = dict(loaded.signatures)
    signature = signatures.get(SERVING) or (next(iter(signatures.values())) if len(signatures) == 1 else None)
    if signature is not None:
        specs = signature.structured_input_signature[1]
        listing = listed(list(specs), list(specs.values()))
        if len(specs) != 1:
            raise AdvGANError(
                f"{given} has {len(specs)} inputs ({listing}); a classifier takes images alone: save a model whose "
                "only input is the image"
            )
        [(name, spec)] = specs.items()
        takes = (None, *shape) if spec.shape.rank is None else tuple(spec.shape)
        call = inlined(signature, lambda images: signature(**{name: tf.cast(images, spec.dtype)}))
        # By name, as their order is not kept, and a number may choose one.
        return lambda images: dict(sorted(call(images).items())), takes, spec.dtype, listing
    if not (callable(loaded) or hasattr(loaded, "serve")):
        raise AdvGANError(
            f"{given} has {len(signatures)} signatures ({', '.join(signatures) or 'none'}), and none is {SERVING}; "
            "save the model with one, as Keras's model.export does"
        )
    problems = []
    for way in (_called_in_inference, _called, _served):
        try:
            here = partial(way, loaded)
            concrete = tf.function(here).get_concrete_function(tf.TensorSpec([None, *shape], tf.float32))
            return inlined(concrete, here), (None, *shape), tf.float32, ""
        except Exception as error:  # another way may do
            problems.append(in_short(error))
    raise AdvGANError(f"{given} does not take images of {shape} as a classifier ({problems[0]})")


def _called_in_inference(loaded: Any, images: Any) -> Any:
    return loaded(images, training=False)


def _called(loaded: Any, images: Any) -> Any:
    return loaded(images)


def _served(loaded: Any, images: Any) -> Any:
    return loaded.serve(images)


def inlined(concrete: Any, otherwise: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A traced function as one whose operations become part of the graph that calls it.

    So what comes before its last operation can be had. Its variables become constants.

    Args:
        concrete: a concrete function of one tensor.
        otherwise: what is called where that cannot be done.
    """
    try:
        frozen = convert_variables_to_constants_v2(concrete)
        graph = frozen.graph.as_graph_def()
        [taken] = [tensor for tensor in frozen.inputs if tensor.dtype != tf.resource]
        made = [tensor.name for tensor in frozen.outputs]
        structure = concrete.structured_outputs
        tf.nest.assert_same_structure(structure, tf.nest.pack_sequence_as(structure, made))
    except Exception:  # larger than a graph may be, or with parts that cannot be frozen
        return otherwise

    def call(images: Any) -> Any:
        images = tf.cast(images, taken.dtype)
        tensors = tf.graph_util.import_graph_def(graph, {taken.name: images}, made, name="classifier")
        return tf.nest.pack_sequence_as(structure, tensors)

    return call


def file_as_black_box(load: Callable[..., Classifier], given: str, shape: Shape, box: BlackBoxReading) -> Source:
    """A classifier in a file of which nothing but the answers is used, as they are.

    Args:
        load: ``keras_classifier`` or ``saved_model``.
        given, shape, box: see ``black_box_source``.

    Raises:
        AdvGANError: it cannot be loaded, or does not take the images.
    """
    classifier = load(given, shape, box.settings, as_it_answers=True)
    at_once = images_at_once(shape)  # its memory is this process's
    answer = answers_of(classifier.function, given, None)
    return Source(answer, classifier.digest, images_at_once=at_once, weights=classifier.weights)


def _there(given: str, is_there: Callable[[Path], bool]) -> Path:
    path = Path(given)
    if not is_there(path):
        what = "no folder" if path.is_file() else "no file" if path.is_dir() else "no such file or folder"
        raise AdvGANError(f"{given}: {what}; give {KINDS}")
    return path
