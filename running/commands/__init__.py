"""The commands, one module each. The scripts in the root check the command line before they import these modules."""
