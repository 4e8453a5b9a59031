"""What a run's folder holds for whoever comes after it, its configuration and its networks; and the run that ships."""

from __future__ import annotations

from pathlib import Path

from advgan.config.loading import dump_config, load_config, read_yaml, renamed
from advgan.config.settings import Config
from advgan.config.values import is_path_of_classifier, is_path_of_data
from advgan.errors import AdvGANError
from advgan.files import write_text

REFERENCE = Path("checkpoints", "reference")
TRAIN = "python -m advgan.train --config mnist.yaml"
RUN_OF_THIS_KERAS = f"use a run, or a .keras file, of the Keras that is installed here, such as made by: {TRAIN}"
"""What to do where a network of a run cannot be loaded."""
_PLACES = [folder / REFERENCE for folder in Path(__file__).resolve().parents[:2]]  # in a wheel; in a checkout


class RunFolder:
    """The names of all that a run's folder holds.

    Args:
        path: the folder; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.processes = path / "processes.json"
        self.target = path / "target.keras"
        """The classifier under attack, where it was trained here or is a ``.keras`` file; ``classifiers/run_target.py``
        knows the other kinds."""
        self.target_record = path / "target.json"
        """Its digest, and how long its training took; where this is, it is whole."""
        self.pixels = path / "pixels.json"
        """How the pixels were found that the target takes, where they were not stated."""
        self.pictures = path / "pictures.sha256"
        """Of a folder of pictures: what the run is trained and scored on; ``sha256sum --check`` reads it."""
        self.journal = path / "answers.bin"
        """Every answer of a black box, as it comes."""
        self.answers = path / "answers.json"
        """What the answers of a black box are, as the first ones showed."""
        self.rounds = path / "rounds"
        """The adversarial images of each round of a black-box run, with their answers."""
        self.checkpoints = path / "state"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.samples = path / "samples"
        """A picture for each epoch."""
        self.generator = path / "generator.keras"
        """The best one on the validation images."""
        self.last_generator = path / "generator-last.keras"
        self.discriminator = path / "discriminator.keras"
        self.distilled = path / "distilled.keras"
        """The network that answers in a black box's place."""
        self.result_picture = path / "result.png"
        self.matrix = path / "success_matrix.png"
        """Of a generator conditioned on the wanted class."""
        self.curves = path / "curves.png"
        self.digests = path / "files.sha256"
        """Of every other file, as ``sha256sum --check`` reads it."""
        self.summary = path / "summary.json"
        """Written last: where it is, the run is finished."""
        self.evaluation = path / "evaluation"
        self.retrained = path / "retrained"
        """Runs at other epsilons."""

    def require(self, *files: Path) -> None:
        """Raise where the run is not finished.

        Args:
            files: of the folder, that must be there.

        Raises:
            AdvGANError: one is missing; the message names it and what continues the run.
        """
        for file in files:
            if not file.exists():
                raise AdvGANError(
                    f"{self.path} is not finished: it has no {file.name}; continue it with: python -m advgan.train "
                    f"--resume {self.path}"
                )


def reference_run() -> Path:
    """The folder of the run that ships with the package: ``mnist.yaml``, trained and evaluated.

    Raises:
        AdvGANError: it is not there.
    """
    for run in _PLACES:
        if RunFolder(run).config.is_file():
            return run
    raise AdvGANError(f"{_PLACES[-1]} is not there; train a run with: {TRAIN}")


def is_reference_run(run: Path) -> bool:
    """Whether this is the folder of the run that ships."""
    return run.resolve() in _PLACES


def load_run_config(run_directory: Path) -> Config:
    """The configuration that a run was started with.

    Raises:
        AdvGANError: the folder holds no run.
    """
    if not RunFolder(run_directory).config.is_file():
        raise AdvGANError(
            f"{run_directory} is not a run directory: it has no config.yaml; give one such as checkpoints/mnist/0"
        )
    content = read_yaml("--run", RunFolder(run_directory).config)
    data, target, loss = (content.get(section) or {} for section in ("data", "target", "loss"))
    was = []  # what earlier releases knew no choice of, and did not write
    if isinstance(data, dict) and "validation_split" not in data:
        was.append("data.validation_split=last")
    if isinstance(target, dict) and target.get("file") is not None and "bounds" not in target:
        was.append("target.bounds=[0, 1]")
        was += ["loss.scale=1"] if "scale" not in loss else []
    was += [f"{key}={new}" for key, _, new in renamed(content)]
    return load_config(RunFolder(run_directory).config, was)


def run_of(config: Config) -> Path:
    """The newest finished run of a configuration; where it has none, the run that ships, if it was made by the same.

    Raises:
        AdvGANError: there is none.
    """
    try:
        return latest_finished_run(Path(config.output.directory) / config.name)
    except AdvGANError:
        shipped = reference_run()
        if load_run_config(shipped).model_copy(update={"name": config.name, "output": config.output}) != config:
            raise
        return shipped.relative_to(Path.cwd()) if shipped.is_relative_to(Path.cwd()) else shipped


def latest_finished_run(runs: Path) -> Path:
    """The newest finished run below ``runs``, such as ``checkpoints/mnist``.

    Raises:
        AdvGANError: there is none.
    """
    found = [run for run in runs.glob("*") if RunFolder(run).summary.exists() and RunFolder(run).config.is_file()]
    if not found:
        raise AdvGANError(f"there is no finished run in {runs}; train one with: python -m advgan.train --config FILE")
    return max(found, key=lambda run: RunFolder(run).summary.stat().st_mtime)


def new_run_directory(config: Config) -> Path:
    """Make the next numbered folder ``<directory>/<name>/<number>`` and put the resolved configuration into it."""
    runs = Path(config.output.directory) / config.name
    runs.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name) for path in runs.iterdir() if path.name.isdigit()), default=-1)
    while True:  # another process may take the same number at the same time
        try:
            (runs / str(number)).mkdir()
            break
        except FileExistsError:
            number += 1
    write_text(RunFolder(runs / str(number)).config, dump_config(located(config)))
    return runs / str(number)


def located(config: Config) -> Config:
    """The same with absolute paths: a run may be resumed from any folder."""
    data, target, oracle, output = config.data, config.target, config.oracle, config.output
    if is_path_of_data(data.dataset):
        data = data.model_copy(update={"dataset": str(Path(data.dataset).absolute())})
    if target.file is not None and is_path_of_classifier(target.file):
        target = target.model_copy(update={"file": str(Path(target.file).absolute())})
    box = oracle.black_box
    if box not in (None, "target") and is_path_of_classifier(str(box)):
        oracle = oracle.model_copy(update={"black_box": str(Path(str(box)).absolute())})
    output = output.model_copy(update={"directory": str(Path(output.directory).absolute())})
    return config.model_copy(update={"data": data, "target": target, "oracle": oracle, "output": output})


def latest_run(runs: Path) -> Path:
    """The newest run below ``runs``: ``checkpoints/mnist``, or ``checkpoints`` for the newest of any name.

    Raises:
        AdvGANError: there is none.
    """
    found = [path.parent for depth in ("*", "*/*") for path in runs.glob(f"{depth}/config.yaml")]
    found = [run for run in found if not is_reference_run(run)]
    if not found:
        raise AdvGANError(f"there is no run to resume in {runs}; start one with --config and without --resume")
    return max(found, key=lambda run: RunFolder(run).config.stat().st_mtime)
