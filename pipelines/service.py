"""Search over HTTP. In: a table, limits, a token. Out: an ASGI app: POST words or files, get hits.

Uploaded media are decoded in the decoder's child (pipelines/decoder.py): whatever they do to it, the service stays. Nothing
that a request holds is ever opened as a path or URL.
"""
# Without `from __future__ import annotations`: FastAPI reads the types of endpoints, and one of them is made here.

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field, Json, create_model
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from encoders.errors import MediaError
from encoders.space import Space
from pipelines.decoder import Decoder, Source
from pipelines.door import Door, Limits, Metrics, problem, too_large
from pipelines.hits import Hits, preview_uri
from pipelines.identity import without_signatures
from pipelines.index import open_index
from pipelines.replies import Decoded, Reject, Reply
from pipelines.storage import INFRASTRUCTURE_ERRORS

MAX_HITS = 1000
MAX_OFFSET = 10_000
MAX_TEXT = 10_000  # characters; more than any tower takes
SEARCHERS = 8  # searches at a time; one more thread decodes
DECODE_SHARE = 0.5  # of a request's time
MAX_FIELD_BYTES = 1024**2  # of a form's field that is no file


@dataclass(frozen=True)
class ServiceSettings:
    """What one replica serves.

    Attributes:
        db: the LanceDB folder or URI.
        table: its table.
        space: what queries are embedded with; None for the one that the table names.
        token: `door.digest` of the token; None lets everybody in.
        local: only requests to this machine's own names are answered.
        limits: of a request.
    """

    db: str
    table: str = "media"
    space: str | None = None
    token: bytes | None = None
    local: bool = False
    limits: Limits = field(default_factory=Limits)


class SearchBody(BaseModel):
    """What to search for; several things at once are added up, each times its weight."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    text: str | None = Field(None, max_length=MAX_TEXT, description="Words; never a path or URL.")
    item_id: str | None = Field(None, max_length=100, description="An item of the table.")
    modality: list[str] = Field([], max_length=100, description="Only hits of these modalities; of all if empty.")
    where: str | None = Field(None, max_length=10_000, description="An SQL condition on the table's columns.")
    k: int = Field(10, ge=1, le=MAX_HITS, description="How many hits at most.")
    offset: int = Field(0, ge=0, le=MAX_OFFSET, description="How many of the best to leave out, for the next page.")
    hybrid: bool = Field(False, description="Whether to look for the words of `text` in the items' texts, too.")
    centred: bool = Field(False, description="Whether parts of several modalities are to count alike.")
    diversity: float = Field(0.0, ge=0, le=1, description="Above 0 each hit is chosen unlike those before it.")
    collapse: float | None = Field(None, gt=0, le=1, description="The cosine from which on two items count as one: 0.98, say.")
    previews: bool = Field(False, description="Whether hits carry their small pictures, as data URIs.")


class JsonQuery(SearchBody):
    """A query without files."""

    vector: list[float] | None = Field(None, max_length=65_536, description="Of the table's space, of any length but zero.")
    weights: dict[str, float] | None = Field(None, description='By what is weighted, {"text": 0.7}; 1 if not given.')


class FormQuery(SearchBody):
    """A query with files; each modality's field stands beside these."""

    weights: Json[dict[str, float]] | None = Field(None, description='JSON, by what is weighted: {"text": 0.7}.')


class Found(BaseModel):
    """What was found, best first: each hit has `similarity` (the cosine), `score`, and the table's columns but its vector."""

    query: str
    hits: list[dict[str, Any]]


class Problem(BaseModel):
    """What went wrong: its `type`, and a `message` for people."""

    error: dict[str, str]


