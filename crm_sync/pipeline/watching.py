"""What is wrong enough to tell somebody: pure rules over facts that were read out of the store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol
from zoneinfo import ZoneInfo

from crm_sync.config.expressions import written
from crm_sync.config.model import Alert, Config
from crm_sync.domain.alerts import Finding, Late
from crm_sync.domain.runs import RunStatus, SyncRun
from crm_sync.pipeline.budget import day_of
from crm_sync.scrub import scrubbed
from crm_sync.store.journal import LOOKUPS, PHONES

APOLLO = "apollo"
PUBLIC_ADDRESS = "public address"
#: A share is looked at over so many records at least, so that one of three is not "33%": of the newest run where it is
#: large enough, else of the newest runs together.
LEAST_RECORDS = 20
#: So many of the newest runs are looked at.
RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Paid calls in doubt, `most` credits at worst, the oldest of `oldest`."""

    calls: int = 0
    most: Decimal = Decimal(0)
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """Phones that a sync waits for, the oldest since `oldest`."""

    count: int
    oldest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the rules look at. Where nobody could look, there is nothing: what was known stays as it was.

    `runs`: sync -> its newest ended runs, newest first; `gone_on_with`: those that another run goes on with. `spent`:
    limit of the budget -> credits that count against it. `late`: None where nobody knows the schedule. `access`:
    provider -> why it refuses us, "" where it does not. `public_url`: why the public address does not lead here, ""
    where it does, None where nobody looked.
    """

    now: datetime
    runs: Mapping[str, Sequence[SyncRun]] = field(default_factory=dict)
    gone_on_with: Collection[str] = ()
    spent: Mapping[str, Decimal] = field(default_factory=dict)
    doubt: Doubt = Doubt()
    awaited: Mapping[str, Awaited] = field(default_factory=dict)
    late: Sequence[Late] | None = None
    access: Mapping[str, str] = field(default_factory=dict)
    public_url: str | None = None


def name_of(alert: Alert) -> str:
    """The rule in words, which is what its state is kept under: "rejected_share above 5% (contacts)"."""
    words = alert.when
    if alert.above is not None:
        words += f" above {percent(alert.above)}"
    if alert.below is not None:
        words += f" below {percent(alert.below)}"
    if alert.after is not None:
        words += f" after {written(alert.after)}"
    return f"{words} ({', '.join(alert.syncs)})"[:300] if alert.syncs else words


def subjects(alert: Alert, config: Config) -> list[str]:
    """What an alert may be about in this configuration."""
    if alert.when == "budget_used":
        return list(limits(config))
    if alert.when == "credentials_refused":
        return [APOLLO, *sorted({sync.crm for sync in config.syncs.values()})]
    if alert.when == "public_url_unreachable":
        return [PUBLIC_ADDRESS]
    if alert.when == "in_doubt":
        return [APOLLO]
    return [name for name in config.syncs if not alert.syncs or name in alert.syncs]


def limits(config: Config) -> dict[str, Decimal]:
    """The limits of the budget that fill up over time; 0 is "buy nothing", which nobody has to be told."""
    budget = config.budget
    found = {
        "per_day": budget.per_day, "per_month": budget.per_month, "phones_per_month": budget.phones_per_month,
    }  # fmt: skip
    return {name: limit for name, limit in found.items() if limit}


class Spent(Protocol):
    """Credits that count against the limits of these purses from one day to another."""

    def __call__(self, since: str, until: str, *, purses: tuple[str, ...]) -> Decimal: ...


def used_of_limits(config: Config, spent: Spent, now: datetime) -> dict[str, tuple[Decimal, Decimal]]:
    """Limit -> (its credits, how many are used), as pipeline/budget.room counts them: phones have a purse of their own
    where `phones_per_month` is set."""
    today = day_of(now, config.timezone)
    month = f"{today[:8]}01"
    purses = (LOOKUPS,) if config.budget.phones_per_month is not None else (LOOKUPS, PHONES)
    asked = {"per_day": (today, purses), "per_month": (month, purses), "phones_per_month": (month, (PHONES,))}
    return {
        name: (limit, spent(asked[name][0], today, purses=asked[name][1])) for name, limit in limits(config).items()
    }


def judged(config: Config, facts: Facts) -> list[Finding]:
    """How every alert stands with each of its subjects, but for those about which nothing is known."""
    found = {}
    for alert in config.alerts:
        name = name_of(alert)
        for subject in subjects(alert, config):
            finding = _RULES[alert.when](_Rule(alert=alert, name=name, subject=subject, config=config, facts=facts))
            if finding is not None:
                found[name, subject] = finding
    return list(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """One alert with one subject."""

    alert: Alert
    name: str
    subject: str
    config: Config
    facts: Facts

    @property
    def runs(self) -> Sequence[SyncRun]:
        return self.facts.runs.get(self.subject, ())

    def fires(self, title: str, what: str, advice: str, *, since: datetime, lasts: timedelta = timedelta(0)) -> Finding:
        return self._finding(title, what, advice, since=since, is_firing=True, lasts=lasts)

    def is_fine(self, title: str, what: str) -> Finding:
        return self._finding(title, what, "", since=self.facts.now, is_firing=False, lasts=timedelta(0))

    def _finding(
        self, title: str, what: str, advice: str, *, since: datetime, is_firing: bool, lasts: timedelta
    ) -> Finding:
        return Finding(
            alert=self.name,
            subject=self.subject,
            is_firing=is_firing,
            since=since,
            title=scrubbed(title),
            what=scrubbed(what),
            advice=advice,
            lasts=lasts,
        )

    def time(self, moment: datetime) -> str:
        return moment.astimezone(ZoneInfo(self.config.timezone)).strftime("%Y-%m-%d %H:%M %Z")


def _run_failed(rule: _Rule) -> Finding | None:
    """Over when a later run comes to an end that is not Failed; one that was cancelled tells nothing, and neither does
    one whose process died and that another run goes on with by itself: that needs nobody."""
    told = [run for run in rule.runs if run.status is not RunStatus.CANCELLED and run.id not in rule.facts.gone_on_with]
    if not told:
        return None
    last = told[0]
    if last.status is not RunStatus.FAILED:
        return rule.is_fine(
            f"{rule.subject} runs again", f"Run {last.id} ended as {last.status} at {rule.time(_end(last))}."
        )
    failed = list(_leading(told, lambda run: run.status is RunStatus.FAILED))
    first = failed[-1]
    often = f"Its last {len(failed)} runs have failed, the first" if len(failed) > 1 else "It failed"
    return rule.fires(
        f"{rule.subject} has failed",
        f"{often} at {rule.time(_end(first))}. Run {last.id}: {last.reason or 'no reason was noted'}.",
        f"crm-sync show {last.id} tells more, crm-sync doctor what is wrong with keys and addresses. "
        f"The next run goes on where it stopped: crm-sync run {rule.subject}",
        since=_end(first),
    )


def _rejected_share(rule: _Rule) -> Finding | None:
    """Over when the share of the newest runs is at or below the limit."""
    assert rule.alert.above is not None
    runs = _enough(rule.runs, lambda run: run.counts.selected)
    if runs is None:
        return None
    selected, rejected = sum(run.counts.selected for run in runs), sum(run.counts.rejected for run in runs)
    share = Decimal(rejected) / selected
    what = (
        f"{rejected:,} of {selected:,} records ({percent(share)}) were rejected by the CRM {_in_runs(runs)}; "
        f"the limit is {percent(rule.alert.above)}."
    )
    if share <= rule.alert.above:
        return rule.is_fine(f"{rule.subject}: the CRM takes its records again", what)
    return rule.fires(
        f"{rule.subject}: the CRM rejects {percent(share)} of its records",
        what,
        f"crm-sync show {runs[0].id} has the CRM's own words for each. Once mended: crm-sync retry {runs[0].id} writes "
        "them again, at no credit",
        since=_end(runs[0]),
    )


def _match_rate(rule: _Rule) -> Finding | None:
    """Of those that Apollo was asked about, or would have been but for a stored answer. Over at or above the limit."""
    assert rule.alert.below is not None
    runs = _enough(rule.runs, _looked_up)
    if runs is None:
        return None
    asked, missed = sum(map(_looked_up, runs)), sum(run.counts.no_match for run in runs)
    rate = Decimal(asked - missed) / asked
    what = (
        f"{asked - missed:,} of {asked:,} records ({percent(rate)}) were found by Apollo {_in_runs(runs)}; "
        f"the limit is {percent(rule.alert.below)}."
    )
    if rate >= rule.alert.below:
        return rule.is_fine(f"{rule.subject}: Apollo finds its records again", what)
    return rule.fires(
        f"{rule.subject}: Apollo finds {percent(rate)} of its records only",
        what,
        f"crm-sync show {runs[0].id} lists them. Look whether the fields of `match.send` still hold what they did, and "
        "whether `choose.where` takes other records than before",
        since=_end(runs[0]),
    )


def _did_not_start(rule: _Rule) -> Finding | None:
    """Over when nothing is late any more: it has started, or its slot is not due any more."""
    assert rule.alert.after is not None
    if rule.facts.late is None:
        return None
    late = sorted((each for each in rule.facts.late if each.sync == rule.subject), key=lambda each: each.slot)
    if not late or rule.facts.now - late[0].slot < rule.alert.after:
        return None if late else rule.is_fine(f"{rule.subject} is on time again", "Nothing of it is late.")
    first = late[0]
    if first.is_queued:
        why = "It is queued, and no worker has taken it."
        advice = "Is `crm-sync serve`, or a `crm-sync worker`, running, and is it busy? crm-sync runs shows what is"
    else:
        why = "Nobody has queued it."
        advice = f"Is `crm-sync serve` running? crm-sync doctor tells. To run it now: crm-sync run {rule.subject}"
    return rule.fires(
        f"{rule.subject} did not start",
        f"It was due at {rule.time(first.slot)} and has not started within {written(rule.alert.after)}. {why}",
        advice,
        since=first.slot,
    )


def _budget_used(rule: _Rule) -> Finding | None:
    """Over when a new day or month begins, or the limit was raised."""
    assert rule.alert.above is not None
    limit, used = limits(rule.config)[rule.subject], rule.facts.spent.get(rule.subject)
    if used is None:
        return None
    share = used / limit
    period = "today" if rule.subject == "per_day" else "this month"
    purse = "phones" if rule.subject == "phones_per_month" else "look-ups"
    what = (
        f"{_credits(used)} of {_credits(limit)} credits for {purse} ({percent(share)}) are used {period}, with "
        f"what is under way or in doubt at worst; you are told from {percent(rule.alert.above)} on."
    )
    if share < rule.alert.above:
        return rule.is_fine(f"budget.{rule.subject} has room again", what)
    stops = "Runs buy nothing more" if used >= limit else "At the limit runs stop buying"
    return rule.fires(
        f"budget.{rule.subject}: {percent(share)} used",
        what,
        f"{stops} until it begins anew. crm-sync credits shows where it went; budget.{rule.subject} raises it",
        since=rule.facts.now,
    )


def _credentials_refused(rule: _Rule) -> Finding | None:
    """Over when the provider takes them again."""
    problem = rule.facts.access.get(rule.subject)
    if problem is None:
        return None
    called = "Apollo" if rule.subject == APOLLO else rule.subject
    if not problem:
        return rule.is_fine(f"{called} takes our credentials again", "What was asked of it was answered.")
    return rule.fires(
        f"{called} refuses our credentials",
        f"{problem.rstrip('.')}.",
        "Renew the key, or grant what is missing, then crm-sync doctor. Runs fail until then and lose nothing",
        since=rule.facts.now,
    )


def _public_url_unreachable(rule: _Rule) -> Finding | None:
    """Over when a delivery of our own arrives."""
    assert rule.alert.after is not None
    problem = rule.facts.public_url
    if problem is None:
        return None
    if not problem:
        return rule.is_fine("The public address leads here again", "A delivery of our own has arrived.")
    return rule.fires(
        "Apollo cannot deliver phone numbers",
        f"{problem.rstrip('.')}.",
        "No phone is ordered until it can; what was ordered is fetched from Apollo. docs/phones.md, crm-sync doctor",
        since=rule.facts.now,
        lasts=rule.alert.after,
    )


def _in_doubt(rule: _Rule) -> Finding | None:
    """Over when no call is in doubt for so long: evidence came, or a person has decided."""
    assert rule.alert.after is not None
    doubt = rule.facts.doubt
    if doubt.oldest is None or rule.facts.now - doubt.oldest < rule.alert.after:
        return rule.is_fine("No paid call is in doubt any more", "Each has an end.")
    calls = "1 paid call is" if doubt.calls == 1 else f"{doubt.calls:,} paid calls are"
    return rule.fires(
        f"{calls} in doubt",
        f"The oldest has had no answer since {rule.time(doubt.oldest)}: at worst {_credits(doubt.most)} credits were "
        "charged for nothing, and the people in them are not asked for again by themselves.",
        "crm-sync doubt list, crm-sync doubt explain CALL; then crm-sync doubt resend or abandon",
        since=doubt.oldest,
    )


def _phones_waiting(rule: _Rule) -> Finding | None:
    """Over when nobody waits for so long any more."""
    assert rule.alert.after is not None
    awaited = rule.facts.awaited.get(rule.subject)
    if awaited is None or rule.facts.now - awaited.oldest < rule.alert.after:
        return rule.is_fine(f"{rule.subject}: its phones have come", "None has waited for so long.")
    phones = "1 phone is" if awaited.count == 1 else f"{awaited.count:,} phones are"
    return rule.fires(
        f"{rule.subject} waits for phones since {rule.time(awaited.oldest)}",
        f"{phones} awaited, the oldest for longer than {written(rule.alert.after)}.",
        "crm-sync phones lists them, crm-sync phones poll asks Apollo now. crm-sync doctor tells whether deliveries "
        "arrive",
        since=awaited.oldest,
    )


_RULES: Mapping[str, Callable[[_Rule], Finding | None]] = {
    "run_failed": _run_failed,
    "rejected_share": _rejected_share,
    "did_not_start": _did_not_start,
    "budget_used": _budget_used,
    "match_rate": _match_rate,
    "credentials_refused": _credentials_refused,
    "public_url_unreachable": _public_url_unreachable,
    "in_doubt": _in_doubt,
    "phones_waiting": _phones_waiting,
}


def body(kind: str, finding: Finding, since: datetime, before: str, *, timezone: str) -> str:
    """The text of a notice. `before`: what was wrong, where it is over now."""
    began = since.astimezone(ZoneInfo(timezone)).strftime("%Y-%m-%d %H:%M %Z")
    if kind == "began":
        lines = [finding.what, f"Since: {began}", f"Next: {finding.advice}."]
    else:
        lines = [f"Recovered after {lasted(finding.since - since)}. {finding.what}", f"It began at {began}: {before}"]
    return "\n".join([*lines, f"Alert: {finding.alert}"])


def lasted(span: timedelta) -> str:
    """45 s, 10 min, 2 h 10 min, 3 d 4 h."""
    seconds = max(int(span.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def percent(share: Decimal) -> str:
    """0.05 -> 5%, 0.0512 -> 5.1%."""
    shown = (share * 100).quantize(Decimal("0.1"))
    return f"{shown.normalize():f}%"


def _credits(amount: Decimal) -> str:
    return f"{amount.normalize():,f}"


def _end(run: SyncRun) -> datetime:
    return run.finished_at or run.started_at


def _looked_up(run: SyncRun) -> int:
    counts = run.counts
    return counts.selected - counts.skipped - counts.in_doubt


def _leading(runs: Sequence[SyncRun], which: Callable[[SyncRun], bool]) -> Iterator[SyncRun]:
    for run in runs:
        if not which(run):
            return
        yield run


def _enough(runs: Sequence[SyncRun], size: Callable[[SyncRun], int]) -> list[SyncRun] | None:
    """The newest runs that have LEAST_RECORDS together; None where all of them have fewer."""
    taken: list[SyncRun] = []
    total = 0
    for run in runs:
        if size(run):
            taken.append(run)
            total += size(run)
        if total >= LEAST_RECORDS:
            return taken
    return None


def _in_runs(runs: Sequence[SyncRun]) -> str:
    return f"in run {runs[0].id}" if len(runs) == 1 else f"in the last {len(runs)} runs"
