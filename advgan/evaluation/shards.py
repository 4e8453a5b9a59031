"""An evaluation in parts, each on a machine of its own: what a part is, and which parts make a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from advgan.data.batches import images_at_once
from advgan.errors import AdvGANError, ConfigurationError
from advgan.evaluation.subject import EvaluationRequest, Subject
from advgan.files import digest_of, read_json, write_json

RECORD = "shard.json"
VERSIONS = ("tensorflow", "keras", "numpy", "deterministic")
"""What of the environment has to be the same; machines may differ."""


class Shard(NamedTuple):
    """A part of the images: the second of eight, for example."""

    number: int
    """From 1."""
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def folder(self, request: EvaluationRequest) -> Path:
        """Where what it comes to is kept."""
        return request.folder / "shards" / f"{self.number}-of-{self.of}"


def part_of(subject: Subject, shard: Shard) -> Subject:
    """The subject with the images of one part; whole batches, so that each image has the same neighbours in its batch.

    Raises:
        ConfigurationError: there are fewer batches than parts.
    """
    size, total = images_at_once(subject.dataset.image_shape), len(subject.test)
    batches = -(-total // size)
    if shard.of > batches:
        problem = f"{total:,} images are {batches} batches of {size} (allowed: that many parts at most)"
        raise ConfigurationError("--shard", str(shard), problem)
    ends = [min(total, size * (batches * number // shard.of)) for number in (shard.number - 1, shard.number)]
    here = slice(*ends)
    return replace(subject, test=subject.test.at(here), images=subject.images[here], first=ends[0], total=total)


def shared_by_parts(decisive: Mapping[str, Any], request: EvaluationRequest, subject: Subject) -> dict[str, Any]:
    """What has to be the same for all parts of an evaluation: all that decides it but the machine, and its options."""
    return {
        **{key: value for key, value in decisive.items() if key not in ("environment", "commit")},
        "versions": {key: decisive["environment"].get(key) for key in VERSIONS},
        "restarts": request.restarts,
        "optimized": request.optimized_images,
        "transfer": [other.digest for other in subject.others],
    }


def write_record(folder: Path, shard: Shard, part: Subject, shared: Mapping[str, Any]) -> None:
    """Say that a part is complete."""
    images = [part.first, part.first + len(part.test)]
    content = {"shard": shard.number, "of": shard.of, "images": images, "evaluation": digest_of(shared)}
    write_json(folder / RECORD, content)


def complete_set(folders: Sequence[Path], shared: Mapping[str, Any], total: int) -> list[tuple[Shard, Path]]:
    """The parts in their order.

    Args:
        folders: of the parts.
        shared: as ``shared_by_parts`` gives it.
        total: images of the whole evaluation.

    Raises:
        ConfigurationError: one is missing, is there twice, or belongs to another evaluation.
    """
    found: dict[Shard, Path] = {}
    images: dict[Shard, list[int]] = {}
    for folder in folders:
        if not (folder / RECORD).is_file():
            problem = f"holds no {RECORD}: it is no finished part; --shard makes one"
            raise ConfigurationError("--merge", str(folder), problem)
        try:
            record = read_json(folder / RECORD, "shard", "of", "images", "evaluation")
            shard = Shard(int(record["shard"]), int(record["of"]))
            images[shard] = [int(end) for end in record["images"]]
        except (AdvGANError, TypeError, ValueError) as error:
            raise ConfigurationError("--merge", str(folder), f"cannot be read ({error})") from None
        if record["evaluation"] != digest_of(shared):
            problem = "is of another evaluation: another run, other options, code or data"
            raise ConfigurationError("--merge", str(folder), problem)
        of = next(iter(found), shard).of
        if shard.of != of:
            raise ConfigurationError("--merge", str(folder), f"is part {shard}, the others are of {of}")
        if shard in found:
            raise ConfigurationError("--merge", str(folder), f"is part {shard}, and so is {found[shard]}")
        found[shard] = folder
    of = next(iter(found)).of
    if missing := [number for number in range(1, of + 1) if Shard(number, of) not in found]:
        problem = f"part {missing[0]}/{of} is missing"
        raise ConfigurationError("--merge", " ".join(map(str, folders)), problem)
    end = 0
    for shard, folder in sorted(found.items()):
        if images[shard][0] != end:
            problem = f"begins at image {images[shard][0]}, the part before ends at {end}; run both again with --shard"
            raise ConfigurationError("--merge", str(folder), problem)
        end = images[shard][1]
    if end != total:
        raise ConfigurationError("--merge", str(folders[-1]), f"the parts end at image {end} of {total}")
    return sorted(found.items())
