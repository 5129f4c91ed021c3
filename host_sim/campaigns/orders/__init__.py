"""Orders that are given, withdrawn and replaced at any moment: what becomes of each of them."""
