"""The data of the pipeline: spans, traces, trees, decisions, attribute names and ids. Pure."""
