"""Phones, from the order to the CRM's field, over real HTTP in both directions."""
