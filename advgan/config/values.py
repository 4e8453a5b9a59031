"""What single settings may hold: numbers, paths, names of classifiers; each with its own words for what is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt

PREDICTS_ELSEWHERE = {
    ".onnx": "an ONNX file",
    ".pt": "a PyTorch file",
    ".pth": "a PyTorch file",
    ".torchscript": "a PyTorch file",
    ".tflite": "a TensorFlow Lite file",
    ".joblib": "a scikit-learn file",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".safetensors": "a file of weights",
    ".ckpt": "a file of weights",
}
"""Files of classifiers that TensorFlow does not read, by their ending."""
ARCHITECTURES = ("lenet", "model_a", "model_b", "model_c", "madrylab", "resnet20", "resnet32", "wide_resnet34")
"""The architectures that are built here; every other is one of ``keras.applications``."""
WITH_A_CHOICE_OF_NORMALIZATION = ARCHITECTURES[:5]
"""Those that are built with batch normalization or without; the others are as they are."""
KERAS_DATASETS = ("fashion_mnist", "cifar10", "cifar100")
"""Those that Keras downloads."""
TFDS_PREFIX = "tfds:"
_SET_BY_THE_REQUEST = ("content-type", "content-length", "host", "transfer-encoding")
SHIPPED_CLASSIFIERS = ("robust_mnist",)
"""Those that come with the package."""
FUNCTION = r"[\w.]+:\w*"
ARCHITECTURE_KINDS = f"{', '.join(ARCHITECTURES)}, or a network of keras.applications such as MobileNetV2"
KINDS = f"a .keras or .h5 file, the folder of a SavedModel, module:function, or {', '.join(SHIPPED_CLASSIFIERS)}"


def number_from_text(value: object) -> object:
    """Accept what YAML reads as text: ``1e-4`` and ``8/255``."""
    problem = ValueError("should be a number, such as 0.3, 1e-4 or 8/255")
    if isinstance(value, str):
        numerator, slash, denominator = value.partition("/")
        try:
            return float(numerator) / float(denominator) if slash else float(numerator)
        except (ValueError, ZeroDivisionError):
            raise problem from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise problem
    return value


def is_function(given: str) -> bool:
    """Whether a classifier is named as ``module:function``."""
    return re.fullmatch(FUNCTION, given) is not None


def is_path_of_classifier(given: str) -> bool:
    """Whether a classifier is named by the path of a file or a folder."""
    return not is_function(given) and "://" not in given and given not in SHIPPED_CLASSIFIERS


def of_another_library(given: str) -> str:
    """What to do with a classifier that TensorFlow does not read, such as an ONNX file; empty for any other."""
    kind = PREDICTS_ELSEWHERE.get(Path(given).suffix.lower(), "")
    return kind and (
        f"is {kind}, which gives TensorFlow no gradients: attack it as a black box, oracle.black_box=module:function, "
        "by a function of your own that takes images and returns its probabilities "
        f"(examples/{'pytorch' if 'PyTorch' in kind else 'onnx'}_classifier.py is one)"
    )


def _path(value: str) -> str:
    """Expand ``~``; what no system takes is an error."""
    if "\0" in value:
        raise ValueError("should be a path")
    try:
        return str(Path(value).expanduser())
    except RuntimeError:
        raise ValueError("should be a path; there is no such user") from None


def is_path_of_data(dataset: str) -> bool:
    """Whether ``data.dataset`` names a file or a folder."""
    return dataset not in ("mnist", *KERAS_DATASETS) and not dataset.startswith(TFDS_PREFIX)


def _dataset(value: str) -> str:
    """What can name a data set; whether it is there is seen later."""
    return _path(value) if is_path_of_data(value) else value


def _image_size(value: object) -> object:
    """Height and width, or one number for both."""
    problem = ValueError("should be a number of pixels, or height and width, such as [224, 224] (allowed: 8 to 4096)")
    sizes = value if isinstance(value, list | tuple) else [value, value]
    if len(sizes) != 2 or not all(type(size) is int and 8 <= size <= 4096 for size in sizes):
        raise problem
    return tuple(sizes)


def _devices(value: object) -> object:
    """``auto``, ``all``, a number of devices, or their names."""
    listed = list(value) if isinstance(value, list | tuple) else []
    names = [re.fullmatch(r"(GPU|CPU):[0-9]{1,3}", name) for name in listed if isinstance(name, str)]
    if value in ("auto", "all") or (type(value) is int and 1 <= value <= 1000):
        return value
    if listed and len(names) == len(listed) == len(set(listed)) and all(names):
        return tuple(listed)
    raise ValueError("should be auto, all, a number of devices, or a list of them, such as [GPU:0, GPU:1]")


def _target_class(value: object) -> object:
    """A class index, ``all``, or a list of two indices or more."""
    listed = value if isinstance(value, list | tuple) else [value]
    numbers = all(type(item) is int and item >= 0 for item in listed)
    if value == "all" or (numbers and (not isinstance(value, list | tuple) or len(set(value)) == len(value) > 1)):
        return tuple(value) if isinstance(value, list | tuple) else value
    raise ValueError("should be a class index from 0, or all, or a list of different ones, such as [0, 3, 8]")


def _class_names(value: object) -> object:
    """Two names or more, all different."""
    names = value if isinstance(value, list | tuple) else []
    if (
        len(names) < 2
        or len(set(map(str, names))) < len(names)
        or not all(isinstance(name, str | int) and not isinstance(name, bool) and str(name).strip() for name in names)
    ):
        raise ValueError("should be a list of different names, one for each class, such as [cat, dog] (quote yes, no)")
    return tuple(str(name) for name in names)


def _classifier(value: str) -> str:
    """What can name a classifier whose gradients are used; whether it is there is seen later."""
    if "://" in value:
        raise ValueError("a served model gives no gradients: attack it as a black box, oracle.black_box")
    if problem := of_another_library(value):
        raise ValueError(problem)
    return _path(value) if is_path_of_classifier(value) else value


def _black_box(value: str) -> str:
    """What can name a black box; whether it is there is seen later."""
    if problem := of_another_library(value):
        raise ValueError(problem)
    if value == "target" or re.fullmatch(r"https?://[^\s/]+/\S+", value):
        return value
    if "://" not in value and not is_path_of_classifier(value):
        return value
    if "://" in value or not value or re.match(r"[\w.]*:", value):
        raise ValueError(f"should be target, {KINDS}, or http://host:port/v1/models/name:predict")
    return _path(value)


def _bounds(value: object) -> object:
    """Two numbers, the first the smaller, or ``auto``."""
    problem = ValueError("should be auto, or the smallest and the largest pixel value, such as [0, 255] or [-1, 1]")
    if value == "auto":
        return value
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise problem
    try:
        low, high = (float(number_from_text(number)) for number in value)  # type: ignore[arg-type]
    except ValueError:
        raise problem from None
    if not -1e6 <= low < high <= 1e6:
        raise problem
    return low, high


def _channels(value: object) -> object:
    """A number, or one for each channel."""
    problem = ValueError("should be a number, or one for each channel, such as [0.485, 0.456, 0.406]")
    values = value if isinstance(value, list | tuple) else [value]
    try:
        numbers = tuple(float(number_from_text(number)) for number in values)  # type: ignore[arg-type]
    except ValueError:
        raise problem from None
    if not numbers or not all(abs(number) <= 1e6 for number in numbers):
        raise problem
    return numbers


def _number_or_auto(value: object) -> object:
    """A number above 0, or ``auto``."""
    if value == "auto":
        return value
    try:
        number = float(number_from_text(value))  # type: ignore[arg-type]
    except ValueError:
        number = 0.0
    if not 1e-9 <= number <= 1e9:
        raise ValueError("should be auto, or a number above 0 (allowed: 1e-9 to 1e9)")
    return number


def _output(value: object) -> object:
    """A name, or a number from 0 as text."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValueError("should be the name of an output, or its number from 0")
    return str(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean X?``, whatever the case of its letters; empty where nothing is spelt like it."""
    spelt = {name.lower(): name for name in known}
    return "".join(f"; did you mean {spelt[near]}?" for near in difflib.get_close_matches(word.lower(), spelt, n=1))


def _architecture(value: str) -> str:
    """A name of those here, or one that ``keras.applications`` may have, which is seen when it is built."""
    if value in ARCHITECTURES or re.fullmatch(r"[A-Z][A-Za-z0-9]*", value):
        return value
    raise ValueError(f"should be {ARCHITECTURE_KINDS}{nearest(value, ARCHITECTURES)}")


def _module(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", value):
        raise ValueError("should be the name of a module, such as my_layers for my_layers.py in this folder")
    return value


def header_variables(text: str) -> list[str]:
    """The environment variables that a header's text names, ``$NAME`` or ``${NAME}``; ``$$`` is a dollar sign.

    Raises:
        ValueError: another $ is in it.
    """
    found = list(Template.pattern.finditer(text))
    if any(match["invalid"] is not None for match in found):
        raise ValueError
    return [name for match in found if (name := match["named"] or match["braced"])]


def _headers(value: object) -> object:
    """Texts by the names of headers, each with an environment variable in it: a secret that stands here itself would
    end up in files. No message repeats a text."""
    if value is None:  # all of its lines are commented out
        return {}
    if not isinstance(value, Mapping):
        raise ValueError("should be a section: names of headers and their texts, Authorization: 'Bearer $API_KEY'")
    for name, text in value.items():
        if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name)):
            raise ValueError("the name of a header should be letters, digits and '-', such as Authorization")
        if name.lower() in _SET_BY_THE_REQUEST:
            raise ValueError(f"{name} follows from the request; leave it out")
        if [other.lower() for other in map(str, value)].count(name.lower()) > 1:
            raise ValueError(f"{name} is there twice; leave one out")
        try:
            is_right = isinstance(text, str) and text.isprintable() and header_variables(text)
        except ValueError:
            raise ValueError(f"{name} has a $ that no name of an environment variable follows; write $$") from None
        if not is_right:
            raise ValueError(
                f"{name} should name an environment variable that holds the secret, such as 'Bearer $API_KEY'; on the "
                "command line in single quotes, or the shell puts the secret itself there"
            )
    return dict(value)


Number = Annotated[float, BeforeValidator(number_from_text), Field(allow_inf_nan=False)]
PathText = Annotated[str, Field(min_length=1), AfterValidator(_path)]
DatasetName = Annotated[str, Field(min_length=1), AfterValidator(_dataset)]
ImageSize = Annotated[tuple[int, int], BeforeValidator(_image_size)]
ClassNames = Annotated[tuple[str, ...], BeforeValidator(_class_names)]
Devices = Annotated[Literal["auto", "all"] | int | tuple[str, ...], BeforeValidator(_devices)]
TargetClass = Annotated[int | tuple[int, ...] | Literal["all"], BeforeValidator(_target_class)]
ClassifierName = Annotated[str, Field(min_length=1), AfterValidator(_classifier)]
BlackBoxName = Annotated[str, AfterValidator(_black_box)]
PixelRange = Annotated[tuple[float, float] | Literal["auto"], BeforeValidator(_bounds)]
Channels = Annotated[tuple[float, ...], BeforeValidator(_channels)]
NumberOrAuto = Annotated[float | Literal["auto"], BeforeValidator(_number_or_auto)]
OutputName = Annotated[str, BeforeValidator(_output)]
ModuleName = Annotated[str, AfterValidator(_module)]
HeaderTexts = Annotated[dict[str, str], BeforeValidator(_headers)]
PositiveInt = Annotated[StrictInt, Field(ge=1, le=1_000_000_000)]
Seed = Annotated[StrictInt, Field(ge=0, le=2**32 - 1)]
NonNegative = Annotated[Number, Field(ge=0)]
LearningRate = Annotated[Number, Field(gt=0, le=1)]
Schedule = Literal["constant", "cosine", "linear", "one_cycle"]
Normalization = Literal["instance", "batch", "layer", "group", "none"]
Architecture = Annotated[str, AfterValidator(_architecture)]
Width = Annotated[StrictInt, Field(ge=1, le=4096)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=6)]
Kernel = Annotated[StrictInt, Field(ge=1, le=99)]
