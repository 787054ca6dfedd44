"""What can go wrong, sorted by what a person or the program does next."""

from __future__ import annotations


class CrmSyncError(Exception):
    """Base of every error the product raises on purpose; its text is one sentence for an operator."""


class ConfigError(CrmSyncError):
    """A person edits settings or mapping; nothing has run. Exit code 2."""


class ProviderError(CrmSyncError):
    """A neighbour answered badly.

    `provider` is "apollo" or the CRM's name in the configuration; `operation` says what was asked ("describe
    Contact"); `status` is the HTTP status, None where there was no answer. The text never holds a secret,
    an e-mail address or a phone number.
    """

    def __init__(self, message: str, *, provider: str, operation: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.provider = provider
        self.operation = operation
        self.status = status


class CredentialsError(ProviderError):
    """A person renews a key or grants a permission; the run fails."""


class QuotaError(ProviderError):
    """Credits or the day's calls are used up; the run ends early and a later one goes on."""


class TransientError(ProviderError):
    """The same call may work later; the adapter has already retried where repeating is harmless."""


class RateLimitError(TransientError):
    """… no sooner than `retry_after_s` seconds from now (None: the provider did not say)."""

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        operation: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, provider=provider, operation=operation, status=status)
        self.retry_after_s = retry_after_s


class RefusedError(ProviderError):
    """The provider understood the call and refused its content (Apollo 400 or 422); nothing was done or charged.

    For a batch it may be one bad record's fault: split and ask again.
    """


class DoubtError(ProviderError):
    """A paid call left and its answer is lost or unreadable: it may have been charged. Never resent by itself.

    `body` holds whatever bytes did arrive.
    """

    def __init__(
        self, message: str, *, provider: str, operation: str = "", status: int | None = None, body: bytes = b""
    ) -> None:
        super().__init__(message, provider=provider, operation=operation, status=status)
        self.body = body


class ContractError(ProviderError):
    """The neighbour broke its own format, where no credit is at stake."""


class BudgetError(CrmSyncError):
    """A limit of ours was met: the run stops, and the next one goes on where it stopped. Exit code 4."""


class BusyError(CrmSyncError):
    """Somebody else is doing it right now; wait for the end, or find out why it hangs."""


class LostRunError(CrmSyncError):
    """Another process has taken this run over, since ours gave no sign of life for too long: it goes on there."""


class HeldError(CrmSyncError):
    """This database may have forgotten what was bought: nothing is spent until a person has looked
    (`crm-sync restore`). `here_only`: it is this machine that is at fault, and others may go on."""

    def __init__(self, message: str, *, here_only: bool = False) -> None:
        super().__init__(message)
        self.here_only = here_only


class StoreError(CrmSyncError):
    """The database is missing, too old, too new, or did not answer."""
