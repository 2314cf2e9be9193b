"""What is drawn: prompt sets, built in or read from files."""
