"""The agent service without BeadBoard: bdauto writes the prompt and posts it there."""
