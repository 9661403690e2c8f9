"""Requests about a cluster: topics, configurations, offsets and consumer groups."""
