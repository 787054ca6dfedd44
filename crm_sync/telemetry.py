"""Reports of unforeseen errors to Sentry, where a setting asks for them: what happened and where, and nothing else.

An event is made anew from the few things that cannot hold a person or a key, instead of having them cut out: Sentry's
own default takes local variables, request headers and bodies along (sentry-sdk 2.75, 2026-11).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from crm_sync import __version__
from crm_sync.errors import ConfigError
from crm_sync.log_ids import current_ids
from crm_sync.logs import is_told_whole
from crm_sync.scrub import scrubbed

SETTING = "CRM_SYNC_SENTRY_DSN"
_KEPT = ("event_id", "timestamp", "level", "logger", "platform", "release", "environment", "sdk")
_KEPT_OF_FRAMES = ("filename", "function", "lineno", "module", "in_app")


def report_to(dsn: str) -> None:
    """Let whatever is logged as an error, and whatever ends a thread or the process, be reported to `dsn`.

    Raises:
        ConfigError: it cannot be used, or sentry-sdk is not installed; the address is not repeated.
    """
    try:
        import sentry_sdk
        from sentry_sdk.integrations.excepthook import ExcepthookIntegration
        from sentry_sdk.integrations.logging import LoggingIntegration
        from sentry_sdk.integrations.threading import ThreadingIntegration
    except ImportError:
        raise ConfigError(
            f"{SETTING} is set and sentry-sdk is not installed: install crm-sync[sentry], or empty the setting"
        ) from None
    try:
        sentry_sdk.init(
            dsn=dsn,
            release=f"crm-sync@{__version__}",
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[
                LoggingIntegration(level=None, event_level=logging.ERROR),
                ExcepthookIntegration(),
                ThreadingIntegration(propagate_scope=False),
            ],
            before_send=_cleaned,
            before_breadcrumb=lambda _crumb, _hint: None,
            include_local_variables=False,
            include_source_context=False,
            max_request_body_size="never",
            auto_session_tracking=False,
            send_client_reports=False,
            traces_sample_rate=0.0,
        )
    except ValueError:  # BadDsn, whose words hold the address
        raise ConfigError(f"{SETTING} is no address of Sentry's; write https://KEY@HOST/PROJECT") from None


def _cleaned(event: Mapping[str, Any], hint: Mapping[str, Any]) -> dict[str, Any]:
    made = {name: event[name] for name in _KEPT if name in event}
    made["tags"] = dict(current_ids())
    entry = event.get("logentry")
    message = entry.get("formatted") or entry.get("message") if isinstance(entry, Mapping) else event.get("message")
    if message:
        made["logentry"] = {"message": scrubbed(str(message))}
    found = hint.get("exc_info")
    last = found[1] if isinstance(found, tuple) else None
    raised = event.get("exception", {}).get("values", [])
    if raised:
        made["exception"] = {"values": [_raised(each, None) for each in raised[:-1]] + [_raised(raised[-1], last)]}
    return made


def _raised(told: Mapping[str, Any], error: BaseException | None) -> dict[str, Any]:
    """Its kind and its frames; its words only where they are ours."""
    frames = (told.get("stacktrace") or {}).get("frames", [])
    return {
        "type": told.get("type"),
        "module": told.get("module"),
        "value": scrubbed(str(error)) if error is not None and is_told_whole(error) else "",
        "stacktrace": {
            "frames": [{name: frame[name] for name in _KEPT_OF_FRAMES if name in frame} for frame in frames]
        },
    }
