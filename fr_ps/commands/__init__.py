"""The commands of `fr-ps`. Each declares its arguments, calls one function and prints its result; no logic."""
