"""What is run: suites of puppet cases and of files."""
