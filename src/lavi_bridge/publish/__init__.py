"""A bridge for others: its files, its card, and the way onto the Hugging Face Hub."""
