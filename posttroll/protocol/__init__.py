"""What is said and when: rules without sockets, threads, clocks or settings."""
