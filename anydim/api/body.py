"""Bodies: bytes off the wire -> a msgspec struct, or an error that names the field at fault in OpenAI's words.

It knows HTTP and JSON; it knows no dialect's fields.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

import msgspec
from msgspec import inspect
from starlette.exceptions import HTTPException
from starlette.requests import Request

from anydim.api.words import shortened
from anydim.config import nearest
from anydim.errors import BodyTooLarge, InvalidRequest

T = TypeVar("T", bound=msgspec.Struct)

_WHERE: Final = r"(?: - at `\$\.?(?P<path>.*)`)?"
_MISSING: Final = re.compile(r"Object missing required field `(?P<field>.*?)`" + _WHERE)
_TYPE: Final = re.compile(r"Expected `(?P<wanted>.*?)`, got `(?P<found>.*?)`" + _WHERE)
_CHOICE: Final = re.compile(r"Invalid enum value (?P<found>.*?)" + _WHERE, re.DOTALL)
_OTHER: Final = re.compile(r"(?P<what>.*?)" + _WHERE, re.DOTALL)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_MALFORMED: Final = "We could not parse the JSON body of your request"
_WORDS: Final = (
    ("str", "string"),
    ("int", "integer"),
    ("float", "number"),
    ("bool", "boolean"),
    ("array", "array"),
    ("object", "object"),
    ("null", "null"),
)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, of at most ``limit`` bytes; refused as soon as it is known to be larger.

    Raises:
        BodyTooLarge: it is larger.
        HTTPException: 415, it is compressed.
        ClientDisconnect: the client went away first.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise HTTPException(415, f"Content-Encoding {shortened(encoding)} is not supported: send the body uncompressed")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limit} bytes; send fewer texts in one request")


class BodyDecoder(Generic[T]):
    """Reads one struct from JSON."""

    def __init__(self, struct: type[T], strict: bool) -> None:
        """Prepare for ``struct``; with ``strict`` unknown fields are refused."""
        self._struct = struct
        self._decoder = msgspec.json.Decoder(struct)
        self._names = [field.encode_name for field in msgspec.structs.fields(struct)]
        self._strict = strict

    def decode(self, body: bytes) -> T:
        """The struct in a body, whatever its content type says.

        Raises:
            InvalidRequest: it is not JSON, lacks a field, or has one of a wrong type.
        """
        if not body.strip():
            raise InvalidRequest(f"{_MALFORMED}: it is empty")
        try:
            if self._strict:
                self._refuse_unknown(body)
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise self._explained(str(error)) from None
        except UnicodeDecodeError:
            raise InvalidRequest(f"{_MALFORMED}: it is not valid UTF-8") from None
        except RecursionError:
            raise InvalidRequest(f"{_MALFORMED}: it is nested too deeply") from None
        except msgspec.DecodeError as error:
            hint = "; a lone surrogate is not a character" if _SURROGATE.search(body) else ""
            raise InvalidRequest(f"{_MALFORMED}: {str(error).removeprefix('JSON is malformed: ')}{hint}") from None

    def _refuse_unknown(self, body: bytes) -> None:
        for name in msgspec.json.decode(body, type=dict[str, msgspec.Raw]):
            if name not in self._names:
                guess = nearest(name, self._names) if len(name) < 100 else ""
                raise InvalidRequest(f"Unknown parameter: {shortened(name)}{guess}", name[:100])

    def _explained(self, words: str) -> InvalidRequest:
        if found := _MISSING.fullmatch(words):
            return InvalidRequest(f"Missing required parameter: '{found['field']}'", found["field"])
        if found := _TYPE.fullmatch(words):
            return _wrong_type(found["path"], found["wanted"], found["found"])
        if found := _CHOICE.fullmatch(words):
            choices = " and ".join(repr(choice) for choice in self._choices(found["path"]))
            value = shortened(found["found"].strip("'"))
            return InvalidRequest(f"Invalid value: {value}. Supported values are: {choices}", found["path"])
        found = _OTHER.fullmatch(words)
        path = found["path"] if found else None
        return InvalidRequest(f"Invalid value for '{path or 'the body'}': {found['what'] if found else words}", path)

    def _choices(self, path: str) -> list[str]:
        """The values that a field may take."""
        info = inspect.type_info(self._struct)
        fields = info.fields if isinstance(info, inspect.StructType) else ()
        kinds = [field.type for field in fields if field.encode_name == path]
        plain = [kind.type if isinstance(kind, inspect.Metadata) else kind for kind in kinds]
        each = [part for kind in plain for part in (kind.types if isinstance(kind, inspect.UnionType) else (kind,))]
        return sorted(str(value) for kind in each if isinstance(kind, inspect.LiteralType) for value in kind.values)


def _wrong_type(path: str | None, wanted: str, found: str) -> InvalidRequest:
    names = dict(_WORDS)
    kinds = [names.get(kind, kind) for kind in wanted.split(" | ") if kind != "null"]
    return wrong_type(path or None, kinds, names.get(found, found))


def wrong_type(param: str | None, wanted: list[str], found: str) -> InvalidRequest:
    """OpenAI's words for a value of a wrong JSON type; ``param`` is None for the body itself."""
    place = f"for '{param}'" if param else "for the body"
    return InvalidRequest(f"Invalid type {place}: expected {_one_of(wanted)}, but got {_article(found)} instead", param)


def _one_of(kinds: list[str]) -> str:
    each = [_article(kind) for kind in kinds]
    return each[0] if len(each) == 1 else f"one of {', '.join(each[:-1])} or {each[-1]}"


def _article(kind: str) -> str:
    if kind == "null":
        return kind
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
