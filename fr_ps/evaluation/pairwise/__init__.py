"""Sessions two by two: how alike they are, and the error rates of saying that they are one person."""
