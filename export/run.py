"""A training run on disk: everything that exporting needs, nothing that must be unpickled.

RUN/run.json           what becomes the manifest, and how the parts fit together
RUN/prefix.onnx        the frozen prefix, pixels to features
RUN/head.safetensors   the trained head
RUN/parity.npz         inputs and what the training network says about them, for the gate
RUN/probe.safetensors  the probe head, if probing pays
RUN/codec/             the files of the codec, if the ladder has rungs of features
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import nn

from edge_sdk.engine import Scores
from edge_sdk.featurecodec.artefact import FILES
from edge_sdk.ladder import Ladder, ladder_from_dicts
from edge_sdk.policy import OperatingPoint
from export.gate import pictures_from_bytes, pictures_to_bytes
from export.network import DQNHead, FactoredHead
from export.probe_head import ProbeHead
from model_store.errors import UsageError
from model_store.files import read_json, write_atomic, write_json

__all__ = ["SCHEMA", "Head", "TrainingRun", "head_from_bytes", "probe_from_bytes", "state_to_bytes"]

SCHEMA = "adacompress.training-run/1"

Head = DQNHead | FactoredHead


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What a learner hands to export.

    Attributes:
        prefix: ONNX bytes of the frozen prefix.
        head: the trained head.
        ladder: the rungs behind the head's outputs.
        operating_point: the default trade-off with its certificate.
        inputs: uint8 (M, S, S, 3), pictures for the parity gate.
        expected: the training network's scores of ``inputs``.
        points: further operating points, for devices that can afford fewer looks.
        probe: the probe head, or None.
        facts: fields of the manifest that training knows: reward, scenery, backend, training,
            metrics, versions, parent.
        codec: the files of the ladder's codec by their roles; empty without rungs of features.
    """

    prefix: bytes
    head: Head
    ladder: Ladder
    operating_point: OperatingPoint
    inputs: NDArray[np.uint8]
    expected: Scores
    facts: Mapping[str, Any]
    points: Sequence[OperatingPoint] = ()
    probe: ProbeHead | None = None
    codec: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def algorithm(self) -> str:
        """``bandit`` for a factored head, ``dqn`` for the paper's."""
        return "bandit" if isinstance(self.head, FactoredHead) else "dqn"

    def save(self, folder: Path) -> None:
        """Write the run's files; ``run.json`` last, so that a run with it is whole."""
        write_atomic(folder / "prefix.onnx", self.prefix)
        write_atomic(folder / "head.safetensors", state_to_bytes(self.head))
        write_atomic(folder / "parity.npz", pictures_to_bytes(self.inputs, self.expected))
        if self.probe is not None:
            write_atomic(folder / "probe.safetensors", state_to_bytes(self.probe))
        for role, data in self.codec.items():
            write_atomic(folder / "codec" / FILES[role], data)
        document = {
            "schema": SCHEMA,
            "codec": list(self.codec),
            "ladder": [rung.as_dict() for rung in self.ladder],
            "operating_point": self.operating_point.as_dict(),
            "points": [point.as_dict() for point in self.points],
            "probe": self.probe is not None,
            "facts": dict(self.facts),
        }
        write_json(folder / "run.json", document)

    @classmethod
    def load(cls, folder: Path) -> TrainingRun:
        """Read a run.

        Raises:
            UsageError: the folder holds no complete run.
        """
        try:
            document = read_json(folder / "run.json")
            if document.get("schema") != SCHEMA:
                raise UsageError(
                    f"The run in {str(folder)!r} has schema {document.get('schema')!r}; this code "
                    f"reads {SCHEMA!r}."
                )
            ladder = ladder_from_dicts(document["ladder"])
            inputs, expected = pictures_from_bytes((folder / "parity.npz").read_bytes())
            return cls(
                prefix=(folder / "prefix.onnx").read_bytes(),
                head=head_from_bytes((folder / "head.safetensors").read_bytes(), ladder),
                ladder=ladder,
                operating_point=OperatingPoint.from_dict(document["operating_point"]),
                inputs=inputs,
                expected=expected,
                facts=document["facts"],
                points=tuple(map(OperatingPoint.from_dict, document.get("points", ()))),
                probe=probe_from_bytes((folder / "probe.safetensors").read_bytes(), ladder)
                if document.get("probe")
                else None,
                codec={
                    role: (folder / "codec" / FILES[role]).read_bytes()
                    for role in document.get("codec", ())
                },
            )
        except UsageError:
            raise
        except Exception as error:  # JSON, npz and safetensors, each with its own error classes
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UsageError(
                f"{str(folder)!r} holds no complete training run ({reason}); make one with "
                "`python -m training fit --run DIR`."
            ) from error


def state_to_bytes(module: nn.Module) -> bytes:
    """Return a module's parameters as safetensors."""
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    return bytes(save(state))


def head_from_bytes(data: bytes, ladder: Ladder) -> Head:
    """Rebuild a head from its safetensors; which kind it is shows in its parameters' names."""
    state: dict[str, torch.Tensor] = load(data)
    if "agreement_logit.weight" in state:
        head: Head = FactoredHead(state["agreement_logit.weight"].shape[1], ladder)
    else:
        weights = [name for name in state if name.endswith("weight")]
        order = sorted(weights, key=lambda name: int(name.split(".")[1]))  # layers.INDEX.weight
        widths = [state[name].shape[0] for name in order]
        head = DQNHead(state[order[0]].shape[1], widths[-1], widths[:-1])
    head.load_state_dict(state)
    return head.eval()


def probe_from_bytes(data: bytes, ladder: Ladder) -> ProbeHead:
    """Rebuild a probe's head from its safetensors."""
    return ProbeHead.from_state(load(data), ladder)
