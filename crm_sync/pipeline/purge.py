"""How long what is kept, by `keep:` and by what would be bought again without it."""

from __future__ import annotations

from datetime import datetime, timedelta

from crm_sync.config.model import Config
from crm_sync.pipeline.walk import DEFAULT_FRESH_FOR
from crm_sync.store.retention import Cutoffs, Retention

_DAY = timedelta(days=1)
#: An order's token is good for 35 days (store/hook_tokens.py): a day later nothing can be delivered for it.
_ORDERS = timedelta(days=36)


def cutoffs(config: Config, now: datetime) -> Cutoffs:
    """Answers go at their time, whatever the windows: that is a promise about people's data. The index, which has
    digests only, stays as long as any sync counts on it, or the same people would be bought again."""
    keep, syncs = config.keep, config.syncs.values()
    fresh = max((sync.choose.or_older_than or DEFAULT_FRESH_FOR for sync in syncs), default=DEFAULT_FRESH_FOR)
    wait = max((sync.choose.after_no_match_wait for sync in syncs), default=DEFAULT_FRESH_FOR)
    return Cutoffs(
        bodies=now - keep.answers,
        found=now - max(keep.answers, fresh),
        not_found=now - max(keep.answers, wait),
        details=now - keep.run_details,
        written=now - max(keep.run_details, keep.undo),
        deliveries=now - keep.deliveries,
        orders=now - max(_ORDERS, keep.deliveries),
    )


def purge_daily(config: Config, retention: Retention, now: datetime) -> dict[str, int] | None:
    """At the end of a run: None when the last purge is less than a day old."""
    last = retention.last()
    # A clock that was set back must not stop purging for ever.
    if last is not None and timedelta(0) <= now - last < _DAY:
        return None
    return retention.purge(cutoffs(config, now), now=now)
