"""What `prela-stream doctor` checks on a Kafka cluster."""
