"""What runs the agent: BeadBoard with the agent service over HTTP, or a command on this machine (`local`).

The only room that speaks HTTP. It does not know `bd`.
"""
