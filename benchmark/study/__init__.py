"""Studies of the measuring itself: graded corruptions of true answers, and which metric notices which."""
