"""Somebody changed jobs: what tells so, and what then stays as it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from crm_sync.config.model import FieldMapping, JobChange
from crm_sync.domain.enrichment import Enrichment, MatchKeys
from crm_sync.mapping.employers import asked_domains, is_asked_employer, own_domains


def changed_employer(keys: MatchKeys, enrichment: Enrichment) -> str:
    """Why the person seems to work elsewhere than the record says, "" when they do not, or when it cannot be told.

    The current employer's domain is compared with those of the record (mapping/employers.py); where one of the two
    has none, nothing is noticed. `enrichment` is a MATCHED answer about the person.
    """
    current = own_domains(enrichment.organization)
    if not current or not asked_domains(keys) or is_asked_employer(keys, enrichment):
        return ""
    # The first one that Apollo names: a set has no order.
    place = next(
        domain
        for name in ("primary_domain", "domain", "website_url")
        for domain in own_domains({name: enrichment.organization.get(name)})
    )
    return f"Apollo knows this person at another employer ({place})"


def kept_fields(job_change: JobChange | None, mappings: Iterable[FieldMapping]) -> frozenset[str]:
    """The mapped CRM fields that stay as they are while the new job is written."""
    keep = frozenset(job_change.keep) if job_change is not None else frozenset()
    return frozenset(mapping.field for mapping in mappings if mapping.field in keep)
