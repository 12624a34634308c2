"""What is asked: prompts, suites of them, longer ones."""
