"""From a training run to an agent in the store: fuse, prove parity, publish. All or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from edge_sdk import probe
from edge_sdk.engine import OnnxEngine
from edge_sdk.featurecodec.artefact import FILES, Artefact
from edge_sdk.preprocess import SPEC, spec_sha256
from edge_sdk.second_look import OnnxProbe
from export.fuse import export_probe, fuse
from export.gate import ParityReport, pictures_to_bytes
from export.parity import check_parity, check_probe
from export.run import TrainingRun, state_to_bytes
from model_store import Draft, Manifest, Store
from model_store.errors import UsageError

__all__ = ["publish_run"]


def publish_run(
    run: TrainingRun, store: Store, *, aliases: Sequence[str] = ()
) -> tuple[Manifest, ParityReport]:
    """Fuse a run's engine, pass it through the parity gate and publish it.

    Args:
        run: what training left.
        store: where the agent goes.
        aliases: names that point to it afterwards, as in ``current`` or ``scenery/day``.

    Raises:
        UsageError: the run lacks a fact that a manifest needs, or has one too many.
        GateFailed: the engine decides otherwise than the training network; nothing was published.
        EnvironmentMissing: the store cannot be written.
    """
    model = fuse(run.prefix, run.head, run.ladder)
    engine = OnnxEngine(model)
    parity = check_parity(run.expected, engine, run.inputs, run.operating_point)
    measured = {
        "signature": _signature(model),
        "probe": probe.expectation(engine),
        "metrics": {**run.facts.get("metrics", {}), "parity": parity.as_dict()},
    }
    files = {
        "engine.onnx": ("engine", model),
        "head.safetensors": ("head", state_to_bytes(run.head)),
        # For the gates of later variants; only what it takes to decide on, no larger pictures.
        "parity.npz": ("parity", pictures_to_bytes(run.inputs, run.expected)),
    }
    if run.probe is not None:
        dimension = int(run.expected.features.shape[1])
        model = export_probe(run.probe, dimension, run.ladder)
        check_probe(run.probe, OnnxProbe(model), run.expected.features)
        files["probe.onnx"] = ("probe", model)
        files["probe.safetensors"] = ("probe-head", state_to_bytes(run.probe))
    files |= {f"codec/{FILES[role]}": (role, data) for role, data in _codec(run).items()}
    return store.publish(_draft(run, measured), files, aliases=aliases), parity


def _codec(run: TrainingRun) -> Mapping[str, bytes]:
    """Return the codec's files, which are those of the ladder's rungs.

    Raises:
        UsageError: a rung of features is another codec's, or there is none.
    """
    wanted = {rung.codec for rung in run.ladder if rung.codec is not None}
    found = {Artefact.open(run.codec).id} if run.codec else set()
    if wanted != found:
        raise UsageError(
            f"The ladder has rungs of the codecs {sorted(wanted) or 'none'}, the run brings "
            f"{sorted(found) or 'none'}; train it again with --codec."
        )
    return run.codec


def _draft(run: TrainingRun, measured: dict[str, Any]) -> Draft:
    known = {
        "algorithm": run.algorithm,
        "ladder": [rung.as_dict() for rung in run.ladder],
        "preprocessing": {"spec": SPEC, "sha256": spec_sha256()},
        "operating_points": [point.as_dict() for point in (run.operating_point, *run.points)],
    }
    try:
        return Draft(**{**run.facts, **known, **measured})
    except TypeError as error:
        raise UsageError(
            f"The facts of the run do not make a manifest ({error}); train it again with this "
            "version."
        ) from error


def _signature(model: bytes) -> dict[str, Any]:
    graph = onnx.load_model_from_string(model).graph
    return {"inputs": _tensors(graph.input), "outputs": _tensors(graph.output)}


def _tensors(values: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": value.name,
            "dtype": onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            "shape": [dim.dim_value for dim in value.type.tensor_type.shape.dim],
        }
        for value in values
    ]
