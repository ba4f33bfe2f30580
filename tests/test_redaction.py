"""Redaction removes the secrets of URLs, and changes nothing else."""

import io
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fr_ps.redaction import RedactedStream, redact, redact_tree, shorten

_WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)
_SCHEME = st.sampled_from(["http", "https", "postgresql+psycopg2", "mysql+pymysql", "s3", "redis"])
_HOST = st.sampled_from(["host", "127.0.0.1:1", "[::1]:5000", "db.example"])
_SECRET = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:@/?#%&=+!$*()[]{},;.\"'<>` ", min_size=4, max_size=20)
_ESCAPED = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:@%&=+!$*(~", min_size=4, max_size=20)
_BEFORE = st.sampled_from(["", "see ", "--study.storage=", "'", '"', "(", "[", "<", '{"uri": "', "failed for ", "a,b "])
_AFTER = st.sampled_from(["", " is down", "'", '"', ")", "]", ">", '"}', "; see that it answers", ".", "\nnext line"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://u:p@host:5000/x", "http://host:5000/x"),
        ("u:p@ss@host in http://u:p@ss@host", "u:p@ss@host in http://host"),
        ("http://token@host", "http://host"),
        ("postgresql+psycopg2://h/db?user=ann&password=top", "postgresql+psycopg2://h/db"),
        ("postgresql://ann:s3cret@h/db?user=ann&password=t@p", "postgresql://h/db"),
        ("https://h/?api_key=abc#at=def", "https://h/"),
        ("https://h#access_token=abc", "https://h"),
        ('{"uri": "http://u:p@h/a?k=1", "n": 1}', '{"uri": "http://h/a", "n": 1}'),
        ("('http://u:p@h/?k=1')", "('http://h/')"),
        ("(see http://h/?k=1).", "(see http://h/)."),
        ("fr-ps --x=http://u:p@h:1/?k=1 --y http://v:q@g", "fr-ps --x=http://h:1/ --y http://g"),
        ("http://a/b,http://u:p@g/c", "http://a/b,http://g/c"),
        ("http://u:p/x@host/db", "http://***"),
        ("http://u:p?x@host/db", "http://***"),
        ("http://u:p x@host/db failed", "http://*** failed"),
        ("postgresql://user:123/secret@host/db", "postgresql://***"),
        ("postgresql://user:/secret@host/db", "postgresql://***"),
        ("mysql://u:12?secret@h/d", "mysql://***"),
        ("mysql://u:12?key=secret@h/d", "mysql://***"),
        ("mysql://u:12#/secret@h/d", "mysql://***"),
        ("http://user:12 secret@h/x", "http://***"),
        ("http://user:'secret@h/x' failed", "http://***' failed"),
        ("https://us er:pw@h", "https://***"),
        ("https://us/er:pw@h", "https://***"),
        ("https://ann://'secret@h", "https://***"),
        ("http://proxy/http://u:p@h", "http://***"),
        ("http://host/?k=1: secret@h", "http://host/: secret@h"),
        ("http://host?k=1: secret@h", "http://***"),
        ("http://u:p@x y@h failed", "http://*** failed"),
        ("HTTP://a/b,HTTP://u:p@g/c", "HTTP://***"),
        ("http://host:5000/models/face@champion is there", "http://*** is there"),
        ("postgresql://u:p@h1:5432,h2:5432/db?sslmode=require", "postgresql://h1:5432,h2:5432/db"),
        ("http://u:p@h:5000/#/experiments/1?token=a", "http://h:5000/#/experiments/1"),
        ("https://h/#/back&access_token=abc", "https://h/#/back"),
        ("http://a/?next=http://x/&password=b end", "http://a/ end"),
        ("http://[::1]:5000/?k=1", "http://[::1]:5000/"),
        ("sqlite:///a.db?timeout=5", "sqlite:///a.db"),
        (
            "HTTPConnectionPool(host='h', port=1): Max retries exceeded with url: /?api_key=S/api/2.0 (Caused by X)",
            "HTTPConnectionPool(host='h', port=1): Max retries exceeded with url: / (Caused by X)",
        ),
    ],
)
def test_secrets_of_an_address_are_removed(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "models:/name@champion",
        "sqlite:///a.db",
        "sqlite:////home/a@b/c#/a.db",
        "file:///home/a@b/runs",
        "ann@example.org wrote",
        "http://127.0.0.1:5000/models/face@champion is there",
        "http://localhost:5000 is down; ask ann@example.org",
        "http://host is down: ask ann@example.org",
        "http://host:5000 has no models:/face@champion",
        "http://HOST:PORT and postgresql://host:port/db",
        "postgresql://h1:5432,h2:5432/db",
        "View run at: http://h:5000/#/experiments/1/runs/0a1b.",
        "expected scheme://",
        "trial 3: complete, identity 0.93 (a: b, c?)",
    ],
)
def test_text_without_secrets_stays(text: str) -> None:
    assert redact(text) == text


