"""The commands, one module each; `plan_output` belongs to plan.py. The scripts in the root check the command line before
they import these modules."""
