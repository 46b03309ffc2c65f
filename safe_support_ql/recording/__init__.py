"""What a run writes down: files and their names, journal, ledger, the join of topics, counts, seeds. NumPy only."""
