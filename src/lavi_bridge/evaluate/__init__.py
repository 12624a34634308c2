"""Evaluation: prompt suites, and long prompts made from short ones."""
