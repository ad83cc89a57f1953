"""What becomes of one request: dialect, rate limit, fault, delay, model, answer, line in the log.

No sockets: the request comes as a value, the client as a callable that tells whether it is still
there, and the answer leaves as a value that ``training.cloud.handler`` delivers.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from edge_sdk.backends.baidu import VERSION_HEADER
from edge_sdk.errors import ImageError
from edge_sdk.featurecodec import is_stream
from training.cloud.batching import Abandoned, Batcher
from training.cloud.dialects.base import Answer, Dialect, Fault, Request, Response
from training.cloud.faults import Draws
from training.cloud.journal import Journal, Line
from training.cloud.lineup import Lineup
from training.cloud.settings import Settings
from training.cloud.throttle import Bucket

__all__ = ["COUNTS_PATH", "Delivery", "Service"]

#: ``GET`` tells the counters; it is neither counted nor logged.
COUNTS_PATH = "/_cloud/counts"

#: Fault -> what the dialect says then. The other faults are done to the connection or to a good
#: answer.
_SAID = {
    "5xx": Fault.UNAVAILABLE,
    "token": Fault.TOKEN,
    "image": Fault.IMAGE,
    "throttle": Fault.THROTTLED,
}
_NO_TOKENS = {"token"}
_ABANDONED, _SLOW = "abandoned", "fault:slow"

#: From this EXIF orientation on, width and height are exchanged when the picture is set upright.
_EXIF_ORIENTATION, _FIRST_LYING = 0x0112, 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An answer on its way.

    Attributes:
        line: what the log will say.
        started: when the request was complete, on the service's timer.
        response: what is sent; None resets the connection.
        good: it is billed if the client is there for its last byte.
        seconds: that the body takes to send.
    """

    line: Line
    started: float
    response: Response | None = None
    good: bool = False
    seconds: float = 0.0

    def saying(self, what: str, response: Response | None, *, good: bool = False) -> Delivery:
        """Return it with something to say."""
        return replace(self, line=replace(self.line, what=what), response=response, good=good)


