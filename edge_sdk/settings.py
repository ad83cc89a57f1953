"""Choices from outside the program: a TOML file, and variables ``ADACOMPRESS_*`` over it.

A choice is named as in its dataclass; one inside another is a table of the file, and has an
underscore in the environment::

    store = "agents"                # ADACOMPRESS_STORE=agents
    backend = "baidu://"            # ADACOMPRESS_BACKEND=baidu://
    [loop]
    p_0 = 0.1                       # ADACOMPRESS_LOOP_P_0=0.1

Keys to services are no choices and are not read here. Variables that name no choice are somebody
else's; names in the file that are none are refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from model_store.errors import UsageError

__all__ = ["FILE_VARIABLE", "PREFIX", "read_settings"]

PREFIX = "ADACOMPRESS_"
#: Names the file where no other is given.
FILE_VARIABLE = f"{PREFIX}CONFIG"

_TRUTHS = {"1": True, "true": True, "yes": True, "on": True}
_TRUTHS |= {"0": False, "false": False, "no": False, "off": False}
_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
}


def read_settings(
    kind: type, path: str | Path | None, environ: Mapping[str, str]
) -> dict[str, Any]:
    """Return the choices that a file and the environment make about a dataclass.

    Args:
        kind: the dataclass; fields whose default is another one are read likewise.
        path: the file; default is what ``ADACOMPRESS_CONFIG`` names, if it names one.
        environ: the environment.

    Raises:
        UsageError: the file cannot be read, or holds what is no choice; a value has a wrong type.
    """
    path = path or environ.get(FILE_VARIABLE) or None
    document = {} if path is None else _document(Path(path))
    return _choices(kind, document, environ, PREFIX, f"The file {str(path)!r}")


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"The configuration {str(path)!r} cannot be read: {reason}.") from error


def _choices(
    kind: type, document: Mapping[str, Any], environ: Mapping[str, str], prefix: str, where: str
) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    _refuse_unknown(document, list(fields), where)
    found: dict[str, Any] = {}
    for name, field in fields.items():
        variable = prefix + name.upper()
        default = field.default
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            table = document.get(name, {})
            if not isinstance(table, dict):
                raise UsageError(f"{where} has {name} = {table!r}; allowed is a table [{name}].")
            inside = f"{where}, table [{name}],"
            chosen = _choices(type(default), table, environ, f"{variable}_", inside)
            if chosen:
                found[name] = dataclasses.replace(default, **chosen)
        elif variable in environ:
            found[name] = _parsed(variable, environ[variable], str(field.type))
        elif name in document:
            found[name] = _checked(f"{where} has {name}", document[name], str(field.type))
    return found


def _refuse_unknown(document: Mapping[str, Any], names: list[str], where: str) -> None:
    for name in document:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}."
            raise UsageError(f"{where} has {name!r}, which is no choice; {hint}")


def _parsed(variable: str, text: str, kinds: str) -> Any:
    """Read a variable's text as the first of the field's types that it fits."""
    options = [option.strip() for option in kinds.split("|")]
    if "None" in options and text.lower() in ("", "none"):
        return None
    readers: dict[str, Callable[[str], Any]] = {
        "bool": lambda text: _TRUTHS[text.lower()],
        "int": int,
        "float": float,
        "str": str,
    }
    for option in options:
        if option in readers:
            try:
                return readers[option](text)
            except (KeyError, ValueError):
                continue
    raise UsageError(f"{variable} is {text!r}; allowed is {_said(options)}.")


def _checked(where: str, value: Any, kinds: str) -> Any:
    options = [option.strip() for option in kinds.split("|")]
    for option in options:
        fits = isinstance(value, _KINDS.get(option, ()))
        if fits and (option == "bool" or not isinstance(value, bool)):
            return value
    raise UsageError(f"{where} = {value!r}; allowed is {_said(options)}.")


def _said(options: list[str]) -> str:
    words = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text"}
    return " or ".join(words[option] for option in options if option in words)
