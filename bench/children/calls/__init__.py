"""Both ends of calls, a module for each system: a `Server` that gives back its argument, and a `Caller`."""
