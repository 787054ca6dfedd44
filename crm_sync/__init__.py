"""Keeps Salesforce and HubSpot filled from Apollo.io."""

__version__ = "0.1.0"
