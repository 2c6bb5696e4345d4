"""Timed claims of the project; `python -m benchmarks` or `nox -s bench` prints them."""
