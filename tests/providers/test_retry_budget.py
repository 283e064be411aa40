"""Retries are at most a tenth of the traffic, and never fewer than three at once."""

from apps.providers.retry_budget import WINDOW, RetryBudget
from tests.races import together


def test_three_retries_may_run_without_any_traffic() -> None:
    budget = RetryBudget()
    assert [budget.take() for _ in range(4)] == [True, True, True, False]


def test_a_tenth_of_the_traffic_may_be_retried_at_once() -> None:
    budget = RetryBudget()
    for _ in range(80):
        budget.note_call()
    assert sum(budget.take() for _ in range(20)) == 8


def test_a_retry_that_has_ended_makes_room() -> None:
    budget = RetryBudget()
    for _ in range(3):
        budget.take()
    budget.give_back()
    assert budget.take()
    assert not budget.take()


def test_old_traffic_does_not_count() -> None:
    budget = RetryBudget()
    for _ in range(80):
        budget.note_call()
    for second in budget._calls:
        second[0] -= WINDOW + 2
    assert sum(budget.take() for _ in range(20)) == 3


def test_traffic_is_kept_by_the_second_and_not_by_the_call() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.note_call()
    assert len(budget._calls) <= 3


def test_each_budget_is_its_own() -> None:
    one, other = RetryBudget(), RetryBudget()
    taken = together(2, lambda number: [(one, other)[number].take() for _ in range(4)])
    assert taken == [[True, True, True, False]] * 2
