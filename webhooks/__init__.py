"""Where Apollo's callbacks come in: the receiver keeps the bytes and answers; nothing else happens in the request."""
