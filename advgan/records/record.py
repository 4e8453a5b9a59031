"""What every record has in common: frozen, typed, written whole, read with one line of error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from advgan.errors import AdvGANError
from advgan.files import read_json, write_json

if TYPE_CHECKING:
    from typing_extensions import Self

AnyPart = TypeVar("AnyPart", bound="Part")


class Part(BaseModel):
    """A part of a record. Keys that this version does not know are kept, and written again.

    Not so inside rates, scores and findings, which are dataclasses.
    """

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class Record(Part):
    """The content of a file.

    A field that is not given is not in the file either: a key that only black-box runs have is absent elsewhere.
    """

    newest: ClassVar[int] = 1
    """The version that is written; it grows when a key changes its meaning or goes."""
    version: int

    def as_json(self) -> dict[str, Any]:
        """The content as the file has it."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def write(self, path: Path) -> None:
        """Write the file whole or not at all."""
        write_json(path, self.as_json())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of this version or an older one.

        Raises:
            AdvGANError: it is damaged, or of a newer version.
        """
        content = read_json(path)
        version = content.get(cls.model_fields["version"].alias or "version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > cls.newest:
            raise AdvGANError(
                f"{path} has version {version}, this advgan reads up to {cls.newest}; install a newer advgan"
            )
        return checked(cls, path, content)


def checked(model: type[AnyPart], path: Path, content: object) -> AnyPart:
    """The content of a file as its type.

    Raises:
        AdvGANError: it does not have that form; the message names the file and the first key at fault.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        problem = f"it has no {key!r}" if first["type"] == "missing" else f"{key}: {first['msg']}".removeprefix(": ")
        raise AdvGANError(f"{path} is damaged ({problem})") from None
