"""phones: what was ordered and is awaited, what was delivered and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from crm_sync.bootstrap import App
from crm_sync.cli import Subcommands, render
from crm_sync.cli.render import Column
from crm_sync.errors import ContractError
from crm_sync.pipeline.recover import recover_everywhere
from crm_sync.pipeline.replay import replay as replay_all
from crm_sync.pipeline.resolve import Resolved, Resolver
from crm_sync.store.deliveries import Delivery
from crm_sync.store.exclusive import Exclusive
from crm_sync.store.reveals import EXPIRED, HELD, REJECTED, Wait

#: What the database calls a delivery -> the word that is told.
WORDS = {
    "new": "Received",
    "waiting": "Received",
    "done": "Applied",
    "duplicate": "Duplicate",
    "late": "Late",
    "unknown": "Unknown person",
    "quarantined": "Rejected",
    "dead": "Rejected",
}
#: Ends of a wait that a person may do something about.
_UNHAPPY = (HELD, REJECTED, EXPIRED)
#: Another process has the lock: so often it is looked again, for five seconds in all.
_LOOKS, _LOOK_AGAIN_S = 20, 0.25
_STATES = {word.casefold().replace(" ", "-"): word for word in WORDS.values()}


@click.group(cls=Subcommands, invoke_without_command=True)
@click.option("--sync", help="Of this sync alone.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many rows of each list.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def phones(ctx: click.Context, sync: str | None, limit: int, as_json: bool) -> None:
    """Phone numbers: which are awaited and for how long, and what came of those that were delivered."""
    if ctx.invoked_subcommand is not None:
        return
    app: App = ctx.obj
    waiting = app.reveals.waiting(limit=limit, sync=sync or "")
    unhappy = app.reveals.settled(states=_UNHAPPY, sync=sync or "", limit=limit)
    look = app.deliveries.to_look_at(sync=sync or "", limit=limit)
    if as_json:
        render.print_json(standing(app, waiting, unhappy, look, sync=sync or ""))
        return
    out = render.console()
    _print_standing(out, app, waiting, look, sync=sync or "")
    _print_unhappy(out, unhappy)


def standing(
    app: App, waiting: Sequence[Wait], unhappy: Sequence[Wait], look: Sequence[Delivery], *, sync: str = ""
) -> dict[str, Any]:
    """Where things stand, as JSON; the credits are those of all syncs."""
    now = app.clock.now()
    told = dict.fromkeys(("received", "applied", "duplicate", "late", "unknown_person", "rejected"), 0)
    for state, count in app.deliveries.counts(sync=sync).items():
        told[WORDS[state].casefold().replace(" ", "_")] += count
    return {
        "waits": app.reveals.counts(sync=sync),
        "waiting": [
            {
                "crm": wait.crm,
                "object": wait.object_type,
                "record": wait.record_id,
                "sync": wait.sync,
                "run": wait.run_id,
                "order": wait.order_id,
                "asked_at": wait.asked_at,
                "age_s": int((now - wait.asked_at).total_seconds()),
            }
            for wait in waiting
        ],
        "not_written": [
            {
                "crm": wait.crm,
                "object": wait.object_type,
                "record": wait.record_id,
                "sync": wait.sync,
                "state": wait.state,
                "reason": wait.reason,
                "delivery": wait.delivery_id,
            }
            for wait in unhappy
        ],
        "deliveries": {**told, "doubles": app.deliveries.doubles()},
        "needs_a_look": [delivery_json(each) for each in look],
        "credits": app.reveals.bills(),
    }


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "order": delivery.order_id,
        "state": WORDS[delivery.state],
        "reason": delivery.reason,
        "received_at": delivery.received_at,
        "ended_at": delivery.ended_at,
        "times": delivery.times,
        "bytes": delivery.size,
        "source": delivery.source,
        "believed_by": delivery.belief,
        "attempts": delivery.attempts,
    }


def _print_standing(out: Console, app: App, waiting: Sequence[Wait], look: Sequence[Delivery], *, sync: str) -> None:
    now = app.clock.now()
    counts = app.reveals.counts(sync=sync)
    awaited = counts.pop("waiting", 0) + counts.pop("due", 0)
    oldest = f", the oldest for {_age(now - waiting[0].asked_at)}" if waiting else ""
    out.print(f"[bold]{render.counted(awaited, 'phone')} awaited[/]{oldest}")
    if counts:
        out.print("came of the others: " + ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())))
    bills = app.reveals.bills()
    of_all = " (all syncs)" if sync else ""
    out.print(
        f"deliveries{of_all} have cost {render.credit_words(bills['billed'])}; what is still to come, "
        f"{render.credit_words(bills['to_come'])} at worst"
    )
    told: dict[str, int] = {}
    for state, count in app.deliveries.counts(sync=sync).items():
        told[WORDS[state]] = told.get(WORDS[state], 0) + count
    if told:
        doubles = app.deliveries.doubles()
        again = f"; {render.counted(doubles, 'time')} the same once more" if doubles else ""
        out.print("deliveries: " + ", ".join(f"{count:,} {word}" for word, count in sorted(told.items())) + again)
    if waiting:
        out.print("\n[bold]Awaited[/], oldest first")
        render.print_table(
            out,
            [
                Column(title="Age", right=True),
                Column(title="Record"),
                Column(title="Sync", keep=1),
                Column(title="Run", keep=2),
                Column(title="Order", keep=0),
            ],
            [
                [
                    _age(now - wait.asked_at),
                    f"{wait.object_type} {wait.record_id}",
                    escape(wait.sync),
                    wait.run_id,
                    (wait.order_id or "")[:12],
                ]
                for wait in waiting
            ],
        )
    if look:
        out.print("\n[bold]Deliveries to look at[/], newest first")
        render.print_table(
            out,
            [
                Column(title="Delivery", right=True),
                Column(title="Received", keep=0),
                Column(title="State"),
                Column(title="Why"),
            ],
            [
                [str(each.id), f"{each.received_at:%Y-%m-%d %H:%M}", WORDS[each.state], escape(each.reason)]
                for each in look
            ],
        )
        out.print("crm-sync phones show DELIVERY tells more; crm-sync phones replay DELIVERY carries it out again")


def _print_unhappy(out: Console, unhappy: Sequence[Wait]) -> None:
    if not unhappy:
        return
    out.print("\n[bold]Held, rejected or expired[/], newest first")
    columns = [
        Column(title="Record"),
        Column(title="Sync", keep=0),
        Column(title="Delivery", right=True),
        Column(title="State"),
        Column(title="Why"),
    ]
    rows = [
        [
            f"{wait.object_type} {wait.record_id}",
            escape(wait.sync),
            str(wait.delivery_id or ""),
            wait.state,
            escape(wait.reason),
        ]
        for wait in unhappy
    ]
    render.print_table(out, columns, rows)
    out.print("Once what keeps a number out is mended: crm-sync phones replay DELIVERY")


def _age(span: timedelta) -> str:
    return render.duration(max(span.total_seconds(), 0))


@phones.command()
@click.argument("delivery_id", metavar="DELIVERY", type=int)
@click.option("--raw", is_flag=True, help="The bytes as they came, on standard output.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def show(app: App, delivery_id: int, raw: bool, as_json: bool) -> None:
    """One delivery: what it says, by what it is believed, and what came of it."""
    delivery = app.deliveries.get(delivery_id)
    if delivery is None:
        raise click.UsageError(f"There is no delivery {delivery_id}. `crm-sync phones` lists them.")
    body = app.deliveries.body(delivery_id)
    if raw:
        sys.stdout.buffer.write(body)
        return
    people, problem = _people(app, delivery_id, body)
    order = app.reveals.order(delivery.order_id)
    if as_json:
        told = {"sync": order.sync, "run": order.run_id, "order_state": order.state} if order is not None else {}
        render.print_json({**delivery_json(delivery), **told, "people": people, "problem": problem})
        return
    out = render.console()
    reason = f": {escape(delivery.reason)}" if delivery.reason else ""
    out.print(f"[bold]Delivery {delivery.id}[/] · {WORDS[delivery.state]}{reason}")
    times = f", {delivery.times} times" if delivery.times > 1 else ""
    came = "fetched from Apollo" if delivery.source == "poll" else "delivered"
    out.print(f"received {delivery.received_at:%Y-%m-%d %H:%M:%S} UTC{times}, {delivery.size:,} bytes, {came}")
    belief = {"poll": "Apollo's own copy, fetched with our key", "token": "its address alone", "": "not looked at yet"}
    out.print(f"believed by: {belief[delivery.belief]}")
    if order is not None:
        out.print(f"order {order.id[:12]} of {escape(order.sync)}, run {order.run_id}: {order.state}")
    if delivery.state == "waiting" and delivery.try_at is not None:
        out.print(f"tried {render.counted(delivery.attempts, 'time')}, again {delivery.try_at:%Y-%m-%d %H:%M:%S} UTC")
    if problem:
        out.print(f"[red]{escape(problem)}[/]; --raw shows the bytes")
    for nth, person in enumerate(people, 1):
        _print_person(out, nth, person)


def _people(app: App, delivery_id: int, body: bytes) -> tuple[list[dict[str, list[dict[str, str]]]], str]:
    """What a delivery says of each person with who got it, and why it cannot be read."""
    waits = app.reveals.settled_by(delivery_id)
    try:
        content = app.enricher.read_delivery(body)
    except ContractError as error:
        return [], str(error)
    people = []
    for person in content.people:
        mine = app.reveals.person(person.apollo_id)
        numbers = [
            {
                "number": number.sanitized or number.raw,
                "type": number.type,
                "status": number.status,
                "confidence": number.confidence,
                "do_not_call": number.dnc,
            }
            for number in person.numbers
        ]
        records = [
            {"object": wait.object_type, "record": wait.record_id, "state": wait.state, "why": wait.reason}
            for wait in waits
            if wait.person == mine
        ]
        people.append({"numbers": numbers, "records": records})
    return people, ""


def _print_person(out: Console, nth: int, person: dict[str, list[dict[str, str]]]) -> None:
    whose = "; ".join(
        f"{each['object']} {each['record']}: {each['state']} ({escape(each['why'])})" for each in person["records"]
    )
    out.print(f"\n[bold]Person {nth}[/]" + (f" · {whose}" if whose else " · nobody waited"))
    for number in person["numbers"]:
        words = (number["type"] or "type not told", number["status"], number["do_not_call"])
        out.print(f"  {escape(render.shown(number['number']))}  {escape(', '.join(filter(None, words)))}")
    if not person["numbers"]:
        out.print("  no number")


@phones.command()
@click.argument("deliveries", nargs=-1, metavar="[DELIVERY]...", type=int)
@click.option("--state", type=click.Choice(sorted(set(_STATES))), help="All of this state.")
@click.option("--since", metavar="TIME", help="Received from then on (2026-11-27 or 2026-11-27T14:00).")
@click.option("--until", metavar="TIME", help="Received up to then; up to the end of a day.")
@click.option("--sync", help="Of this sync.")
@click.option("--dry-run", is_flag=True, help="Say how many, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def replay(
    app: App,
    deliveries: tuple[int, ...],
    state: str | None,
    since: str | None,
    until: str | None,
    sync: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Carry out stored deliveries once more: after the mapping was mended, a record unlocked, a rule changed.

    Costs no credit, and what is written already stays as it is.
    """
    if deliveries and (state or since or until or sync):
        raise click.UsageError("Name deliveries, or say which by --state, --since, --until and --sync.")
    if not deliveries and not (state or since or until or sync):
        raise click.UsageError("Which? Name deliveries, or --state, --since, --until, --sync.")
    if deliveries:
        missing = [each for each in deliveries if app.deliveries.get(each) is None]
        if missing:
            raise click.UsageError(f"There is no delivery {missing[0]}. `crm-sync phones` lists them.")
        ids = list(deliveries)
    else:
        states = [name for name, word in WORDS.items() if state is None or word == _STATES[state]]
        found = app.deliveries.listed(
            states=states, since=_moment(since), until=_moment(until, is_end=True), sync=sync or "", limit=1_000_000
        )
        ids = [each.id for each in found]
    out = render.console()
    if not as_json:
        out.print(f"{render.counted(len(ids), 'delivery', 'deliveries')} to carry out again")
    if dry_run or not ids:
        if as_json:
            render.print_json({"deliveries": len(ids), "dry_run": dry_run})
        return
    waits = replay_all(ids, app.services())
    done = _carry_out(app)
    if as_json:
        render.print_json(
            {"deliveries": len(ids), "waiting_again": waits, "carried_out": done is not None, **_told(done)}
        )
        return
    out.print(f"{render.counted(waits, 'record')} waiting again")
    _print_done(out, done)


