"""Tail sampling: policies return a probability and a reason for a trace, the evaluator decides. Pure."""
