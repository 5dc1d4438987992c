"""What was received: the lock of a data set, a line of JSON per file.

It lies in ``<data_root>/.fetched/<source>.jsonl``. For a file whose owner publishes no checksum it
is the only witness of what the first fetch brought, and a later fetch is held to it.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from qoq_lib.data.fetch.errors import FetchError


@dataclass(frozen=True)
class Received:
    """One file below the source's folder.

    ``sha256`` is ``None`` for a member of an archive, whose own line vouches for it, and for what
    ``kagglehub`` or ``huggingface_hub`` brought. ``checked_by`` is "published checksum", the name
    of one of these, or "nothing": then the SHA-256 is that of what happened to arrive.
    ``archive`` names the archive that the file was unpacked from, ``unpacked`` counts such files.
    """

    path: str
    bytes: int
    sha256: str | None
    origin: str
    checked_by: str
    archive: str | None = None
    unpacked: int | None = None


class Ledger:
    """The lines of ``file`` by path, and the files of ``folder`` that they speak of.

    ``added`` counts the files received since, an archive as one.
    """

    def __init__(self, file: Path, folder: Path) -> None:
        self.file = file
        self._folder = folder
        self._lines: dict[str, Received] = {}
        self._members: dict[str, dict[str, Received]] = defaultdict(dict)
        self.added = 0
        self._remember(_read(file))

    def get(self, path: str) -> Received | None:
        """The line of ``path``, whether or not the file is still there."""
        return self._lines.get(path)

    def holds(self, path: str) -> bool:
        """Whether the file is there in its recorded size; of an archive, all that was in it."""
        line = self._lines.get(path)
        if line is None:
            return False
        if line.unpacked is None:
            return self._is_there(line)
        members = self._members[path]
        return len(members) == line.unpacked and all(map(self._is_there, members.values()))

    def from_origin(self, origin: str) -> list[Received]:
        """The lines of ``origin`` in the order of their writing."""
        return [line for line in self._lines.values() if line.origin == origin]

    def unchecked(self) -> int:
        """How many files were received without a checksum of their owner to compare."""
        return sum(
            line.checked_by == "nothing" for line in self._lines.values() if line.archive is None
        )

    def begin(self) -> None:
        """Create the lock, empty where it is new: from now on the folder is ours to fill."""
        self._write("")

    def add(self, lines: Iterable[Received]) -> None:
        """Write lines; a later line about a path replaces an earlier one."""
        lines = list(lines)
        self._write("".join(json.dumps(asdict(line), ensure_ascii=False) + "\n" for line in lines))
        self._remember(lines)
        self.added += sum(line.archive is None for line in lines)

    def _write(self, text: str) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise FetchError(
                f"Cannot write {self.file} ({error.strerror}): free the disk or choose another "
                "data_root."
            ) from error

    def _remember(self, lines: Iterable[Received]) -> None:
        for line in lines:
            self._lines[line.path] = line
            if line.archive is not None:
                self._members[line.archive][line.path] = line

    def _is_there(self, line: Received) -> bool:
        path = self._folder / line.path
        return path.is_file() and path.stat().st_size == line.bytes


def _read(file: Path) -> list[Received]:
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):  # killed while writing: that file is looked at again
        file.write_text("".join(lines[:-1]), encoding="utf-8")
        lines.pop()
    try:
        return [Received(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise FetchError(
            f"The lock {file} is damaged: restore it, or delete it to check all files again."
        ) from error
