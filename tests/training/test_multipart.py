"""Multipart forms, read as urllib3 and requests write them."""

from __future__ import annotations

import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import encode_multipart_formdata

from training.cloud.dialects.multipart import multipart


def test_fields_and_files_are_read_byte_for_byte() -> None:
    body, kind = encode_multipart_formdata(
        {"api_key": "k", "image_file": ("a.jpg", b"\r\n\x00\xff--\r\n\r\n", "image/jpeg")}
    )

    assert multipart(kind, body) == {"api_key": b"k", "image_file": b"\r\n\x00\xff--\r\n\r\n"}


@given(st.dictionaries(st.from_regex(r"\A[a-z_]{1,9}\Z"), st.binary(max_size=99), min_size=1))
def test_whatever_requests_writes_is_read(fields: dict[str, bytes]) -> None:
    files = [(name, ("file", data)) for name, data in fields.items()]
    prepared = requests.Request("POST", "http://localhost/", files=files).prepare()

    assert isinstance(prepared.body, bytes)
    assert multipart(prepared.headers["Content-Type"], prepared.body) == fields


def test_the_first_of_several_fields_of_one_name_counts() -> None:
    body, kind = encode_multipart_formdata([("a", b"1"), ("a", b"2")])

    assert multipart(kind, body) == {"a": b"1"}


def test_a_boundary_may_be_quoted_and_its_lines_may_have_a_preamble() -> None:
    body = b"hello\r\n--x y\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--x y--\r\nbye"

    assert multipart('Multipart/Form-Data; boundary="x y"', body) == {"a": b"1"}


def test_another_content_type_has_no_fields() -> None:
    body, kind = encode_multipart_formdata({"a": "1"})

    assert multipart("application/json", body) == {}
    assert multipart("", body) == {}
    assert multipart("multipart/form-data", body) == {}
    assert multipart(kind.replace("form-data", "mixed"), body) == {}


@given(st.text(st.characters(max_codepoint=255), max_size=40), st.binary(max_size=200))
def test_no_header_and_no_body_breaks_the_reader(kind: str, body: bytes) -> None:
    for content_type in (kind, f"multipart/form-data; boundary={kind}"):
        assert isinstance(multipart(content_type, body), dict)
    assert isinstance(multipart("multipart/form-data; boundary=x", b"--x\r\n" + body), dict)
