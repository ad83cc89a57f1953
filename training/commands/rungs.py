"""Which rungs ``fit`` learns about: a ladder's name, the service's view, a codec's features."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.featurecodec import Artefact, FeatureCodec
from edge_sdk.featurecodec.artefact import FILES
from edge_sdk.ladder import LADDERS, Ladder
from edge_sdk.view import View
from model_store.errors import UsageError
from training.cloud.coded import is_codec
from training.cloud.zoo import MODELS
from training.commands.options import view_of
from training.job import Job
from training.learn.owner import feature_rungs, owner_candidates, with_features
from training.photos import View as Picture

__all__ = ["Rungs", "add_rungs"]

#: Ladders that are chosen by the service's own answers.
LEARNED, OWNER = "learned", "owner"

#: Answers a picture that tell which candidates are worth having. An owner has five dozen of them,
#: of several kinds, but pays nobody for answers.
_CALLS = {LEARNED: 4, OWNER: 8}


def add_rungs(parser: argparse.ArgumentParser) -> None:
    """Add which rungs there are."""
    parser.add_argument(
        "--ladder",
        choices=(*LADDERS, LEARNED, OWNER),
        help="default: full; paper for dqn; learned asks first which rungs suit the service; owner "
        "does so too, with WebP files and the service's own view, for who runs the service",
    )
    parser.add_argument(
        "--view",
        type=view_of,
        metavar="SIDE[/RESIZED]",
        help="what the service looks at: the middle square of SIDE pixels of a picture whose short "
        "side was made RESIZED pixels; ',squeezed' and ',bicubic' may follow (default: the "
        "codec's, or that of local:MODEL)",
    )
    parser.add_argument(
        "--codec",
        type=Path,
        metavar="DIR",
        help="add the rates of the feature codec in this folder as rungs",
    )


@dataclass(frozen=True, kw_only=True)
class Rungs:
    """What is to be learnt about.

    Attributes:
        name: of the ladder.
        view: the service's, if it is known.
        codec: of rungs of features, or None.
        files: the codec's, by their roles.
    """

    name: str
    view: View | None
    codec: FeatureCodec | None
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Rungs:
        """Read :func:`add_rungs`'s options; what is wrong is told before anything is paid.

        Raises:
            UsageError: there is no codec in the folder, or the view belongs to no rung.
            CorruptAgent, EngineError: the codec's files are damaged.
        """
        name = arguments.ladder or ("paper" if arguments.algorithm == "dqn" else "full")
        if arguments.view is not None and name != OWNER:
            raise UsageError(
                f"--view says what an owner's service looks at, but the ladder is {name}; give "
                "--ladder owner too."
            )
        codec = None if arguments.codec is None else FeatureCodec.open(arguments.codec)
        return cls(
            name=name,
            view=arguments.view or _known_view(arguments.backend, codec),
            codec=codec,
            files={} if arguments.codec is None else _files(arguments.codec),
        )

    @property
    def times(self) -> int:
        """How many times as many answers a photo are worth asking for as of JPEG frames alone."""
        return 2 if self.name == OWNER or self.codec is not None else 1

    def ladder(self, job: Job, pictures: list[Picture]) -> Ladder:
        """Return the ladder, cut to what the service reads; some names ask the service first.

        Raises:
            UsageError: the service does not read the codec.
        """
        capabilities = job.backend.capabilities
        features = feature_rungs(self.codec, capabilities, job.backend.name)
        if self.name == OWNER:
            candidates = owner_candidates(self.view, features, capabilities)
            if self.view is None:
                job.stages.say(
                    "The service's own view is not known, so whole frames are sent; --view tells it"
                )
            return job.owner_ladder(pictures, candidates, _CALLS[OWNER])
        if self.name == LEARNED:
            return with_features(features, job.learned_ladder(pictures, _CALLS[LEARNED]))
        return with_features(features, LADDERS[self.name])


def _known_view(backend: str, codec: FeatureCodec | None) -> View | None:
    """Return the view of the codec's classifier, or of a local model."""
    if codec is not None:
        return codec.view
    scheme, _, name = backend.partition(":")
    if scheme != "local":
        return None
    if is_codec(name):
        return Artefact.open(name).view
    return MODELS[name].input if name in MODELS else None


def _files(folder: Path) -> dict[str, bytes]:
    return {
        role: (folder / name).read_bytes()
        for role, name in FILES.items()
        if (folder / name).is_file()
    }
