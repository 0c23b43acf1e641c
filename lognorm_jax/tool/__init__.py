"""Answers for engineers: advice, figures, and the command line."""
