"""The model card: an agent's manifest for people, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_sdk.ladder import ladder_from_dicts
from model_store import Manifest

__all__ = ["card"]


def card(manifest: Manifest) -> str:
    """Return the card; everything in it is from the manifest."""
    return "\n".join(_lines(manifest)) + "\n"


def _lines(manifest: Manifest) -> Iterator[str]:
    scenery = (manifest.scenery or {}).get("name", "not named")
    yield f"# Agent {manifest.id}"
    yield ""
    yield (
        "Chooses, for each picture, the cheapest encoding that still gets the same answer from "
        f"`{manifest.backend['name']}`, on pictures of the scenery *{scenery}*."
    )
    yield ""
    yield from _table("What it is", _identity(manifest))
    yield from _table("What is promised", _promise(manifest.operating_points[0]))
    yield from _table("What it learnt from", _training(manifest.training))
    yield from _table("Measured", _flat(manifest.metrics))
    yield "## Files"
    yield ""
    yield "| file | role | bytes | SHA-256 |"
    yield "|---|---|---|---|"
    for entry in manifest.files:
        yield f"| `{entry.path}` | {entry.role} | {entry.size:,} | `{entry.sha256[:16]}…` |"
    yield ""
    yield "## Encodings it chooses from"
    yield ""
    yield ", ".join(rung.name for rung in ladder_from_dicts(manifest.ladder))
    yield ""
    yield from _limits(manifest)


def _table(title: str, rows: Mapping[str, Any]) -> Iterator[str]:
    if not rows:
        return
    yield f"## {title}"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, value in rows.items():
        text = " ".join(str("none" if value is None else value).split()).replace("|", "\\|")
        yield f"| {name} | {text} |"
    yield ""


def _identity(manifest: Manifest) -> dict[str, Any]:
    takes = manifest.signature["inputs"][0]
    return {
        "made": manifest.created,
        "algorithm": manifest.algorithm,
        "trained from": manifest.parent or "no other agent",
        "service's model": manifest.backend.get("model_version") or "not known",
        "input": f"{takes['dtype']} {takes['shape']}, RGB",
        "pre-processing": manifest.preprocessing["spec"].get("resize", ""),
        "reward": f"{manifest.reward['alpha']} · agreement − size + {manifest.reward['beta']}",
        "versions": ", ".join(f"{name} {text}" for name, text in manifest.versions.items()),
    }


def _promise(point: Mapping[str, Any]) -> dict[str, Any]:
    names = ("target", "certified", "delta", "test", "n", "achieved", "max_probes", "rung", "note")
    return {name: point[name] for name in names if point.get(name) not in (None, "")}


def _training(training: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in training.items() if isinstance(value, str | int | float)}


def _flat(metrics: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return the figures of nested objects, named by their way; long lists by their length."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping) and {"mean", "lo", "hi"} <= value.keys():
            found[f"{before}{name}"] = "{mean:.3g} [{lo:.3g}–{hi:.3g}]".format(**value)
        elif isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name} ")
        elif isinstance(value, list):
            found[f"{before}{name}"] = len(value) if len(value) > 8 else value or "none"
        else:
            found[f"{before}{name}"] = value
    return found


def _limits(manifest: Manifest) -> Iterator[str]:
    yield "## Limits"
    yield ""
    if not manifest.operating_points[0].get("certified"):
        yield "* Nothing is certified: the agreement is what the agent itself expects."
    yield (
        "* What was measured holds for this service, its model at that time, and pictures of this "
        "scenery; a device watches both and says when they change."
    )
    if manifest.entries("parity"):
        yield (
            "* `parity.npz` holds training pictures, scaled to the engine's input: whoever gets "
            "the agent gets those."
        )
