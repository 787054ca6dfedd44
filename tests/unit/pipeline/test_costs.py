"""What an answer cost, where Apollo does not say."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from adapters.apollo import wire
from crm_sync.domain.enrichment import Purpose
from crm_sync.pipeline.enrich import expansion_of
from tests.factories import company_keys

ONE: dict[str, Any] = {"id": "1", "primary_domain": "one.example", "industry": "retail"}
STRAY: dict[str, Any] = {"id": "9", "primary_domain": "elsewhere.example", "industry": "retail"}


@pytest.mark.parametrize(
    ("organizations", "cost"),
    [
        ([], 0),
        ([ONE], 1),
        ([ONE, None, {}], 1),
        ([STRAY], 1),  # it may belong to either, and was charged once
        ([ONE, STRAY], 2),
    ],
)
def test_a_bulk_answer_costs_one_credit_for_each_company_in_it(organizations: list[Any], cost: int) -> None:
    keys = (company_keys("one.example"), company_keys("two.example"))
    reading = wire.read_answer(Purpose.COMPANY, keys, {"organizations": organizations, "missing_records": 0})

    expansion = expansion_of(1, Purpose.COMPANY, keys, reading, None, single=False, answered_at=None)

    assert expansion.credits_charged == Decimal(cost)


def test_what_apollo_says_counts_whatever_the_answer_holds() -> None:
    keys = (company_keys("one.example"),)
    reading = wire.read_answer(Purpose.COMPANY, keys, {"organizations": [ONE]})

    expansion = expansion_of(1, Purpose.COMPANY, keys, reading, Decimal("1.01"), single=False, answered_at=None)

    assert expansion.credits_charged is None
