"""The only code that imports torch and what is built on it. The worker reaches it, nobody else does."""
