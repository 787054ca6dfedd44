"""The benchmark suite: `python -m bench`. It prints ratios to baselines of the same run, not only seconds."""
