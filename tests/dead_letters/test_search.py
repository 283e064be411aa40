"""One language narrows letters and groups: whatever is typed is understood, or refused with words that help."""

from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.access.models import Project
from apps.core.errors import InvalidRequest, ServiceUnavailable, Timeout
from apps.dead_letters import grouping, search, tallies
from apps.dead_letters.models import DeadLetter, FailureGroup
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.test_triage import person
from tests.tasks.conftest import MakeKind
from tests.time import age

pytestmark = pytest.mark.django_db
ANY = st.characters()
TERMS = st.one_of(
    st.text(ANY, max_size=12),
    st.builds("{}:{}".format, st.sampled_from([*search.QUALIFIERS, "colour", "https"]), st.text(ANY, max_size=12)),
    st.builds("age:{}{}{}".format, st.sampled_from(["", "<", ">"]), st.integers(0, 10**7), st.sampled_from("smhdy")),
    st.builds('"{}"'.format, st.text(ANY, max_size=12)),
    st.builds("task_{}".format, st.uuids().map(lambda one: one.hex)),
)


def found(text: str) -> set[Any]:
    return set(search.letters(search.parse(text)).values_list("pk", flat=True))


def groups_found(text: str) -> set[str]:
    return set(search.groups(search.parse(text)).values_list("pk", flat=True))


def refused(text: str) -> str:
    with pytest.raises(InvalidRequest) as error:
        search.groups(search.parse(text))
    assert error.value.param == "q"
    return error.value.message


@given(st.one_of(st.text(ANY), st.lists(TERMS, max_size=6).map(" ".join)))
def test_any_text_is_a_query_that_runs_or_is_refused(text: str) -> None:
    for rows in (search.letters, search.groups):
        with suppress(InvalidRequest):
            list(rows(search.parse(text)))


@pytest.mark.parametrize("text", ["age:>999999d", "age:<999999d", "age:>999999h", "age:0s"])
def test_an_age_may_be_older_than_the_calendar(db: None, text: str) -> None:
    assert (found(text), groups_found(text)) == (set(), set())


@pytest.mark.parametrize(
    "text", ["kind:a kind:b", "age:<1h age:<2h", "state:open words state:discarded", f"task_{'0' * 32} task_{'1' * 32}"]
)
def test_of_two_terms_that_differ_none_is_forgotten(text: str) -> None:
    assert "is there twice" in refused(text)
    assert search.parse("kind:a kind:a age:<2h age:>1h") == search.parse("kind:a age:>1h age:<2h")


@pytest.mark.parametrize("text", ["\ud800", 'kind:"\udfff"', "owner:\ud83d"])
def test_half_a_character_is_refused(text: str) -> None:
    refused(text)


def test_each_qualifier_narrows_letters_and_groups(make_letter: MakeLetter, make_kind: MakeKind) -> None:
    project, kind = Project.objects.create(name="billing"), make_kind()
    letter = make_letter(kind=kind, project_id=project.pk, queue="low", error=Timeout("Too slow."), upstream="p/m")
    make_letter()
    age(letter, hours=3)
    age(letter.group, hours=3)
    for text in (
        f"kind:{kind.name}", "queue:low", "code:timeout", "project:billing", "age:>2h", "age:2h", "age:>120m",
        f"group:{letter.group_id[:10]}", '"too slow"', "p/m", "TIMEOUT slow", kind.name,
        f"kind:{kind.name} queue:low code:timeout project:billing age:>2h state:STATE slow",
    ):  # fmt: skip
        assert found(text.replace("STATE", "open")) == {letter.pk}, text
        if "project:" not in text:  # known once its tallies are folded
            assert groups_found(text.replace("STATE", "for_review")) == {letter.group_id}, text
    for text in ("age:<4h", "state:STATE"):
        assert len(found(text.replace("STATE", "open"))) == 2
        assert len(groups_found(text.replace("STATE", "for_review"))) == 2
    for text in (f"kind:{kind.name} queue:high", "age:>4h", "slow quick", "group:ffff project:billing"):
        assert (found(text), groups_found(text.replace("project:billing", ""))) == (set(), set()), text


