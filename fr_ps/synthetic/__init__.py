"""The built-in faces: who they are, how they look, what a camera sees of them, and the raw captures of that."""
