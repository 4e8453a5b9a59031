"""Peak memory and time per image of a run on a folder of pictures, which is made for the purpose.

    python benchmarks/folder_of_pictures.py --pictures 10000 100000             # 32x32, a ResNet-20
    python benchmarks/folder_of_pictures.py --pictures 400 --size 224 --architecture MobileNetV2 --batch 16

Each number of pictures is one process of python -m advgan.train: one epoch of the classifier and one of the generator,
1,000 images (or a tenth) to validate and as many to test.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10


def make_folder(folder: Path, count: int, size: int) -> None:
    """Write so many PNG pictures in ten classes: noise over a ramp whose direction and colour are the class's."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:size, 0:size] / size
    for number in range(count):
        label = number % CLASSES
        angle = 2 * np.pi * label / CLASSES
        ramp = 127 + 80 * (np.cos(angle) * rows + np.sin(angle) * columns)
        picture = ramp[..., np.newaxis] + random.normal(0, 20, (size, size, 3))
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(place / f"{number:06d}.png")


def train(folder: Path, count: int, options: argparse.Namespace) -> dict[str, float]:
    """Train on the folder in a process of its own; what its summary says."""
    few = min(1000, count // 10)
    changes = {
        "data.dataset": folder,
        "data.validation_images": few,
        "data.test_images": few,
        "target.architecture": options.architecture,
        "target.epochs": 1,
        "target.batch_size": options.batch,
        "target.check_accuracy": "false",
        "training.epochs": 1,
        "training.batch_size": options.batch,
        "attack.epsilon": "8/255",
        "output.directory": folder.parent / "runs",
    }
    arguments = [f"--set={key}={value}" for key, value in changes.items()]
    command = [sys.executable, "-m", "advgan.train", "--quiet", "--config", "mnist.yaml", *arguments]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - start
    summary = json.loads(max((folder.parent / "runs" / "mnist").glob("*/summary.json")).read_text())
    trained = count - 2 * few
    return {
        "GiB": summary["peak_memory_bytes"] / 2**30,
        "target": summary["seconds"]["target_training"] / trained * 1e3,
        "generator": summary["seconds"]["generator_training"] / trained * 1e3,
        "seconds": whole,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--size", type=int, default=32, help="height and width (32)")
    parser.add_argument("--architecture", default="resnet20", help="of the classifier (resnet20)")
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    print(f"{options.size}x{options.size}x3, {options.architecture}, batch {options.batch}; one epoch each")
    print("| pictures | peak memory, GiB | classifier, ms an image | generator, ms an image | whole command, s |")
    print("|---|---|---|---|---|")
    for count in options.pictures:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "pictures")
            make_folder(folder, count, options.size)
            found = train(folder, count, options)
        row = f"{found['GiB']:.2f} | {found['target']:.2f} | {found['generator']:.2f} | {found['seconds']:.0f}"
        print(f"| {count:,} | {row} |", flush=True)


if __name__ == "__main__":
    main()
