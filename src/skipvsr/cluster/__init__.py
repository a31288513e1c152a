"""Many machines: chunks of films as tasks, by shards or on Ray; the only room that imports ray and fsspec."""
