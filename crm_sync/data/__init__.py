"""Tables that ship with the product: Apollo's vocabularies, ready picklist tables, domains that are no employer.

The picklist tables give every word of Apollo's closed lists (contracts/apollo.md 2.1, 2026-10) a value. Salesforce's
32 industries have no equal for real estate, law, wholesale, security, research and a few services: these are "Other"
rather than a near miss. HubSpot's 148 options hold Apollo's 147 words one to one; only MOBILE_GAMES stays unused.
`free_mail_domains.txt` are mail providers; `page_hosts.txt` are sites on which companies have a page but no domain.
"""
