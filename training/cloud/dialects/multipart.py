"""Read a ``multipart/form-data`` body, byte for byte: a file's line ends are its own."""

from __future__ import annotations

from email.message import Message
from email.parser import BytesHeaderParser

__all__ = ["multipart"]


def multipart(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the fields of a form by name, the first of several; empty for another content type.

    Args:
        content_type: the header; it holds the boundary.
        body: as it came.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        return {}
    fields: dict[str, bytes] = {}
    # The first line may be a boundary without a line end before it.
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"))
    for part in parts:
        head, mark, data = part.partition(b"\r\n\r\n")
        name = _name(head)
        if mark and name:
            fields.setdefault(name, data)
    return fields


def _name(head: bytes) -> str:
    """Return the field's name from the lines above its data, empty for the end of the form."""
    parsed = BytesHeaderParser().parsebytes(head.lstrip())
    name = parsed.get_param("name", header="content-disposition")
    return name if isinstance(name, str) else ""
