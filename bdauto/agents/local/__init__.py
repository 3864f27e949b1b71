"""An agent command on this machine: started for each bead, watched by a small supervisor, recorded in a folder.

The supervisor is a program of its own and imports nothing of bdauto. Nothing here knows `bd`.
"""
