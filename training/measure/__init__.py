"""Measures what was learned: intervals, baselines, the verdict, and the report."""
