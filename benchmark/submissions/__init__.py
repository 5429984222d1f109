"""Videos that were made elsewhere: find them for the cases of a suite, and bring them to the suite's format."""
