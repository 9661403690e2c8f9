"""Where kept traces go, and how they are read back. One Protocol each; one file a store."""
