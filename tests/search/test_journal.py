"""The journal: exact, shared, append-only, and clear about files that are none."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.errors import SearchError
from autoprune.evaluation.metrics import Scores
from autoprune.pruning.plan import Plan
from autoprune.search.evaluated import Evaluated
from autoprune.search.journal import Journal, plan_key

PLAN = Plan({"a": (0, 2), "b": (1,)}, "model")
SCORES = Scores(0.1 + 0.2, None, 1 / 3, 5e-324, 1.7976931348623157e308, 1000)
EVALUATED = Evaluated(SCORES, 0.1)

values = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=30, deadline=None)
@given(st.builds(Scores, values, values, values, values, values, st.integers(0, 2**40)), values)
def test_scores_and_seconds_come_back_exactly(scores: Scores, seconds: float | None) -> None:
    evaluated = Evaluated(scores, seconds)
    with Journal("sqlite://") as journal:
        assert journal.put("settings", PLAN, evaluated) == evaluated
        assert repr(journal.get("settings", PLAN)) == repr(evaluated)  # repr: tells -0.0 from 0.0


def test_answers_are_found_by_settings_and_kept_indices(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.sqlite") as journal:
        assert journal.get("settings", PLAN) is None
        journal.put("settings", PLAN, EVALUATED)
        assert journal.get("settings", Plan({"b": (1,), "a": (0, 2)}, "model")) == EVALUATED
        assert journal.get("other settings", PLAN) is None
        assert journal.get("settings", Plan({"a": (0, 1), "b": (1,)}, "model")) is None
        assert len(journal) == 1
    with Journal.open(tmp_path / "journal.sqlite") as journal:
        assert journal.get("settings", PLAN) == EVALUATED


def test_plan_keys_tell_plans_apart() -> None:
    plans = [{"a": (0, 2), "b": (1,)}, {"a": (0,), "b": (2, 1)}, {"a": (0, 2)}, {"b": (0, 2), "a": (1,)}, {"a": (1, 2)}]
    assert len({plan_key(Plan(kept, "model")) for kept in plans}) == len(plans)


def test_the_first_answer_stands(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j.sqlite") as one, Journal.open(tmp_path / "j.sqlite") as two:
        assert one.put("s", PLAN, EVALUATED) == EVALUATED
        assert two.put("s", PLAN, Evaluated(Scores(0.9, None, 0.1, None, None, 10), 7.0)) == EVALUATED
        assert len(two) == 1


def test_many_writers_share_a_new_file(tmp_path: Path) -> None:
    """Connections of their own lock each other out as those of different processes do."""

    def write(worker: int) -> list[float | None]:
        with Journal.open(tmp_path / "journal.sqlite", synchronous="NORMAL") as journal:
            plans = [Plan({"a": (index,)}, "m") for index in range(25)]
            made = [Evaluated(Scores(worker + i / 100, None, 0, None, None, 1), i) for i in range(len(plans))]
            return [journal.put("s", plan, each).scores.top1 for plan, each in zip(plans, made, strict=True)]

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(write, range(6)))
    assert all(answer == answers[0] for answer in answers)
    with Journal.open(tmp_path / "journal.sqlite") as journal:
        assert len(journal) == 25


def damage(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def test_files_that_are_no_journal_are_refused_untouched(tmp_path: Path) -> None:
    text, foreign = tmp_path / "notes.txt", tmp_path / "foreign.sqlite"
    text.write_text("this is not a database, and long enough not to look like an empty one " * 20)
    damage(foreign, "CREATE TABLE bookmarks (url TEXT)")
    before = {path: path.read_bytes() for path in (text, foreign)}
    with pytest.raises(SearchError, match=r"notes\.txt: file is not a database; choose another file"):
        Journal.open(text)
    with pytest.raises(SearchError, match="another program's database, with a table 'bookmarks'"):
        Journal.open(foreign)
    assert text.read_bytes() == before[text]
    with closing(sqlite3.connect(foreign)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    with pytest.raises(SearchError, match="unable to open"):
        Journal.open(tmp_path / "no such folder" / "journal.sqlite")


@pytest.mark.parametrize("url", ["not a url", "nosuchdatabase://x", ""])
def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(SearchError, match="give a database URL"):
        Journal(url)


def test_other_versions_and_damaged_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal.open(path) as journal:
        journal.put("s", PLAN, EVALUATED)
    for text in ("{", "[1]", '{"top1": 1}'):
        damage(path, f"UPDATE evaluations SET scores = '{text}'")  # noqa: S608 - a constant of this test
        with Journal.open(path) as journal, pytest.raises(SearchError):
            journal.get("s", PLAN)
    damage(path, "UPDATE journal_schema SET version = 7")
    with pytest.raises(SearchError, match="version 7, this program writes 2"):
        Journal.open(path)


def version_1(path: Path) -> None:
    """Write a journal as version 1 did, with one row."""
    with Journal.open(path) as journal:
        journal.put("s", PLAN, EVALUATED)
    damage(path, "ALTER TABLE evaluations DROP COLUMN seconds")
    damage(path, "UPDATE journal_schema SET version = 1")


def test_journals_of_version_1_go_on_without_the_seconds_of_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    version_1(path)
    for _ in range(2):
        with Journal.open(path) as journal:
            assert journal.get("s", PLAN) == Evaluated(SCORES, None)
            assert journal.put("t", PLAN, EVALUATED) == EVALUATED
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version FROM journal_schema").fetchall() == [(2,)]
    damage(path, "UPDATE journal_schema SET version = 1")  # killed between the two steps
    with Journal.open(path) as journal:
        assert journal.get("t", PLAN) == EVALUATED


def test_several_processes_bring_a_journal_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    version_1(path)

    def read(_: int) -> Evaluated | None:
        with Journal.open(path) as journal:
            return journal.get("s", PLAN)

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(read, range(6))) == {Evaluated(SCORES, None)}


def test_a_journal_that_breaks_while_open_says_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal.open(path) as journal:
        damage(path, "DROP TABLE evaluations")
        with pytest.raises(SearchError, match="no such table"):
            journal.get("s", PLAN)
        with pytest.raises(SearchError, match="no such table"):
            journal.put("s", PLAN, EVALUATED)
        with pytest.raises(SearchError, match="no such table"):
            len(journal)


def test_evaluations_of_another_journal_are_adopted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.search.journal._ROWS", 5)
    plans = [Plan({"a": (index,)}, "model") for index in range(12)]
    with Journal.open(tmp_path / "before.sqlite") as before, Journal("sqlite://") as journal:
        for plan in plans:
            before.put("settings", plan, EVALUATED)
        own = Evaluated(replace(SCORES, top1=0.5), 2.0)
        journal.put("settings", plans[0], own)
        journal.put("other", plans[0], own)
        for _ in range(2):
            journal.adopt(before)
            assert len(journal) == len(plans) + 1
        assert journal.get("settings", plans[0]) == own
        assert journal.get("settings", plans[-1]) == EVALUATED
        assert len(before) == len(plans)
