"""Where Apollo's callbacks come in. The receiver for phone numbers is not built yet; its room is here."""
