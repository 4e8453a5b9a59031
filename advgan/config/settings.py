"""The settings of a run: typed, frozen, checked.

Keys use the paper's symbols (alpha, beta, c, kappa, epsilon). Numbers may be written ``0.3``, ``1e-4`` or ``8/255``.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

from advgan.config.values import (
    ARCHITECTURES,
    WITH_A_CHOICE_OF_NORMALIZATION,
    Architecture,
    BlackBoxName,
    Channels,
    ClassifierName,
    ClassNames,
    DatasetName,
    Devices,
    HeaderTexts,
    ImageSize,
    Kernel,
    LearningRate,
    ModuleName,
    NonNegative,
    Normalization,
    Number,
    NumberOrAuto,
    OutputName,
    PathText,
    PixelRange,
    PositiveInt,
    Schedule,
    Seed,
    TargetClass,
    Widths,
)
from advgan.errors import ConfigurationError
from advgan.goals import Goal, Targeted, Untargeted


class Settings(BaseModel):
    """A group of settings: immutable, and no key passes unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    lists: ClassVar[str] = "should be a list of 1 to 6 integers, such as [8, 16, 32]"
    """What is said of a list that is none, is too short or too long."""


class DataSettings(Settings):
    """The images."""

    dataset: DatasetName = "mnist"
    """``mnist`` (ships with the package), ``fashion_mnist``, ``cifar10``, ``cifar100`` (downloaded by Keras), the path
    of an .npz file or of a folder of pictures, or ``tfds:NAME``."""
    image_size: ImageSize | None = None
    """Height and width to which images are resized, by bicubic interpolation; as they are by default."""
    class_names: ClassNames | None = None
    """A name for each class, for pictures, tables and reports; those of the data set by default."""
    memory: Annotated[Number, Field(gt=0, le=1e6)] = 4.0
    """GiB: arrays of images that take more stay on the disk, and training images are read batch by batch. Folders of
    pictures always are."""
    validation_images: PositiveInt | None = None
    """Images that are never trained on; they choose the best generator. By default 5,000, or a tenth of the training
    images where that is less. Of validation images that a data set has of its own the most that are used."""
    validation_split: Literal["last", "by_class"] = "last"
    """Which training images validate, where no others do: the last ones; or as large a share of each class, drawn
    at random, the training images then being in a random order. By default last for mnist, else by_class."""
    split_seed: Seed = 0
    """Of the draws by class. It is not the run's seed, so that runs of several seeds have equal validation images."""
    training_images: PositiveInt | None = None
    """Use only the first so many of the remaining training images; all by default."""
    test_images: PositiveInt | None = None
    """Use only the first so many test images; all by default. Where a data set has none, so many are drawn by class
    from all its images; by default a tenth, 10,000 at most."""

    @model_validator(mode="before")
    @classmethod
    def _own_data_are_split_by_class(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        shipped = values.get("dataset", "mnist") == "mnist"
        if values.get("validation_split") is None:
            values = {**values, "validation_split": "last" if shipped else "by_class"}
        if shipped and values.get("validation_images") is None:
            values = {**values, "validation_images": 5000}
        return values

    @model_validator(mode="after")
    def _seed_is_used(self) -> DataSettings:
        if self.split_seed and self.validation_split == "last" and self.dataset == "mnist":
            raise ConfigurationError(
                "data.split_seed", self.split_seed, "is for data.validation_split: by_class; leave it out"
            )
        return self


class OtherNetwork(Settings):
    """A classifier whose adversarial images another one learns: as a target of the same kind is trained by default."""

    architecture: Architecture = "model_a"
    seed: Seed = 0
    epochs: PositiveInt = 3


class AdversarialTrainingSettings(Settings):
    """Adversarial training of the target: it learns images as an attack on it changes them."""

    lists: ClassVar[str] = "should be a list of 1 to 9 networks, such as [{architecture: model_c, seed: 1}]"
    method: Literal["none", "fgsm", "ensemble", "pgd", "advgan"] = "none"
    """``fgsm``: one step of the gradient's sign (Goodfellow et al. 2015); ``ensemble``: the same, in each batch on the
    target or on one of ``others``, as drawn (Tramer et al. 2018); ``pgd``: several steps (Madry et al. 2018);
    ``advgan``: a generator that is trained with it."""
    epsilon: Annotated[Number, Field(gt=0, le=1)] | None = None
    """The largest change of a pixel, pixels being in [0, 1]."""
    steps: PositiveInt | None = None
    """Of ``pgd``; 7 by default."""
    step_size: Annotated[Number, Field(gt=0, le=1)] | None = None
    """By default 2.5 epsilon / steps for ``pgd``; for ``fgsm`` and ``ensemble`` epsilon, or with a random start 1.25
    epsilon (Wong et al. 2020)."""
    random_start: bool | None = None
    """Whether the attack starts at a random point within epsilon; by default that of ``pgd`` does."""
    clean_share: Annotated[Number, Field(ge=0, lt=1)] | None = None
    """The weight of the loss on the images as they are; by default 0.5 for ``fgsm`` without a random start and for
    ``ensemble``, else 0."""
    warmup_epochs: Annotated[StrictInt, Field(ge=0, le=1_000_000_000)] = 0
    """Over so many epochs epsilon rises from 0 in a straight line."""
    others: Annotated[tuple[OtherNetwork, ...], Field(min_length=1, max_length=9)] | None = None
    """Of ``ensemble``: trained first, on the same images, or found where they were trained before."""
    keep: Literal["best", "last"] = "best"
    """The classifier after the epoch that resists PGD best on validation images, or after the last epoch."""

    @model_validator(mode="after")
    def _options_are_of_the_method(self) -> AdversarialTrainingSettings:
        of_all, of_gradients = ("epsilon", "clean_share", "keep"), ("step_size", "random_start", "warmup_epochs")
        uses = {
            "none": (),
            "fgsm": (*of_all, *of_gradients),
            "ensemble": (*of_all, *of_gradients, "others"),
            "pgd": (*of_all, *of_gradients, "steps"),
            "advgan": of_all,
        }
        section = "target.adversarial_training"
        for key, field in AdversarialTrainingSettings.model_fields.items():
            value, users = getattr(self, key), [method for method, keys in uses.items() if key in keys]
            if key != "method" and value != field.default and self.method not in users:
                raise ConfigurationError(
                    f"{section}.{key}", value, f"is for {section}.method: {' or '.join(users)}; leave it out"
                )
        for key, example in (("epsilon", "0.3 or 8/255"), ("others", self.lists.partition("such as ")[2])):
            if key in uses[self.method] and getattr(self, key) is None:
                raise ConfigurationError(
                    f"{section}.{key}", None, f"is needed by {section}.method: {self.method}, such as {example}"
                )
        for other in self.others or ():
            if (self.others or ()).count(other) > 1:
                raise ConfigurationError(
                    f"{section}.others", f"{other.architecture}, seed {other.seed}", "is there twice; leave one out"
                )
        return self

    @property
    def resolved(self) -> list[Any]:
        """What its defaults come to."""
        return [self.starts_at_random, self.pgd_steps, self.length_of_step, self.weight_of_clean]

    @property
    def starts_at_random(self) -> bool:
        """Whether the attack does."""
        return self.method == "pgd" if self.random_start is None else self.random_start

    @property
    def pgd_steps(self) -> int:
        """The steps of ``pgd``."""
        return 7 if self.steps is None else self.steps

    @property
    def length_of_step(self) -> float:
        """The step size as a share of epsilon."""
        if self.step_size is not None:
            return self.step_size / (self.epsilon or 1.0)
        if self.method == "pgd":
            return 2.5 / self.pgd_steps
        return 1.25 if self.starts_at_random else 1.0

    @property
    def weight_of_clean(self) -> float:
        """The weight of the loss on clean images."""
        if self.clean_share is not None:
            return self.clean_share
        mixed = self.method == "ensemble" or (self.method == "fgsm" and not self.starts_at_random)
        return 0.5 if mixed else 0.0


class TargetSettings(Settings):
    """The classifier under attack: one of the user's own, or one that is trained when no checkpoint of it exists."""

    describes: ClassVar[tuple[str, ...]] = ("module", "trust", "output", "bounds", "mean", "std")
    """The keys that say how a classifier of one's own is to be read, a black box too."""
    file: ClassifierName | None = None
    """A classifier of one's own: a .keras or .h5 file, the folder of a SavedModel, or module:function. It stays as it
    is, and the settings of an architecture and its training are not used."""
    check_accuracy: bool = True
    """Stop where the classifier under attack, a black box too, is no better than chance on clean images."""
    module: ModuleName | None = None
    """A Python module that defines the layers of the file; it is imported first."""
    trust: bool = False
    """Run the Python code that a Lambda layer carries inside the file."""
    output: OutputName | None = None
    """The name of the output that are the scores, or its number, where there are several."""
    bounds: PixelRange = "auto"
    """The smallest and the largest pixel value that it takes. auto: found on the validation images; [0, 1] for a black
    box, where that would cost queries, and where a mean or std is given."""
    mean: Channels | None = None
    """Of each channel, in the units of ``bounds``: what is subtracted from the pixels."""
    std: Channels | None = None
    """Of each channel: what the pixels are then divided by."""
    architecture: Architecture = "lenet"
    """One of those that are built here, or of ``keras.applications`` by its name, such as MobileNetV2; untrained."""
    epochs: PositiveInt = 3
    batch_size: PositiveInt = 128
    learning_rate: LearningRate = 1e-3
    schedule: Schedule = "constant"
    augmentation: Literal["none", "flip_and_shift"] = "none"
    """flip_and_shift: training images are mirrored left to right or not, and shifted by up to an eighth."""
    weight_decay: NonNegative = 0.0
    """L2: this times the sum of the squared kernel weights is part of the loss; for the architectures built here."""
    batch_normalization: bool = False
    """Convolution without bias, then batch normalization, then the activation. A choice for lenet to madrylab only: the
    ResNets have it always, a network of ``keras.applications`` is as Keras builds it."""
    seed: Seed | None = None
    """The run's seed by default."""
    adversarial_training: AdversarialTrainingSettings = AdversarialTrainingSettings()

    @model_validator(mode="after")
    def _own_classifier_is_not_trained(self) -> TargetSettings:
        for key, field in TargetSettings.model_fields.items():
            value = getattr(self, key)
            own = ("file", "check_accuracy", *self.describes)
            if self.file is not None and key not in own and value != field.default:
                if key == "adversarial_training":
                    key, value = f"{key}.method", value.method
                raise ConfigurationError(
                    f"target.{key}", value, f"is for a target that is trained here; {self.file} is not: leave one out"
                )
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> TargetSettings:
        warmup_epochs = self.adversarial_training.warmup_epochs
        if warmup_epochs >= self.epochs:
            raise ConfigurationError(
                "target.adversarial_training.warmup_epochs",
                warmup_epochs,
                f"should be fewer than target.epochs = {self.epochs}: epsilon is reached after them",
            )
        return self

    @model_validator(mode="after")
    def _options_are_of_the_architecture(self) -> TargetSettings:
        if self.batch_normalization and self.architecture not in WITH_A_CHOICE_OF_NORMALIZATION:
            raise ConfigurationError(
                "target.batch_normalization",
                True,
                f"is a choice for {', '.join(WITH_A_CHOICE_OF_NORMALIZATION)}; {self.architecture} has its own "
                "normalization: leave it out",
            )
        if self.weight_decay and self.architecture not in ARCHITECTURES:
            raise ConfigurationError(
                "target.weight_decay",
                self.weight_decay,
                f"is for {', '.join(ARCHITECTURES)}; {self.architecture} is used as Keras builds it: leave it out",
            )
        return self

    @model_validator(mode="after")
    def _mean_and_std_are_of_pixels(self) -> TargetSettings:
        low, high = self.pixel_bounds
        if self.mean is not None and not all(low <= value <= high for value in self.mean):
            raise ConfigurationError(
                "target.mean",
                list(self.mean),
                f"is in the units of target.bounds, here [{low:g}, {high:g}]; for pixels to 255 add target.bounds: "
                "[0, 255]",
            )
        if self.std is not None and min(self.std) <= 0:
            raise ConfigurationError("target.std", list(self.std), "should be above 0 for each channel")
        lengths = {len(values) for values in (self.mean, self.std) if values is not None} - {1}
        if len(lengths) > 1:
            raise ConfigurationError("target.std", list(self.std or ()), "should have as many values as target.mean")
        return self

    @property
    def in_words(self) -> str:
        """The architecture, and what it is trained to resist."""
        defence = self.adversarial_training
        if defence.method == "none":
            return self.architecture
        return f"{self.architecture}, adversarially trained ({defence.method}, epsilon {defence.epsilon:.4g})"

    @property
    def pixel_bounds(self) -> tuple[float, float]:
        """The bounds; [0, 1] where they are still to be found."""
        return (0.0, 1.0) if self.bounds == "auto" else self.bounds

    @property
    def bounds_are_to_be_found(self) -> bool:
        """Whether the validation images decide what pixels the classifier takes."""
        return self.bounds == "auto" and self.mean is None and self.std is None


class AttackSettings(Settings):
    """The threat model."""

    goal: Literal["untargeted", "targeted"] = "untargeted"
    target_class: TargetClass | None = None
    """The class a targeted attack wants, from 0; or ``all`` or a list: one generator, conditioned on the wanted one."""
    epsilon: Annotated[Number, Field(gt=0, le=1)] = 0.3
    """The largest change of a pixel (L_inf), pixels being in [0, 1]."""
    output: Literal["tanh", "clipped"] = "tanh"
    """p = epsilon * tanh(...), or p = clip(tanh(...), -epsilon, epsilon)."""

    @model_validator(mode="after")
    def _class_and_goal_agree(self) -> AttackSettings:
        if self.goal == "targeted" and self.target_class is None:
            needed = "a targeted attack needs a class index, 0 or above, or a list of them, or all"
            raise ConfigurationError("attack.target_class", None, needed)
        if self.goal == "untargeted" and self.target_class is not None:
            raise ConfigurationError(
                "attack.target_class", self.target_class, "only for attack.goal: targeted; remove it or set the goal"
            )
        return self

    @property
    def wanted_classes(self) -> tuple[int, ...] | None:
        """The classes that one generator is for; None where there is one goal for every image.

        ``all`` becomes a list once the data are known.
        """
        return self.target_class if isinstance(self.target_class, tuple) else None

    @property
    def goal_class(self) -> int | None:
        """The class that is wanted of every image; None for an untargeted attack, and where there are several."""
        return self.target_class if isinstance(self.target_class, int) else None

    @property
    def objective(self) -> Goal:
        """The goal as an object that says what counts as success.

        Raises:
            ConfigurationError: there are several; ``towards`` chooses.
        """
        if self.target_class is None:
            return Untargeted()
        if not isinstance(self.target_class, int):
            raise ConfigurationError("attack.target_class", self.target_class, "has several classes; choose one")
        return Targeted(self.target_class)

    @property
    def goal_in_words(self) -> str:
        """Untargeted, or towards which class or classes."""
        if self.wanted_classes is None:
            return str(self.objective)
        return f"targeted (any of the classes {', '.join(map(str, self.wanted_classes))}: one generator)"

    @property
    def one_goal(self) -> AttackSettings:
        """The same with the first of several classes as its only goal; itself where there is one goal."""
        return self if self.wanted_classes is None else self.towards(self.wanted_classes[0])

    def towards(self, wanted: int | str) -> AttackSettings:
        """The same with one of the classes as its only goal.

        Raises:
            ConfigurationError: the generator is not for it.
        """
        if self.wanted_classes is None or wanted not in self.wanted_classes:
            classes = self.target_class if self.wanted_classes is None else list(self.wanted_classes)
            problem = f"is not a target class of this generator: attack.target_class is {classes}"
            raise ConfigurationError("--to", wanted, problem)
        return self.model_copy(update={"target_class": wanted})


class BlackBoxSettings(Settings):
    """A black box: a classifier of which nothing is used but its answers. Without one the attack is semi-white-box."""

    black_box: BlackBoxName | None = None
    """``target`` (the classifier of the section ``target``, trained here), a .keras or .h5 file, the folder of a
    SavedModel, module:function, or the URL of a served model (TensorFlow Serving's REST protocol, ending in
    :predict)."""
    answers: Literal["probabilities", "labels"] = "probabilities"
    """What it returns for an image: the probability of every class, or the class alone."""
    training_images: Annotated[StrictInt, Field(ge=0, le=1_000_000_000)] | None = None
    """The black box was trained on the first so many training images, the attacker has the others; half by default."""
    query_budget: PositiveInt | None = None
    """The most queries while an attack is trained, validation included; None for no limit."""
    validation_queries: Annotated[StrictInt, Field(ge=0, le=1_000_000_000)] | None = None
    """How many of these are set aside to choose the best generator; 0 keeps the last generator. By default
    5,000, or a tenth of the budget where that is less."""
    images_per_request: Annotated[StrictInt, Field(ge=1, le=100_000)] = 500
    timeout: Annotated[Number, Field(gt=0, le=3600)] = 10.0
    """Seconds that a served model may take for a request."""
    retries: Annotated[StrictInt, Field(ge=0, le=100)] = 5
    """How often a request to a served model is sent again, after 0.5, 1, 2, ... seconds (30 at most)."""
    headers: HeaderTexts = Field(default_factory=dict)
    """HTTP headers of a request, such as ``Authorization: Bearer $API_KEY``. What follows a $ names an environment
    variable; its value is read when it is sent, and is written to no file."""

    @model_validator(mode="after")
    def _headers_are_sent_to_a_server(self) -> BlackBoxSettings:
        if self.headers and "://" not in (self.black_box or ""):
            raise ConfigurationError(
                "oracle.headers", ", ".join(self.headers), "is for a served model; give its URL as oracle.black_box"
            )
        return self

    @property
    def validation_allowance(self) -> int:
        """The most queries used to choose the best generator."""
        if self.validation_queries is not None:
            return self.validation_queries
        return 5000 if self.query_budget is None else min(5000, self.query_budget // 10)


class DistillationSettings(Settings):
    """The distilled network f, which is trained to answer as the black box b does, and attacked in its place."""

    architecture: Architecture | None = None
    """lenet by default, or model_c where the black box is a lenet that is trained here; none with batch
    normalization."""
    rounds: Annotated[StrictInt, Field(ge=1, le=1000)] = 4
    """1 is static distillation: f learns b's answers on clean images once. Above 1 it is dynamic: before each further
    round f learns b's answers on the adversarial images of the generator so far too."""
    first_epochs: PositiveInt = 3
    """Epochs of f in the first round, each of as many steps as the attacker has batches."""
    epochs: PositiveInt = 1
    """Epochs of f in each further round."""
    batch_size: PositiveInt = 128
    """Clean images in a batch; in further rounds as many adversarial ones with them."""
    learning_rate: LearningRate = 1e-3
    clean_answers: Literal["black_box", "labels"] = "black_box"
    """What f learns of clean images: the black box's answers, or the attacker's own labels, which cost no query."""
    choose: Literal["random", "uncertain"] = "random"
    """Which adversarial images to query when the budget is not enough for all: any, or those f is least sure of."""
    pgd_epsilon: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Above 0: f learns clean images as seven steps of PGD on f change them within this epsilon, by the answers on the
    clean ones, which costs no query: for a black box that was trained so."""
    replay: bool = True
    """f goes on learning the adversarial images of earlier rounds (the paper: those of the latest generator only)."""


class LossSettings(Settings):
    """L = L_adv + alpha * L_GAN + beta * L_hinge."""

    adversarial: Literal["f6", "f2"] = "f6"
    """Carlini-Wagner margin on logits (f6) or on probabilities (f2)."""
    kappa: NonNegative = 5.0
    """Confidence: L_adv stops decreasing at a margin of -kappa."""
    alpha: NonNegative = 0.2
    beta: NonNegative = 0.1
    c: NonNegative = 6.0
    """The L2 norm of a perturbation below which the hinge costs nothing."""
    temperature: Annotated[Number, Field(ge=0, le=1000)] = 0.0
    """Above 0, L_adv's maximum over the other classes starts as a soft one of this temperature; it falls to 0."""
    cooling: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """The share of the run after which the temperature is 0."""
    scale: NumberOrAuto = "auto"
    """What the logits are divided by, so that kappa, alpha and beta mean the same for every target. auto: 1 for the
    architectures here; for a classifier of one's own measured on clean validation images."""

    @property
    def divisor(self) -> float:
        """What the logits are divided by; 1 where it was not measured."""
        return 1.0 if self.scale == "auto" else self.scale

    @model_validator(mode="after")
    def _probability_margins_are_below_one(self) -> LossSettings:
        if self.adversarial == "f2" and self.kappa >= 1:
            raise ConfigurationError(
                "loss.kappa", self.kappa, "a margin of probabilities (f2) never exceeds 1; use 0 <= kappa < 1, or f6"
            )
        return self


class _NetworkSettings(Settings):
    section: ClassVar[str]
    widths: Widths = (8, 16, 32)
    """Filters of the first convolution and of each that follows with stride 2."""
    normalization: Normalization = "instance"
    groups: PositiveInt = 4
    """For normalization: group."""
    learning_rate: LearningRate = 1e-3
    schedule: Schedule = "constant"
    beta_1: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    """Adam's first decay rate."""

    @model_validator(mode="after")
    def _groups_divide_widths(self) -> _NetworkSettings:
        if self.normalization == "group" and any(width % self.groups for width in self.widths):
            raise ConfigurationError(
                f"{self.section}.groups",
                self.groups,
                f"should divide each of {self.section}.widths = {list(self.widths)}",
            )
        return self


class GeneratorSettings(_NetworkSettings):
    """G: c3s1-w0, d w1, d w2, ..., r x residual_blocks, ..., u w1, u w0, c3s1-C (the 3 is the kernel)."""

    section = "generator"
    kernel: Kernel = 3
    """Height and width of every kernel, in pixels."""
    residual_blocks: Annotated[StrictInt, Field(ge=0, le=1000)] = 4
    upsampling: Literal["transposed", "resize"] = "transposed"
    """Transposed convolution, or nearest-neighbour resize and convolution (no checkerboard)."""
    skips: bool = False
    """After each upsampling, the map of the same size before the downsampling is concatenated to it, followed by a
    convolution (a U-Net, Ronneberger et al. 2015)."""
    learning_rate: LearningRate = 3e-3
    schedule: Schedule = "cosine"


class DiscriminatorSettings(_NetworkSettings):
    """D: C w0, C w1, ..., one dense output; least squares."""

    section = "discriminator"
    kernel: Kernel = 4
    """Height and width of every kernel, in pixels; the stride is 2."""
    padding: Literal["same", "valid"] = "same"
    """Of every convolution; without padding (valid) a 28x28 image shrinks to 1x1, where instance norm is constant."""
    steps: Annotated[StrictInt, Field(ge=1, le=31)] = 1
    """Updates of D for each update of G, on the same batch."""
    noise: NonNegative = 0.0
    """Standard deviation of the Gaussian noise added to what D sees, in pixel units; weakens D."""


class TrainingSettings(Settings):
    """The loop."""

    epochs: PositiveInt = 3
    """Of the generator; in a black-box attack of each round."""
    batch_size: PositiveInt = 128
    stop_at_success: Annotated[Number, Field(gt=0, le=1)] | None = None
    """Stop once the success rate of a validation reaches this, for example 0.99."""
    devices: Devices = "auto"
    """Those that share each batch: ``all`` GPUs, a number of GPUs (of parts of the processor where there is none), or a
    list such as [GPU:0, GPU:1]; ``auto`` is one device. Where ``TF_CONFIG`` names several machines: all GPUs of
    each."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """For the convolutions of G and D; everything else stays float32."""
    tf32: bool = False
    """Whether a GPU may round the factors of float32 products to 10 bits."""
    xla: bool | Literal["auto"] = "auto"
    """Compile the generator's step; auto means on a GPU, where it compiles and ``deterministic`` is not on."""
    deterministic: bool | Literal["auto"] = "auto"
    """Bit-identical repeats and resumes; auto means yes on a CPU without XLA."""

    @model_validator(mode="after")
    def _xla_is_not_deterministic(self) -> TrainingSettings:
        if self.xla is True and self.deterministic is True:
            raise ConfigurationError(
                "training.xla", "on", "cannot go together with training.deterministic: true; turn one of them off"
            )
        return self


class OutputSettings(Settings):
    """What a run leaves behind, in ``<directory>/<name>/<number>``."""

    directory: PathText = "checkpoints"
    checkpoint_every: PositiveInt = 100
    """Steps between resumable checkpoints; one more is written at the end of each epoch."""
    keep_checkpoints: PositiveInt = 2
    log_every: PositiveInt = 10
    """Steps averaged into one row of metrics.jsonl."""


class Config(Settings):
    """Everything that determines a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "mnist"
    """The folder of the runs."""
    seed: Seed = 0
    data: DataSettings = DataSettings()
    target: TargetSettings = TargetSettings()
    oracle: BlackBoxSettings = BlackBoxSettings()
    distillation: DistillationSettings = DistillationSettings()
    attack: AttackSettings = AttackSettings()
    loss: LossSettings = LossSettings()
    generator: GeneratorSettings = GeneratorSettings()
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    training: TrainingSettings = TrainingSettings()
    output: OutputSettings = OutputSettings()

    @model_validator(mode="after")
    def _temperature_and_goal_agree(self) -> Config:
        if self.loss.temperature and self.attack.goal == "targeted":
            # A soft maximum may fall below -kappa while another class still wins.
            raise ConfigurationError(
                "loss.temperature", self.loss.temperature, "only for attack.goal: untargeted; use 0"
            )
        return self

    @model_validator(mode="after")
    def _black_box_settings_have_a_black_box(self) -> Config:
        if not self.is_black_box:
            for section, settings, defaults in (
                ("oracle", self.oracle, BlackBoxSettings()),
                ("distillation", self.distillation, DistillationSettings()),
            ):
                for key in type(settings).model_fields:
                    if (value := getattr(settings, key)) != getattr(defaults, key):
                        raise ConfigurationError(
                            f"{section}.{key}",
                            value,
                            "is for black-box attacks; set oracle.black_box, such as to target",
                        )
        elif self.target.file is not None:
            raise ConfigurationError(
                "target.file", self.target.file, "is for semi-white-box attacks; give the file as oracle.black_box"
            )
        return self

    @model_validator(mode="after")
    def _one_goal_for_a_black_box(self) -> Config:
        several = self.attack.target_class is not None and not isinstance(self.attack.target_class, int)
        if several and self.is_black_box:
            raise ConfigurationError(
                "attack.target_class", self.attack.target_class, "a black-box attack is towards one class; give one"
            )
        return self

    @model_validator(mode="after")
    def _adversarial_training_is_of_a_target_of_ours(self) -> Config:
        method = self.target.adversarial_training.method
        if method != "none" and self.black_box not in (None, "target"):
            raise ConfigurationError(
                "target.adversarial_training.method",
                method,
                f"is for a classifier that is trained here; {self.black_box} is not: leave it out",
            )
        return self

    @model_validator(mode="after")
    def _ensemble_is_of_others(self) -> Config:
        target = self.target
        for other in target.adversarial_training.others or ():
            if (other.architecture, other.seed) == (target.architecture, self.target_seed):
                raise ConfigurationError(
                    "target.adversarial_training.others",
                    f"{other.architecture}, seed {other.seed}",
                    "is the target itself; give another architecture or another seed",
                )
        return self

    @model_validator(mode="after")
    def _what_is_described_is_of_ones_own(self) -> Config:
        if self.target.file is None and self.black_box in (None, "target"):
            for key in TargetSettings.describes:
                if (value := getattr(self.target, key)) != TargetSettings.model_fields[key].default:
                    raise ConfigurationError(
                        f"target.{key}",
                        value,
                        "is for a classifier of your own; set target.file, or oracle.black_box for a black box",
                    )
        return self

    @model_validator(mode="after")
    def _budget_leaves_training_queries(self) -> Config:
        oracle = self.oracle
        if oracle.query_budget is not None and oracle.validation_allowance >= oracle.query_budget:
            raise ConfigurationError(
                "oracle.validation_queries",
                oracle.validation_queries,
                f"leaves nothing of oracle.query_budget = {oracle.query_budget} to train with; lower it (0 works)",
            )
        return self

    @model_validator(mode="after")
    def _something_is_asked(self) -> Config:
        if self.distillation.clean_answers == "labels" and self.distillation.rounds == 1:
            raise ConfigurationError(
                "distillation.clean_answers",
                "labels",
                "with one round no training query is made; use two rounds or more",
            )
        return self

    @model_validator(mode="after")
    def _name_is_free(self) -> Config:
        if self.name == "targets":
            raise ConfigurationError("name", self.name, "this folder holds the trained targets; choose another name")
        return self

    @property
    def black_box(self) -> str | None:
        """The black box that is attacked; None where the attack is semi-white-box."""
        return self.oracle.black_box

    @property
    def is_black_box(self) -> bool:
        """Whether nothing but answers of the classifier may be used, and G learns from a distilled network instead."""
        return self.black_box is not None

    @property
    def images_of_black_box(self) -> int:
        """The first images of the data that a black box of the user's own was trained on, as far as they are stated."""
        return (self.oracle.training_images or 0) if self.black_box not in (None, "target") else 0

    @property
    def generator_epochs(self) -> int:
        """Epochs of the generator in the whole run."""
        return self.training.epochs * (self.distillation.rounds if self.is_black_box else 1)

    @property
    def distilled_architecture(self) -> Architecture:
        """Of the distilled network: another than the black box's, unless the configuration says so."""
        if self.distillation.architecture is not None:
            return self.distillation.architecture
        return "model_c" if self.black_box == "target" and self.target.architecture == "lenet" else "lenet"

    @property
    def distilled_settings(self) -> TargetSettings:
        """What the distilled network is built by."""
        return TargetSettings(architecture=self.distilled_architecture)

    @property
    def target_seed(self) -> int:
        """The seed the target is trained with."""
        return self.seed if self.target.seed is None else self.target.seed