@given(_BEFORE, _SCHEME, _WORD, _SECRET, _HOST, _AFTER)
def test_no_password_in_whatever_form_survives(before: str, scheme: str, user: str, secret: str, host: str, after: str) -> None:
    text = redact(f"{before}{scheme}://{user}:{secret}@{host}/db{after}")
    assert secret not in text
    assert f"://{user}:" not in text


@given(_BEFORE, _SCHEME, _HOST, _ESCAPED, _AFTER)
def test_no_query_or_fragment_survives(before: str, scheme: str, host: str, secret: str, after: str) -> None:
    for start in ("?password=", "/a/b?user=ann&password=", "?", "#token="):
        text = redact(f"{before}{scheme}://{host}{start}{secret}{after}")
        assert secret not in text
        assert host in text


@given(st.lists(st.tuples(_SCHEME, _WORD, _ESCAPED, _HOST, _WORD), min_size=1, max_size=4))
def test_every_address_of_a_line_is_redacted(addresses: list[tuple[str, str, str, str, str]]) -> None:
    line = redact(" ".join(f"{scheme}://{user}:{secret}@{host}/{path}" for scheme, user, secret, host, path in addresses))
    assert line == " ".join(f"{scheme}://{host}/{path}" for scheme, _, _, host, path in addresses)


@given(_BEFORE, _SCHEME, _WORD, st.text("0123456789", max_size=5), st.sampled_from("/?# '\"<>`|\\:"), _SECRET, _HOST, _AFTER)
def test_no_password_that_begins_as_a_port_survives(
    before: str, scheme: str, user: str, digits: str, sign: str, secret: str, host: str, after: str
) -> None:
    text = redact(f"{before}{scheme}://{user}:{digits}{sign}{secret}@{host}/db{after}")
    assert secret not in text
    assert f"://{user}:" not in text


@given(st.lists(st.sampled_from(["http://", "HTTP://", "models:/", "with url: /", "a", *"b:/@?#=.,;()[]\"' \n01"]), max_size=30))
def test_redaction_of_several_addresses_is_idempotent(parts: list[str]) -> None:
    once = redact("".join(parts))
    assert redact(once) == once


@given(st.text("ab:/@?#=.,;()[]\"' \n0", max_size=40))
def test_redaction_is_idempotent(text: str) -> None:
    once = redact(f"http://{text}")
    assert redact(once) == once


@given(st.text())
def test_text_without_an_address_stays(text: str) -> None:
    assume("://" not in text and "with url: /" not in text)
    assert redact(text) == text


def test_trees_of_json_are_redacted_in_every_text() -> None:
    tree = {"a": ["http://u:p@h", 1, None, True, {"b": "x?y=1"}], "c": 1.5}
    assert redact_tree(tree) == {"a": ["http://h", 1, None, True, {"b": "x?y=1"}], "c": 1.5}


def test_a_stream_redacts_what_is_written() -> None:
    out = io.StringIO()
    stream = RedactedStream(out)
    print("at http://u:p@h/?k=1", "end", file=stream)
    stream.writelines(["http://u:p@h\n"])
    assert out.getvalue() == "at http://h/ end\nhttp://h\n"
    assert not stream.isatty()


@pytest.mark.parametrize("unit", ["://", "x://", "http://", "http://u:1/@", "HTTP://a ", "http://a,http://b?c"])
def test_text_full_of_addresses_is_redacted_without_recursion(unit: str) -> None:
    text = redact(f"{unit * 3000}http://me:SECRET@host")
    assert "SECRET" not in text
    assert redact(text) == text


@given(
    _BEFORE,
    st.integers(0, 150),
    st.sampled_from(["http://ann:{}@host/db", "http://h/?user=ann&password={}", "http://ann:12/{}@h?k={}", "HTTP://ann {}:{}@h"]),
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=60, max_size=120),
    st.integers(0, 150),
    st.sampled_from(["", "; ask ann@example.org", " or http://u:p@h", ",http://g/"]),
)
def test_a_shortened_text_holds_no_part_of_a_secret(
    before: str, left: int, address: str, secret: str, right: int, after: str
) -> None:
    text = f"{'-' * left}{before} {address.format(secret, secret)}{after} {'-' * right}"
    shown = redact(shorten(text, 100))
    assert not any(secret[place : place + 4] in shown for place in range(len(secret) - 3))
    assert len(shown) < 120


def test_a_shortened_text_without_an_address_keeps_its_ends() -> None:
    assert shorten(f"a{'x' * 100}b", 20) == f"a{'x' * 9} [...] {'x' * 9}b"
    assert shorten("http://u:p@h", 20) == "http://u:p@h"


def test_the_import_is_light() -> None:
    code = "import sys, fr_ps.redaction; print([m for m in ('numpy', 'torch', 'pydantic', 'mlflow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
