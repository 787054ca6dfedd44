"""Tables that ship with the product: Apollo's vocabularies, ready picklist tables, free-mail providers."""
