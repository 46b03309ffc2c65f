"""What a run records, and how it is read again: file names, journal, ledger, counts, seeds, summary. NumPy only."""
