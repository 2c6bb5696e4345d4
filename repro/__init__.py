"""Unit tests for papers: a paper's table in, the measured table and its verdicts out."""

__version__ = "0.1.0"
