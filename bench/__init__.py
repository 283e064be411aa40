"""Benchmarks, run by hand: figures and ratios measured within one run, and the bars they meet or miss."""
