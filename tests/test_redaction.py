"""Redaction: no secret of an address in the text that comes out, and nothing else changed."""

import io
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fr_ps.redaction import RedactedStream, redact, redact_tree

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
        ("http://u:p x@host/db failed", "http://host/db failed"),
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
        "http://host:5000/models/face@champion is there",
        "expected scheme://",
        "trial 3: complete, identity 0.93 (a: b, c?)",
    ],
)
def test_what_holds_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(_BEFORE, _SCHEME, _WORD, _SECRET, _HOST, _AFTER)
def test_no_password_in_whatever_form_survives(before: str, scheme: str, user: str, secret: str, host: str, after: str) -> None:
    secret = f"S{secret}"  # what begins with digits and a slash, as `host:5000/`, reads as a port
    text = redact(f"{before}{scheme}://{user}:{secret}@{host}/db{after}")
    assert secret not in text
    assert f"{user}:" not in text.replace(before, "", 1)


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


def test_the_import_is_light() -> None:
    code = "import sys, fr_ps.redaction; print([m for m in ('numpy', 'torch', 'pydantic', 'mlflow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
