"""Messages of bad input: one line of a bounded length, with what is wrong and the remedy."""

import pickle

from fr_ps.errors import MAX_MESSAGE, InputError


def test_a_long_cell_loses_its_middle_and_the_remedy_stays():
    text = str(InputError(f"t.csv: row 2: Gender is {'x' * 10_000!r}; expected one of female, male"))
    assert len(text) <= MAX_MESSAGE
    assert text.startswith("t.csv: row 2: Gender is 'xxx")
    assert text.endswith("xxx'; expected one of female, male")
    assert str(InputError("a" * MAX_MESSAGE)) == "a" * MAX_MESSAGE


def test_a_message_is_one_line_and_survives_a_worker_process():
    error = InputError("t.csv: row 2: a\r\nb\u2028c is bad; remove it")
    assert str(error) == "t.csv: row 2: a b c is bad; remove it"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_long_message_is_cut_at_no_half_of_a_password():
    secret = "SECRET" * 1000
    for before in ("x" * 3000, "http://" * 1500, ""):
        text = str(InputError(f"{before}http://me:{secret}@host/?key={secret}; remove it"))
        assert "SECRET" not in text
        assert text.endswith(" remove it")
