"""Evaluation: prompts to pictures, pictures to scores, and what they say."""
