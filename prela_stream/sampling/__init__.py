"""Which traces are kept: policies say with which probability and why, the evaluator decides. Pure."""
