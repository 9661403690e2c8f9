"""From an encoded span to an acknowledged record: bounded queue, batches, ledger, sender and flush."""
