"""What learning starts from unless told otherwise: heads fitted to local models' answers.

``start.safetensors`` holds the heads of a cold-start agent (``training.learn.coldstart``) for the
``FULL`` ladder, without the classifier, which the prefix has. It was learnt on the built-in photos.
After a change of ``FULL``, of the prefix or of the probe's statistics, make it again:

    python -m training coldstart --store STORE --run RUN
    python -m training.learn.start STORE
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from edge_sdk.ladder import FULL, Ladder, kinds_of, ladder_from_dicts
from export.network import FactoredHead, Prefix
from export.probe_head import ProbeHead
from model_store import Store
from model_store.files import write_atomic
from training.learn.heads import NO_START, Start

__all__ = ["built_in"]

_FILE = Path(__file__).with_name("start.safetensors")
_CLASSIFIER = ("class_weight", "class_bias")


def built_in(prefix: Prefix, ladder: Ladder, file: Path = _FILE) -> Start:
    """Return the heads to start from; ``NO_START`` for another ladder or another prefix.

    For a ladder of several kinds of rungs that is the probe's head alone.
    """
    state = load(file.read_bytes())
    rungs = bytes(state.pop("ladder").tolist()).decode()
    head = {name.removeprefix("head."): v for name, v in state.items() if name.startswith("head.")}
    width = head["agreement_logit.weight"].shape[1]
    if prefix.classifier is None or prefix.dimension != width:
        return NO_START
    several = len({*kinds_of(ladder)}) > 1
    if rungs != _names(ladder) and not several:
        return NO_START
    last = prefix.classifier[-1]
    words = {"class_weight": last.weight.detach(), "class_bias": last.bias.detach()}
    probe = {n.removeprefix("probe."): v for n, v in state.items() if n.startswith("probe.")}
    known = ProbeHead.from_state({**probe, **words}, FULL if several else ladder)
    if several:
        return Start(probe=known.moved_to(ladder))
    static = FactoredHead(width, ladder)
    static.load_state_dict(head)
    return Start(static.eval(), known)


def _names(ladder: Ladder) -> str:
    return ",".join(rung.name for rung in ladder)


def main(store: Path) -> None:
    """Write the file from the current agent of a store."""
    agent = Store(store).load("current")
    rungs = _names(ladder_from_dicts(agent.manifest.ladder))
    found: dict[str, Tensor] = {"ladder": torch.tensor(list(rungs.encode()), dtype=torch.uint8)}
    for part, role in (("head", "head"), ("probe", "probe-head")):
        state = load(agent.file(role))
        found |= {f"{part}.{n}": v for n, v in state.items() if n not in _CLASSIFIER}
    write_atomic(_FILE, save(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
