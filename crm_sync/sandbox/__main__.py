"""python -m crm_sync.sandbox: prints the settings as KEY=value lines, then serves until it is told to stop."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from crm_sync.sandbox.run import Sandbox


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m crm_sync.sandbox", description=__doc__)
    parser.add_argument("--contacts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--variant", choices=("a", "b"), default="a")
    parser.add_argument("--tidy", action="store_true", help="everybody is known, distinct and matchable")
    parser.add_argument("--per-minute", type=int, default=1000, help="Apollo's limit; 0 is unlimited")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--unlimited", action="store_true", help="no search and burst limits in HubSpot, no index lag")
    parser.add_argument("--reveal-delay-s", type=float, default=0.2, help="how long a reveal of a phone takes")
    given = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Sandbox(
        contacts=given.contacts,
        seed=given.seed,
        variant=given.variant,
        tidy=given.tidy,
        per_minute=given.per_minute or None,
        latency_ms=given.latency_ms,
        unlimited=given.unlimited,
        apollo_options={"reveal_delay_s": given.reveal_delay_s},
    ) as sandbox:
        for name, value in sandbox.settings().items():
            sys.stdout.write(f"{name}={value}\n")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        stop.wait()


if __name__ == "__main__":
    main()
