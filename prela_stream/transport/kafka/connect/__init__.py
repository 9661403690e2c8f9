"""How a connection to a broker is opened: arguments, steps, probes, versions, tokens and logs."""
