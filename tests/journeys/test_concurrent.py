"""Two hundred edits by a person at random moments of reading, writing and looking at the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from adapters.hubspot.client import HubSpotCredentials, HubSpotCrm
from crm_sync.domain.changes import WriteMode, Written
from crm_sync.sandbox import hubspot
from crm_sync.sandbox.hubspot.portal import FIRST_ID
from crm_sync.sandbox.run import Sandbox
from tests.clocks import FakeClock
from tests.journeys.concurrent import Play, edits_at_random_moments

MOMENTS = 200
TOGETHER = 3
PLAY = Play(
    object_type="contacts",
    ids=[str(FIRST_ID["contacts"] + n) for n in range((MOMENTS + 1) * TOGETHER)],
    ours={"jobtitle": "CTO", "city": "Bonn", "hs_seniority": "vp", "lead_score": 7, "phone": "+49301234"},
    theirs={
        "jobtitle": ("Head of Buying", "cto"),
        "city": ("Ulm", "n/a"),
        "hs_seniority": ("owner", "senior"),
        "lead_score": ("5", "7.5"),
        "phone": ("+49 30 1234", "030 999"),
    },
)


@contextmanager
def a_portal(variant: str) -> Iterator[tuple[HubSpotCrm, Sandbox]]:
    with Sandbox(contacts=len(PLAY.ids), unlimited=True, variant=variant) as sandbox:
        token = HubSpotCredentials(token=hubspot.TOKEN)
        crm = HubSpotCrm(name="hubspot", url=sandbox.hubspot_url, credentials=token, clock=FakeClock())
        try:
            yield crm, sandbox
        finally:
            crm.close()


@pytest.mark.parametrize("lost_answers", [0.0, 0.3])
@pytest.mark.parametrize("variant", ["a", "b"])
def test_a_persons_edit_stands_at_the_end_whenever_it_came(variant: str, lost_answers: float) -> None:
    with a_portal(variant) as (crm, sandbox):
        moments = edits_at_random_moments(crm, sandbox, PLAY, seed=7, moments=MOMENTS, lost_answers=lost_answers)

    assert [moment for moment in moments if not moment.has_come] == []
    assert [moment for moment in moments if not moment.stands] == []
    assert [moment for moment in moments if not moment.is_filled] == []
    assert {each.written for moment in moments for each in moment.outcomes} == {Written.WRITTEN}
    # Before and after the read, the write and the look at the history; what our write went over was told.
    assert len(Counter((moment.nth, moment.when) for moment in moments)) == 6
    assert sum(bool(each.restored) for moment in moments for each in moment.outcomes) > MOMENTS / 5


def test_a_fast_write_goes_over_what_comes_between() -> None:
    """The moments are real: without the guard, edits are lost."""
    with a_portal("a") as (crm, sandbox):
        moments = edits_at_random_moments(crm, sandbox, PLAY, seed=7, moments=40, mode=WriteMode.FAST)

    assert all(moment.has_come for moment in moments)
    assert not all(moment.stands for moment in moments)