@phones.command()
@click.option(
    "--all", "all_of_them", is_flag=True, help="All orders that are awaited, not only those whose time has come."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def poll(app: App, all_of_them: bool, as_json: bool) -> None:
    """Ask Apollo for numbers whose delivery has not come, and carry out what is there; costs no credit."""
    resolver = Resolver(app.services())
    first = _carry_out(app, resolver)  # what cannot be read of it is asked for
    swept = resolver.sweep(limit=1_000, now_all=all_of_them)
    done = _carry_out(app, resolver)
    if first is not None and done is not None:
        done.deliveries.update(first.deliveries)
        done.waits.update(first.waits)
    if as_json:
        told = {"polled": swept.polled, "given_up": swept.given_up, "stopped": swept.stopped}
        render.print_json({**told, **_told(done)})
        return
    out = render.console()
    given_up = f"; {render.counted(swept.given_up, 'order')} given up, their time is over" if swept.given_up else ""
    out.print(f"asked Apollo about {render.counted(swept.polled, 'order')}{given_up}")
    if swept.stopped:
        out.print(f"not about all of them: {escape(swept.stopped)}")
    _print_done(out, done)


def _carry_out(app: App, resolver: Resolver | None = None) -> Resolved | None:
    """Everything that waits now; None where another process is at it, and keeps at it."""
    with Exclusive(app.store, "phones") as lock:
        if not _had(lock, app):
            return None
        resolver = resolver or Resolver(app.services())
        total = Resolved()
        try:
            _drain(resolver, total)
        finally:
            resolver.runs.close_quiet(all_of_them=True)
        # A run that a dead process left is closed, and an order whose answer it lost is in doubt from now on.
        for problem in recover_everywhere(resolver.services):
            click.echo(problem, err=True)
        return total


def _had(lock: Exclusive, app: App) -> bool:
    """Whether it is for us to carry out what waits: a command like this one is done with it soon, and may have looked
    for the last time before we came; a worker keeps it, and leaves nothing unread."""
    for _ in range(_LOOKS):
        if lock.take():
            return True
        app.clock.sleep(_LOOK_AGAIN_S)
        if not app.deliveries.to_read(now=app.clock.now(), limit=1):
            return False
    return lock.take()


def _drain(resolver: Resolver, total: Resolved) -> None:
    while (done := resolver.drain()).did_something:
        total.deliveries.update(done.deliveries)
        total.waits.update(done.waits)


def _told(done: Resolved | None) -> dict[str, Any]:
    """`carried_out` is False where another process does it."""
    if done is None:
        return {"carried_out": False}
    return {"carried_out": True, "ended": dict(done.deliveries), "waits": dict(done.waits)}


def _print_done(out: Console, done: Resolved | None) -> None:
    if done is None:
        out.print(
            "another process (crm-sync serve, say) is at it and carries out what waits; crm-sync phones tells of it"
        )
        return
    if not done.deliveries:
        out.print("nothing more to carry out")
        return
    ended = ", ".join(f"{count:,} {WORDS.get(state, state)}" for state, count in sorted(done.deliveries.items()))
    out.print(f"deliveries: {ended}")
    if done.waits:
        out.print("records: " + ", ".join(f"{count:,} {state}" for state, count in sorted(done.waits.items())))


def _moment(text: str | None, *, is_end: bool = False) -> datetime | None:
    """`is_end`: a day counts up to its end."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{text} is not a time; write it as 2026-11-27 or 2026-11-27T14:00.") from None
    if is_end and len(text) <= len("2026-11-27"):
        found += timedelta(days=1)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
