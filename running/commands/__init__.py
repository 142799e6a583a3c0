"""What each command does, one module per command. The scripts beside cli.py check the command line first, then import these."""
