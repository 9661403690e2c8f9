"""The command line: one file a command group. Whatever comes from a span is cleaned before it reaches the terminal."""
