"""How the site is made of what the repository holds: tutorials that are run, records of
experiments, docstrings.
"""
