"""Groups the items of a partition into traces and determines when each has to be decided. Pure: time is an argument."""
