"""What the mains share: command line, settings, and what every experiment begins with."""
