"""What people run in a checkout to keep the project in its style."""
