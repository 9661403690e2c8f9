"""What a span may carry out of the process: content rules, media, truncation and the encoding of a span."""
