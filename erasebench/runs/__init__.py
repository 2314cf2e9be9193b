"""One run: its tasks, its plan, what it costs, and its folder."""
