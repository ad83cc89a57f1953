"""What every dialect reads and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Request", "Response"]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; ``path`` is without the query, whose values ``query`` holds decoded."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response with a JSON body."""

    document: Mapping[str, Any]
    status: int = 200
