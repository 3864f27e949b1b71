"""BeadBoard, which starts the agent of each bead, and the agent service behind it."""
