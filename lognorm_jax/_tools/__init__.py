"""Machinery that all wings share: checks, draws, norms, scans, records, traces."""
