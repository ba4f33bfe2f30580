"""What `fr-ps` does: each module has some of its commands, which parse, call one function, print. No logic."""
