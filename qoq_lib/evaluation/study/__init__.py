"""Arms compared fairly: the same start, questions, budget and test for each, over several seeds."""
