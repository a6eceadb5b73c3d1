"""Live workers: the only place with asyncio, Faust, Kafka, Redis and HTTP."""
