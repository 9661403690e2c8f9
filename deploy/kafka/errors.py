"""What can go wrong with a Kafka of one's own: the machine lacks something, or a broker does not do what it was started for."""


class KafkaMissingError(RuntimeError):
    """Kafka cannot run on this machine: no Java, no Maven, or no jars. The text names what to install."""


class BrokerError(RuntimeError):
    """A broker ended, or did not answer in time. The text carries the tail of its log."""
