"""A run as a span (crm_sync/spans.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict
from typing import Concatenate, ParamSpec

from crm_sync.domain.runs import SyncRun
from crm_sync.spans import span

P = ParamSpec("P")


def as_a_span(walk: Callable[Concatenate[SyncRun, P], SyncRun]) -> Callable[Concatenate[SyncRun, P], SyncRun]:
    """Of whatever gives a run its end."""

    @functools.wraps(walk)
    def told(run: SyncRun, /, *args: P.args, **kwargs: P.kwargs) -> SyncRun:
        with span("run", run=run.id, sync=run.sync, crm=run.crm, object=run.object_type, kind=run.kind.value) as open_:
            ended = walk(run, *args, **kwargs)
            open_.tell(status=ended.status.value, credits=float(ended.credits), **asdict(ended.counts))
        return ended

    return told
