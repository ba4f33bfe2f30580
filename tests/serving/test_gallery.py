"""Galleries: scores against a computation by hand, atomic changes, damage."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fr_ps.errors import InputError
from fr_ps.serving import enrolment as module
from fr_ps.serving.enrolment import enroll, forget
from fr_ps.serving.gallery import EMBEDDINGS_FILE, INFO_FILE, read_gallery
from fr_ps.serving.gallery_table import PEOPLE_FILE
from tests.conftest import AssertRejected

MODEL = "a" * 64
KEYS = [("anna", "s1"), ("anna", "s2"), ("ben", "s1"), ("carl", "s1")]


def embeddings(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    enroll(tmp_path / "gallery", MODEL, KEYS, embeddings(4))
    return tmp_path / "gallery"


def test_a_score_is_the_mean_cosine_to_the_sessions_of_a_subject(folder: Path) -> None:
    found, probes = read_gallery(folder), embeddings(5, seed=1).astype(np.float64)
    enrolled = dict(zip(KEYS, embeddings(4).astype(np.float64)))
    assert found.subjects == ["anna", "ben", "carl"]
    for probe, scores in zip(probes, found.scores(probes.astype(np.float32))):
        for subject, score in zip(found.subjects, scores):
            rows = [embedding for (owner, _), embedding in enrolled.items() if owner == subject]
            expected = np.mean([probe @ row / np.linalg.norm(probe) / np.linalg.norm(row) for row in rows])
            assert score == pytest.approx(expected, abs=1e-6)


def test_search_returns_the_highest_score_and_none_below_the_threshold(folder: Path) -> None:
    found = read_gallery(folder)
    probes = embeddings(4)[[2, 3]]  # the enrolled embeddings of ben and carl
    ben, carl = found.search(probes, threshold=0.99, top=2)
    assert (ben.subject, carl.subject) == ("ben", "carl")
    assert ben.score == pytest.approx(1, abs=1e-6)
    assert ben.candidates[0][0] == "ben"
    assert len(ben.candidates) == 2
    unknown = found.search(-probes[:1], threshold=0.99)[0]
    assert unknown.subject is None
    assert unknown.candidates[0][1] == unknown.score < 0.99


@pytest.mark.parametrize("count", [1, 40])
def test_search_lists_the_candidates_of_a_stable_sort_also_among_equal_scores(tmp_path: Path, count: int) -> None:
    """Three subjects have the same embedding; 40 probes are searched in several blocks."""
    rows = np.concatenate([embeddings(1)] * 3 + [embeddings(6, seed=2)])
    enroll(tmp_path, MODEL, [(f"S{8 - row}", "s1") for row in range(9)], rows)
    found, probes = read_gallery(tmp_path), np.concatenate([embeddings(1), embeddings(count - 1, seed=3)])
    for match, scores in zip(found.search(probes, 0.5, top=4), found.scores(probes), strict=True):
        order = np.argsort(-scores, kind="stable")[:4]
        assert [subject for subject, _ in match.candidates] == [found.subjects[column] for column in order]
    assert [subject for subject, _ in found.search(probes[:1], 0.5, top=3)[0].candidates] == ["S6", "S7", "S8"]
    assert len(found.search(probes[:1], 0.5, top=100)[0].candidates) == 9


def test_the_score_of_a_claim_is_that_of_the_search(folder: Path) -> None:
    found, probes = read_gallery(folder), embeddings(3, seed=1)
    for probe, scores in zip(probes, found.scores(probes)):
        for subject, score in zip(found.subjects, scores):
            assert found.claim_score(probe, subject) == pytest.approx(score, abs=1e-6)


def test_embeddings_are_mapped_from_the_file_and_stay_valid_after_a_change(folder: Path) -> None:
    found = read_gallery(folder)
    assert not found.embeddings.flags.writeable
    assert not found.embeddings.flags.owndata
    before = found.scores(embeddings(1))
    forget(folder, "anna")
    assert np.array_equal(found.scores(embeddings(1)), before)


def test_forget_removes_the_embeddings_from_the_file(folder: Path) -> None:
    before = embeddings(4)
    assert forget(folder, "anna") == 2
    stored = np.load(folder / EMBEDDINGS_FILE)
    for gone in before[:2]:
        assert not np.isclose(stored, gone).all(axis=1).any()
        assert gone.tobytes() not in (folder / EMBEDDINGS_FILE).read_bytes()
    assert "anna" not in (folder / PEOPLE_FILE).read_text()
    assert read_gallery(folder).subjects == ["ben", "carl"]
    assert forget(folder, "ben", "s1") == 1
    assert read_gallery(folder).subjects == ["carl"]


def test_enrolling_a_session_again_replaces_it(folder: Path) -> None:
    new = embeddings(1, seed=9)
    found = enroll(folder, MODEL, [("ben", "s1")], new)
    assert len(found.sessions) == 4
    assert read_gallery(folder).search(new, 0.5)[0].score == pytest.approx(1, abs=1e-6)
    assert embeddings(4)[2].tobytes() not in (folder / EMBEDDINGS_FILE).read_bytes()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from("ab"), st.lists(st.sampled_from("12"), min_size=1, unique=True)), max_size=5
    )
)
def test_any_sequence_of_changes_equals_that_of_a_dictionary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: list[tuple[bool, str, list[str]]]
) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)  # hundreds of calls, each of which waits for a busy disk
    folder = tmp_path / "gallery"
    shutil.rmtree(folder, ignore_errors=True)
    enroll(folder, MODEL, [("z", "0")], embeddings(1, seed=99))
    expected = {("z", "0"): embeddings(1, seed=99)[0]}
    for step, (adding, subject, sessions) in enumerate(history):
        keys = [(subject, session) for session in sessions]
        if adding:
            rows = embeddings(len(keys), seed=step)
            enroll(folder, MODEL, keys, rows)
            expected |= dict(zip(keys, rows))
        elif known := [key for key in expected if key[0] == subject]:
            assert forget(folder, subject) == len(known)
            expected = {key: row for key, row in expected.items() if key[0] != subject}
    found = read_gallery(folder)
    assert {(one.id, one.session) for one in found.sessions} == set(expected)
    for one in found.sessions:
        assert np.array_equal(found.embeddings[one.row], expected[one.id, one.session])
        assert one.quality == pytest.approx(np.linalg.norm(expected[one.id, one.session]), abs=1e-3)
    unused = set(range(len(found.embeddings))) - {one.row for one in found.sessions}
    assert not found.embeddings[sorted(unused)].any()


@pytest.mark.parametrize("last", range(4))
@pytest.mark.parametrize("change", ["enroll", "forget"])
def test_an_interrupted_change_is_complete_or_absent(
    folder: Path, monkeypatch: pytest.MonkeyPatch, last: int, change: str
) -> None:
    """The change is interrupted at each of its writes."""
    writes = 0

    def interrupted(real):  # type: ignore[no-untyped-def]
        def write(*arguments):  # type: ignore[no-untyped-def]
            nonlocal writes
            if writes == last:
                raise KeyboardInterrupt
            writes += 1
            return real(*arguments)

        return write

    before = read_gallery(folder)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomic", interrupted(module.write_atomic))
        patch.setattr(module, "write_text", interrupted(module.write_text))
        try:
            if change == "enroll":
                enroll(folder, MODEL, [("dora", "s1"), ("ben", "s1")], embeddings(2, seed=7))
            else:
                forget(folder, "anna")
        except KeyboardInterrupt:
            assert writes == last
    found = {(one.id, one.session) for one in read_gallery(folder).sessions}
    after = {*KEYS, ("dora", "s1")} if change == "enroll" else {key for key in KEYS if key[0] != "anna"}
    assert found in (set(KEYS), after)
    after_restart = read_gallery(folder)
    old = {(one.id, one.session): before.embeddings[one.row] for one in before.sessions}
    for one in after_restart.sessions:
        if (one.id, one.session) in old and (change == "forget" or one.id != "ben"):
            assert np.array_equal(after_restart.embeddings[one.row], old[one.id, one.session])


def test_enroll_rejects_a_gallery_without_gallery_json(folder: Path, rejected: AssertRejected) -> None:
    (folder / INFO_FILE).unlink()
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with rejected(PEOPLE_FILE, f"without {INFO_FILE}", "restore that file"):
        enroll(folder, MODEL, [("dora", "s1")], embeddings(1))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


HEADER = b"id,session,row,quality,enrolled"


@pytest.mark.parametrize(
    "content", [b"name,born\n", b"anna\n", b"# anna, 1980", HEADER, HEADER + b"\n\n", HEADER + b",note\n", b"", b"\xff\n"]
)
def test_enroll_rejects_a_folder_with_another_people_csv(tmp_path: Path, rejected: AssertRejected, content: bytes) -> None:
    (tmp_path / PEOPLE_FILE).write_bytes(content)
    with rejected(PEOPLE_FILE):
        enroll(tmp_path, MODEL, [("dora", "s1")], embeddings(1))
    assert (tmp_path / PEOPLE_FILE).read_bytes() == content
    assert not (tmp_path / EMBEDDINGS_FILE).exists()


@pytest.mark.parametrize(
    "array", [np.zeros((0, 8)), np.zeros(0, "f4"), np.zeros((0, 2, 4), "f4"), embeddings(1), np.zeros((), "f4")]
)
def test_enroll_rejects_a_folder_with_another_embeddings_npy(tmp_path: Path, rejected: AssertRejected, array: np.ndarray) -> None:
    np.save(tmp_path / EMBEDDINGS_FILE, array)
    before = (tmp_path / EMBEDDINGS_FILE).read_bytes()
    with rejected(EMBEDDINGS_FILE, f"without {INFO_FILE}"):
        enroll(tmp_path, MODEL, [("dora", "s1")], embeddings(1))
    assert (tmp_path / EMBEDDINGS_FILE).read_bytes() == before


@pytest.mark.parametrize("header", [HEADER + b"\n", HEADER + b",checksum\n"])
def test_enroll_completes_a_gallery_that_a_killed_process_created(tmp_path: Path, header: bytes) -> None:
    (tmp_path / PEOPLE_FILE).write_bytes(header)
    np.save(tmp_path / EMBEDDINGS_FILE, np.zeros((0, 16), "f4"))
    enroll(tmp_path, MODEL, [("dora", "s1")], embeddings(1))
    assert read_gallery(tmp_path).subjects == ["dora"]


def test_enroll_rejects_invalid_keys_and_embeddings(folder: Path) -> None:
    zero, nan = np.zeros((1, 8), np.float32), np.full((1, 8), np.nan, np.float32)
    bad = [
        ([("dora", "12:30")], embeddings(1), "not a plain name"),
        ([("..", "s1")], embeddings(1), "not a plain name"),
        ([("dora", "s1"), ("dora", "s1")], embeddings(2), "listed twice"),
        ([("dora", "s1")], zero, "is zero or has NaN"),
        ([("dora", "s1")], nan, "is zero or has NaN"),
    ]
    for keys, rows, words in bad:
        with pytest.raises(InputError, match=words):
            enroll(folder, MODEL, keys, rows)
    assert read_gallery(folder).subjects == ["anna", "ben", "carl"]


@pytest.mark.parametrize("name", ["unknown", "Unknown", "UNKNOWN"])
def test_the_id_unknown_is_reserved(name: str, folder: Path, rejected: AssertRejected) -> None:
    before = (folder / PEOPLE_FILE).read_text()
    with rejected(f"{name}/s1", "reserved", "another id"):
        enroll(folder, MODEL, [("dora", "s1"), (name, "s1")], embeddings(2))
    assert (folder / PEOPLE_FILE).read_text() == before
    # Enrolled by an older version, which allowed this id.
    (folder / PEOPLE_FILE).write_text(before.replace("ben,", f"{name},"))
    with rejected(folder / PEOPLE_FILE, "row 4", "reserved", "change the id"):
        read_gallery(folder)
    (folder / PEOPLE_FILE).write_text(before.replace("ben,", "unknown soldier,"))
    assert "unknown soldier" in read_gallery(folder).subjects


def test_forget_removes_the_temporary_files_of_a_killed_process(folder: Path) -> None:
    leftover = folder / f".partial-12345678-{EMBEDDINGS_FILE}"
    leftover.write_bytes((folder / EMBEDDINGS_FILE).read_bytes())
    forget(folder, "anna")
    assert not leftover.exists()


def test_a_concurrent_reader_sees_complete_galleries(folder: Path) -> None:
    import threading

    stop, seen = threading.Event(), 0

    def write() -> None:
        while not stop.is_set():
            forget(folder, "ben")
            enroll(folder, MODEL, [("dora", "s1")], embeddings(1, seed=5))
            forget(folder, "dora")
            enroll(folder, MODEL, [("ben", "s1")], embeddings(4)[2:3])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(150):
            found = read_gallery(folder)
            for one in found.sessions:
                expected = embeddings(1, seed=5)[0] if one.id == "dora" else embeddings(4)[KEYS.index((one.id, one.session))]
                assert np.array_equal(found.embeddings[one.row], expected)
                seen += one.id == "dora"
    finally:
        stop.set()
        writer.join()


def test_a_gallery_of_another_model_and_an_empty_one_are_rejected(folder: Path, rejected: AssertRejected) -> None:
    with rejected(INFO_FILE, "another model"):
        read_gallery(folder).check_searchable("b" * 64)
    with rejected(INFO_FILE, "another model"):
        enroll(folder, "b" * 64, [("dora", "s1")], embeddings(1))
    for subject in ("anna", "ben", "carl"):
        forget(folder, subject)
    with rejected(PEOPLE_FILE, "the gallery is empty"):
        read_gallery(folder).check_searchable(MODEL)


def test_forget_rejects_a_subject_that_is_not_enrolled(folder: Path, tmp_path: Path, rejected: AssertRejected) -> None:
    with pytest.raises(InputError, match="dora is not enrolled; enrolled subjects: anna, ben, carl"):
        forget(folder, "dora")
    with pytest.raises(InputError, match="anna/s9 is not enrolled"):
        forget(folder, "anna", "s9")
    with pytest.raises(InputError, match="no such gallery"):
        forget(tmp_path / "nowhere", "anna")
    assert not (tmp_path / "nowhere").exists()


def damage(folder: Path, what: str) -> None:
    people, vectors = folder / PEOPLE_FILE, folder / EMBEDDINGS_FILE
    if what == "no gallery":
        (folder / INFO_FILE).unlink()
    elif what == "a newer format":
        raw = json.loads((folder / INFO_FILE).read_text())
        (folder / INFO_FILE).write_text(json.dumps(raw | {"format": 99}))
    elif what == "no json":
        (folder / INFO_FILE).write_text("[]")
    elif what == "objects":
        np.save(vectors, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif what == "another width":
        np.save(vectors, embeddings(4)[:, :5])
    elif what == "a row beyond":
        people.write_text(people.read_text().replace("carl,s1,3", "carl,s1,30"))
    elif what == "a row twice":
        people.write_text(people.read_text().replace("carl,s1,3", "carl,s1,2"))
    elif what == "no number":
        people.write_text(people.read_text().replace("carl,s1,3", "carl,s1,x"))
    elif what == "a path":
        people.write_text(people.read_text().replace("carl", "../carl"))
    elif what == "nan":
        np.save(vectors, np.full((4, 8), np.nan, dtype=np.float32))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no gallery", (INFO_FILE, "no such file")),
        ("a newer format", (INFO_FILE, "99 is newer")),
        ("no json", (INFO_FILE, "expected a gallery")),
        ("objects", (EMBEDDINGS_FILE, "Python objects")),
        ("another width", (EMBEDDINGS_FILE, "(4, 5)")),
        ("a row beyond", (PEOPLE_FILE, "row 5", "used twice or not in")),
        ("a row twice", (PEOPLE_FILE, "row 5", "used twice or not in")),
        ("no number", (PEOPLE_FILE, "row 5", "numbers")),
        ("a path", (PEOPLE_FILE, "row 5", "not a plain name")),
        ("nan", (PEOPLE_FILE, "row 2", "has NaN")),
    ],
)
def test_a_damaged_gallery_is_rejected_with_file_and_row(folder: Path, what: str, words: tuple[str, ...]) -> None:
    damage(folder, what)
    with pytest.raises(InputError) as caught:
        read_gallery(folder)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("byte", [-1, -3, -64, -128])
def test_a_changed_byte_of_an_embedding_is_rejected(folder: Path, rejected: AssertRejected, byte: int) -> None:
    path = folder / EMBEDDINGS_FILE
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(bytes(content))
    with rejected(folder / PEOPLE_FILE, "row", "checksum differs", "restore that file from a copy"):
        read_gallery(folder)


def test_a_gallery_of_version_0_1_loads_and_enroll_adds_checksums(tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    shutil.copytree(Path(__file__).parents[1] / "old_files" / "gallery", folder)
    old = read_gallery(folder)
    assert old.subjects == ["S000", "S001", "S002"]
    new = np.random.default_rng(0).normal(size=(1, 16)).astype(np.float32)
    enroll(folder, old.model, [("S003", "s00")], new)
    assert read_gallery(folder).subjects == ["S000", "S001", "S002", "S003"]
    rows = (folder / PEOPLE_FILE).read_text().splitlines()
    assert rows[0].endswith(",checksum")
    assert all(len(row.rsplit(",", 1)[1]) == 16 for row in rows[1:])
