"""python -m tests.webhooks.waitress_server APP PORT: an application as `crm-sync serve` puts it on a port."""

from __future__ import annotations

import logging
import os
import signal
import sys

from werkzeug.utils import import_string

from crm_sync.web.serving import WebServer


def main(name: str, port: str) -> None:
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"))
    app = import_string(name.removesuffix("()"))
    server = WebServer(app() if name.endswith("()") else app, host="127.0.0.1", port=int(port))
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