def test_a_project_is_found_by_its_name_once_its_group_was_counted(make_letter: MakeLetter) -> None:
    project = Project.objects.create(name='two "words')
    letter = make_letter(project_id=project.pk)
    make_letter()
    tallies.fold()
    Project.objects.filter(pk=project.pk).update(name="two words")
    assert found('project:"two words"') == {letter.pk}
    assert groups_found('project:"two words"') == {letter.group_id}
    assert "no project 'nobody'" in refused("project:nobody")


def test_a_task_is_found_by_the_id_that_people_see(make_letter: MakeLetter) -> None:
    letter = make_letter()
    make_letter()
    text = f"task_{letter.task_id.hex}"
    assert (found(text), groups_found(text)) == ({letter.pk}, {letter.group_id})
    assert found(f"task_{uuid4().hex}") == set()
    assert found("task_zzz") == set()  # a word like any other


def test_owners_are_named_or_none(make_letter: MakeLetter, django_user_model: Any) -> None:
    mine, free = make_letter(), make_letter()
    owner = person(django_user_model)
    grouping.assign(mine.group_id, owner=owner.username)
    assert (found(f"owner:{owner.username}"), groups_found(f"owner:{owner.username}")) == ({mine.pk}, {mine.group_id})
    assert (found("owner:none"), groups_found("owner:none")) == ({free.pk}, {free.group_id})
    assert found("owner:somebody") == set()


@pytest.mark.parametrize(
    ("sign", "other"), [("50%", "500"), ("a_b", "axb"), ("c\\d", "cd"), ("%", "none"), ("_", "x"), ("\\", "y")]
)
def test_signs_that_like_reads_otherwise_stand_for_themselves(make_letter: MakeLetter, sign: str, other: str) -> None:
    letter = make_letter(error=ServiceUnavailable(f"at {sign} of it"))
    make_letter(error=ServiceUnavailable(f"at {other} of it"))
    FailureGroup.objects.update(kind="k", code="c")
    for text in (sign, f'"{sign}"', f'"at {sign} of"'):
        assert found(text) == {letter.pk}
        assert groups_found(text) == {letter.group_id}
    assert found(f"group:{sign}") == set()


def test_addresses_are_words(make_letter: MakeLetter) -> None:
    letter = make_letter()
    FailureGroup.objects.filter(pk=letter.group_id).update(message="cannot reach https://host:8080/v1 of it")
    for text in ("https://host:8080/v1", "host:8080", '"reach https://host"', "HTTPS://HOST"):
        if text == "host:8080":
            assert "There is no host:" in refused(text)
        else:
            assert found(text) == {letter.pk}, text


def test_what_is_not_understood_is_refused_by_name_with_what_there_is() -> None:
    words = refused("colour:red")
    assert "There is no colour:" in words
    assert all(f"{name}:" in words for name in search.QUALIFIERS)
    assert "for_review" in refused("state:blue")
    for text in ("kind:", 'kind:""', "age:soon", "age:", "age:-1h", "age:1y", 'an "open quote', "x" * 501, "a\0b"):
        refused(text)
    refused(" ".join("abcdefghijklmnopqrstu"))


def test_a_state_of_groups_is_none_of_letters(db: None) -> None:
    for rows, text in ((search.letters, "state:resolved"), (search.groups, "state:redriven")):
        with pytest.raises(InvalidRequest):
            rows(search.parse(text))


def test_nothing_typed_narrows_nothing(make_letter: MakeLetter) -> None:
    letter = make_letter()
    for text in ("", "  ", "\n", '""'):
        assert search.parse(text).is_empty()
        assert found(text) == {letter.pk}


@given(st.text(max_size=60).filter(lambda value: "\0" not in value and '"' not in value))
def test_a_quoted_value_is_read_as_it_was(value: str) -> None:
    term = search.quoted(value)
    try:
        query = search.parse(f"kind:{term}")
    except InvalidRequest:
        assert not value or not value.isprintable()
        return
    assert query.kind == value


def test_ages_are_counted_from_the_moment_that_is_given(make_letter: MakeLetter) -> None:
    letter = make_letter()
    query = search.parse("age:>1h")
    assert not search.letters(query).exists()
    later = letter.created_at + timedelta(hours=2)
    assert search.letters(query, now=later).get() == letter


def test_however_many_groups_match_none_is_left_out(make_letter: MakeLetter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_GROUPS", 3)
    for _ in range(5):
        make_letter()
    assert len(found("validation_error")) == DeadLetter.objects.count() == 5
