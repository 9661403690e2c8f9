"""The web page: reads a store through `TraceReader` and shows traces in a browser. Needs the extra `web`."""
