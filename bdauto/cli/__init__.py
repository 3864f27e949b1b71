"""The command line: options, commands, and what people see.

Turns options into settings and reports into text, JSON and exit statuses. It makes no decision about a bead.
"""
