"""Puts the items of a partition together into traces and says when each is ready to be decided. Pure: time is an argument."""
