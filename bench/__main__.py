"""`python -m bench [--sizes 2000,20000,200000]`: records per second, CPU, memory and calls, beside two baselines;
and the receiver beside a server that stores nothing (bench/webhook.py; that alone: --part webhook)."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench import webhook
from bench.measure import ROOT, Cost, command, run, sandbox

#: Calls that the contracts allow at the least for 1,000 due contacts (contracts/apollo.md 2.1: ten people to a call;
#: contracts/salesforce.md 2.2: 2,000 to a page and a re-read, 200 to a write; contracts/hubspot.md 2.1: 200 and 100).
LEAST = {"salesforce": 0.5 + 100 + 0.5 + 5, "hubspot": 5 + 100 + 10 + 10}
OUT = ROOT / "bench" / "out" / "latest.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--sizes", default="2000,20000,200000", help="contacts in the sandbox, several")
    parser.add_argument("--naive", type=int, default=300, help="contacts for the naive script")
    parser.add_argument("--crm", choices=("salesforce", "hubspot", "both"), default="both")
    parser.add_argument("--part", choices=("runs", "webhook", "all"), default="all")
    webhook.add_arguments(parser)
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    crms = ("salesforce", "hubspot") if given.crm == "both" else (given.crm,)
    console = Console(width=None if sys.stdout.isatty() else 130)
    if given.part == "webhook":
        webhook.measure(given, console)
        return
    results = {crm: measure(crm, sizes, given.naive, console) for crm in crms}
    for crm in crms:
        console.print(table(crm, results[crm]))
    told: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "results": {crm: figures(crm, costs) for crm, costs in results.items()},
    }
    if given.part == "all":
        told["webhook"] = webhook.measure(given, console)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(told, indent=2) + "\n")
    console.print(ratios(told["results"]))
    console.print(f"The same figures as JSON: {OUT.relative_to(ROOT)}")


def measure(crm: str, sizes: list[int], naive: int, console: Console) -> dict[str, Cost]:
    costs: dict[str, Cost] = {}
    for size in sizes:
        console.print(f"{crm}: {size:,} contacts …", style="dim")
        with sandbox(size) as settings, tempfile.TemporaryDirectory() as folder:
            costs[f"crm-sync {size:,}"] = ours(crm, settings, Path(folder), size)
            costs[f"second run {size:,}"] = again(settings, Path(folder), size)
        if size <= 20_000:
            with sandbox(size) as settings, tempfile.TemporaryDirectory() as folder:
                costs[f"guarded {size:,}"] = ours(crm, settings, Path(folder), size, write="auto")
            with sandbox(size) as settings, tempfile.TemporaryDirectory() as folder:
                costs[f"unjournaled {size:,}"] = ours(crm, settings, Path(folder), size, module="bench.unjournaled")
            for kind in ("good", "safe"):
                with sandbox(size) as settings, tempfile.TemporaryDirectory() as folder:
                    costs[f"{kind} loop {size:,}"] = run(loop(kind, crm), settings, folder=Path(folder))
    console.print(f"{crm}: the naive script, {naive:,} contacts …", style="dim")
    with sandbox(naive) as settings, tempfile.TemporaryDirectory() as folder:
        costs[f"naive {naive:,}"] = run(loop("naive", crm), settings, folder=Path(folder))
    return costs


def loop(kind: str, crm: str) -> list[str]:
    return [sys.executable, "-m", "bench.loops", kind, crm]


def ours(
    crm: str, settings: dict[str, str], folder: Path, size: int, *, module: str = "crm_sync", write: str = "fast"
) -> Cost:
    """A run; `write` as in the configuration: the loops beside it guard nothing against people who edit."""
    run(command("init", "--crm", crm), settings, folder=folder, records=0)
    file = folder / "crm_sync.yaml"
    text = file.read_text().replace("at_most: 1000 ", f"at_most: {max(size, 1000)} ")
    file.write_text(text.replace("    environment: ", f"    write: {write}\n    environment: ", 1))
    run(command("config", "apply"), settings, folder=folder, records=0)
    return run([sys.executable, "-m", module, "run", "contacts", "--json"], settings, folder=folder, records=size)


def again(settings: dict[str, str], folder: Path, size: int) -> Cost:
    return run(command("run", "contacts", "--json"), settings, folder=folder, records=size)


def marginal(costs: dict[str, Cost], name: str) -> float | None:
    """CPU ms for one record more: between the smallest and the largest size both were measured at."""
    found = sorted((c for key, c in costs.items() if key.startswith(name + " ")), key=lambda c: c.records)
    found = [cost for cost in found if cost.records <= 20_000]
    if len(found) < 2:
        return None
    first, last = found[0], found[-1]
    return 1000 * (last.cpu_s - first.cpu_s) / (last.records - first.records)


def figures(crm: str, costs: dict[str, Cost]) -> dict[str, Any]:
    rows = {
        name: {
            "records": cost.records,
            "records_per_s": round(cost.records / cost.seconds, 1),
            "cpu_ms_per_record": round(cost.cpu_ms_per_record, 4),
            "peak_mib": round(cost.peak_mib, 1),
            "calls_per_1k": round(cost.calls_per_1k, 2),
            "connections_per_1k": round(1000 * cost.connections / max(cost.records, 1), 2),
        }
        for name, cost in costs.items()
    }
    names = ("crm-sync", "good loop", "safe loop", "unjournaled")
    mine, good, safe, unjournaled = (marginal(costs, name) for name in names)
    naive = next(cost for name, cost in costs.items() if name.startswith("naive"))
    largest = max((c for n, c in costs.items() if n.startswith("crm-sync")), key=lambda c: c.records)
    return {
        "rows": rows,
        "least_calls_per_1k": LEAST[crm],
        "cpu_ms_for_one_more": {"crm_sync": mine, "good_loop": good, "safe_loop": safe},
        "cpu_to_good_loop": round(mine / good, 3) if mine and good else None,
        "cpu_to_unjournaled": round(mine / unjournaled, 3) if mine and unjournaled else None,
        "cpu_to_safe_loop": round(mine / safe, 3) if mine and safe else None,
        "cpu_to_naive": round(mine / naive.cpu_ms_per_record, 4) if mine else None,
        "calls_to_naive": round(largest.calls_per_1k / naive.calls_per_1k, 4),
        "calls_to_least": round(largest.calls_per_1k / LEAST[crm], 4),
        "memory_largest_mib": round(largest.peak_mib, 1),
    }


def table(crm: str, costs: dict[str, Cost]) -> Table:
    made = Table(title=crm, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    made.add_column("")
    for name in ("records/s", "CPU ms/record", "peak MiB", "calls per 1,000", "connections per 1,000"):
        made.add_column(name, justify="right")
    for name, cost in costs.items():
        made.add_row(
            name,
            f"{cost.records / cost.seconds:,.0f}",
            f"{cost.cpu_ms_per_record:.3f}",
            f"{cost.peak_mib:,.0f}",
            f"{cost.calls_per_1k:,.1f}",
            f"{1000 * cost.connections / max(cost.records, 1):,.1f}",
        )
    made.add_row("least possible", "", "", "", f"{LEAST[crm]:,.1f}", "", style="dim")
    return made


def ratios(results: dict[str, Any]) -> Table:
    made = Table(title="ratios in this run", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    made.add_column("")
    made.add_column("wanted", justify="right")
    for crm in results:
        made.add_column(crm, justify="right")
    for key, label, wanted in (
        ("cpu_to_good_loop", "CPU for one record more / good loop", "≤ 1.5"),
        ("cpu_to_safe_loop", "CPU for one record more / safe loop", ""),
        ("cpu_to_unjournaled", "CPU for one record more / without journal and answers", "≤ 1.25"),
        ("cpu_to_naive", "CPU for one record more / naive script", "≤ 0.15"),
        ("calls_to_naive", "calls / naive script", "≤ 0.067"),
        ("calls_to_least", "calls / least possible", ""),
        ("memory_largest_mib", "peak MiB at the largest size", "< 300"),
    ):
        made.add_row(label, wanted, *(str(results[crm][key]) for crm in results))
    return made


if __name__ == "__main__":
    main()
