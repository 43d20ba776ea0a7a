"""Try it without a GPU."""
