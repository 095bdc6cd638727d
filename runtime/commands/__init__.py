"""What the command line can do, a file each. Importing one imports click and nothing heavy."""
