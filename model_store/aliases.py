"""Movable names for agents, ``adacompress.alias/1``: where a name points, and the way back.

The history of an alias is a stack, oldest first: promoting pushes, rolling back pops. Whether the
agents exist is the store's business.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_store import schema
from model_store.errors import ManifestInvalid, UsageError
from model_store.files import write_json
from model_store.manifest import ID, NAME

__all__ = ["Aliases", "Step", "check_alias", "is_alias", "steps_from_json", "steps_to_json"]

SCHEMA = "adacompress.alias/1"

#: Steps of the way back that are kept; a device that retrains hourly has four days of them.
HISTORY_LIMIT = 100

_ALIAS = re.compile(f"{NAME.pattern}(?:/{NAME.pattern})*")
_ID = schema.matching(ID, "an id such as 'night-0123456789ab'")
_DOCUMENT = schema.record(
    id=_ID,
    history=schema.array(schema.record(id=_ID, at=schema.moment, reason=schema.text), at_least=1),
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One move of an alias.

    Attributes:
        id: the agent it was moved to.
        at: ISO 8601 in UTC.
        reason: one sentence, or "".
    """

    id: str
    at: str
    reason: str


def is_alias(name: str) -> bool:
    """Whether ``name`` can be an alias; what looks like an id cannot, it would hide that agent."""
    return _ALIAS.fullmatch(name) is not None and ID.fullmatch(name) is None


def check_alias(name: str) -> None:
    """Refuse a name that :func:`is_alias` does not accept."""
    if not is_alias(name):
        raise UsageError(
            f"The alias {name!r} cannot be used; allowed are words of letters, digits, '-' and '_' "
            "with '/' between them, such as 'scenery/night', that do not look like an agent's id."
        )


class Aliases:
    """A folder of aliases, one JSON file each.

    Args:
        folder: where ``NAME.json`` is or will be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> tuple[str, ...]:
        """Return every alias, sorted, readable or not."""
        found = (
            path.relative_to(self._folder).with_suffix("").as_posix()
            for path in self._folder.rglob("*.json")
        )
        return tuple(sorted(filter(is_alias, found)))

    def read(self, name: str) -> tuple[Step, ...]:
        """Return the history of ``name``, the last is where it points; empty without such an alias.

        Raises:
            ManifestInvalid: the file is damaged.
            SchemaTooNew: it is of a later major version.
        """
        try:
            document = schema.read_document(self._path(name), SCHEMA) if is_alias(name) else None
            return () if document is None else steps_from_json(document)
        except ManifestInvalid as error:
            raise ManifestInvalid(
                f"The alias {name!r} is damaged: {error} Promote an agent to it again."
            ) from error

    def read_or_forget(self, name: str) -> tuple[Step, ...]:
        """Return the history of ``name`` for a writer: a damaged one is forgotten, and logged."""
        try:
            return self.read(name)
        except ManifestInvalid as error:
            _logger.warning("alias_history_lost alias=%s reason=%r", name, str(error))
            return ()

    def write(self, name: str, steps: Sequence[Step]) -> None:
        """Replace the history of ``name`` by ``steps``, which are not empty."""
        write_json(self._path(name), steps_to_json(steps))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def steps_to_json(steps: Sequence[Step]) -> dict[str, Any]:
    """Return the document of an alias with this history, which is not empty."""
    history = [asdict(step) for step in steps[-HISTORY_LIMIT:]]
    return {"schema": SCHEMA, "id": steps[-1].id, "history": history}


def steps_from_json(document: dict[str, Any]) -> tuple[Step, ...]:
    """Return the history in a document of an alias; raises ManifestInvalid."""
    _DOCUMENT(document, "")
    steps = tuple(
        Step(id=step["id"], at=step["at"], reason=step["reason"]) for step in document["history"]
    )
    schema.one_of(steps[-1].id)(document["id"], "id")
    return steps
