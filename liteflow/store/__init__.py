"""The store remembers: tables, transactions, what the engine records, and what people ask."""
