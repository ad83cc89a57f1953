"""A TorchServe archive (``.mar``) of a codec's server side, for owners who serve models that way.

Inside: the tail, the entropy model, the viewer if there is one, the whole classifier so that
pictures (the references) are answered at the same address, the handler, and the very packages that
a device runs. The model's version is ``codec-ID``: asking for ``MODEL/codec-ID`` is asking for the
codec, and TorchServe itself says no where it is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.backends.torchserve import CODEC_VERSION
from edge_sdk.featurecodec import Artefact, Wire
from edge_sdk.featurecodec.artefact import DOCUMENT, ENCODER, ENTROPY, FILES, INT8
from edge_sdk.featurecodec.tail import CLASSIFIER, TAIL, VIEWER, Tail, Whole
from export import codec_handler
from export.torchserve import REQUIREMENTS, own_packages, pack, served
from model_store.errors import UsageError

__all__ = ["CODEC_REQUIREMENTS", "CodecFiles", "codec_archive"]

#: As the extra ``codec`` has it: faster where there is a wheel, and the same bytes elsewhere.
CODEC_REQUIREMENTS = REQUIREMENTS + (
    "constriction>=0.5; sys_platform != 'linux' or platform_machine == 'x86_64'\n"
)


@dataclass(frozen=True, kw_only=True)
class CodecFiles:
    """A codec's folder, read and checked.

    Attributes:
        name: the classifier's, as a server may call a model.
        artefact: what both sides share, and the device side.
        files: the folder's files by their names, the whole classifier's among them if it is known.
    """

    name: str
    artefact: Artefact
    files: dict[str, bytes]

    @classmethod
    def open(cls, folder: Path, classifier: Path | None = None) -> CodecFiles:
        """Read a folder; both sides must load.

        Args:
            folder: as ``python -m training codec`` wrote it.
            classifier: the whole classifier's ONNX file, where it is not in the folder.

        Raises:
            UsageError: there is no codec in the folder, its server side is missing, or the
                classifier names other classes.
            StoreError: a file is damaged or breaks the contract.
        """
        artefact, tail = Artefact.open(folder), Tail.open(folder)
        names = [*FILES.values(), TAIL, VIEWER, CLASSIFIER]
        files = {name: _read(folder / name) for name in names if (folder / name).is_file()}
        if classifier is not None:
            files[CLASSIFIER] = _read(classifier)
        if CLASSIFIER in files and Whole(files[CLASSIFIER], artefact.view).names != tail.names:
            raise UsageError(
                f"The whole classifier ({classifier or folder / CLASSIFIER}) names other classes "
                "than the codec's tail; give the one that the codec was trained for."
            )
        return cls(name=_name(artefact), artefact=artefact, files=files)

    def tail(self) -> Tail:
        """Return the server side at work."""
        return Tail(Wire(self.artefact), self.files[TAIL], self.files.get(VIEWER))

    @property
    def version(self) -> str:
        """What a server calls the model's version."""
        return CODEC_VERSION + self.artefact.id

    def device(self) -> dict[str, bytes]:
        """Return what a device needs."""
        names = (FILES[role] for role in (DOCUMENT, ENCODER, ENTROPY, INT8))
        return {name: self.files[name] for name in names if name in self.files}

    def server(self) -> dict[str, bytes]:
        """Return what a server needs; the encoder is only there to prove the codec's id."""
        return {name: data for name, data in self.files.items() if name != FILES[INT8]}


def codec_archive(codec: CodecFiles) -> bytes:
    """Return the server side as a ``.mar``; the same codec gives the same bytes."""
    return pack(_contents(codec))


def _contents(codec: CodecFiles) -> Iterator[tuple[str, bytes]]:
    created = str(codec.artefact.document.get("created", ""))
    yield (
        "MAR-INF/MANIFEST.json",
        served(created, modelName=codec.name, serializedFile=TAIL, modelVersion=codec.version),
    )
    yield "handler.py", Path(codec_handler.__file__).read_bytes()
    yield "requirements.txt", CODEC_REQUIREMENTS.encode()
    yield from codec.server().items()
    yield from own_packages()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"The file {path} cannot be read ({error.strerror}).") from error


def _name(artefact: Artefact) -> str:
    stated = artefact.document.get("classifier")
    name = stated.get("name") if isinstance(stated, dict) else stated
    return (
        re.sub(r"[^\w.~-]+", "-", str(name or "classifier"), flags=re.ASCII).strip("-.") or "codec"
    )
