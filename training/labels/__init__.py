"""The service's answers: bought once, kept in a ledger, arranged for learning."""
