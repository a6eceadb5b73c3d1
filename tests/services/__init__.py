"""Real servers for the tests of the live part: Kafka brokers, Redis servers, their certificates."""
