"""Benchmarks of durable tasks: beside others, of the accept alone, over a long history, and of memory."""
