"""What flows through the pipeline: spans, traces, trees, decisions, and the names and ids they use. Pure data."""
