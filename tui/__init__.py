"""The terminal side of dojang: screens and commands. Never imports torch."""