class Service:
    """Answers requests; safe to call from several threads.

    Args:
        dialects: asked in this order whose a request is.
        url: the server's address, for messages.
        lineup: the models.
        batcher: runs them.
        journal: keeps what was billed.
        settings: how to behave.
        clock, timer: seconds since the epoch, and monotonic ones.
        sleep: the pause for a delay.
    """

    def __init__(
        self,
        dialects: Sequence[Dialect],
        url: str,
        lineup: Lineup,
        batcher: Batcher,
        journal: Journal,
        settings: Settings,
        *,
        clock: Callable[[], float],
        timer: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        self._dialects, self._url = dialects, url
        self._lineup, self._batcher, self._journal = lineup, batcher, journal
        self._settings = settings
        self._clock, self._timer, self._sleep = clock, timer, sleep
        self._draws = Draws(settings.seed, settings.faults, settings.latency_s, settings.jitter_s)
        rate = settings.qps
        self._buckets = {} if rate is None else {one.name: Bucket(rate, timer) for one in dialects}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)  # guarded by _lock

    def answer(self, request: Request, here: Callable[[], bool]) -> Delivery:
        """Return what is to be delivered.

        Args:
            request: complete.
            here: tells whether the client is still connected.
        """
        blank = self._blank(request)
        dialect = next((one for one in self._dialects if one.mine(request)), None)
        if dialect is None:
            return blank.saying("not_found", self._nowhere(request))
        blank = replace(blank, line=replace(blank.line, dialect=dialect.name))
        try:
            return self._admit(dialect, request, blank, here)
        except Exception:  # a request must not end the server, and its client wants an answer
            _log.exception("event=request_failed dialect=%s", dialect.name)
            sorry = dialect.refuse(Fault.UNAVAILABLE, blank.line.request_id)
            return blank.saying("failed", sorry)

    def unreadable(self, request: Request, refusal: Response | None) -> Delivery:
        """Return what is to be delivered for a request without its body.

        Args:
            request: as far as it came.
            refusal: why the rest is not read; None if the client hung up.
        """
        what = _ABANDONED if refusal is None else "refused"
        return self._blank(request).saying(what, refusal)

    def headers(self, delivery: Delivery) -> dict[str, str]:
        """Return the response's headers, with the version of the model that answered."""
        own = dict(delivery.response.headers) if delivery.response else {}
        if not self._settings.silent:
            current = self._lineup.at(self._journal.billed).version
            own[VERSION_HEADER] = delivery.line.model or current
        return own

    def settle(self, delivery: Delivery, here: Callable[[], bool]) -> bool:
        """Bill and log an answer of which only the last bytes are missing.

        Returns:
            True if they are to be sent; False if there is nothing, or nobody to send it to.
        """
        line, sent = delivery.line, delivery.response is not None
        if delivery.good:
            sent = here()
            what = line.what if sent or line.what == _SLOW else _ABANDONED
            line = replace(line, what=what, billed=sent)
        status = delivery.response.status if sent and delivery.response else None
        milliseconds = round(1000.0 * (self._timer() - delivery.started), 3)
        self._journal.write(replace(line, status=status, milliseconds=milliseconds))
        return sent

    def counts(self) -> dict[str, int]:
        """Return the journal's counters."""
        return self._journal.counts()

    def _blank(self, request: Request) -> Delivery:
        """Return the beginning of a delivery: the request's number and id."""
        with self._lock:
            number = next(self._numbers)
        seed = f"{self._settings.seed}/request/{number}"
        line = Line(
            n=number,
            time=round(self._clock(), 3),
            bytes=len(request.body),
            request_id=hashlib.sha256(seed.encode()).hexdigest()[:32],
        )
        return Delivery(line, self._timer())

    def _admit(
        self, dialect: Dialect, request: Request, blank: Delivery, here: Callable[[], bool]
    ) -> Delivery:
        """Let an upload pass to the model, or not."""
        identity = blank.line.request_id
        picture = dialect.picture(request, self._clock(), identity)
        if isinstance(picture, Response):
            return blank.saying(picture.kind, picture)
        sha256 = hashlib.sha256(picture).hexdigest()
        upload = replace(blank, line=replace(blank.line, picture=sha256))
        if dialect.name in self._buckets and not self._buckets[dialect.name].take():
            return upload.saying("throttled", dialect.refuse(Fault.THROTTLED, identity))
        fault, latency = self._draws.draw(sha256, () if dialect.tokens else _NO_TOKENS)
        if fault == "reset":
            return upload.saying("fault:reset", None)
        if fault in _SAID:
            return upload.saying(f"fault:{fault}", dialect.refuse(_SAID[fault], identity))
        if latency:
            self._sleep(latency)
        delivery = self._recognize(dialect, request, picture, upload, here)
        return self._spoil(delivery, fault) if fault and delivery.good else delivery

    def _recognize(
        self,
        dialect: Dialect,
        request: Request,
        picture: bytes,
        upload: Delivery,
        here: Callable[[], bool],
    ) -> Delivery:
        identity, asked = upload.line.request_id, self._timer()
        try:
            result = self._batcher.answer(picture, here)
        except ImageError:
            return upload.saying("refused", dialect.refuse(Fault.IMAGE, identity))
        except Abandoned:
            return upload.saying(_ABANDONED, None)
        seconds = self._timer() - asked
        size = _size(picture)
        answer = Answer(result.labels, size, result.model, identity, seconds, result.codecs)
        response = dialect.respond(request, answer)
        upload = replace(upload, line=replace(upload.line, model=result.model))
        if response.status != 200:  # TorchServe learns only now whether it is the wanted model
            return upload.saying("refused", response)
        return upload.saying("answer", response, good=True)

    def _spoil(self, delivery: Delivery, fault: str) -> Delivery:
        """Return a good answer that trickles, or half of it as if that were all."""
        response = delivery.response
        if fault == "slow" or response is None:
            slow = delivery.saying(_SLOW, response, good=True)
            return replace(slow, seconds=self._settings.slow_s)
        half = replace(response, content=response.body[: len(response.body) // 2])
        return delivery.saying(f"fault:{fault}", half)

    def _nowhere(self, request: Request) -> Response:
        served = {one.name: one.spec(self._url) for one in self._dialects}
        said = f"Nothing is served at {request.method} {request.path}"
        return Response({"error": said, "served": served, "counts": COUNTS_PATH}, 404)


def _size(picture: bytes) -> tuple[int, int]:
    """Return (width, height) of a picture that a model has decoded, upright as the model saw it.

    Of a feature stream there is none, and no dialect that takes one asks for it.
    """
    if is_stream(picture):
        return 0, 0
    with Image.open(io.BytesIO(picture)) as opened:
        lies = opened.getexif().get(_EXIF_ORIENTATION, 1) >= _FIRST_LYING
        return opened.size[::-1] if lies else opened.size
