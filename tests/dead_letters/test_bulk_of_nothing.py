"""A bulk operation whose words no group has."""

import pytest

from apps.dead_letters.bulk import pacer, plan
from tests.dead_letters.conftest import MakeLetter

pytestmark = pytest.mark.django_db


def test_words_that_no_group_has_are_no_letters_and_keep_no_other_operation_waiting(make_letter: MakeLetter) -> None:
    letter = make_letter()
    nothing = plan.create("redrive", query="no_such_word")
    other = plan.create("redrive", groups=[letter.group_id])
    pacer.tick()
    nothing.refresh_from_db()
    other.refresh_from_db()
    assert (nothing.state, other.state) == ("done", "ready")
    assert nothing.stop_reason == "No letter was left to decide."
