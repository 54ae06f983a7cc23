"""The screens. Each is a module with its own stylesheet in the class."""
