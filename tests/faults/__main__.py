"""`python -m tests.faults` (make faults): the process killed at every named point, at its first, second, middle and last
hit, on both databases and with both CRMs, in every scene; started again, and compared with the sandbox's own ledger.
Then the seeded bugs, each of which something has to see."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from crm_sync import crash
from tests.faults import mutants
from tests.faults.crashes import SAMPLE, Bench, Result, cells, run_cell, scenes_of, warm
from tests.faults.mutants import MUTANTS, Caught
from tests.faults.phone_stories import BY_NAME as PHONE_STORIES
from tests.faults.pool import Pool, postgres, workshop
from tests.faults.scenes import BY_NAME, CRMS, DATABASES, Cell
from tests.faults.stories import BY_NAME as WRITING_STORIES

STORIES = WRITING_STORIES | PHONE_STORIES
ROOT = Path(__file__).parents[2]
OUT = ROOT / "tests" / "faults" / "out" / "latest.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--cell", action="append", default=[], help="only this one, with all it says; repeatable")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cells whose name holds this, no mutants")
    parser.add_argument("--sample", action="store_true", help="a kill of each kind, or one cell for each mutant")
    parser.add_argument("--census", action="store_true", help="only how often each point is met, as JSON")
    parser.add_argument("--mutants", action="store_true", help="only the mutants")
    parser.add_argument("--json", type=Path, help=f"where the figures go; {OUT.relative_to(ROOT)} after a complete run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the database server ends too
    is_whole = not (given.cell or given.only or given.sample or given.mutants)
    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    began = time.monotonic()
    results: list[Result] = []
    caught: list[Caught] = []
    with pool(given.jobs) as made:
        if given.census:
            wanted = [(crm, name) for crm in CRMS for name in scenes_of(crm) if given.only in f"{crm}/{name}"]
            found = dict(made.each([("census", *each) for each in wanted]))
            print(orjson.dumps({f"{crm}/{scene}": met for (crm, scene), met in found.items()}).decode())
            return
        if not given.mutants:
            chosen = _chosen(given, made)
            results = list(_watched(made.each(chosen), len(chosen), console))
        if given.mutants or is_whole:
            most = 1 if given.sample else None
            caught = list(made.each([("hunt", mutant.name, most) for mutant in MUTANTS]))
    _show(results, caught, console, took=time.monotonic() - began, in_full=bool(given.cell))
    file = given.json or (OUT if is_whole else None)
    if file is not None:
        file.parent.mkdir(exist_ok=True)
        figures_ = figures(results, caught, time.monotonic() - began)
        file.write_bytes(orjson.dumps(figures_, option=orjson.OPT_INDENT_2) + b"\n")
        console.print(f"The same as JSON: {file}")
    sys.exit(1 if any(result.violations for result in results) or not all(each.by for each in caught) else 0)


def _chosen(given: argparse.Namespace, made: Pool) -> list[Cell]:
    if given.cell:
        return [Cell.of(text) for text in given.cell]
    if given.sample:
        return [Cell.of(text) for text in SAMPLE]
    census = dict(made.each([("census", crm, name) for crm in CRMS for name in scenes_of(crm)]))
    return [cell for cell in cells(census) if given.only in str(cell)]


@contextlib.contextmanager
def pool(jobs: int) -> Iterator[Pool]:
    warm()
    with workshop() as folder, postgres(folder) as server:
        made = Pool(jobs, partial(_at_work, server), folder)
        try:
            yield made
        finally:
            made.close()


@contextlib.contextmanager
def _at_work(server: str, folder: Path) -> Iterator[Callable[[Any], Any]]:
    with Bench.set_up(folder, server) as bench:
        yield partial(_do, bench)


def _do(bench: Bench, task: Any) -> Any:
    if isinstance(task, Cell):
        return run_cell(bench, task)
    verb, *rest = task
    if verb == "census":
        crm, scene = rest
        met = bench.census_of(crm, STORIES[scene]) if scene in STORIES else bench.census(crm, BY_NAME[scene])
        return (crm, scene), met
    name, most = rest
    return mutants.hunt(bench, name, cells=most)


# --- what is shown ------------------------------------------------------------------------------------------------


def _watched(results: Iterator[Result], total: int, console: Console) -> Iterator[Result]:
    told = began = time.monotonic()
    for done, result in enumerate(results, start=1):
        yield result
        if result.violations:
            console.print(f"[red]violated[/]: {escape(str(result.cell))}: {escape(result.violations[0])}")
        now = time.monotonic()
        if now - told > 20:
            told = now
            console.print(f"{done} of {total} kills, {(now - began) / done * (total - done):.0f} s left", style="dim")


def _show(results: Sequence[Result], caught: Sequence[Caught], console: Console, *, took: float, in_full: bool) -> None:
    if in_full:
        for result in results:
            console.print(f"[bold]{escape(str(result.cell))}[/]")
            console.print(result.said, markup=False)
    elif results:
        console.print(table(results))
    for result in results:
        if result.violations:
            console.print(
                f"\n[red]{escape(str(result.cell))}[/] (again: python -m tests.faults --cell '{result.cell}')"
            )
            for line in result.violations:
                console.print(f"  {line}", markup=False)
    if results:
        console.print(
            f"{_points(results)} points, {len(results)} kills, {sum(r.runs for r in results)} restarts, {took:.0f} s. "
            f"{verdict(results)}"
        )
    if caught:
        console.print(mutant_table(caught))
        console.print(f"{sum(bool(each.by) for each in caught)} of {len(caught)} seeded bugs were seen")


def _points(results: Sequence[Result]) -> int:
    return len({result.cell.point.partition("@")[0] for result in results})


def verdict(results: Sequence[Result]) -> str:
    violations = sum(len(result.violations) for result in results)
    if violations:
        return f"{violations} violations in {sum(bool(result.violations) for result in results)} of them"
    return (
        "0 violations: 0 charged twice, 0 answers lost, 0 deliveries lost, 0 applied twice, "
        f"{sum(r.in_doubt for r in results)} calls in doubt, each where Apollo's ledger says so"
    )


def table(results: Sequence[Result]) -> Table:
    """Points x hits x databases x CRMs: how often each was killed at, and what was violated."""
    made = Table(box=box.SIMPLE_HEAD, title="Killed at every named point, started again, compared with Apollo's ledger")
    made.add_column("Point", no_wrap=True)
    made.add_column("Hits")
    for column in (*(f"{crm}\n{database}" for crm in CRMS for database in DATABASES), "In doubt", "Violations"):
        made.add_column(column, justify="right")
    order = list(crash.POINTS)
    by_point: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda r: (order.index(r.cell.point.partition("@")[0]), r.cell.point)):
        by_point.setdefault(result.cell.point, []).append(result)
    for point, group in by_point.items():
        kills = Counter((result.cell.crm, result.cell.database) for result in group)
        violations = sum(len(result.violations) for result in group)
        made.add_row(
            point,
            " ".join(str(hit) for hit in sorted({result.cell.hit for result in group})),
            *(str(kills[crm, database] or "") for crm in CRMS for database in DATABASES),
            str(sum(result.in_doubt for result in group) or ""),
            f"[red]{violations}[/]" if violations else "0",
        )
    return made


def mutant_table(caught: Sequence[Caught]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, title="Bugs put in on purpose")
    for column in ("Bug", "Seen by", "which said"):
        made.add_column(column, overflow="fold")
    order = [mutant.name for mutant in MUTANTS]
    for each in sorted(caught, key=lambda one: order.index(one.mutant)):
        made.add_row(escape(each.mutant), escape(each.by) or "[red]nothing[/]", escape(each.said))
    return made


def figures(results: Sequence[Result], caught: Sequence[Caught], seconds: float) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "seconds": round(seconds),
        "points": _points(results),
        "kills": len(results),
        "restarts": sum(result.runs for result in results),
        "violations": sum(len(result.violations) for result in results),
        "charged_twice": sum(result.charged_twice for result in results),
        "answers_lost": sum(result.answers_lost for result in results),
        "deliveries_lost": sum(result.deliveries_lost for result in results),
        "applied_twice": sum(result.applied_twice for result in results),
        "in_doubt": sum(result.in_doubt for result in results),
        "mutants": {"seeded": len(caught), "seen": sum(bool(each.by) for each in caught)},
        "cells": [
            {
                **asdict(result.cell),
                "runs": result.runs,
                "in_doubt": result.in_doubt,
                "violations": list(result.violations),
                "seconds": round(result.seconds, 2),
            }
            for result in sorted(results, key=lambda r: str(r.cell))
        ],
        "seeded_bugs": [asdict(each) for each in caught],
    }


if __name__ == "__main__":
    main()
