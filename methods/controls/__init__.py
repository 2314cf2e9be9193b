"""Controls: no edit, an edit of nothing, a random edit."""
