"""The shape of JSON documents: small checks that name the field that is wrong.

Not JSON Schema: a check is a function ``check(value, where)`` that returns or raises
:class:`ManifestInvalid`. Objects may hold more fields than their check knows; those are ignored,
so that an older reader can read what a newer minor version wrote.

    >>> record(beta=number)({"beta": "x"}, "reward")
    Traceback (most recent call last):
        ...
    model_store.errors.ManifestInvalid: The field reward.beta is 'x'; allowed is a finite number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from model_store.errors import EnvironmentMissing, ManifestInvalid, SchemaTooNew

__all__ = [
    "MAX_BYTES",
    "Check",
    "array",
    "check_schema",
    "count",
    "each",
    "integer",
    "matching",
    "moment",
    "number",
    "one_of",
    "optional",
    "parse_document",
    "positive",
    "read_document",
    "record",
    "sha256",
    "text",
    "utc",
]

Check = Callable[[Any, str], None]

#: A manifest has some ten kilobytes; what is larger is refused before it is parsed.
MAX_BYTES = 8 << 20


def _plain(allowed: str, accepts: Callable[[Any], bool]) -> Check:
    def check(value: Any, where: str) -> None:
        if not accepts(value):
            raise ManifestInvalid(f"The field {where} is {_shown(value)}; allowed is {allowed}.")

    return check


def _shown(value: Any) -> str:
    """Return a value that somebody else wrote, short enough for a sentence."""
    try:
        shown = repr(value)
    except RecursionError:
        return "nested too deep"
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_moment(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).utcoffset() == timedelta(0)
    except (TypeError, ValueError):
        return False


text = _plain("a text", lambda value: isinstance(value, str))
integer = _plain("a whole number", _is_integer)
count = _plain("a whole number, 0 or more", lambda value: _is_integer(value) and value >= 0)
positive = _plain("a whole number, 1 or more", lambda value: _is_integer(value) and value >= 1)
number = _plain("a finite number", _is_number)
moment = _plain("a time in UTC such as '2031-02-03T04:05:06Z'", _is_moment)


def one_of(*names: str) -> Check:
    """Accept one of these texts."""
    return _plain(" or ".join(map(repr, names)), lambda value: value in names)


def matching(pattern: re.Pattern[str], allowed: str) -> Check:
    """Accept a text that ``pattern`` matches as a whole; ``allowed`` says it in words."""
    return _plain(
        allowed, lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None
    )


sha256 = matching(re.compile(r"[0-9a-f]{64}"), "a SHA-256 as 64 lower-case hex digits")


def optional(check: Check) -> Check:
    """Accept null, or what ``check`` accepts."""

    def nullable(value: Any, where: str) -> None:
        if value is not None:
            check(value, where)

    return nullable


def array(check: Check, *, at_least: int = 0) -> Check:
    """Accept a list of at least so many items that ``check`` accepts."""
    a_list = _plain("a list", lambda value: isinstance(value, list | tuple))
    long_enough = _plain(
        f"a list of at least {at_least} item(s)", lambda value: len(value) >= at_least
    )

    def items(value: Any, where: str) -> None:
        a_list(value, where)
        long_enough(value, where)
        for index, item in enumerate(value):
            check(item, f"{where}[{index}]")

    return items


_an_object = _plain("an object", lambda value: isinstance(value, dict))


def record(**fields: Check) -> Check:
    """Accept an object that has at least these fields."""

    def members(value: Any, where: str) -> None:
        _an_object(value, where)
        for name, check in fields.items():
            inner = f"{where}.{name}" if where else name
            if name not in value:
                raise ManifestInvalid(f"The field {inner} is missing; it is required.")
            check(value[name], inner)

    return members


def each(check: Check) -> Check:
    """Accept an object with any field names, whose every value ``check`` accepts."""

    def values(value: Any, where: str) -> None:
        _an_object(value, where)
        for name, item in value.items():
            check(item, f"{where}.{name}")

    return values


def check_schema(document: Any, schema: str) -> None:
    """Check that ``document`` is an object of the schema ``NAME/MAJOR`` that this code reads.

    Raises:
        SchemaTooNew: it is of a later major version.
        ManifestInvalid: it is no object, or of another schema.
    """
    name, _, major = schema.partition("/")
    if not isinstance(document, dict):
        raise ManifestInvalid(f"The document is no JSON object; allowed is one of schema {schema}.")
    seen = document.get("schema")
    # A minor version ("/1.2") only adds fields, and unknown fields are ignored.
    pattern = re.escape(name) + r"/(\d{1,9})(\.\d{1,9})*"
    found = re.fullmatch(pattern, seen) if isinstance(seen, str) else None
    if found is None or int(found[1]) < int(major):
        raise ManifestInvalid(f"The field schema is {_shown(seen)}; allowed is {schema!r}.")
    if int(found[1]) > int(major):
        raise SchemaTooNew(
            f"The document has schema {_shown(seen)}, but this version reads {schema!r} at most; "
            "update adacompress to use it."
        )


def read_document(path: Path, schema: str) -> dict[str, Any] | None:
    """Read a JSON object of this schema; None if there is no such file.

    Raises:
        ManifestInvalid: it is not JSON, too large, or of another schema.
        SchemaTooNew: it is of a later major version.
        EnvironmentMissing: it is there, but cannot be read now.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise EnvironmentMissing(
            f"The file {path} cannot be read ({error.strerror}); see who may read it."
        ) from error
    return parse_document(data, schema, f"The file {path}")


def parse_document(data: bytes, schema: str, what: str) -> dict[str, Any]:
    """Parse a JSON object of this schema; ``what`` begins the sentence that refuses it.

    Raises:
        ManifestInvalid: it is not JSON, too large, or of another schema.
        SchemaTooNew: it is of a later major version.
    """
    if len(data) > MAX_BYTES:
        raise ManifestInvalid(f"{what} has more than {MAX_BYTES} bytes, which is the limit.")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"{what} is not JSON ({error}).") from error
    check_schema(document, schema)
    return dict(document)


def utc(seconds: float) -> str:
    """Return a Unix time as the one form that documents carry, ``2031-02-03T04:05:06Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
