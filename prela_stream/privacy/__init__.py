"""Makes spans fit to leave the process: content rules, media, truncation, encoding."""
