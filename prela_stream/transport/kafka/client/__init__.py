"""The clients of aiokafka, reduced to what this transport needs of them."""