_SAID = {
    400: "The query cannot be answered as it is; the message says why.",
    401: "No token, or not the right one.",
    413: "The request is too large.",
    422: "A field or a medium of the query cannot be used; the message says why.",
    500: "A fault of the service; its log says more.",
    503: "The table cannot be read now.",
    504: "No answer in time.",
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {code: {"model": Problem, "description": said} for code, said in _SAID.items()}


class Service:
    """A table, open for the searches of one process.

    Raises:
        ValueError: no such table or space.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        space = open_index(settings.db, settings.table, settings.space).space
        self.index = open_index(settings.db, settings.table, decoded_only(space))
        self.modalities = [name for name in space.modalities if name != "text"]
        self._decoder = Decoder(space.uri, item_timeout_s=DECODE_SHARE * settings.limits.seconds)
        for warm in self._decoder.decode([Source(space.modalities[0], "nothing", "nothing", 0, None, b"")]):
            assert isinstance(warm, Reject), "there was nothing to decode"  # but the child has started: no request waits for it
        self._decoding = ThreadPoolExecutor(1, "decode")  # the child takes one list of media at a time
        self._searching = ThreadPoolExecutor(SEARCHERS, "search")

    async def answer(self, query: SearchBody, media: Mapping[str, bytes]) -> Response:
        """The hits of a query and its files, by modality.

        Raises:
            MediaError: a file cannot be used.
            ValueError: the query cannot be answered.
        """
        loop = asyncio.get_running_loop()
        decoded = await loop.run_in_executor(self._decoding, self._decode, media) if media else {}
        hits = await loop.run_in_executor(self._searching, self._search, query, decoded)
        return Response(_as_json(hits), media_type="application/json")

    async def check(self) -> None:
        """Look at the table, which fails as its store does."""
        await asyncio.get_running_loop().run_in_executor(self._searching, lambda: self.index.columns)

    def close(self) -> None:
        """End the decoder's child; what waits for an answer gets none."""
        self._searching.shutdown(wait=False, cancel_futures=True)
        self._decoding.shutdown(wait=False, cancel_futures=True)
        self._decoder.close()

    def _decode(self, media: Mapping[str, bytes]) -> dict[str, Decoded]:
        sources = [Source(name, f"the {name}", f"the {name}", len(data), None, data) for name, data in media.items()]
        replies = list(self._decoder.decode(sources))
        return {name: _usable(name, reply) for name, reply in zip(media, replies, strict=True)}

    def _search(self, query: SearchBody, decoded: Mapping[str, Any]) -> Hits:
        unwanted = ("vector",) if query.previews else ("vector", "preview")
        return self.index.search(
            query.text,
            item_id=query.item_id,
            vector=getattr(query, "vector", None),
            weights=getattr(query, "weights", None),
            modality=query.modality or None,
            where=query.where,
            k=query.k,
            offset=query.offset,
            hybrid=query.hybrid,
            centred=query.centred,
            diversity=query.diversity,
            collapse=query.collapse,
            columns=[name for name in self.index.columns if name not in unwanted],
            **decoded,
        )


def make_app(settings: ServiceSettings) -> ASGIApp:
    """The service as an ASGI app; the table is open and the decoder's child started when it returns.

    Raises:
        ValueError: no such table or space.
    """
    service, metrics = Service(settings), Metrics(f"{socket.gethostname()}-{os.getpid()}")

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    limits = settings.limits
    app = FastAPI(
        title="Bindery",
        description="Search a table of embedded media with words, files, items and vectors.",
        docs_url=None,  # its page would fetch scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        max_body_size=limits.body_bytes,
        form_limits={"max_files": len(service.modalities), "max_fields": 100, "max_part_size": MAX_FIELD_BYTES},
    )
    secured = [Depends(HTTPBearer(auto_error=False))] if settings.token else []  # the door asks for it, OpenAPI tells
    _add_searches(app, service, secured)
    _add_probes(app, service, metrics, secured)
    _add_errors(app, settings)
    return Door(app, settings.token, settings.local, limits, metrics)


def decoded_only(space: Space) -> Space:
    """The space, taking media from the decoder's child only, and text as it is: it reads no file, path or URL."""
    encoders = {name: one if name == "text" else replace(one, preprocess=_features) for name, one in space.encoders.items()}
    return replace(space, encoders=encoders)


def _add_searches(app: FastAPI, service: Service, secured: Sequence[Any]) -> None:
    files = {name: (UploadFile | None, Field(None, description="A file.")) for name in service.modalities}
    form_query: Any = create_model("FileQuery", __base__=FormQuery, **files)  # type: ignore[call-overload]

    @app.post("/search", response_model=Found, responses=_PROBLEMS, dependencies=secured)
    async def search(query: JsonQuery) -> Response:
        """Find the items nearest to words, an item, a vector."""
        return await service.answer(query, {})

    @app.post("/search/files", response_model=Found, responses=_PROBLEMS, dependencies=secured)
    async def search_by_files(query: Annotated[form_query, Form(media_type="multipart/form-data")]) -> Response:
        """Find the items nearest to files, each in the field of its modality, and to what else the form holds."""
        given = {name: file for name in service.modalities if (file := getattr(query, name)) is not None}
        return await service.answer(query, {name: await file.read() for name, file in given.items()})


def _add_probes(app: FastAPI, service: Service, metrics: Metrics, secured: Sequence[Any]) -> None:
    @app.get("/healthz", responses={code: _PROBLEMS[code] for code in (500, 503, 504)})
    async def healthz() -> dict[str, str]:
        """Whether the table can be read; needs no token."""
        await service.check()
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse, responses={401: _PROBLEMS[401]}, dependencies=secured)
    async def read_metrics() -> Response:
        """Counts and times of the replica that answers, as Prometheus reads them."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_errors(app: FastAPI, settings: ServiceSettings) -> None:
    """Every error is JSON with a message; of those that are not the asker's fault, only the log tells more."""

    async def refuse(status: int, _request: Request, error: Exception) -> Response:
        told = without_signatures(str(error)).replace(f"{settings.db.rstrip('/')}/", "")
        return problem(status, type(error).__name__, told)

    async def fail(status: int, message: str, _request: Request, error: Exception) -> Response:
        return problem(status, "Unavailable" if status == 503 else "InternalError", message)

    async def invalid(_request: Request, error: Any) -> Response:
        places = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()]
        return problem(422, "ValidationError", "; ".join(places[:10]))

    async def http(_request: Request, error: Any) -> Response:
        return (
            too_large(settings.limits)
            if error.status_code == 413
            else problem(error.status_code, "HTTPError", str(error.detail), error.headers)
        )

    app.add_exception_handler(MediaError, partial(refuse, 422))
    app.add_exception_handler(ValueError, partial(refuse, 400))
    for kind in INFRASTRUCTURE_ERRORS:
        app.add_exception_handler(kind, partial(fail, 503, "the table cannot be read now; ask again later"))
    app.add_exception_handler(Exception, partial(fail, 500, "a fault of the service; its log says more"))
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _features(medium: Any) -> dict[str, np.ndarray]:
    if not isinstance(medium, Decoded):
        raise TypeError(f"the service embeds what its decoder has decoded, not a {type(medium).__name__}")
    return medium.features


def _usable(modality: str, reply: Reply) -> Decoded:
    if isinstance(reply, Decoded):
        return reply
    if isinstance(reply, Reject) and reply.expected:
        raise MediaError(f"{modality}: {reply.message}")
    raise RuntimeError(f"the decoder answered {reply}")


def _as_json(hits: Hits) -> bytes:
    """`Found`, with times in ISO 8601, bytes in base64, and null for what is no number."""
    rows = [{**row, "preview": preview_uri(row["preview"])} if "preview" in row else row for row in hits]
    return to_json({"query": hits.query, "hits": rows}, inf_nan_mode="null", bytes_mode="base64")
