"""Fashion-MNIST, CIFAR-10 and CIFAR-100: from a file of the user's own, or downloaded by Keras; checked by digest."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import tensorflow as tf

from advgan.errors import AdvGANError, ConfigurationError

keras = tf.keras
KEYS = ("x_train", "y_train", "x_test", "y_test")
SHA256 = {
    "fashion_mnist": "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f",
    "cifar10": "80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660",
}
"""Of the four arrays, one after the other, as bytes. CIFAR-100's is not known here; Keras checks what it downloads."""
FASHION = "T-shirt/top,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot"
CIFAR10 = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
CIFAR100 = """
    apple,aquarium fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,bridge,bus,butterfly,camel,can,castle,
    caterpillar,cattle,chair,chimpanzee,clock,cloud,cockroach,couch,crab,crocodile,cup,dinosaur,dolphin,elephant,
    flatfish,forest,fox,girl,hamster,house,kangaroo,keyboard,lamp,lawn mower,leopard,lion,lizard,lobster,man,maple tree,
    motorcycle,mountain,mouse,mushroom,oak tree,orange,orchid,otter,palm tree,pear,pickup truck,pine tree,plain,plate,
    poppy,porcupine,possum,rabbit,raccoon,ray,road,rocket,rose,sea,seal,shark,shrew,skunk,skyscraper,snail,snake,spider,
    squirrel,streetcar,sunflower,sweet pepper,table,tank,telephone,television,tiger,tractor,train,trout,tulip,turtle,
    wardrobe,whale,willow tree,wolf,woman,worm"""
CLASS_NAMES = {
    name: tuple(entry.strip() for entry in listed.split(","))
    for name, listed in (("fashion_mnist", FASHION), ("cifar10", CIFAR10), ("cifar100", CIFAR100))
}


def load(name: str) -> tuple[dict[str, np.ndarray], str]:
    """The four arrays of a data set as Keras gives them, and the SHA-256 of their bytes.

    A file ``<name>.npz`` with these arrays, in the folder of Keras's data sets, is taken instead of a download.

    Args:
        name: ``fashion_mnist``, ``cifar10`` or ``cifar100``.

    Raises:
        ConfigurationError: it cannot be downloaded, and is not there.
        AdvGANError: what is there is damaged.
    """
    file = _folder() / f"{name}.npz"
    arrays = _from_file(file) if file.is_file() else _downloaded(name, file)
    digest = hashlib.sha256()
    for key in KEYS:
        digest.update(np.ascontiguousarray(arrays[key]).tobytes())
    if digest.hexdigest() != SHA256.get(name, digest.hexdigest()):
        where = file if file.is_file() else _folder()
        raise AdvGANError(f"{where}: these are not the arrays of {name} (their SHA-256 differs); delete what is there")
    return arrays, digest.hexdigest()


def _folder() -> Path:
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "datasets"


def _from_file(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in KEYS}
    except Exception as error:  # NumPy raises nearly anything when a file is damaged
        raise AdvGANError(f"{file} is not an .npz file with {', '.join(KEYS)} ({error}); delete it") from None


def _downloaded(name: str, file: Path) -> dict[str, np.ndarray]:
    try:
        with redirect_stdout(sys.stderr):  # its progress
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # what Keras raises depends on where the connection fails
        reason = " ".join(str(error).split())[-160:]
        raise ConfigurationError(
            "data.dataset",
            name,
            f"cannot be downloaded ({reason}); put its arrays as {file} (numpy.savez of {', '.join(KEYS)}, as "
            f"keras.datasets.{name}.load_data() gives them)",
        ) from None
    return dict(zip(KEYS, (x_train, y_train, x_test, y_test), strict=True))
