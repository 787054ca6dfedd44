"""A Salesforce org over loopback HTTP: logins, describe, SOQL, collections, composite, bulk jobs, limits.

It stands on contracts/salesforce.md sections 1 and 2 and is stricter than the service where the two are known to
differ, never more forgiving. Not simulated, and answered 404 or refused by name: creating and deleting records by API,
users as parents, bulk inserts, and SOQL beyond soql.py.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Mapping

from flask import Flask

from crm_sync.sandbox.overlay import Overlay
from crm_sync.sandbox.salesforce.app import Usage, build
from crm_sync.sandbox.salesforce.auth import Credentials, Logins
from crm_sync.sandbox.salesforce.bulk import Jobs
from crm_sync.sandbox.salesforce.bulk_query import QueryJobs
from crm_sync.sandbox.salesforce.jobs import Habits
from crm_sync.sandbox.salesforce.org import Org
from crm_sync.sandbox.salesforce.query import MAX_PAGE, Queries
from crm_sync.sandbox.salesforce.rules import ValidationRule
from crm_sync.sandbox.salesforce.schema import build as build_schema
from crm_sync.sandbox.salesforce.simulator import Simulator
from crm_sync.sandbox.salesforce.writes import Writes
from crm_sync.sandbox.world import World

__all__ = ["Credentials", "Habits", "Simulator", "ValidationRule", "create"]


def create(
    world: World,
    *,
    credentials: Credentials | None = None,
    hidden: Mapping[str, Iterable[str]] | None = None,
    validation_rules: Iterable[ValidationRule] = (),
    token_seconds: float = 7_200,
    token_calls: int | None = None,
    one_session: bool = False,
    daily_calls: int = 115_000,
    max_page: int = MAX_PAGE,
    individuals: bool = False,
    bulk: Habits | None = None,
    now: Callable[[], float] = time.time,
) -> Flask:
    """Return the org as a Flask application; `app.extensions["simulator"]` is its Simulator.

    `hidden`: object -> fields that field-level security hides. `token_seconds`, `token_calls`: when a token ends, by
    time and by number of requests. `one_session`: a new login ends the sessions before it. `daily_calls`: the org's
    API calls before it refuses. `max_page`: rows of a query page at most (the service also gives fewer for wide rows).
    `individuals`: Data Protection and Privacy is on, so that contacts and leads have an IndividualId (blank at first),
    and there is an Individual for each contact's index. `bulk`: how its bulk jobs behave.

    Raises:
        ValueError: `hidden` names something unknown.
    """
    credentials = credentials or Credentials()
    objects = build_schema(hidden or {}, individuals=individuals)
    overlay = Overlay()
    org = Org(world, objects, overlay=overlay, now=now)
    logins = Logins(credentials, token_seconds=token_seconds, token_calls=token_calls, one_session=one_session, now=now)
    writes = Writes(org, tuple(validation_rules))
    usage = Usage(daily_calls)
    bulk = bulk or Habits()
    queries = Queries(org, max_page=max_page)
    jobs, query_jobs = Jobs(org, writes, bulk), QueryJobs(org, queries, bulk)
    app = build(org, logins, queries, writes, jobs, query_jobs, usage)
    # The overlay's file goes with the application, at the latest with the process.
    weakref.finalize(app, overlay.close)
    app.extensions["simulator"] = Simulator(
        org=org, logins=logins, writes=writes, jobs=jobs, query_jobs=query_jobs, usage=usage
    )
    return app
