"""The formats of all topics. docs/wire.md specifies them."""
